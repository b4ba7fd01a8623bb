//! Slots and pages that come and go under read guards, in every order.
//!
//! The one idea: who takes memory away waits for the guards that may have found it; who gives it away has filled it before.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use loom::sync::atomic::AtomicU64;

use super::*;

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
