//! Pages that are taken out of the guest while other harts use them.
//!
//! The one idea: after the guards that existed are gone, before the shootdown and again after it, the page is poisoned. It stays
//! so for a whole round, and is then looked at: no byte of it was written, and nobody has read any of it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{HostPage, NoGStage, PageEntry, Slot};
use guest_mem::hart::Hart;
use guest_mem::{AccessError, AccessKind, FaultKind, Gpa, GuestMemory};

use super::{
    Hand, Memory, PAGE, POISON, Race, by_path, bytes_of, fill_page, other_than, pages, race,
};
use crate::harness::{Outcome, Test, cases, count};
use crate::harts::{Crew, Part, Patience, Wrong, claim};
use crate::slots::{LEN, is_slot};
use crate::tables::bits::USER;
use crate::tables::{Page, RAM, World, leaf};
use crate::{arena, shootdown};

cases![
    r44_after_a_shootdown_no_hart_reaches_the_old_page,
    r44_two_harts_that_unmap_at_once_serve_each_other,
];

/// Pages that come and go.
const PAGES: usize = 16;
/// How often the boot hart takes some of its pages away.
const ROUNDS: u64 = 100;

/// Where the host has each page of the arena.
static ENTRIES: [PageEntry; (LEN / PAGE) as usize] =
    [const { PageEntry::absent() }; (LEN / PAGE) as usize];

struct Unmapping<'m> {
    memory: &'m Memory<'m>,
    pages: [Page; PAGES],
    /// The G-stage's entry of each.
    g_entries: [u64; PAGES],
    /// The frame that each is in.
    frames: [AtomicU64; PAGES],
    /// A poisoned frame for each.
    spares: [AtomicU64; PAGES],
    /// How many harts unmap: each takes as many of the pages.
    unmappers: usize,
    accesses: AtomicU64,
    faults: AtomicU64,
    unmapped: AtomicU64,
}

/// What the doubles of a page hold, in their upper half.
const fn contents(index: usize) -> u64 {
    0xc1ea_0000_0000_0000 | (index as u64) << 32
}

fn entry(page: Page) -> &'static PageEntry {
    &ENTRIES[((page.gpa - RAM) / PAGE) as usize]
}

fn host(frame: u64) -> HostPage {
    HostPage::Writable(NonNull::new(frame as *mut u8).unwrap_or(NonNull::dangling()))
}

impl Unmapping<'_> {
    /// Puts the hart's pages, or some of them, into other frames: one shootdown for all.
    fn replace<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let me = hand.me;
        let chosen = hand.below(u64::MAX >> 33);
        let own = || self.own(me).filter(|index| chosen >> index & 1 != 0);
        for index in own() {
            entry(self.pages[index]).clear();
        }
        self.wait_for_guards(me);
        // Meanwhile a walk of the G-stage's own table may find a page that its slot has no more.
        (0..hand.below(1 << 12)).for_each(|_| core::hint::spin_loop());
        for index in own() {
            arena::write(self.g_entries[index], 0);
        }
        shootdown::shoot_down(me);
        // Those who found it there.
        self.wait_for_guards(me);
        for index in own() {
            let (new, old) = (&self.spares[index], &self.frames[index]);
            let frame = new.swap(old.load(Ordering::Relaxed), Ordering::Relaxed);
            fill_page(old.swap(frame, Ordering::Relaxed), POISON);
            let used = other_than(frame, POISON);
            claim!(
                used.is_none(),
                "page {index}: written after it was taken away: {used:#x?}"
            );
            fill_page(frame, contents(index));
            // SAFETY: the frames are the arena's, for all of the test, and accessed atomically or by volatile doubles only.
            unsafe { entry(self.pages[index]).set(host(frame)) };
            // Or else who faults there fills it in.
            if hand.below(2) == 0 {
                arena::write(self.g_entries[index], leaf(frame, USER));
            }
            self.unmapped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn wait_for_guards(&self, me: usize) {
        let patience = Patience::new();
        self.memory.synchronize(|| {
            shootdown::serve(me);
            assert!(!patience.is_over(), "a guard lasts for ever");
        });
    }

    /// One access of some page by some path, and what follows a fault.
    fn access<H: Hart>(&self, hand: &mut Hand<'_, '_, H>) -> Part {
        let index = hand.below(PAGES as u64) as usize;
        let path = hand.path();
        let kind = hand.below(4);
        let mut buffer = [contents(index) | hand.below(1 << 16); 32];
        let offset = hand.below(PAGE / 8 - 32) * 8;
        let doubles = &mut buffer[..1 + (offset / 8 % 32) as usize];
        let page = self.pages[index];
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let done: Result<(), AccessError> = by_path!(hand, path, (index, page.gpa, offset) => |memory, at| match kind {
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
                let is_guest_page = matches!(error.fault.kind, FaultKind::GuestPage { .. });
                claim!(is_guest_page, "page {index} by {path:?}: {error}");
                self.faults.fetch_add(1, Ordering::Relaxed);
                // Under the guard: who takes the page away waits for it, and then finds what is filled in here.
                let view = hand.reader.guard();
                let found = view.host_page(Gpa::new(page.gpa), AccessKind::Store);
                if let Some(HostPage::Writable(frame)) = found {
                    arena::write(self.g_entries[index], leaf(frame.addr().get() as u64, USER));
                }
            }
        }
        Ok(())
    }

    /// The pages that a hart takes away.
    fn own(&self, me: usize) -> core::ops::Range<usize> {
        let share = PAGES / self.unmappers;
        me * share..(me + 1) * share
    }
}

impl Race for Unmapping<'_> {
    fn there<H: Hart>(&self, mut hand: Hand<'_, '_, H>, crew: &Crew) -> Part {
        while crew.goes_on() {
            if hand.me < self.unmappers {
                self.replace(&mut hand)?;
            }
            self.access(&mut hand)?;
        }
        Ok(())
    }

    fn here<H: Hart>(&self, mut hand: Hand<'_, '_, H>, _: &Crew) -> Outcome {
        for _ in 0..ROUNDS {
            self.replace(&mut hand).map_err(Wrong::stop)?;
            self.access(&mut hand).map_err(Wrong::stop)?;
        }
        Ok(())
    }
}

fn unmap_by(unmappers: usize) -> Outcome {
    let mut world = World::sv39();
    let pages = pages::<PAGES>(&mut world);
    let spares = pages.map(|_| AtomicU64::new(arena::page()));
    for (index, page) in pages.iter().enumerate() {
        fill_page(page.spa, contents(index));
        fill_page(spares[index].load(Ordering::Relaxed), POISON);
    }
    for (frame, entry) in (arena::start()..).step_by(PAGE as usize).zip(&ENTRIES) {
        // SAFETY: as in `replace`.
        unsafe { entry.set(host(frame)) };
    }
    let memory = Memory::new(GMode::Sv39x4);
    is_slot(memory.add(Slot::paged(Gpa::new(RAM), &ENTRIES), &mut NoGStage))?;
    let unmapping = Unmapping {
        memory: &memory,
        pages,
        g_entries: pages.map(|page| world.g_entry(page.gpa, 0)),
        frames: pages.map(|page| AtomicU64::new(page.spa)),
        spares,
        unmappers,
        accesses: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        unmapped: AtomicU64::new(0),
    };
    race(&world, &memory, &unmapping)?;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    count(
        counted(&unmapping.unmapped),
        "pages unmapped under racing harts, none used after that",
    );
    count(
        counted(&unmapping.accesses),
        "accesses of pages that come and go",
    );
    count(
        counted(&unmapping.faults),
        "guest-page faults of these, each in place of an access",
    );
    Ok(())
}

fn r44_after_a_shootdown_no_hart_reaches_the_old_page(_: &mut Test) -> Outcome {
    unmap_by(1)
}

fn r44_two_harts_that_unmap_at_once_serve_each_other(_: &mut Test) -> Outcome {
    unmap_by(2)
}
