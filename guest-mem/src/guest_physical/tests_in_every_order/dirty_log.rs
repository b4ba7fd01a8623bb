//! Writes while another hart harvests the dirty log, in every order: none is in no harvest.

use loom::sync::Mutex;
use loom::sync::atomic::AtomicBool;

use super::*;

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
