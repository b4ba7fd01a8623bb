//! Extensions of page tables: what a leaf may hold, and who updates its A and D bits.
//!
//! The one idea: Sv39 with the first 4 GiB one to one, and one leaf of 4 KiB high up that each
//! probe writes as it likes.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::csr_write;
use guest_kit::machine::Machine;
use guest_kit::trap::{Trap, catch_first, cause};
use sbi_spec::fwft::feature_type::PTE_AD_HW_UPDATING;

use crate::firmware;
use crate::probe::{Outcome, area, expect};

const V: u64 = 1 << 0;
const RWX: u64 = 0b1110;
const A: u64 = 1 << 6;
const D: u64 = 1 << 7;
const N: u64 = 1 << 63;
/// Svpbmt: non-cacheable, idempotent.
const NC: u64 = 1 << 61;

/// Where the leaf's page is.
const WINDOW: u64 = 0x40_0000_0000 - (1 << 30);

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

static ROOT: Table = Table([const { AtomicU64::new(0) }; 512]);
static MIDDLE: Table = Table([const { AtomicU64::new(0) }; 512]);
static LEAVES: Table = Table([const { AtomicU64::new(0) }; 512]);

const fn entry(physical: u64, bits: u64) -> u64 {
    (physical >> 12) << 10 | bits
}

/// Loads a word of the window's page 0 while its leaf, and those of the 15 pages behind it, are
/// `leaf`; then stores there. Gives the word, the trap, and what the leaf then holds.
fn access(leaf: u64, pages: usize, offset: u64) -> (u64, Option<Trap>, u64) {
    let address = |table: &Table| core::ptr::from_ref(table) as u64;
    for gigabyte in 0..4_u64 {
        let own = entry(gigabyte << 30, V | RWX | A | D);
        ROOT.0[gigabyte as usize].store(own, Ordering::Relaxed);
    }
    ROOT.0[255].store(entry(address(&MIDDLE), V), Ordering::Relaxed);
    MIDDLE.0[0].store(entry(address(&LEAVES), V), Ordering::Relaxed);
    for index in 0..16 {
        let leaf = if index < pages { leaf } else { 0 };
        LEAVES.0[index].store(leaf, Ordering::Relaxed);
    }
    // SAFETY: everything that this program uses stays where it is.
    unsafe {
        asm!("fence rw, rw");
        csr_write!("satp", 8 << 60 | address(&ROOT) >> 12);
        asm!("sfence.vma");
    }
    let (value, trap) = catch_first(|| {
        let value: u64;
        // SAFETY: the page for probes, or a trap.
        unsafe {
            asm!("ld {0}, 0({1})", "sd {0}, 0({1})", out(reg) value, in(reg) WINDOW + offset)
        };
        value
    });
    // SAFETY: as above.
    unsafe {
        csr_write!("satp", 0_u64);
        asm!("sfence.vma");
    }
    (value, trap, LEAVES.0[0].load(Ordering::Relaxed))
}

fn page() -> u64 {
    area(&[0x77])
}

/// An access through a leaf whose A and D bits are clear: whether the hardware sets them.
pub fn access_without_ad() -> Outcome {
    let (_, trap, leaf) = access(entry(page(), V | RWX), 1, 0);
    expect((leaf & (A | D), trap), A | D)
}

/// Svadu: where there is Svade too, the guest has to ask for it.
pub fn updated_bits() -> Outcome {
    firmware::set(PTE_AD_HW_UPDATING, 1, 0);
    let outcome = access_without_ad();
    firmware::set(PTE_AD_HW_UPDATING, 0, 0);
    outcome
}

/// Svade: A and D are the guest's to set.
pub fn faults_without_ad() -> Outcome {
    match access_without_ad() {
        Outcome::Trapped(trap) if trap.cause == cause::LOAD_PAGE => Outcome::Works,
        other => other,
    }
}

/// Svnapot: 16 leaves that name a range of 64 KiB.
pub fn napot() -> Outcome {
    let page = page();
    let range = page & !0xffff | 0x8000;
    let (value, trap, _) = access(entry(range, V | RWX | A | D | N), 16, page & 0xffff);
    expect((value, trap), 0x77)
}

/// Svpbmt.
pub fn memory_type() -> Outcome {
    let (value, trap, _) = access(entry(page(), V | RWX | A | D | NC), 1, 0);
    expect((value, trap), 0x77)
}

/// Svpbmt: memory itself holds what firmware left in it, also where that went through a cache. What
/// a guest never touched is zero, and what was loaded is what the cache has.
pub fn i20_memory_behind_the_caches_is_the_guests(
    machine: &Machine,
    mut step: impl FnMut(bool, &str, fmt::Arguments<'_>),
) {
    const PAGES: u64 = 64;
    if !machine.extensions().any(|name| name == "svpbmt") {
        return;
    }
    let past_the_caches = |address: u64| {
        let (value, trap, _) = access(entry(address, V | RWX | A | D | NC), 1, address & 0xff8);
        trap.is_none().then_some(value)
    };
    // Most pages get a frame of their own; every other one is the shared page of zeroes first.
    let untouched = machine.ram.end - (16 << 20);
    let zeroes = (0..PAGES).filter(|page| {
        let page = untouched + page * 0x1000;
        if page & 0x1000 != 0 {
            // SAFETY: RAM that nobody uses.
            unsafe { (page as *const u64).read_volatile() };
        }
        past_the_caches(page + 0x7f8) == Some(0)
    });
    let zeroes = zeroes.count() as u64;
    step(
        zeroes == PAGES,
        "svpbmt: what was never touched is zero in memory itself",
        format_args!("{zeroes} of {PAGES} pages"),
    );
    let loaded = access as *const () as u64 & !7;
    // SAFETY: this program's own code.
    let cached = unsafe { (loaded as *const u64).read_volatile() };
    // The store of the same value leaves the code as it is.
    let memory = past_the_caches(loaded);
    step(
        memory == Some(cached),
        "svpbmt: what was loaded is in memory itself",
        format_args!("{memory:x?}, by the cache {cached:#x}"),
    );
}

/// Svvptc: what was invalid a moment ago.
pub fn new_entry() -> Outcome {
    let (_, first, _) = access(0, 0, 0);
    let (value, trap, _) = access(entry(page(), V | RWX | A | D), 1, 0);
    match first {
        Some(_) => expect((value, trap), 0x77),
        None => Outcome::Wrong(0),
    }
}
