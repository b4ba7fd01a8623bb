//! What harts do at once, in every order that the memory model allows: `cargo xtask loom`.
//!
//! The one idea: the code under test is the library's own, guest memory included as far as loom can see it (`direct_model`).
//! A page that is taken away is *reused* in its model, so an access that no order puts before that fails, whichever value it
//! would have read. Orders with more than [`PREEMPTIONS`] changes of thread that no thread asked for are left out.

extern crate std;

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::thread;
use std::boxed::Box;
use std::println;
use std::sync::Arc;

use super::direct::Page;
use super::*;
use crate::address::{Gpa, PAGE_SIZE, Spa};
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;
use crate::translate::entry::{A, D, R, U, V, W};
use crate::translate::{EntryMemory, GRegime, Refused, StageRules};

/// Changes of thread in one order, beside those where a thread waits or ends.
const PREEMPTIONS: usize = 3;

const BASE: Gpa = Gpa::new(0x8000_0000);
const SECOND: Gpa = Gpa::new(0x8000_1000);

type Memory = GuestPhysicalMemory<'static, 2, 2>;

/// Runs the test in every order, and says how many there were.
fn in_every_order(name: &str, test: impl Fn() + Sync + Send + 'static) {
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = orders.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        test();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    println!("counted: {orders} orders tried with loom: {name}");
}

/// A memory and what may be in its slots.
struct World {
    memory: Memory,
    pages: [Box<Page>; 2],
    entries: [PageEntry; 1],
    log: [crate::atomic::AtomicU64; 1],
}

impl World {
    /// For one order. What the slots borrow is freed after the memory: fields are dropped in order.
    fn new(contents: [u64; 2]) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(GMode::Sv39x4),
            pages: contents.map(Page::new),
            entries: [PageEntry::absent()],
            log: [crate::atomic::AtomicU64::new(0)],
        })
    }

    fn host(&self, page: usize) -> NonNull<u8> {
        NonNull::from(&*self.pages[page]).cast()
    }

    /// One page, host-contiguous.
    fn linear(&self, base: Gpa, page: usize) -> Slot<'static> {
        // SAFETY: the pages live as long as the memory, and are accessed through the model only.
        let slot = unsafe { Slot::linear(base, PAGE_SIZE, self.host(page)) };
        // SAFETY: the log lives as long as the memory.
        slot.with_dirty_log(unsafe { &*(&raw const self.log) })
    }

    /// One page by an entry.
    fn paged(&self, base: Gpa) -> Slot<'static> {
        // SAFETY: the entries and the log live as long as the memory.
        let (entries, log) = unsafe { (&*(&raw const self.entries), &*(&raw const self.log)) };
        Slot::paged(base, entries).with_dirty_log(log)
    }

    fn give(&self, page: usize) {
        // SAFETY: the pages live as long as the memory.
        unsafe { self.entries[0].set(HostPage::Writable(self.host(page))) };
    }
}

/// Runs `harts` as threads of one order.
macro_rules! at_once {
    ($world:expr, $($hart:expr),+ $(,)?) => {{
        let world = &$world;
        let threads = [$({
            let world = world.clone();
            thread::spawn(move || $hart(&*world))
        }),+];
        for thread in threads {
            thread.join().unwrap();
        }
    }};
}

/// What a guard reads at the address.
fn load(world: &World, reader: usize, gpa: Gpa) -> Result<u64, FaultKind> {
    let mut reader = world.memory.reader(reader).unwrap();
    let loaded = reader.guard().load(gpa, Relaxed);
    loaded.map_err(|error| error.fault.kind)
}

fn is_guest_page(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::GuestPage { .. })
}

// The read guard and the slot table.

#[test]
fn a_removed_slot_is_accessed_by_nobody_after_remove() {
    in_every_order("a slot is removed", || {
        let world = World::new([7, 0]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        at_once!(
            world,
            |world: &World| {
                let mut reader = world.memory.reader(0).unwrap();
                // Two guards, so that the second comes while the writer waits for the first.
                for _ in 0..2 {
                    match reader.guard().load::<u64>(BASE, Relaxed) {
                        Ok(found) => assert_eq!(found, 7),
                        Err(error) => assert_eq!(error.fault.kind, FaultKind::NoSlot),
                    }
                }
            },
            |world: &World| {
                world.memory.remove(BASE, &mut NoGStage).unwrap();
                world.pages[0].reuse();
            },
        );
    });
}

#[test]
fn a_page_taken_out_of_its_entry_is_accessed_by_nobody_after_synchronize() {
    in_every_order("a page is taken", || {
        let world = World::new([7, 0]);
        world.give(0);
        world.memory.add(world.paged(BASE), &mut NoGStage).unwrap();
        at_once!(
            world,
            |world: &World| {
                let mut reader = world.memory.reader(0).unwrap();
                for _ in 0..2 {
                    match reader.guard().load::<u64>(BASE, Relaxed) {
                        Ok(found) => assert_eq!(found, 7),
                        Err(error) => assert!(is_guest_page(error.fault.kind)),
                    }
                }
            },
            |world: &World| {
                world.entries[0].clear();
                world.memory.synchronize(thread::yield_now);
                world.pages[0].reuse();
            },
        );
    });
}

#[test]
fn a_replaced_slot_is_the_old_one_or_the_new_one_and_never_none() {
    in_every_order("a slot is replaced", || {
        let world = World::new([7, 8]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        at_once!(
            world,
            |world: &World| {
                let mut reader = world.memory.reader(0).unwrap();
                let mut last = 7;
                for _ in 0..2 {
                    let found = reader.guard().load::<u64>(BASE, Relaxed).unwrap();
                    assert!(found >= last && found <= 8, "{found} after {last}");
                    last = found;
                }
            },
            |world: &World| {
                let slot = world.linear(BASE, 1);
                world.memory.replace(BASE, slot, &mut NoGStage).unwrap();
                world.pages[0].reuse();
            },
        );
    });
}

#[test]
fn two_changes_of_the_table_are_never_seen_half_done() {
    in_every_order("two changes", || {
        let world = World::new([7, 8]);
        at_once!(
            world,
            |world: &World| {
                let mut reader = world.memory.reader(0).unwrap();
                for _ in 0..2 {
                    let view = reader.guard();
                    // As many slots as changes: the table is that of its generation.
                    assert_eq!(view.slots().len() as u64, view.generation());
                }
            },
            |world: &World| {
                for (base, page) in [(BASE, 0), (SECOND, 1)] {
                    let slot = world.linear(base, page);
                    world.memory.add(slot, &mut NoGStage).unwrap();
                }
            },
        );
    });
}

#[test]
fn what_was_written_before_a_slot_was_added_is_seen_through_it() {
    in_every_order("a slot is added", || {
        let world = World::new([0, 0]);
        at_once!(
            world,
            |world: &World| match load(world, 0, BASE) {
                Ok(found) => assert_eq!(found, 7),
                Err(kind) => assert_eq!(kind, FaultKind::NoSlot),
            },
            |world: &World| {
                world.pages[0].prepare(7);
                let slot = world.linear(BASE, 0);
                world.memory.add(slot, &mut NoGStage).unwrap();
            },
        );
    });
}

#[test]
fn two_harts_that_change_slots_at_once_take_turns_and_serve_each_other() {
    /// Shootdown by a mailbox each: how often a hart was asked, and how often it has answered.
    #[derive(Default)]
    struct Mailbox {
        asked: AtomicU64,
        answered: AtomicU64,
    }
    struct Hart(Arc<[Mailbox; 2]>, usize);
    impl StageMirror for Hart {
        fn unmap(&mut self, _: Gpa, _: u64) {}
        fn write_protect(&mut self, _: Gpa, _: u64) {}
        fn shoot_down(&mut self) {
            let boxes = self.0.clone();
            let other = &boxes[1 - self.1];
            let ticket = other.asked.fetch_add(1, AcqRel) + 1;
            while other.answered.load(Acquire) < ticket {
                self.serve();
            }
        }
        fn serve(&mut self) {
            let own = &self.0[self.1];
            let asked = own.asked.load(Acquire);
            own.answered.store(asked, Release);
            thread::yield_now();
        }
    }
    in_every_order("two harts change slots", || {
        let world = World::new([7, 8]);
        for (base, page) in [(BASE, 0), (SECOND, 1)] {
            let slot = world.linear(base, page);
            world.memory.add(slot, &mut NoGStage).unwrap();
        }
        let boxes = Arc::new(<[Mailbox; 2]>::default());
        let unmapping = |me: usize, base| {
            let (world, boxes) = (world.clone(), boxes.clone());
            thread::spawn(move || {
                let mut hart = Hart(boxes.clone(), me);
                world.memory.remove(base, &mut hart).unwrap();
                world.pages[me].reuse();
                // A hart that is done goes on taking interrupts.
                let other = &boxes[me];
                while other.answered.load(Acquire) < 1 {
                    hart.serve();
                }
            })
        };
        let threads = [unmapping(0, BASE), unmapping(1, SECOND)];
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(load(&world, 0, BASE), Err(FaultKind::NoSlot));
        assert_eq!(load(&world, 0, SECOND), Err(FaultKind::NoSlot));
    });
}

#[test]
fn a_reader_is_one_harts_at_a_time_and_waited_for_whoever_has_it() {
    in_every_order("a reader is handed on", || {
        let world = World::new([7, 0]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        let one_guard = |world: &World| {
            let Ok(mut reader) = world.memory.reader(0) else {
                return;
            };
            match reader.guard().load::<u64>(BASE, Relaxed) {
                Ok(found) => assert_eq!(found, 7),
                Err(error) => assert_eq!(error.fault.kind, FaultKind::NoSlot),
            }
        };
        at_once!(world, one_guard, one_guard, |world: &World| {
            world.memory.remove(BASE, &mut NoGStage).unwrap();
            world.pages[0].reuse();
        });
    });
}

// Page entries.

#[test]
fn a_page_is_seen_with_the_contents_it_was_given_with() {
    in_every_order("a page is given", || {
        let world = World::new([0, 0]);
        world.memory.add(world.paged(BASE), &mut NoGStage).unwrap();
        at_once!(
            world,
            |world: &World| match load(world, 0, BASE) {
                Ok(found) => assert_eq!(found, 7),
                Err(kind) => assert!(is_guest_page(kind)),
            },
            |world: &World| {
                world.pages[0].prepare(7);
                world.give(0);
            },
        );
    });
}

#[test]
fn one_of_two_resolvers_wins_and_the_other_sees_the_winners_page_whole() {
    in_every_order("two resolvers", || {
        let world = World::new([0, 0]);
        world.memory.add(world.paged(BASE), &mut NoGStage).unwrap();
        let resolve = |own: usize| {
            move |world: &World| {
                world.pages[own].prepare(7);
                let page = HostPage::Writable(world.host(own));
                // SAFETY: the pages live as long as the memory.
                match unsafe { world.entries[0].replace(HostPage::Absent, page) } {
                    Ok(()) => {}
                    Err(winner) => {
                        assert_eq!(winner, HostPage::Writable(world.host(1 - own)));
                        // Not the guest's, so nobody accesses it.
                        world.pages[own].reuse();
                        assert_eq!(world.pages[1 - own].contents(), 7);
                    }
                }
                assert_eq!(load(world, own, BASE), Ok(7));
            }
        };
        let threads = [0, 1].map(|own| {
            let world = world.clone();
            thread::spawn(move || resolve(own)(&world))
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

// The dirty log.

/// Harvests; for each page that is named, `copy` becomes what it holds.
fn harvest(world: &World, stage: &mut impl StageMirror, copy: &mut u64) {
    let named = |gpa: Gpa| {
        assert_eq!(gpa, BASE);
        *copy = world.pages[0].contents();
    };
    world.memory.harvest(BASE, stage, named).unwrap();
}

/// One write while another hart harvests and copies: after one more harvest the copy is the page.
fn a_write_is_in_some_harvest(
    name: &str,
    paged: bool,
    write: impl Fn(&PhysicalView<'_>) + Copy + Send + Sync + 'static,
) {
    in_every_order(name, move || {
        let world = World::new([0, 0]);
        world.give(0);
        let slot = if paged {
            world.paged(BASE)
        } else {
            world.linear(BASE, 0)
        };
        world.memory.add(slot, &mut NoGStage).unwrap();
        world.memory.start_logging(BASE, &mut NoGStage).unwrap();
        let writer = {
            let world = world.clone();
            thread::spawn(move || {
                let mut reader = world.memory.reader(0).unwrap();
                write(&reader.guard());
            })
        };
        let mut copy = 0;
        harvest(&world, &mut NoGStage, &mut copy);
        writer.join().unwrap();
        harvest(&world, &mut NoGStage, &mut copy);
        assert_eq!(copy, 7, "a write that no harvest named");
    });
}

#[test]
fn a_store_is_in_some_harvest() {
    let store = |view: &PhysicalView<'_>| view.store(BASE, 7u64, Relaxed).unwrap();
    a_write_is_in_some_harvest("a store in the last slot", false, store);
    a_write_is_in_some_harvest("a store by an entry", true, store);
}

#[test]
fn a_copy_and_a_fill_are_in_some_harvest() {
    let write = |view: &PhysicalView<'_>| view.write(BASE, &[7]).unwrap();
    a_write_is_in_some_harvest("a copy in the last slot", false, write);
    a_write_is_in_some_harvest("a copy by an entry", true, write);
    let fill = |view: &PhysicalView<'_>| view.fill(BASE, 7, 1).unwrap();
    a_write_is_in_some_harvest("a fill", false, fill);
}

#[test]
fn an_exchange_is_in_some_harvest() {
    let exchange = |view: &PhysicalView<'_>| {
        let found = view.compare_exchange(BASE, 0u64, 7, Relaxed).unwrap();
        assert_eq!(found, Ok(0));
    };
    a_write_is_in_some_harvest("an exchange in the last slot", false, exchange);
    a_write_is_in_some_harvest("an exchange by an entry", true, exchange);
}

#[test]
fn of_two_writers_neither_is_lost_when_one_finds_the_bit_set() {
    in_every_order("two writers", || {
        let world = World::new([0, 0]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        world.memory.start_logging(BASE, &mut NoGStage).unwrap();
        // Each writes a value of its own; the page's double is the later one, whichever that is.
        let writers = [0, 1].map(|hart| {
            let world = world.clone();
            thread::spawn(move || {
                let mut reader = world.memory.reader(hart).unwrap();
                let view = reader.guard();
                view.store(BASE, 7 + hart as u64, Relaxed).unwrap();
            })
        });
        let mut copy = 0;
        harvest(&world, &mut NoGStage, &mut copy);
        for writer in writers {
            writer.join().unwrap();
        }
        harvest(&world, &mut NoGStage, &mut copy);
        assert_eq!(copy, world.pages[0].contents());
    });
}

#[test]
fn a_write_after_logging_began_is_in_the_log() {
    in_every_order("logging begins", || {
        let world = World::new([0, 0]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        let writer = {
            let world = world.clone();
            thread::spawn(move || {
                let mut reader = world.memory.reader(0).unwrap();
                reader.guard().store(BASE, 7u64, Relaxed).unwrap();
            })
        };
        world.memory.start_logging(BASE, &mut NoGStage).unwrap();
        let mut copy = world.pages[0].contents();
        writer.join().unwrap();
        harvest(&world, &mut NoGStage, &mut copy);
        assert_eq!(copy, 7);
    });
}

#[test]
fn a_store_by_hsv_is_in_some_harvest_if_its_fault_marks_last() {
    /// A G-stage entry, and the window in which a hart does not take the interrupt of a shootdown.
    #[derive(Default)]
    struct Stage {
        writable: AtomicBool,
        window: Mutex<()>,
    }
    struct Mirror(Arc<Stage>);
    impl StageMirror for Mirror {
        fn unmap(&mut self, _: Gpa, _: u64) {}
        fn write_protect(&mut self, _: Gpa, _: u64) {
            self.0.writable.store(false, Relaxed);
        }
        fn shoot_down(&mut self) {
            drop(self.0.window.lock());
        }
    }
    in_every_order("a store by hsv", || {
        let world = World::new([0, 0]);
        let slot = world.linear(BASE, 0);
        let stage = Arc::new(Stage::default());
        world.memory.add(slot, &mut NoGStage).unwrap();
        world.memory.start_logging(BASE, &mut NoGStage).unwrap();
        let writer = {
            let (world, stage) = (world.clone(), stage.clone());
            thread::spawn(move || {
                let mut reader = world.memory.reader(0).unwrap();
                let hsv = || {
                    let _window = stage.window.lock();
                    let writable = stage.writable.load(Relaxed);
                    if writable {
                        world.pages[0].prepare(7);
                    }
                    writable
                };
                while !hsv() {
                    // The order that `StageMirror` asks for.
                    stage.writable.store(true, Relaxed);
                    reader.guard().mark_dirty(BASE);
                }
            })
        };
        let mut copy = 0;
        harvest(&world, &mut Mirror(stage.clone()), &mut copy);
        writer.join().unwrap();
        harvest(&world, &mut Mirror(stage), &mut copy);
        assert_eq!(copy, 7, "a write that no harvest named");
    });
}

// A G-stage table that views ask.

/// A table of one entry, which maps the GiB of [`BASE`] to itself.
struct Shown {
    world: Arc<World>,
    entry: crate::atomic::AtomicU64,
}

impl Shown {
    const ROOT: u64 = 0x4000;
    const ENTRY: Spa = Spa::new(Self::ROOT + (BASE.value() >> 30) * 8);
    const READABLE: u64 = BASE.value() >> 2 | V | R | U | A | D;
}

impl EntryMemory for &Shown {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        Ok(match at {
            Shown::ENTRY => self.entry.load(Relaxed),
            _ => 0,
        })
    }

    fn compare_exchange_entry(&self, _: Spa, _: u64, _: u64) -> Result<Result<u64, u64>, Refused> {
        Err(Refused)
    }
}

// SAFETY: the page lives as long as the world, and is accessed through the model only.
unsafe impl MachineMemory for &Shown {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        (at.page_base().value() == BASE.value()).then(|| self.world.host(0))
    }
}

impl StageMirror for &Shown {
    fn unmap(&mut self, _: Gpa, _: u64) {
        self.entry.store(0, Relaxed);
    }

    fn write_protect(&mut self, _: Gpa, _: u64) {
        self.entry.store(Shown::READABLE, Relaxed);
    }

    fn shoot_down(&mut self) {}

    fn serve(&mut self) {
        thread::yield_now();
    }
}

/// One hart stores twice by views of the table while another changes the slot and then uses the page.
fn nobody_stores_by_the_table_after(name: &str, change: fn(&World, &mut &Shown)) {
    in_every_order(name, move || {
        let world = World::new([7, 0]);
        let slot = world.linear(BASE, 0);
        world.memory.add(slot, &mut NoGStage).unwrap();
        let shown = Arc::new(Shown {
            world: world.clone(),
            entry: crate::atomic::AtomicU64::new(Shown::READABLE | W),
        });
        let writer = {
            let shown = shown.clone();
            thread::spawn(move || {
                let mut reader = shown.world.memory.reader(0).unwrap();
                let hgatp = 8 << 60 | Shown::ROOT >> 12; // Sv39x4
                let regime = GRegime::from_csrs(hgatp, 0, StageRules::BASE).unwrap();
                for _ in 0..2 {
                    let view = reader.guard();
                    // SAFETY: the table leads to the page only.
                    let view = unsafe { view.shown_by(regime, &*shown) };
                    if let Err(error) = view.store(BASE, 8u64, Relaxed) {
                        assert!(is_guest_page(error.fault.kind));
                    }
                }
            })
        };
        change(&world, &mut &*shown);
        world.pages[0].reuse();
        writer.join().unwrap();
    });
}

#[test]
fn memory_is_accessed_by_nobody_through_the_g_stage_table_after_it_is_taken_away() {
    nobody_stores_by_the_table_after(
        "a slot is removed under views of a table",
        |world, mirror| {
            world.memory.remove(BASE, mirror).unwrap();
        },
    );
    nobody_stores_by_the_table_after(
        "a slot is replaced under views of a table",
        |world, mirror| {
            let trapped = Slot::trapped(BASE, PAGE_SIZE);
            world.memory.replace(BASE, trapped, mirror).unwrap();
        },
    );
    nobody_stores_by_the_table_after(
        "a slot is protected under views of a table",
        |world, mirror| {
            world.memory.set_read_only(BASE, true, mirror).unwrap();
        },
    );
    // The order for one page.
    nobody_stores_by_the_table_after("a page is taken under views of a table", |world, mirror| {
        world.memory.synchronize(thread::yield_now);
        mirror.unmap(BASE, PAGE_SIZE);
        mirror.shoot_down();
        world.memory.synchronize(thread::yield_now);
    });
}
