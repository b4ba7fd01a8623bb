//! Pages that get a frame of their own in place of a page of zeroes while four harts store to them.
//!
//! The one idea: each hart has its own double in every page, counts up there, and publishes the number after it has stored it.
//! Whoever has seen a number finds it in the page, by every path: nobody reads zeroes where a hart has stored already.

use core::convert::Infallible;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{HostPage, NoGStage, PageEntry, PageMirror, Slot};
use guest_mem::hart::Hart;
use guest_mem::{AccessError, FaultKind, Gpa, GuestMemory};

use super::{Hand, Memory, PAGE, Path, Race, by_path, fill_page, pages, race, until};
use crate::harness::{Outcome, Test, cases, count};
use crate::harts::{Crew, OTHERS, Part, Patience, Wrong, claim};
use crate::slots::{LEN, is_slot};
use crate::tables::bits::{USER, W};
use crate::tables::{Page, RAM, World, leaf};
use crate::{arena, boot, shootdown};

cases![r73_i13_no_hart_finds_zeroes_where_one_has_stored];

/// Pages that are zeroes at the start of each round.
const PAGES: usize = 8;
const ROUNDS: u64 = 40;
/// Stores of each hart in a round, each with a look at a page.
const STORES: u64 = 24;

/// Where the host has each page of the arena.
static ENTRIES: [PageEntry; (LEN / PAGE) as usize] =
    [const { PageEntry::absent() }; (LEN / PAGE) as usize];

struct Replacing<'m> {
    memory: &'m Memory<'m>,
    pages: [Page; PAGES],
    /// The G-stage's entry of each.
    g_entries: [u64; PAGES],
    /// The frame of zeroes.
    zeroes: u64,
    /// Held while a page gets its frame.
    changing: AtomicBool,
    /// What each hart has stored in each page of this round.
    stored: [[AtomicU64; PAGES]; OTHERS + 1],
    /// Rounds that the other harts are done with.
    finished: AtomicU64,
    looks: AtomicU64,
    replaced: AtomicU64,
}

fn entry(page: Page) -> &'static PageEntry {
    &ENTRIES[((page.gpa - RAM) / PAGE) as usize]
}

fn host(frame: u64) -> NonNull<u8> {
    NonNull::new(frame as *mut u8).unwrap_or(NonNull::dangling())
}

/// The G-stage's part, by a hart.
struct Mirror {
    me: usize,
    g_entry: u64,
    frame: u64,
}

impl PageMirror for Mirror {
    type Error = Infallible;

    fn hide(&mut self) {
        arena::write(self.g_entry, 0);
        shootdown::shoot_down(self.me);
    }

    fn show(&mut self) -> Result<(), Infallible> {
        arena::write(self.g_entry, leaf(self.frame, USER));
        Ok(())
    }
}

impl Replacing<'_> {
    /// All pages are zeroes again. No other hart accesses one.
    fn reset(&self) {
        for page in self.pages {
            entry(page).clear();
        }
        self.memory.synchronize(|| shootdown::serve(0));
        for g_entry in self.g_entries {
            arena::write(g_entry, 0);
        }
        shootdown::shoot_down(0);
        for (index, page) in self.pages.into_iter().enumerate() {
            fill_page(page.spa, 0);
            for hart in &self.stored {
                hart[index].store(0, Ordering::Relaxed);
            }
            arena::write(self.g_entries[index], leaf(self.zeroes, USER & !W));
            // SAFETY: the frame is the arena's, for all of the test, and nobody writes it.
            unsafe { entry(page).set(HostPage::ReadOnly(host(self.zeroes))) };
        }
    }

    /// Gives a page its frame, unless another hart has.
    fn resolve(&self, me: usize, index: usize) {
        let patience = Patience::new();
        while self.changing.swap(true, Ordering::Acquire) {
            shootdown::serve(me);
            assert!(!patience.is_over(), "a page gets its frame for ever");
        }
        let page = self.pages[index];
        if let HostPage::ReadOnly(_) = entry(page).get() {
            let mut mirror = Mirror {
                me,
                g_entry: self.g_entries[index],
                frame: page.spa,
            };
            let own = HostPage::Writable(host(page.spa));
            // SAFETY: the frame is the arena's, for all of the test, and accessed atomically or by volatile doubles only. This
            // hart has the lock.
            let _ = unsafe { self.memory.replace_page(entry(page), own, &mut mirror) };
            self.replaced.fetch_add(1, Ordering::Relaxed);
        } else {
            // This hart remembers what was.
            boot::fence_everything();
        }
        self.changing.store(false, Ordering::Release);
    }

    /// Makes an access until its page is there.
    fn resolving<H: Hart, T>(
        &self,
        hand: &mut Hand<'_, '_, H>,
        index: usize,
        path: Path,
        access: impl Fn(&mut Hand<'_, '_, H>) -> Result<T, AccessError>,
    ) -> Result<T, Wrong> {
        let patience = Patience::new();
        loop {
            let error = match access(hand) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_guest_page = matches!(error.fault.kind, FaultKind::GuestPage { .. });
            claim!(is_guest_page, "page {index} by {path:?}: {error}");
            claim!(!patience.is_over(), "page {index} by {path:?} never comes");
            let me = hand.me;
            // Under a guard too.
            let guard = (hand.below(2) == 0).then(|| hand.reader.guard());
            self.resolve(me, index);
            drop(guard);
        }
    }

    /// What a page has in a hart's double.
    fn look<H: Hart>(
        &self,
        hand: &mut Hand<'_, '_, H>,
        index: usize,
        hart: usize,
    ) -> Result<(u64, Path), Wrong> {
        let (path, offset) = (hand.path(), 8 * hart as u64);
        let gpa = self.pages[index].gpa;
        self.looks.fetch_add(1, Ordering::Relaxed);
        let found = self.resolving(hand, index, path, |hand| {
            by_path!(hand, path, (index, gpa, offset) => |memory, at| memory
                .load::<u64>(at, Ordering::Acquire))
        })?;
        Ok((found, path))
    }

    /// One round of a hart.
    fn round<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let me = hand.me;
        for number in 1..=STORES {
            let index = hand.below(PAGES as u64) as usize;
            let (path, offset) = (hand.path(), 8 * me as u64);
            let gpa = self.pages[index].gpa;
            self.resolving(hand, index, path, |hand| {
                by_path!(hand, path, (index, gpa, offset) => |memory, at| memory
                    .store(at, number, Ordering::Release))
            })?;
            let (found, by) = self.look(hand, index, me)?;
            claim!(
                found == number,
                "page {index}: hart {me} stored {number} by {path:?} and finds {found} by {by:?}"
            );
            self.stored[me][index].store(number, Ordering::Release);
            let (index, hart) = (hand.below(PAGES as u64) as usize, hand.below(4) as usize);
            let least = self.stored[hart][index].load(Ordering::Acquire);
            let (found, by) = self.look(hand, index, hart)?;
            claim!(
                found >= least,
                "page {index}: hart {hart} stored {least} and hart {me} finds {found} by {by:?}"
            );
        }
        Ok(())
    }
}

impl Race for Replacing<'_> {
    fn there<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Part {
        let mut seen = 0;
        while crew.next_round(&mut seen) {
            self.round(&mut hand)?;
            self.finished.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    fn here<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        for round in 1..=ROUNDS {
            self.reset();
            crew.begin_round();
            self.round(&mut hand).map_err(Wrong::stop)?;
            let all = round * crew.others as u64;
            until(0, || self.finished.load(Ordering::Acquire) == all)?;
        }
        Ok(())
    }
}

fn r73_i13_no_hart_finds_zeroes_where_one_has_stored(_: &mut Test) -> Outcome {
    let mut world = World::sv39();
    let pages = pages::<PAGES>(&mut world);
    for (frame, entry) in (arena::start()..).step_by(PAGE as usize).zip(&ENTRIES) {
        // SAFETY: the frames are the arena's, for all of the test, and accessed atomically or by volatile doubles only.
        unsafe { entry.set(HostPage::Writable(host(frame))) };
    }
    let memory = Memory::new(GMode::Sv39x4);
    is_slot(memory.add(Slot::paged(Gpa::new(RAM), &ENTRIES), &mut NoGStage))?;
    let zeroes = arena::page();
    fill_page(zeroes, 0);
    let replacing = Replacing {
        memory: &memory,
        pages,
        g_entries: pages.map(|page| world.g_entry(page.gpa, 0)),
        zeroes,
        changing: AtomicBool::new(false),
        stored: [const { [const { AtomicU64::new(0) }; PAGES] }; OTHERS + 1],
        finished: AtomicU64::new(0),
        looks: AtomicU64::new(0),
        replaced: AtomicU64::new(0),
    };
    race(&world, &memory, &replacing)?;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    count(
        counted(&replacing.replaced),
        "pages of zeroes that got a frame while harts stored to them",
    );
    count(
        counted(&replacing.looks),
        "looks at these, which found what was stored",
    );
    Ok(())
}
