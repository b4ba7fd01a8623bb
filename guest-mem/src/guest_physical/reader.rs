//! Who reads the slots: a vCPU's handle on its VM's memory, which gives guards.
//!
//! The one idea: a guard is a view of the tables that were the newest when it was taken, and borrows the handle for as long.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use super::reader_entry::ReaderEntry;
use super::slot::Slot;
use super::table::Table;
use super::view::PhysicalView;
use crate::atomic::AtomicU64;

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
        // Where the claim fails, no reader is made, not even for a moment: its drop would end the owner's guard.
        if !entry.take() {
            return None;
        }
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
        // after it has waited for every guard that existed (the ordering argument of `reader_entry`): nobody writes it while this
        // guard, which saw it as the newest, exists.
        let table = unsafe { &*table };
        PhysicalView::new(table, entry, inside, &self.hint)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // No guard can be in use any more.
        self.entry.give_back();
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
