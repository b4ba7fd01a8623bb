//! Writing page tables, for tests, for examples, and for a host that makes a scratch guest.
//!
//! The one idea: a builder has a range to take tables from and two functions to read and write an entry; it needs no heap
//! and knows nothing of where the memory is.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use super::entry::{self, INDEX_BITS, level_shift};
use crate::address::{Address, Gpa, Gva, PAGE_SHIFT, PAGE_SIZE, Spa};
use crate::csr::{GMode, VsMode};

/// Reads and writes table entries at addresses of the space that the tables are in. `None` if there is no memory.
///
/// A pair of closures `(load, store)` is one.
pub trait TableStore<A> {
    /// Reads an entry.
    fn load(&mut self, at: A) -> Option<u64>;
    /// Writes an entry.
    fn store(&mut self, at: A, entry: u64) -> Option<()>;
}

impl<A, L: FnMut(A) -> Option<u64>, S: FnMut(A, u64) -> Option<()>> TableStore<A> for (L, S) {
    fn load(&mut self, at: A) -> Option<u64> {
        (self.0)(at)
    }
    fn store(&mut self, at: A, entry: u64) -> Option<()> {
        (self.1)(at, entry)
    }
}

/// Why a table could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The range for tables is used up, or does not begin at a multiple of the root's size.
    NoTable,
    /// There is no memory where a table is.
    NoMemory,
    /// An address is not a multiple of the page size, or the level does not exist, or the mode is Bare.
    BadRequest,
    /// A larger page already covers the address.
    Covered,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTable => "no room for another table",
            Self::NoMemory => "no memory where a table is",
            Self::BadRequest => "misaligned address or level that the mode does not have",
            Self::Covered => "a larger page covers the address",
        })
    }
}

impl core::error::Error for BuildError {}

/// Builds the tables of one stage. `I` is the space that it translates from; its tables lie in the space `O`.
#[derive(Debug)]
pub struct TableBuilder<I, O, S> {
    store: S,
    mode: u64,
    levels: usize,
    root_bits: u32,
    root: u64,
    next: u64,
    end: u64,
    spaces: PhantomData<(I, O)>,
}

/// Builds VS-stage tables, at guest-physical addresses.
pub type VsBuilder<S> = TableBuilder<Gva, Gpa, S>;

/// Builds G-stage tables, at machine addresses.
pub type GBuilder<S> = TableBuilder<Gpa, Spa, S>;

impl<S: TableStore<Gpa>> VsBuilder<S> {
    /// An empty VS-stage whose tables are taken from `tables`, root first. The range begins at a page.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn new(mode: VsMode, tables: Range<Gpa>, store: S) -> Result<Self, BuildError> {
        let number = match mode {
            VsMode::Bare => 0,
            VsMode::Sv39 => 8,
            VsMode::Sv48 => 9,
            VsMode::Sv57 => 10,
        };
        let tables = tables.start.value()..tables.end.value();
        Self::with_root(store, number, mode.levels(), INDEX_BITS, tables)
    }

    /// The value of `vsatp` for these tables.
    pub fn vsatp(&self, asid: u16) -> u64 {
        self.mode << 60 | u64::from(asid) << 44 | self.root >> PAGE_SHIFT
    }
}

impl<S: TableStore<Spa>> GBuilder<S> {
    /// An empty G-stage whose tables are taken from `tables`, root first. The range begins at a multiple of 16 KiB.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn new(mode: GMode, tables: Range<Spa>, store: S) -> Result<Self, BuildError> {
        let number = match mode {
            GMode::Bare => 0,
            GMode::Sv39x4 => 8,
            GMode::Sv48x4 => 9,
            GMode::Sv57x4 => 10,
        };
        let tables = tables.start.value()..tables.end.value();
        Self::with_root(store, number, mode.levels(), INDEX_BITS + 2, tables)
    }

    /// The value of `hgatp` for these tables. `vmid` has 14 bits at most.
    pub fn hgatp(&self, vmid: u16) -> u64 {
        self.mode << 60 | u64::from(vmid & 0x3fff) << 44 | self.root >> PAGE_SHIFT
    }
}

impl<I: Address, O: Address, S: TableStore<O>> TableBuilder<I, O, S> {
    fn with_root(
        store: S,
        mode: u64,
        levels: usize,
        root_bits: u32,
        tables: Range<u64>,
    ) -> Result<Self, BuildError> {
        if mode == 0 {
            return Err(BuildError::BadRequest);
        }
        let mut builder = Self {
            store,
            mode,
            levels,
            root_bits,
            root: tables.start,
            next: tables.start,
            end: tables.end,
            spaces: PhantomData,
        };
        let size = PAGE_SIZE << (root_bits - INDEX_BITS);
        if builder.root & (size - 1) != 0 {
            return Err(BuildError::NoTable);
        }
        builder.root = builder.take(size)?;
        Ok(builder)
    }

    /// The root table.
    pub fn root(&self) -> O {
        O::from_u64(self.root)
    }

    /// Maps one page of the given level (0: 4 KiB, 1: 2 MiB, 2: 1 GiB, ...). `bits` are the leaf's, V aside.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn map(&mut self, from: I, to: O, level: usize, bits: u64) -> Result<(), BuildError> {
        let size = match level < self.levels {
            true => 1u64 << level_shift(level),
            false => return Err(BuildError::BadRequest),
        };
        if (from.to_u64() | to.to_u64()) & (size - 1) != 0 {
            return Err(BuildError::BadRequest);
        }
        let at = self.entry_of(from, level, true)?;
        self.write(at, entry::pack(to.to_u64(), bits))
    }

    /// Maps `pages` consecutive 4 KiB pages.
    ///
    /// # Errors
    ///
    /// See [`BuildError`]; the pages before the error are mapped.
    pub fn map_pages(&mut self, from: I, to: O, pages: u64, bits: u64) -> Result<(), BuildError> {
        for page in 0..pages {
            let offset = page.checked_mul(PAGE_SIZE).ok_or(BuildError::BadRequest)?;
            let at = |base: u64| base.checked_add(offset).ok_or(BuildError::BadRequest);
            let (from, to) = (at(from.to_u64())?, at(to.to_u64())?);
            self.map(I::from_u64(from), O::from_u64(to), 0, bits)?;
        }
        Ok(())
    }

    /// Where the entry of `from` at `level` is. The tables above it are there already.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if they are not.
    pub fn entry(&mut self, from: I, level: usize) -> Result<O, BuildError> {
        self.entry_of(from, level, false).map(O::from_u64)
    }

    fn entry_of(&mut self, from: I, level: usize, create: bool) -> Result<u64, BuildError> {
        let mut table = self.root;
        let mut at_level = self.levels - 1;
        loop {
            let bits = if at_level == self.levels - 1 {
                self.root_bits
            } else {
                INDEX_BITS
            };
            let at = table + (from.to_u64() >> level_shift(at_level) & ((1 << bits) - 1)) * 8;
            if at_level <= level {
                return Ok(at);
            }
            let found = self
                .store
                .load(O::from_u64(at))
                .ok_or(BuildError::NoMemory)?;
            table = if found & entry::V == 0 {
                if !create {
                    return Err(BuildError::NoTable);
                }
                let new = self.take(PAGE_SIZE)?;
                self.write(at, entry::pack(new, 0))?;
                new
            } else if found & (entry::R | entry::W | entry::X) != 0 {
                return Err(BuildError::Covered);
            } else {
                entry::address(found)
            };
            at_level -= 1;
        }
    }

    fn write(&mut self, at: u64, entry: u64) -> Result<(), BuildError> {
        self.store
            .store(O::from_u64(at), entry)
            .ok_or(BuildError::NoMemory)
    }

    /// Takes `size` bytes for a table and clears them.
    fn take(&mut self, size: u64) -> Result<u64, BuildError> {
        let start = self.next;
        let end = start.checked_add(size).ok_or(BuildError::NoTable)?;
        if end > self.end {
            return Err(BuildError::NoTable);
        }
        for at in (start..end).step_by(8) {
            self.write(at, 0)?;
        }
        self.next = end;
        Ok(start)
    }
}
