//! The guest's own page tables, edited while other harts access memory through them.
//!
//! The one idea: each page of guest-virtual memory has two guest-physical pages, and each says in every double whose it is. Until
//! the shootdown either may be reached. After it, and after the guards that existed, the one that the entry does not name is
//! poisoned: who reads the poison, or writes over it, has used an old translation. An access fails where an entry allowed it to
//! fail, and nowhere else.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::hart::Hart;
use guest_mem::{AccessError, FaultKind, GuestMemory};

use super::{
    Hand, Memory, PAGE, POISON, Path, Race, by_path, bytes_of, fill_page, other_than, race, until,
    world_and_memory,
};
use crate::harness::{Outcome, Test, cases, check, count};
use crate::harts::{Crew, Part, Patience, claim};
use crate::shootdown;
use crate::tables::bits::{A, D, SUPERVISOR, V, W};
use crate::tables::{Page, leaf};

cases![r46_edits_of_the_guests_tables_show_the_old_page_or_the_new_one];

/// Pages of guest-virtual memory.
const PAGES: usize = 8;
/// How often the boot hart moves all of them.
const ROUNDS: u64 = 100;
/// Accesses that the other harts begin while an entry withholds rights, before the boot hart goes on.
const MET: u64 = 8;

/// The bits that age.
const AGE: u64 = A | D;

/// What the entry of a page goes through: by the page's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    /// From one page to the other, always with all rights.
    Move,
    /// With and without W, and to the other page.
    Protect,
    /// Valid and not, and to the other page.
    Unmap,
    /// Without A and D, which the hart or a page fault asks for, and to the other page.
    Age,
}

impl Edit {
    const fn of(index: usize) -> Self {
        [Self::Move, Self::Protect, Self::Unmap, Self::Age][index % 4]
    }

    /// Whether an entry of this kind may ever refuse a store, or a load.
    fn may_refuse(self, store: bool) -> bool {
        match self {
            Self::Move => false,
            Self::Protect => store,
            Self::Unmap | Self::Age => true,
        }
    }
}

struct Edits<'m> {
    memory: &'m Memory<'m>,
    /// Those of each guest-virtual page: the first half, and as many more.
    pages: [Page; 2 * PAGES],
    /// The VS-stage's entry of each.
    entries: [u64; PAGES],
    /// Rounds that are over.
    over: AtomicU64,
    accesses: AtomicU64,
    refused: AtomicU64,
    edits: AtomicU64,
}

/// What the doubles of a page hold, in their upper half.
const fn contents(index: usize) -> u64 {
    0xed17_0000_0000_0000 | (index as u64) << 32
}

impl Edits<'_> {
    fn write_entry(&self, index: usize, entry: u64) {
        // SAFETY: an aligned double of the arena, which harts that walk access atomically too.
        unsafe { AtomicU64::from_ptr(self.entries[index] as *mut u64) }
            .store(entry, Ordering::Release);
        self.edits.fetch_add(1, Ordering::Relaxed);
    }

    /// One access of some page by some path.
    fn access<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let index = hand.below(PAGES as u64) as usize;
        let path = [Path::Virtual, Path::Backed, Path::Shown][hand.below(3) as usize];
        let kind = hand.below(4);
        let mut buffer = [contents(index) | hand.below(1 << 16); 32];
        let offset = hand.below(PAGE / 8 - 32) * 8;
        let doubles = &mut buffer[..1 + (offset / 8 % 32) as usize];
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let done: Result<(), AccessError> = by_path!(hand, path, (index, 0, offset) => |memory, at| match kind {
            0 => memory.store(at, doubles[0], Ordering::Relaxed),
            1 => memory.write(at, bytes_of(doubles)),
            2 => memory.load(at, Ordering::Relaxed).map(|found| doubles[0] = found),
            _ => memory.read(at, bytes_of(doubles)),
        });
        match done {
            Ok(()) => {
                let wrong = doubles
                    .iter()
                    .find(|&&double| double >> 32 != contents(index) >> 32);
                claim!(
                    wrong.is_none(),
                    "page {index} by {path:?}, kind {kind}: {wrong:#x?}"
                );
            }
            Err(error) => {
                claim!(
                    error.fault.kind == FaultKind::Page && Edit::of(index).may_refuse(kind < 2),
                    "page {index} by {path:?}, kind {kind}: {error}"
                );
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Moves every guest-virtual page to its other page, by way of what its kind of edit goes through.
    fn edit<H: Hart>(&self, hand: &mut Hand<'_, '_, H>, round: u64) -> Outcome {
        let me = hand.me;
        let (old, new) = (
            PAGES * (round % 2) as usize,
            PAGES * (1 - round % 2) as usize,
        );
        for index in 0..PAGES {
            let page = self.pages[new + index];
            let used = other_than(page.spa, POISON);
            check!(
                used.is_none(),
                "page {index}: written after it was left: {used:#x?}"
            );
            fill_page(page.spa, contents(index));
        }
        for step in 0..16 {
            for index in 0..PAGES {
                let at = if hand.below(2) == 0 { old } else { new };
                let without = match Edit::of(index) {
                    _ if step % 2 == 0 => 0,
                    Edit::Move => 0,
                    Edit::Protect => W,
                    Edit::Unmap => V,
                    Edit::Age => AGE,
                };
                self.write_entry(
                    index,
                    leaf(self.pages[at + index].gpa, SUPERVISOR & !without),
                );
            }
            if step % 2 == 1 {
                let met = self.accesses.load(Ordering::Relaxed) + MET;
                until(me, || self.accesses.load(Ordering::Relaxed) >= met)?;
            }
        }
        for index in 0..PAGES {
            self.write_entry(index, leaf(self.pages[new + index].gpa, SUPERVISOR));
        }
        shootdown::shoot_down(me);
        let patience = Patience::new();
        // Who goes by a walk holds a guard.
        self.memory.synchronize(|| {
            shootdown::serve(me);
            assert!(!patience.is_over(), "a guard lasts for ever");
        });
        for index in 0..PAGES {
            fill_page(self.pages[old + index].spa, POISON);
        }
        // And here, too, every page is the new one, with all rights.
        for index in 0..PAGES {
            let found: Result<u64, AccessError> = by_path!(hand, Path::Virtual, (index, 0, 0) => |memory, at| {
                memory.load(at, Ordering::Relaxed)
            });
            let is_new = found
                .as_ref()
                .is_ok_and(|double| double >> 32 == contents(index) >> 32);
            check!(is_new, "page {index} after the shootdown: {found:#x?}");
        }
        Ok(())
    }
}

impl Race for Edits<'_> {
    fn there<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Part {
        let mut seen = 0;
        while crew.next_round(&mut seen) {
            while self.over.load(Ordering::Relaxed) < seen {
                self.access(&mut hand)?;
            }
        }
        Ok(())
    }

    fn here<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        for round in 0..ROUNDS {
            crew.begin_round();
            self.edit(&mut hand, round)?;
            self.over.store(round + 1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn r46_edits_of_the_guests_tables_show_the_old_page_or_the_new_one(t: &mut Test) -> Outcome {
    let (mut world, pages, memory) = world_and_memory::<{ 2 * PAGES }>()?;
    for (index, page) in pages.iter().enumerate() {
        let holds = if index < PAGES {
            contents(index)
        } else {
            POISON
        };
        fill_page(page.spa, holds);
    }
    let edits = Edits {
        memory: &memory,
        pages,
        entries: core::array::from_fn(|index| {
            world.vs_entry(super::GVA + index as u64 * PAGE, 0).spa
        }),
        over: AtomicU64::new(0),
        accesses: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        edits: AtomicU64::new(0),
    };
    race(&world, &memory, &edits)?;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    count(
        counted(&edits.edits),
        "edits of the guest's tables under racing harts, no page used after it was left",
    );
    count(
        counted(&edits.accesses),
        "accesses through tables that are being edited",
    );
    let refused = counted(&edits.refused);
    t.equal("whether an edit refused any access", refused != 0, true)
}
