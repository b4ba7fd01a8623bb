//! The translations that a hart keeps.
//!
//! The one idea: a hart may keep each stage's translations apart, so the laziest hart drops a VS-stage entry only for
//! HFENCE.VVMA and a G-stage entry only for HFENCE.GVMA (R38), and tags them by VMID and ASID alone, not by root (R30).

use core::cell::Cell;

use crate::address::PAGE_SHIFT;
use crate::translate::{Leaf, Purpose};

const ENTRIES: usize = 64;

/// A VS-stage page, of one 4 KiB page of addresses; no leaf if the entry was not valid.
#[derive(Clone, Copy, Debug)]
struct VsEntry {
    vmid: u64,
    asid: u64,
    page: u64,
    leaf: Option<Leaf>,
}

/// A G-stage page, likewise.
#[derive(Clone, Copy, Debug)]
struct GEntry {
    vmid: u64,
    page: u64,
    leaf: Option<Leaf>,
}

/// A translation through both stages that knows nothing of what it was made under (R34).
#[derive(Clone, Copy, Debug)]
struct StaleEntry {
    page: u64,
    spa_page: u64,
    allows: [bool; 4],
}

/// What a hart keeps: round-robin, fully associative.
pub(super) struct Tlb {
    vs: Table<VsEntry>,
    g: Table<GEntry>,
    stale: Table<StaleEntry>,
}

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

    fn find(&self, matches: impl Fn(&E) -> bool) -> Option<E> {
        self.entries.iter().filter_map(Cell::get).find(matches)
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

const fn page_of(address: u64) -> u64 {
    address >> PAGE_SHIFT
}

/// Whether `leaf`, of which an entry for `page` was made, also maps `address`: a fence names any address of a large page.
fn covers(leaf: Option<Leaf>, page: u64, address: u64) -> bool {
    let shift = leaf.map_or(PAGE_SHIFT, |leaf| leaf.page_shift);
    (page << PAGE_SHIFT) >> shift == address >> shift
}

impl Tlb {
    pub const fn new() -> Self {
        Self {
            vs: Table::new(),
            g: Table::new(),
            stale: Table::new(),
        }
    }

    /// What is kept for an address: `Some(None)` that its entry was not valid.
    pub fn vs(&self, vmid: u64, asid: u64, gva: u64) -> Option<Option<Leaf>> {
        let page = page_of(gva);
        let global = |e: &VsEntry| e.leaf.is_some_and(|leaf| leaf.global);
        self.vs
            .find(|e| e.vmid == vmid && e.page == page && (e.asid == asid || global(e)))
            .map(|entry| entry.leaf)
    }

    pub fn insert_vs(&self, vmid: u64, asid: u64, gva: u64, leaf: Option<Leaf>) {
        let page = page_of(gva);
        let entry = VsEntry {
            vmid,
            asid,
            page,
            leaf,
        };
        self.vs.insert(entry, |e| {
            e.vmid == vmid && e.asid == asid && e.page == page
        });
    }

    /// As [`vs`](Self::vs).
    pub fn g(&self, vmid: u64, gpa: u64) -> Option<Option<Leaf>> {
        let page = page_of(gpa);
        self.g
            .find(|e| e.vmid == vmid && e.page == page)
            .map(|entry| entry.leaf)
    }

    pub fn insert_g(&self, vmid: u64, gpa: u64, leaf: Option<Leaf>) {
        let page = page_of(gpa);
        let entry = GEntry { vmid, page, leaf };
        self.g.insert(entry, |e| e.vmid == vmid && e.page == page);
    }

    /// The machine address that an outlived translation gives.
    pub fn stale(&self, address: u64, purpose: Purpose) -> Option<u64> {
        let page = page_of(address);
        let entry = self.stale.find(|e| e.page == page)?;
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
        self.vs
            .remove(|e| e.vmid == vmid && gva.is_none_or(|gva| covers(e.leaf, e.page, gva)));
        self.stale.remove(|_| true);
    }

    /// HFENCE.GVMA: for every VMID, of one guest-physical page or of all (R38).
    pub fn hfence_gvma(&self, gpa: Option<u64>) {
        self.g
            .remove(|e| gpa.is_none_or(|gpa| covers(e.leaf, e.page, gpa)));
        self.stale.remove(|_| true);
    }

    /// A change between guest and host, which is all that the quirky hart takes as a reason to forget.
    pub fn change_of_v(&self) {
        self.stale.remove(|_| true);
    }
}
