//! Harts that read, page out, change slots and log at once, as threads.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;

const BASE: u64 = 0x8000_0000;

const ROUNDS: u64 = if cfg!(miri) { 10 } else { 300 };

/// A thread that waits for another's guard lets it run.
struct Yielding;

impl StageMirror for Yielding {
    fn unmap(&mut self, _: Gpa, _: u64) {}
    fn write_protect(&mut self, _: Gpa, _: u64) {}
    fn shoot_down(&mut self) {}
    fn serve(&mut self) {
        thread::yield_now();
    }
}

/// Says that it is waited for a guard.
struct Waiting<'a>(&'a AtomicBool);

impl StageMirror for Waiting<'_> {
    fn unmap(&mut self, _: Gpa, _: u64) {}
    fn write_protect(&mut self, _: Gpa, _: u64) {}
    fn shoot_down(&mut self) {}
    fn serve(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        thread::yield_now();
    }
}

#[test]
fn a_slot_is_not_gone_before_the_guards_that_saw_it() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    let (waiting, removed) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    thread::scope(|scope| {
        scope.spawn(|| {
            let slot = memory.remove(Gpa::new(BASE), &mut Waiting(&waiting));
            removed.store(true, Ordering::Relaxed);
            slot.unwrap();
        });
        while !waiting.load(Ordering::Relaxed) && !removed.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        assert!(!removed.load(Ordering::Relaxed), "nobody was waited for");
        view.read(Gpa::new(BASE), &mut [0; 8]).unwrap();
        drop(view);
    });
    assert!(removed.load(Ordering::Relaxed));
}

#[test]
fn a_recycled_page_is_never_seen_through_a_guard() {
    // A page is taken out of the guest, waited for, given other contents ("another guest's"), and put back with its own
    // contents: readers see a fault or the own contents, never the other's.
    const OWN: u64 = 0x1111_1111_1111_1111;
    const OTHER: u64 = 0x2222_2222_2222_2222;
    let frames = Frames::new(1);
    let pages = absent(1);
    let memory = GuestPhysicalMemory::<1, 3>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut Yielding)
        .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in 0..2 {
            let (memory, done) = (&memory, &done);
            scope.spawn(move || {
                let mut reader = memory.reader(index).unwrap();
                while !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                    let view = reader.guard();
                    let mut words = [0u8; 256];
                    match view.read(Gpa::new(BASE + 64), &mut words) {
                        Ok(()) => assert!(words.iter().all(|&byte| byte == 0x11)),
                        Err(error) => {
                            assert!(matches!(error.fault.kind, FaultKind::GuestPage { .. }));
                            assert_eq!(error.completed, 0);
                        }
                    }
                }
            });
        }
        let page = frames.page(0).cast::<AtomicU64>();
        // SAFETY: the frame is valid, and accessed atomically only.
        let words: &[AtomicU64; 512] = unsafe { page.cast().as_ref() };
        let contents = |value: u64| {
            words
                .iter()
                .for_each(|word| word.store(value, Ordering::Relaxed))
        };
        for _ in 0..ROUNDS {
            contents(OWN);
            // SAFETY: the frames outlive the memory.
            unsafe { pages[0].set(HostPage::Writable(frames.page(0))) };
            thread::yield_now();
            pages[0].clear();
            memory.synchronize(thread::yield_now);
            contents(OTHER);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_removed_slots_memory_is_free_when_remove_returns() {
    let kept = Frames::new(1);
    let memory = GuestPhysicalMemory::<4, 2>::new(GMode::Sv39x4);
    let lent: Vec<Frames> = (0..4).map(|_| Frames::new(1)).collect();
    memory.add(kept.linear(BASE), &mut Yielding).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in 0..2 {
            let (memory, done) = (&memory, &done);
            scope.spawn(move || {
                let mut reader = memory.reader(index).unwrap();
                let mut generation = 0;
                while !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                    let view = reader.guard();
                    assert!(view.generation() >= generation, "generations only grow");
                    generation = view.generation();
                    let bases = view.slots().iter().map(|slot| slot.base());
                    assert!(bases.is_sorted());
                    let _ = view.fill(Gpa::new(BASE + 0xf80), 0xee, 0x100);
                    let mut byte = [0];
                    view.read(Gpa::new(BASE), &mut byte).unwrap();
                }
            });
        }
        for round in 0..ROUNDS {
            let frames = &lent[round as usize % lent.len()];
            memory
                .add(frames.linear(BASE + 0x1000), &mut Yielding)
                .unwrap();
            thread::yield_now();
            memory
                .remove(Gpa::new(BASE + 0x1000), &mut Yielding)
                .unwrap();
            // SAFETY: nobody uses the frames after `remove`, so a plain write races with nothing (which Miri checks).
            unsafe { frames.start().cast::<[u8; 0x80]>().write([0; 0x80]) };
            thread::yield_now();
            // SAFETY: as above.
            let left = unsafe { frames.start().cast::<[u8; 0x80]>().read() };
            assert_eq!(left, [0; 0x80]);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_harts_that_unmap_at_once_serve_each_other() {
    // Each hart unmaps, and waits for the other's acknowledgement of an IPI, which the other gives only when it serves.
    struct Hart<'a> {
        own: &'a AtomicU64,
        other_asked: &'a AtomicU64,
        other_served: &'a AtomicU64,
        served: &'a AtomicU64,
    }
    impl StageMirror for Hart<'_> {
        fn unmap(&mut self, _: Gpa, _: u64) {}
        fn write_protect(&mut self, _: Gpa, _: u64) {}
        fn shoot_down(&mut self) {
            let ticket = self.own.fetch_add(1, Ordering::SeqCst) + 1;
            while self.other_served.load(Ordering::SeqCst) < ticket {
                self.serve();
            }
        }
        fn serve(&mut self) {
            self.served
                .store(self.other_asked.load(Ordering::SeqCst), Ordering::SeqCst);
            thread::yield_now();
        }
    }
    let memory = GuestPhysicalMemory::<4, 2>::new(GMode::Sv39x4);
    let asked = [const { AtomicU64::new(0) }; 2];
    let served = [const { AtomicU64::new(0) }; 2];
    let finished = [const { AtomicBool::new(false) }; 2];
    thread::scope(|scope| {
        for me in 0..2 {
            let (memory, asked, served, finished) = (&memory, &asked, &served, &finished);
            scope.spawn(move || {
                let other = 1 - me;
                let mut hart = Hart {
                    own: &asked[me],
                    other_asked: &asked[other],
                    other_served: &served[other],
                    served: &served[me],
                };
                let mut reader = memory.reader(me).unwrap();
                let base = Gpa::new(BASE + me as u64 * 0x1000);
                for _ in 0..ROUNDS / 10 {
                    memory.add(Slot::trapped(base, 0x1000), &mut hart).unwrap();
                    let error = reader.guard().read(base, &mut [0]).unwrap_err();
                    assert_eq!(error.fault.kind, FaultKind::Trapped);
                    memory.remove(base, &mut hart).unwrap();
                }
                finished[me].store(true, Ordering::SeqCst);
                while !finished[other].load(Ordering::SeqCst) {
                    hart.serve();
                }
            });
        }
    });
}

#[test]
fn a_harvest_loses_no_write() {
    // Writers store growing numbers, each in its own word of one page. Whoever copies the page after each harvest that names
    // it ends up with the last numbers.
    let frames = Frames::new(1);
    let log = [const { AtomicU64::new(0) }; 1];
    let memory = GuestPhysicalMemory::<1, 3>::new(GMode::Sv39x4);
    memory
        .add(frames.linear(BASE).with_dirty_log(&log), &mut Yielding)
        .unwrap();
    memory.start_logging(Gpa::new(BASE), &mut Yielding).unwrap();
    let writing = AtomicU64::new(2);
    thread::scope(|scope| {
        for index in 0..2u64 {
            let (memory, writing) = (&memory, &writing);
            scope.spawn(move || {
                let mut reader = memory.reader(index as usize).unwrap();
                for number in 1..=ROUNDS {
                    let at = Gpa::new(BASE + index * 8);
                    reader.guard().store(at, number, Ordering::Relaxed).unwrap();
                }
                writing.fetch_sub(1, Ordering::Release);
            });
        }
        let mut reader = memory.reader(2).unwrap();
        let mut copy = [0u64; 2];
        let mut last = false;
        loop {
            memory
                .harvest(Gpa::new(BASE), &mut Yielding, |gpa| {
                    let view = reader.guard();
                    for (index, word) in copy.iter_mut().enumerate() {
                        let at = Gpa::new(gpa.value() + index as u64 * 8);
                        *word = view.load(at, Ordering::Relaxed).unwrap();
                    }
                })
                .unwrap();
            if last {
                break;
            }
            last = writing.load(Ordering::Acquire) == 0;
        }
        assert_eq!(copy, [ROUNDS; 2]);
    });
}
