//! The guest's address space: RAM one to one, and a window of small pages, one of which holds code.
//!
//! The one idea: a machine that forgets translations pays for each page that is used next, so a round uses as many as an ordinary
//! program and its kernel do.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::csr_write;

/// First address of the window, and its pages with a frame each: the first holds the function. One more follows, whose frame
/// changes.
const WINDOW: u64 = 0x20_0000_0000;
const PAGES: usize = 24;
const LAST: u64 = WINDOW + ((PAGES as u64) << 12);

/// The function's values are below this.
pub const VALUES: u64 = 1 << 11;

const V: u64 = 1 << 0;
const DATA: u64 = V | 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7;
const ALL: u64 = DATA | 1 << 3;

const MODE_SV39: u64 = 8 << 60;

#[repr(C, align(4096))]
struct Page([AtomicU64; 512]);

impl Page {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn number(&self) -> u64 {
        (self as *const Self as u64) >> 12
    }
}

static ROOT: Page = Page::new();
static MIDDLE: Page = Page::new();
static LEAVES: Page = Page::new();
static FRAMES: [Page; PAGES] = [const { Page::new() }; PAGES];
static SHOWN: [Page; 2] = [const { Page::new() }; 2];

/// Builds the table, for RAM in the gigabyte at `ram`.
pub fn build(ram: u64) {
    let giga = |address: u64| (address >> 30 & 511) as usize;
    ROOT.0[giga(ram)].store(ram >> 30 << 28 | ALL, Ordering::SeqCst);
    ROOT.0[giga(WINDOW)].store(MIDDLE.number() << 10 | V, Ordering::SeqCst);
    MIDDLE.0[0].store(LEAVES.number() << 10 | V, Ordering::SeqCst);
    for (leaf, frame) in LEAVES.0.iter().zip(&FRAMES) {
        leaf.store(frame.number() << 10 | ALL, Ordering::SeqCst);
    }
    for (number, frame) in SHOWN.iter().enumerate() {
        frame.0[0].store(number as u64, Ordering::SeqCst);
    }
    remap(0);
}

/// Turns translation on for this hart.
///
/// # Safety
///
/// [`build`] was called for the gigabyte that this code runs in.
pub unsafe fn turn_on() {
    // SAFETY: code, stack and data stay where they are.
    unsafe {
        csr_write!("satp", MODE_SV39 | ROOT.number());
        asm!("sfence.vma");
    }
}

/// Loads from every page of the window.
pub fn touch() {
    for page in 0..=PAGES as u64 {
        load(WINDOW + (page << 12));
    }
}

fn load(address: u64) -> u64 {
    // SAFETY: callers pass addresses in the window, whose pages are frames of this program's that nobody borrows.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes the function that gives `value`: `addi a0, zero, value` and `ret`.
pub fn write_function(value: u64) {
    let code = [0x0000_0513 | (value as u32) << 20, 0x0000_8067];
    for (index, word) in code.into_iter().enumerate() {
        // SAFETY: the page is a frame of this program's, and no hart runs the code now.
        unsafe { (WINDOW as *mut u32).add(index).write_volatile(word) };
    }
}

/// Calls it.
pub fn call_function() -> u64 {
    let result;
    // SAFETY: it writes a0 and returns.
    unsafe {
        asm!("jalr {}", in(reg) WINDOW, lateout("a0") result, clobber_abi("C"));
    }
    result
}

/// Shows frame 0 or 1 in the window's last page; gives its address, for who fences.
pub fn remap(frame: u64) -> u64 {
    let entry = SHOWN[frame as usize].number() << 10 | DATA;
    LEAVES.0[PAGES].store(entry, Ordering::SeqCst);
    LAST
}

/// Which frame that page shows.
pub fn shown_frame() -> u64 {
    load(LAST)
}
