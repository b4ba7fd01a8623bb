//! Who reads the slots: a vCPU's handle, and the sequence number by which writers see its guards.
//!
//! The one idea: a reader says "I am inside" with one store and one fence, and a writer that has published a change waits
//! until every reader that was inside has been outside once.
//!
//! # Memory ordering
//!
//! ```text
//! reader                                      writer
//!   sequence := odd          (release)          take something away (a table, a page entry)
//!   fence SeqCst             (F_r)              fence SeqCst             (F_w)
//!   use the table, the entries, the pages       e := sequence            (acquire)
//!   sequence := even         (release)          if e is odd: until sequence != e (acquire)
//! ```
//!
//! The two fences are in one total order. If F_r comes first, the writer sees that sequence number or a later one: it waits
//! for this guard, and the release/acquire pair makes the guard's accesses happen before whatever the writer does next. If F_w
//! comes first, the reader sees what the writer did before F_w: it never sees what was taken away. A reader that leaves and
//! comes back while the writer waits has changed the number; the writer goes on, rightly: having read the older number after
//! F_w, it knows by the fences' order that the newer guard's fence comes after F_w. That number is odd, and the accesses of
//! the older guard still have to happen before what the writer does: hence the release of the store that enters, too.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use super::slot::Slot;
use super::table::Table;
use super::view::PhysicalView;
use crate::atomic::{AtomicBool, AtomicU64, const_but_for_loom, fence, spin_loop};

/// One reader as writers see it. A cache line of its own (and of its neighbour, which some cores prefetch with it), since
/// its owner writes it twice per guard.
#[repr(align(128))]
pub(super) struct ReaderEntry {
    /// Odd while a guard exists.
    sequence: AtomicU64,
    /// A [`Reader`] owns the entry.
    taken: AtomicBool,
}

impl ReaderEntry {
    const_but_for_loom! {
        pub(super) const fn new() -> Self {
            Self {
                sequence: AtomicU64::new(0),
                taken: AtomicBool::new(false),
            }
        }
    }

    /// Says that a guard exists, and answers its number. Called by the entry's owner only.
    #[inline]
    fn enter(&self) -> u64 {
        // A guard that was forgotten (`mem::forget`) left the number odd, and then it stays: whoever waits for the forgotten
        // one waits for this one too.
        let inside = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(inside, Ordering::Release);
        fence(Ordering::SeqCst);
        inside
    }

    /// Says that the guard of this number is gone. Called by the entry's owner only.
    #[inline]
    pub(super) fn leave(&self, inside: u64) {
        self.sequence.store(inside + 1, Ordering::Release);
    }

    /// Waits until the guard that exists now, if any, is gone. The caller has executed F_w.
    pub(super) fn wait_for_guard(&self, serve: &mut impl FnMut()) {
        let seen = self.sequence.load(Ordering::Acquire);
        if seen % 2 == 1 {
            while self.sequence.load(Ordering::Acquire) == seen {
                serve();
                spin_loop();
            }
        }
    }
}

/// The tables of a memory, of which the newest generation's lowest bit names the one to read.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) newest: &'a AtomicU64,
    pub(super) tables: [*const Table<[Slot<'a>]>; 2],
}

/// A vCPU's (or hart's) handle on its VM's guest-physical memory.
///
/// It remembers the slot of the last access, so it belongs to one hart at a time. Guards borrow it mutably: a reader has one
/// guard at most, and whatever needs the reader itself, such as a resolver's retry, is known to run without one.
pub struct Reader<'a> {
    tables: Tables<'a>,
    entry: &'a ReaderEntry,
    hint: Cell<usize>,
    slots: PhantomData<&'a Slot<'a>>,
}

// SAFETY: nothing in a reader belongs to a thread: it owns its entry, and the tables are shared between harts anyway.
unsafe impl Send for Reader<'_> {}

impl<'a> Reader<'a> {
    /// Claims the entry, if nobody has it. The tables live for `'a`.
    pub(super) fn claim(tables: Tables<'a>, entry: &'a ReaderEntry) -> Option<Self> {
        // Acquire: the owner before has left its guard. Where the claim fails, no reader is made, not even for a moment: its
        // drop would end the owner's guard.
        entry
            .taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Self {
            tables,
            entry,
            hint: Cell::new(0),
            slots: PhantomData,
        })
    }

    /// Takes the read guard: once per VM exit, not per access. On riscv64 it and its drop are 16 instructions: no loop, no
    /// lock.
    ///
    /// While it exists, whoever removes memory waits. So it must be gone before the guest is entered, before `wfi`, and before
    /// this hart itself waits for others ([`synchronize`](super::GuestPhysicalMemory::synchronize), a slot change, a harvest, the
    /// acknowledgement of an IPI whose receiver may do one of these).
    #[inline]
    pub fn guard(&mut self) -> PhysicalView<'_> {
        let entry = self.entry;
        let inside = entry.enter();
        // Acquire: what the writer wrote into the table before it published this generation.
        let newest = self.tables.newest.load(Ordering::Acquire);
        let table = self.tables.tables[(newest & 1) as usize];
        // SAFETY: the pointer is to a live table for `'a`. A writer changes a table only while it is not the newest one and
        // after it has waited for every guard that existed (the module's ordering argument): nobody writes it while this
        // guard, which saw it as the newest, exists.
        let table = unsafe { &*table };
        PhysicalView::new(table, entry, inside, &self.hint)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // No guard can be in use any more; one that was forgotten ends here.
        let sequence = self.entry.sequence.load(Ordering::Relaxed);
        if sequence % 2 == 1 {
            self.entry.leave(sequence);
        }
        self.entry.taken.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// Why a memory gave no reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderUnavailable {
    /// The memory has fewer readers.
    NoSuchReader {
        /// The index asked for.
        index: usize,
        /// How many there are.
        readers: usize,
    },
    /// Somebody has it.
    Taken {
        /// The index asked for.
        index: usize,
    },
}

impl fmt::Display for ReaderUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchReader { index, readers } => {
                write!(f, "reader {index} of a memory for {readers}")
            }
            Self::Taken { index } => write!(f, "reader {index} is taken"),
        }
    }
}

impl core::error::Error for ReaderUnavailable {}
