//! The translations that a hart keeps.
//!
//! The one idea: the laziest hart keeps each stage's entries apart, so that a VS-stage entry goes for HFENCE.VVMA only and a
//! G-stage entry for HFENCE.GVMA only (R38); it tags them by VMID and ASID alone, not by root (R30); it uses them for all
//! that they cover, the oldest first; and it keeps the way to its tables apart from the pages, through any fence of one
//! address (R40).

use core::cell::Cell;

use crate::address::PAGE_SHIFT;
use crate::translate::{Below, Leaf, Purpose};

const ENTRIES: usize = 64;

/// Whose entries: of a VMID, and at the VS-stage of an ASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub vmid: u64,
    /// `None` for the G-stage, and for what is global.
    pub asid: Option<u64>,
}

/// One entry of a table that was read, for the addresses that it covers.
#[derive(Clone, Copy, Debug)]
struct Kept<T> {
    space: Space,
    /// The addresses, without the low bits that the entry does not look at.
    prefix: u64,
    /// How many those are.
    shift: u32,
    what: T,
}

impl<T> Kept<T> {
    fn covers(&self, address: u64) -> bool {
        address >> self.shift == self.prefix
    }

    fn is_for(&self, space: Space) -> bool {
        self.space.vmid == space.vmid
            && (self.space.asid.is_none() || self.space.asid == space.asid)
    }
}

/// The pages of one stage, and the way to its tables.
pub(super) struct StageTlb {
    /// No leaf if the entry was not valid.
    leaves: Table<Kept<Option<Leaf>>>,
    tables: Table<Kept<Below>>,
}

/// A translation through both stages that knows nothing of what it was made under (R34).
#[derive(Clone, Copy, Debug)]
struct StaleEntry {
    page: u64,
    spa_page: u64,
    allows: [bool; 4],
}

/// What a hart keeps.
pub(super) struct Tlb {
    pub vs: StageTlb,
    pub g: StageTlb,
    stale: Table<StaleEntry>,
}

/// Round-robin, fully associative.
struct Table<E> {
    entries: [Cell<Option<E>>; ENTRIES],
    next: Cell<usize>,
}

impl<E: Copy> Table<E> {
    const fn new() -> Self {
        Self {
            entries: [const { Cell::new(None) }; ENTRIES],
            next: Cell::new(0),
        }
    }

    /// From the oldest on.
    fn iter(&self) -> impl Iterator<Item = E> + '_ {
        let (newer, older) = self.entries.split_at(self.next.get());
        older.iter().chain(newer).filter_map(Cell::get)
    }

    fn insert(&self, entry: E, same: impl Fn(&E) -> bool) {
        self.remove(same);
        let next = self.next.get();
        self.entries[next].set(Some(entry));
        self.next.set((next + 1) % ENTRIES);
    }

    fn remove(&self, matches: impl Fn(&E) -> bool) {
        for cell in &self.entries {
            if cell.get().is_some_and(|entry| matches(&entry)) {
                cell.set(None);
            }
        }
    }
}

impl<T: Copy> Table<Kept<T>> {
    fn keep(&self, space: Space, address: u64, shift: u32, what: T) {
        let prefix = address >> shift;
        let entry = Kept {
            space,
            prefix,
            shift,
            what,
        };
        self.insert(entry, |e| {
            e.space == space && e.prefix == prefix && e.shift == shift
        });
    }
}

const fn page_of(address: u64) -> u64 {
    address >> PAGE_SHIFT
}

impl StageTlb {
    const fn new() -> Self {
        Self {
            leaves: Table::new(),
            tables: Table::new(),
        }
    }

    /// What is kept for an address: `Some(None)` that its entry was not valid.
    pub fn leaf(&self, space: Space, address: u64) -> Option<Option<Leaf>> {
        self.leaves
            .iter()
            .find(|e| e.is_for(space) && e.covers(address))
            .map(|e| e.what)
    }

    /// Keeps a page of `1 << shift` bytes, or that an entry for so many was not valid.
    pub fn keep_leaf(&self, space: Space, address: u64, shift: u32, leaf: Option<Leaf>) {
        self.leaves.keep(space, address, shift, leaf);
    }

    /// The last table on the way to an address that is kept, and whether the way there is global.
    pub fn table(&self, space: Space, address: u64) -> Option<(Below, bool)> {
        self.tables
            .iter()
            .filter(|e| e.is_for(space) && e.covers(address))
            .min_by_key(|e| e.what.level)
            .map(|e| (e.what, e.space.asid.is_none()))
    }

    /// Keeps the table that an entry for `1 << shift` bytes leads to.
    pub fn keep_table(&self, space: Space, address: u64, shift: u32, table: Below) {
        self.tables.keep(space, address, shift, table);
    }

    /// Forgets pages that cover an address, or all there is, of a VMID or of every one. A fence of one address is about leaf
    /// entries only (R40).
    fn fence(&self, vmid: Option<u64>, address: Option<u64>) {
        let of = |space: Space| vmid.is_none_or(|vmid| space.vmid == vmid);
        self.leaves
            .remove(|e| of(e.space) && address.is_none_or(|address| e.covers(address)));
        if address.is_none() {
            self.tables.remove(|e| of(e.space));
        }
    }
}

impl Tlb {
    pub const fn new() -> Self {
        Self {
            vs: StageTlb::new(),
            g: StageTlb::new(),
            stale: Table::new(),
        }
    }

    /// The machine address that an outlived translation gives.
    pub fn stale(&self, address: u64, purpose: Purpose) -> Option<u64> {
        let page = page_of(address);
        let entry = self.stale.iter().find(|e| e.page == page)?;
        let offset = address & ((1 << PAGE_SHIFT) - 1);
        entry.allows[purpose as usize].then_some(entry.spa_page << PAGE_SHIFT | offset)
    }

    pub fn insert_stale(&self, address: u64, spa: u64, allows: [bool; 4]) {
        let page = page_of(address);
        let entry = StaleEntry {
            page,
            spa_page: page_of(spa),
            allows,
        };
        self.stale.insert(entry, |e| e.page == page);
    }

    /// HFENCE.VVMA: for the VMID that is current, of one guest-virtual page or of all (R37).
    pub fn hfence_vvma(&self, vmid: u64, gva: Option<u64>) {
        self.vs.fence(Some(vmid), gva);
        self.stale.remove(|_| true);
    }

    /// HFENCE.GVMA: for every VMID, of one guest-physical page or of all (R38).
    pub fn hfence_gvma(&self, gpa: Option<u64>) {
        self.g.fence(None, gpa);
        self.stale.remove(|_| true);
    }

    /// A change between guest and host, which is all that the quirky hart takes as a reason to forget.
    pub fn change_of_v(&self) {
        self.stale.remove(|_| true);
    }
}
