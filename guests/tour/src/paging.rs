//! The tour's own Sv39 page table: devices and RAM one to one, and a window of single pages high up.
//!
//! The one idea: in the window neighbours in virtual memory are no neighbours in physical memory, so whoever treats the two
//! address spaces alike is found out.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::csr_write;

/// First address of the window of 512 pages.
pub const WINDOW: u64 = 0xffff_ffd0_0000_0000;

/// Bits of a page-table entry.
pub mod pte {
    /// Valid.
    pub const V: u64 = 1 << 0;
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// User.
    pub const U: u64 = 1 << 4;
    /// Accessed.
    pub const A: u64 = 1 << 6;
    /// Dirty.
    pub const D: u64 = 1 << 7;
    /// A page that S-mode reads and writes.
    pub const DATA: u64 = V | R | W | A | D;
    /// A page that S-mode executes and does not read.
    pub const EXECUTE_ONLY: u64 = V | X | A;
    /// A page that S-mode reads, writes and executes.
    pub const ALL: u64 = DATA | X;
}

const MODE_SV39: u64 = 8 << 60;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn number(&self) -> u64 {
        (self as *const Self as u64) >> 12
    }
}

static ROOT: Table = Table::new();
static MIDDLE: Table = Table::new();
static LEAVES: Table = Table::new();

/// The address of page `index` of the window.
pub const fn window(index: u64) -> u64 {
    WINDOW + (index << 12)
}

/// Puts `entry_bits` and the frame at `physical` into the entry of page `index` of the window; who uses the page then has
/// to fence.
pub fn set(index: u64, physical: u64, entry_bits: u64) {
    let entry = physical >> 12 << 10 | entry_bits;
    LEAVES.0[index as usize].store(entry, Ordering::SeqCst);
}

/// The entry of page `index` of the window.
pub fn entry(index: u64) -> u64 {
    LEAVES.0[index as usize].load(Ordering::SeqCst)
}

/// Gives page `index` of the window these rights, and leaves its frame.
pub fn set_rights(index: u64, entry_bits: u64) {
    set(index, entry(index) >> 10 << 12, entry_bits);
}

/// The first address whose leaf table is the one of [`set_next_table`].
pub const NEXT_TABLE: u64 = WINDOW + (1 << 21);

/// Says where the leaf table of the 2 MiB after the window is; who uses them then has to fence.
pub fn set_next_table(physical: u64) {
    MIDDLE.0[1].store(physical >> 12 << 10 | pte::V, Ordering::SeqCst);
}

/// Orders this hart's earlier page-table writes before its later translations.
pub fn fence() {
    // SAFETY: a fence changes no state that Rust knows of.
    unsafe { asm!("sfence.vma") };
}

/// Builds the table, for RAM in the gigabyte at `ram`.
pub fn build(ram: u64) {
    let giga = |address: u64| (address >> 30 & 511) as usize;
    ROOT.0[0].store(pte::DATA, Ordering::SeqCst);
    ROOT.0[giga(ram)].store(ram >> 30 << 28 | pte::ALL, Ordering::SeqCst);
    ROOT.0[giga(WINDOW)].store(MIDDLE.number() << 10 | pte::V, Ordering::SeqCst);
    MIDDLE.0[0].store(LEAVES.number() << 10 | pte::V, Ordering::SeqCst);
}

/// Turns translation on for this hart.
///
/// # Safety
///
/// [`build`] was called for the gigabyte that this code runs in.
pub unsafe fn turn_on() {
    // SAFETY: code, stack and data stay where they are.
    unsafe { csr_write!("satp", MODE_SV39 | ROOT.number()) };
    fence();
}
