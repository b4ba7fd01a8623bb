//! Slots that are added, replaced and removed while other harts read and write them.
//!
//! The one idea: a guard sees the slots of one moment. As long as it exists, what it saw is the guest's; as soon as a change has
//! returned, what was taken away is poisoned, and stays so until it is given again.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{NoGStage, Slot, StageMirror};
use guest_mem::hart::Hart;
use guest_mem::{FaultKind, Gpa, GuestMemory};

use super::{Hand, Memory, PAGE, POISON, Race, fill_page, other_than, race};
use crate::harness::{Outcome, Test, cases, count};
use crate::harts::{Crew, Part, Patience, Wrong, claim};
use crate::tables::World;
use crate::{arena, shootdown};

cases![slots_change_under_four_harts_and_what_was_removed_is_never_used];

/// Rounds, in each of which two harts add, replace and remove slots.
const ROUNDS: u64 = 150;
/// Changes of each in a round.
const CHANGES: u64 = 4;
/// Guards of each other hart in a round. Between rounds they sleep, without a guard.
const GUARDS: u64 = 200;
/// Where each of the two has its slot.
const BASES: [u64; 2] = [0x1_0000_0000, 0x1_0000_1000];
/// Where both have a slot of the world's, always.
const FIXED: u64 = 0x2_0000_0000;
/// What is in pages that are the guest's, in the upper half of each double.
const OWN: u64 = 0x5107_5107 << 32;

/// No G-stage shows these slots: what a change waits for are guards.
struct Serving {
    me: usize,
    patience: Patience,
}

impl Serving {
    fn new(me: usize) -> Self {
        Self {
            me,
            patience: Patience::new(),
        }
    }
}

impl StageMirror for Serving {
    fn unmap(&mut self, _: Gpa, _: u64) {}
    fn write_protect(&mut self, _: Gpa, _: u64) {}
    fn shoot_down(&mut self) {}
    fn serve(&mut self) {
        shootdown::serve(self.me);
        assert!(!self.patience.is_over(), "a change waits for ever");
    }
}

fn slot<'m>(base: u64, frame: u64) -> Slot<'m> {
    let host = NonNull::new(frame as *mut u8).unwrap_or(NonNull::dangling());
    // SAFETY: the frames are the arena's, for all of the test, and accessed atomically or by volatile doubles only.
    unsafe { Slot::linear(Gpa::new(base), PAGE, host) }
}

struct Changing<'m> {
    memory: &'m Memory<'m>,
    /// Two frames for each of the two slots.
    frames: [[u64; 2]; 2],
    accesses: AtomicU64,
    holes: AtomicU64,
}

impl<'m> Changing<'m> {
    /// Takes a frame back: it has to be the guest's until now, and is poisoned until `give`.
    fn take_back(frame: u64) {
        fill_page(frame, POISON);
    }

    /// A frame that nobody had: it has to be as it was left.
    fn give(frame: u64) -> Part {
        let used = other_than(frame, POISON);
        claim!(used.is_none(), "written after it was removed: {used:#x?}");
        fill_page(frame, OWN);
        Ok(())
    }

    /// Adds, replaces and removes this hart's slot.
    fn change(&self, me: usize) -> Part {
        let (base, [first, second]) = (BASES[me], self.frames[me]);
        let at = Gpa::new(base);
        let wrong = |error| Wrong::because(format_args!("slot: {error}"));
        let stage = &mut Serving::new(me);
        Self::give(first)?;
        self.memory.add(slot(base, first), stage).map_err(wrong)?;
        Self::give(second)?;
        let old = self.memory.replace(at, slot(base, second), stage);
        old.map_err(wrong)?;
        Self::take_back(first);
        self.memory.remove(at, stage).map_err(wrong)?;
        Self::take_back(second);
        Ok(())
    }

    /// Some accesses under one guard.
    fn access<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let (at, kind, value) = (
            hand.below(PAGE / 8 - 8) * 8,
            hand.below(4),
            hand.below(1 << 16),
        );
        let base = BASES[hand.below(2) as usize];
        let view = hand.reader.guard();
        let at = Gpa::new(base + at);
        let is_there = view.slot_at(at).is_some();
        for _ in 0..16 {
            self.accesses.fetch_add(1, Ordering::Relaxed);
            let mut bytes = [0; 64];
            let mut double = OWN | value;
            let order = Ordering::Relaxed;
            let done = match kind {
                0 => view.store(at, double, order),
                1 => view.load(at, order).map(|found| double = found),
                2 => {
                    for part in bytes.as_chunks_mut::<8>().0 {
                        *part = double.to_ne_bytes();
                    }
                    view.write(at, &bytes)
                }
                _ => view
                    .read(at, &mut bytes)
                    .map(|()| double = u64::from_ne_bytes(bytes.as_chunks().0[7])),
            };
            match done {
                Ok(()) => claim!(
                    is_there && double >> 32 == OWN >> 32,
                    "access {kind} at {at:#x}: {double:#x}, slot there: {is_there}"
                ),
                Err(error) => {
                    claim!(
                        !is_there && error.fault.kind == FaultKind::NoSlot,
                        "access {kind}, slot there: {is_there}: {error}"
                    );
                    self.holes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // The slot that never changes is there for every guard.
        let fixed = view.load::<u64>(Gpa::new(FIXED), Ordering::Relaxed);
        claim!(
            fixed == Ok(OWN),
            "the slot that stays: {fixed:#x?}, generation {}",
            view.generation()
        );
        Ok(())
    }
}

impl Race for Changing<'_> {
    fn there<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Part {
        let mut seen = 0;
        while crew.next_round(&mut seen) {
            for guard in 0..GUARDS {
                if hand.me == 1 && guard % (GUARDS / CHANGES) == 0 {
                    self.change(1)?;
                }
                self.access(&mut hand)?;
            }
        }
        Ok(())
    }

    fn here<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        for _ in 0..ROUNDS {
            crew.begin_round();
            for _ in 0..CHANGES {
                self.change(0).map_err(Wrong::stop)?;
                self.access(&mut hand).map_err(Wrong::stop)?;
            }
        }
        Ok(())
    }
}

fn slots_change_under_four_harts_and_what_was_removed_is_never_used(t: &mut Test) -> Outcome {
    let world = World::sv39();
    let fixed = arena::page();
    fill_page(fixed, OWN);
    let frames: [[u64; 2]; 2] = core::array::from_fn(|_| core::array::from_fn(|_| arena::page()));
    for frame in frames.as_flattened() {
        fill_page(*frame, POISON);
    }
    let memory = Memory::new(GMode::Sv39x4);
    t.equal("add", memory.add(slot(FIXED, fixed), &mut NoGStage), Ok(()))?;
    let changing = Changing {
        memory: &memory,
        frames,
        accesses: AtomicU64::new(0),
        holes: AtomicU64::new(0),
    };
    race(&world, &memory, &changing)?;
    count(
        memory.generation(),
        "changes of slots under racing harts, nothing used that was removed",
    );
    count(
        changing.accesses.load(Ordering::Relaxed),
        "accesses of slots that come and go",
    );
    let holes = changing.holes.load(Ordering::Relaxed);
    t.equal("whether any access met a hole", holes != 0, true)
}
