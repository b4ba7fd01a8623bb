//! The dirty log and the G-stage's mirror of slots.

use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::access::{AccessKind, Width};
use crate::csr::GMode;
use crate::fault::AccessError;
use crate::guest_memory::GuestMemory;

const BASE: u64 = 0x8000_0000;

/// What a G-stage table was told.
#[derive(Default, Debug, PartialEq)]
struct Told(Vec<(&'static str, u64, u64)>);

impl StageMirror for Told {
    fn unmap(&mut self, start: Gpa, len: u64) {
        self.0.push(("unmap", start.value(), len));
    }
    fn write_protect(&mut self, start: Gpa, len: u64) {
        self.0.push(("write-protect", start.value(), len));
    }
    fn shoot_down(&mut self) {
        self.0.push(("shoot down", 0, 0));
    }
}

fn bits(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn harvested<const S: usize, const R: usize>(
    memory: &GuestPhysicalMemory<'_, S, R>,
    base: u64,
) -> Vec<u64> {
    let mut pages = Vec::new();
    memory
        .harvest(Gpa::new(base), &mut NoGStage, |gpa| {
            pages.push((gpa.value() - base) / PAGE_SIZE)
        })
        .unwrap();
    pages
}

#[test]
fn every_kind_of_write_marks_its_pages_and_no_read_does() {
    let frames = Frames::new(8);
    let log = bits(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(frames.linear(BASE).with_dirty_log(&log), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    reader.guard().fill(Gpa::new(BASE), 1, 8).unwrap();
    assert!(!reader.guard().logging());
    memory.start_logging(Gpa::new(BASE), &mut NoGStage).unwrap();
    assert_eq!(
        harvested(&memory, BASE),
        [],
        "what was written before does not count"
    );

    let at = |offset| Gpa::new(BASE + offset);
    let view = reader.guard();
    assert!(view.logging());
    view.read(at(0x7000), &mut [0; 8]).unwrap();
    view.load::<u64>(at(0x7000), Ordering::Relaxed).unwrap();
    assert_eq!(
        view.compare_exchange(at(0x7000), 1u64, 2, Ordering::Relaxed),
        Ok(Err(0))
    );
    drop(view);
    assert_eq!(harvested(&memory, BASE), []);

    let view = reader.guard();
    view.write(at(0xfff), &[1, 2]).unwrap();
    view.fill(at(0x3000), 1, 1).unwrap();
    view.store(at(0x4ff8), 1u64, Ordering::Relaxed).unwrap();
    assert_eq!(
        view.compare_exchange(at(0x6000), 0u8, 2, Ordering::Relaxed),
        Ok(Ok(0))
    );
    view.mark_dirty(at(0x7abc));
    drop(view);
    assert_eq!(harvested(&memory, BASE), [0, 1, 3, 4, 6, 7]);
    assert_eq!(harvested(&memory, BASE), []);
}

/// A vCPU to which the moment of an access is the moment to look at the log.
struct Looking<'a>(&'a AtomicU64);

impl Looking<'_> {
    /// A harvest now would take the bit and read the page before the data is there.
    fn not_yet_marked(&self) -> Result<(), AccessError> {
        assert_eq!(self.0.load(Ordering::Acquire), 0);
        Ok(())
    }
}

impl UnmappedAccess for Looking<'_> {
    fn read_unmapped(&self, _: Gpa, _: &mut [u8]) -> Result<(), AccessError> {
        unreachable!("nothing is read")
    }
    fn write_unmapped(&self, _: Gpa, _: &[u8]) -> Result<(), AccessError> {
        self.not_yet_marked()
    }
    fn fill_unmapped(&self, _: Gpa, _: u8, _: usize) -> Result<(), AccessError> {
        self.not_yet_marked()
    }
    fn load_unmapped(&self, _: Gpa, _: Width, _: Ordering) -> Result<u64, AccessError> {
        unreachable!("nothing is read")
    }
    fn store_unmapped(&self, _: Gpa, _: Width, _: u64, _: Ordering) -> Result<(), AccessError> {
        self.not_yet_marked()
    }
}

#[test]
fn a_page_is_marked_after_its_data_is_there() {
    let log = bits(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    let (base, slot) = (Gpa::new(BASE), Slot::guest_only(Gpa::new(BASE), PAGE_SIZE));
    memory
        .add(slot.with_dirty_log(&log), &mut NoGStage)
        .unwrap();
    memory.start_logging(base, &mut NoGStage).unwrap();
    let vcpu = Looking(&log[0]);
    let mut reader = memory.reader(0).unwrap();
    for kind in 0..3 {
        let view = reader.guard().with_vcpu(&vcpu);
        match kind {
            0 => view.write(base, &[1; 8]),
            1 => view.fill(base, 1, 8),
            _ => view.store(base, 1u64, Ordering::Relaxed),
        }
        .unwrap();
        drop(view);
        assert_eq!(harvested(&memory, BASE), [0]);
    }
}

#[test]
fn the_completed_part_of_a_failed_write_is_marked_and_no_more() {
    let frames = Frames::new(2);
    let pages = absent(4);
    let log = bits(1);
    // SAFETY: the frames outlive the memory.
    unsafe {
        pages[0].set(HostPage::Writable(frames.page(0)));
        pages[1].set(HostPage::Writable(frames.page(1)));
    }
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(
            Slot::paged(Gpa::new(BASE), &pages).with_dirty_log(&log),
            &mut NoGStage,
        )
        .unwrap();
    memory.start_logging(Gpa::new(BASE), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    assert_eq!(
        reader
            .guard()
            .write(Gpa::new(BASE + 0x1ffc), &[1; 8])
            .unwrap_err()
            .completed,
        4
    );
    assert_eq!(harvested(&memory, BASE), [1]);
    reader
        .guard()
        .write(Gpa::new(BASE + 0x3000), &[1])
        .unwrap_err();
    assert_eq!(harvested(&memory, BASE), []);
}

#[test]
fn the_g_stage_is_told_after_the_slots_have_changed_and_before_a_page_is_visited() {
    let frames = Frames::new(80);
    let log = bits(2);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    let mut told = Told::default();
    let (base, len) = (Gpa::new(BASE), 80 * PAGE_SIZE);
    memory
        .add(frames.linear(BASE).with_dirty_log(&log), &mut told)
        .unwrap();
    assert_eq!(told, Told::default());
    memory.start_logging(base, &mut told).unwrap();
    assert_eq!(told.0, [("write-protect", BASE, len), ("shoot down", 0, 0)]);
    told.0.clear();

    let mut reader = memory.reader(0).unwrap();
    reader
        .guard()
        .fill(Gpa::new(BASE + 63 * PAGE_SIZE), 1, 2 * PAGE_SIZE as usize)
        .unwrap();
    reader
        .guard()
        .fill(Gpa::new(BASE), 1, 2 * PAGE_SIZE as usize)
        .unwrap();
    let mut visited = Vec::new();
    memory
        .harvest(base, &mut told, |gpa| {
            visited.push(gpa.page_number() - base.page_number())
        })
        .unwrap();
    assert_eq!(visited, [0, 1, 63, 64]);
    assert_eq!(
        told.0,
        [
            ("write-protect", BASE, 0x2000),
            ("write-protect", BASE + 63 * PAGE_SIZE, 0x1000),
            ("write-protect", BASE + 64 * PAGE_SIZE, 0x1000),
            ("shoot down", 0, 0),
        ]
    );
    told.0.clear();
    memory.harvest(base, &mut told, |_| unreachable!()).unwrap();
    memory.stop_logging(base, &mut told).unwrap();
    memory.set_read_only(base, false, &mut told).unwrap();
    assert_eq!(told, Told::default());
    assert_eq!(
        memory.harvest(base, &mut told, |_| ()),
        Err(SlotError::NoDirtyLog { base })
    );
    memory.set_read_only(base, true, &mut told).unwrap();
    memory.remove(base, &mut told).unwrap();
    let down = ("shoot down", 0, 0);
    assert_eq!(
        told.0,
        [
            ("write-protect", BASE, len),
            down,
            ("unmap", BASE, len),
            down
        ]
    );
}

#[test]
fn only_a_slot_with_a_log_can_log() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    let base = Gpa::new(BASE);
    assert_eq!(
        memory.start_logging(base, &mut NoGStage),
        Err(SlotError::NoDirtyLog { base })
    );
    let base = Gpa::new(0);
    assert_eq!(
        memory.start_logging(base, &mut NoGStage),
        Err(SlotError::NoSuchSlot { base })
    );
}

#[test]
fn a_page_of_a_logging_slot_is_shown_writable_to_a_store_only() {
    let frames = Frames::new(1);
    let (pages, log) = (absent(1), bits(1));
    // SAFETY: the frames outlive the memory.
    unsafe { pages[0].set(HostPage::Writable(frames.page(0))) };
    for slot in [frames.linear(BASE), Slot::paged(Gpa::new(BASE), &pages)] {
        let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
        memory
            .add(slot.with_dirty_log(&log), &mut NoGStage)
            .unwrap();
        let mut reader = memory.reader(0).unwrap();
        let (writable, read_only) = (
            Some(HostPage::Writable(frames.page(0))),
            Some(HostPage::ReadOnly(frames.page(0))),
        );
        let mut shown = |access| reader.guard().host_page(Gpa::new(BASE + 8), access);
        let reads = [AccessKind::Load, AccessKind::Fetch];
        assert_eq!(reads.map(&mut shown), [writable; 2]);
        memory.start_logging(Gpa::new(BASE), &mut NoGStage).unwrap();
        // What is filled in for a load lets no store by that the log does not know of, whatever was marked before: a harvest may
        // take the mark before the page is filled in.
        assert_eq!(reads.map(&mut shown), [read_only; 2]);
        assert_eq!(shown(AccessKind::Store), writable);
        memory.stop_logging(Gpa::new(BASE), &mut NoGStage).unwrap();
        assert_eq!(reads.map(&mut shown), [writable; 2]);
        memory
            .set_read_only(Gpa::new(BASE), true, &mut NoGStage)
            .unwrap();
        assert_eq!(shown(AccessKind::Store), read_only);
    }
}
