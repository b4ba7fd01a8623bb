//! The dirty log, harvested while other harts write.
//!
//! The one idea: a copy of the guest's memory is kept from harvested pages alone, as a migration keeps it. When the writers pause,
//! one more harvest has to make the copy equal, byte for byte: a write that was in no harvest after it shows as a difference.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{NoGStage, StageMirror};
use guest_mem::hart::Hart;
use guest_mem::{AccessError, AccessKind, FaultKind, Gpa, GuestMemory};

use super::{Hand, Memory, PAGE, Race, arena_slot, by_path, bytes_of, fill_page, pages, race};
use crate::harness::{Outcome, Test, cases, count, fail};
use crate::harts::{Crew, Part, Patience, Wrong, claim};
use crate::slots::{LEN, is_slot};
use crate::tables::bits::W;
use crate::tables::{Page, RAM, World};
use crate::{arena, machine, shootdown};

cases![a_log_harvested_under_racing_writers_misses_no_write];

/// Pages that are written to.
const PAGES: usize = 8;
/// Pauses of the writers, at each of which the copy is compared.
const ROUNDS: u64 = 100;
/// Writes of each in a round.
const WRITES: u64 = 200;

/// How long a writer lingers, in ticks.
const LINGER: u64 = 20_000;

/// The slot's log.
static LOG: [AtomicU64; (LEN / PAGE / 64) as usize] =
    [const { AtomicU64::new(0) }; (LEN / PAGE / 64) as usize];

struct Logging<'m> {
    memory: &'m Memory<'m>,
    pages: [Page; PAGES],
    /// The G-stage's entry of each.
    g_entries: [u64; PAGES],
    /// The copy of each.
    copies: [u64; PAGES],
    /// Harts that have written what they write in a round.
    done: AtomicU64,
    writes: AtomicU64,
    faults: AtomicU64,
    harvested: AtomicU64,
    harvests: AtomicU64,
}

/// The G-stage's table of the pages, which several harts change at once.
struct Stage<'l, 'm> {
    race: &'l Logging<'m>,
    patience: Patience,
}

impl StageMirror for Stage<'_, '_> {
    fn unmap(&mut self, _: Gpa, _: u64) {}

    fn write_protect(&mut self, start: Gpa, len: u64) {
        for (page, &entry) in self.race.pages.iter().zip(&self.race.g_entries) {
            if (start.value()..start.value() + len).contains(&page.gpa) {
                word(entry).fetch_and(!W, Ordering::Release);
            }
        }
    }

    fn shoot_down(&mut self) {
        shootdown::shoot_down(0);
    }

    fn serve(&mut self) {
        shootdown::serve(0);
        assert!(!self.patience.is_over(), "a harvest waits for ever");
    }
}

/// An entry that several harts change.
fn word<'w>(at: u64) -> &'w AtomicU64 {
    // SAFETY: an aligned double of the arena, which is accessed atomically while harts race.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

impl<'m> Logging<'m> {
    fn stage(&self) -> Stage<'_, 'm> {
        Stage {
            race: self,
            patience: Patience::new(),
        }
    }

    /// Brings the copy up to date with what was written.
    fn harvest(&self) -> Outcome {
        let visit = |at: Gpa| {
            self.harvested.fetch_add(1, Ordering::Relaxed);
            for (page, &copy) in self.pages.iter().zip(&self.copies) {
                if page.gpa == at.value() {
                    for offset in (0..PAGE).step_by(8) {
                        arena::write(copy + offset, arena::read(page.spa + offset));
                    }
                }
            }
        };
        let harvest = self.memory.harvest(Gpa::new(RAM), &mut self.stage(), visit);
        self.harvests.fetch_add(1, Ordering::Relaxed);
        is_slot(harvest)
    }

    /// Now and then waits for a harvest to come in between, a moment at most.
    fn linger<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) {
        if hand.me == 0 || hand.below(4) != 0 {
            return;
        }
        let (before, since) = (self.harvests.load(Ordering::Relaxed), machine::time());
        while self.harvests.load(Ordering::Relaxed) == before && machine::time() - since < LINGER {
            core::hint::spin_loop();
        }
    }

    /// What differs between the guest's memory and the copy.
    fn difference(&self) -> Option<(usize, u64)> {
        (0..PAGES).find_map(|index| {
            let (page, copy) = (self.pages[index].spa, self.copies[index]);
            (0..PAGE)
                .step_by(8)
                .find(|at| arena::read(page + at) != arena::read(copy + at))
                .map(|at| (index, at))
        })
    }

    /// One write somewhere by some path, the rest of it after each fault.
    fn write<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let index = hand.below(PAGES as u64) as usize;
        let path = hand.path();
        let mut doubles = [hand.below(u64::MAX >> 33) << 32 | hand.below(u64::MAX >> 33); 32];
        let len = 1 + hand.below(32);
        // Guest-virtual pages lie side by side.
        let crosses = path.is_virtual() && index + 1 < PAGES;
        let room = PAGE / 8 - if crosses { 1 } else { len };
        let offset = hand.below(room) * 8;
        let page = self.pages[index];
        let bytes = &bytes_of(&mut doubles)[..len as usize * 8];
        self.writes.fetch_add(1, Ordering::Relaxed);
        let (mut done, patience) = (0, Patience::new());
        loop {
            let (rest, at) = (&bytes[done..], offset + done as u64);
            let wrote: Result<(), AccessError> = by_path!(hand, path, (index, page.gpa, at) => |memory, at| match rest {
                &[a, b, c, d, e, f, g, h] if done == 0 => {
                    memory.store(at, u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed)
                }
                _ => memory.write(at, rest),
            });
            let Err(error) = wrote else {
                return Ok(());
            };
            let is_protected = matches!(
                error.fault.kind,
                FaultKind::GuestPage {
                    access: AccessKind::Store,
                    ..
                }
            );
            claim!(is_protected, "page {index} by {path:?}: {error}");
            claim!(!patience.is_over(), "page {index} stays protected");
            done += error.completed;
            self.faults.fetch_add(1, Ordering::Relaxed);
            // The page that refused. It becomes writable before it is marked: a harvest in between protects it again.
            let refused = ((offset + done as u64) / PAGE) as usize + index;
            word(self.g_entries[refused]).fetch_or(W, Ordering::Release);
            self.linger(hand);
            hand.reader
                .guard()
                .mark_dirty(Gpa::new(self.pages[refused].gpa));
        }
    }
}

impl Race for Logging<'_> {
    fn there<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Part {
        let mut seen = 0;
        while crew.next_round(&mut seen) {
            for _ in 0..WRITES {
                self.write(&mut hand)?;
            }
            self.done.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    fn here<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        for round in 1..=ROUNDS {
            crew.begin_round();
            let are_done = || self.done.load(Ordering::Acquire) == round * crew.others as u64;
            let patience = Patience::new();
            while !are_done() {
                self.harvest()?;
                self.write(&mut hand).map_err(Wrong::stop)?;
                if patience.is_over() {
                    fail!("round {round}: the writers do not finish");
                }
            }
            self.harvest()?;
            if let Some((index, at)) = self.difference() {
                fail!("round {round}: a write to page {index} at {at:#x} is in no harvest");
            }
        }
        Ok(())
    }
}

fn a_log_harvested_under_racing_writers_misses_no_write(t: &mut Test) -> Outcome {
    let mut world = World::sv39();
    let pages = pages::<PAGES>(&mut world);
    let copies = pages.map(|_| arena::page());
    for &copy in &copies {
        fill_page(copy, 0);
    }
    let memory = Memory::new(GMode::Sv39x4);
    is_slot(memory.add(arena_slot().with_dirty_log(&LOG), &mut NoGStage))?;
    let logging = Logging {
        memory: &memory,
        pages,
        g_entries: pages.map(|page| world.g_entry(page.gpa, 0)),
        copies,
        done: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        harvested: AtomicU64::new(0),
        harvests: AtomicU64::new(0),
    };
    // Nobody has a translation yet.
    let base = Gpa::new(RAM);
    is_slot(memory.start_logging(base, &mut NoGStage))?;
    logging.stage().write_protect(base, LEN);
    race(&world, &memory, &logging)?;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    count(
        counted(&logging.writes),
        "writes under racing harvests, none missed by the log",
    );
    count(
        counted(&logging.harvested),
        "pages harvested under racing writers",
    );
    let faults = counted(&logging.faults);
    t.equal("whether any write met a protected page", faults != 0, true)
}
