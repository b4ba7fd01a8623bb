//! Accesses by the rights that a G-stage table shows, while what it shows is taken away, in every order.

use super::*;
use crate::address::Spa;
use crate::translate::entry::{A, D, R, U, V, W};
use crate::translate::{EntryMemory, GRegime, Refused, StageRules};

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
