//! A page that gets another frame while harts use it, in every order: nobody reads the old frame after
//! somebody has stored to the new one.

use core::convert::Infallible;
use core::sync::atomic::Ordering::{Acquire, Release};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;

use super::*;

/// The G-stage's entry of the page: which frame it shows, or [`NOTHING`]. A hart accesses the guest's
/// memory under its window, in which it takes no interrupt of a shootdown.
struct Stage {
    shows: AtomicUsize,
    windows: [Mutex<()>; 2],
}

const NOTHING: usize = usize::MAX;

impl Stage {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            shows: AtomicUsize::new(0),
            windows: [Mutex::new(()), Mutex::new(())],
        })
    }
}

/// Page 1 takes the place of page 0.
impl PageMirror for &Stage {
    type Error = Infallible;

    fn hide(&mut self) {
        self.shows.store(NOTHING, Relaxed);
        for window in &self.windows {
            drop(window.lock());
        }
    }

    fn show(&mut self) -> Result<(), Infallible> {
        self.shows.store(1, Release);
        Ok(())
    }
}

/// The page with frame 0, of zeroes, which nobody may write.
fn world_of_zeroes() -> Arc<World> {
    let world = World::new([0, 0]);
    // SAFETY: the pages live as long as the memory.
    unsafe { world.entries[0].set(HostPage::ReadOnly(world.host(0))) };
    world.memory.add(world.paged(BASE), &mut NoGStage).unwrap();
    world
}

fn replace(world: &World, stage: &Stage) {
    let page = HostPage::Writable(world.host(1));
    let mut mirror = stage;
    // SAFETY: the pages live as long as the memory. Only this thread changes the entry.
    let old = unsafe {
        world
            .memory
            .replace_page(&world.entries[0], page, &mut mirror)
    };
    assert_eq!(old, Ok(HostPage::ReadOnly(world.host(0))));
}

#[test]
fn r73_i13_what_a_hart_stored_the_host_reads_for_it() {
    in_every_order("a store while the frame is replaced, and a call", || {
        let world = world_of_zeroes();
        let stage = Stage::new();
        let guest = {
            let (world, stage) = (world.clone(), stage.clone());
            thread::spawn(move || {
                let stored = {
                    let _window = stage.windows[0].lock();
                    // The old frame may not be written, so such a store faults.
                    let stores = stage.shows.load(Acquire) == 1;
                    if stores {
                        world.pages[1].prepare(7);
                    }
                    stores
                };
                match load(&world, 0, BASE) {
                    Ok(found) => assert_eq!(found, if stored { 7 } else { 0 }),
                    Err(kind) => assert!(is_guest_page(kind)),
                }
            })
        };
        replace(&world, &stage);
        guest.join().unwrap();
        assert!(matches!(load(&world, 0, BASE), Ok(0 | 7)));
    });
}

#[test]
fn r73_no_hart_reads_the_old_frame_after_a_store_to_the_new() {
    in_every_order("two harts while the frame is replaced", || {
        let world = world_of_zeroes();
        let stage = Stage::new();
        let told = Arc::new(AtomicUsize::new(0));
        let writer = {
            let (world, stage, told) = (world.clone(), stage.clone(), told.clone());
            thread::spawn(move || {
                let _window = stage.windows[0].lock();
                if stage.shows.load(Acquire) == 1 {
                    world.pages[1].prepare(7);
                    told.store(1, Release);
                }
            })
        };
        let reader = {
            let (world, stage, told) = (world.clone(), stage.clone(), told.clone());
            thread::spawn(move || {
                let _window = stage.windows[1].lock();
                // From here on this hart remembers what the table showed.
                let shown = stage.shows.load(Acquire);
                if told.load(Acquire) == 1 && shown != NOTHING {
                    assert_eq!(world.pages[shown].contents(), 7);
                }
            })
        };
        replace(&world, &stage);
        for hart in [writer, reader] {
            hart.join().unwrap();
        }
    });
}

#[test]
fn i13_an_old_frame_is_reused_after_synchronize() {
    in_every_order("the old frame is reused", || {
        let world = world_of_zeroes();
        let stage = Stage::new();
        at_once!(
            world,
            |world: &World| {
                for _ in 0..2 {
                    match load(world, 0, BASE) {
                        Ok(found) => assert_eq!(found, 0),
                        Err(kind) => assert!(is_guest_page(kind)),
                    }
                }
            },
            move |world: &World| {
                replace(world, &stage);
                world.memory.synchronize(thread::yield_now);
                world.pages[0].reuse();
            },
        );
    });
}
