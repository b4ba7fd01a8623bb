//! What M-mode opens before it drops to HS-mode, and how the other harts wait.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use dtoolkit::fdt::Fdt;

use super::{HOLE, MAX_HARTS, STANDALONE, attempt, board, csr};
use crate::shim::harts;

/// Every exception but the calls that the shim serves (from HS and M), and double traps, which nobody else can take.
pub const DELEGATED: u64 = !(1 << 9 | 1 << 11 | 1 << 16);
/// The supervisor's software, timer and external interrupts; the guest's are delegated by nature.
const INTERRUPTS: u64 = 1 << 1 | 1 << 5 | 1 << 9;

/// `menvcfg`: cache-block operations, A/D updates by hardware and memory types of pages, where they are. What changes how
/// HS-mode itself runs is left to the tests of it.
pub const ENVIRONMENT: u64 = 0b1111 << 4 | 1 << 61 | 1 << 62;
const MENVCFG: u16 = 0x30a;
const MCOUNTEREN: u16 = 0x306;
const MSTATEEN0: u16 = 0x30c;

const PMPCFG0: u16 = 0x3a0;
const PMPADDR0: u16 = 0x3b0;
/// Entries 0 and 1 are for [`super::protect`], 2 is the hole, 3 opens all the rest.
const PMP_OFF: u64 = 0;
const PMP_TOP_OF_RANGE: u64 = 1 << 3;
const PMP_NATURAL: u64 = 3 << 3;
const PMP_OPEN: u64 = 0b111;

/// What a waiting hart is told.
struct Start {
    state: AtomicU8,
    entry: AtomicUsize,
    opaque: AtomicUsize,
}

const ABSENT: u8 = 0;
const STOPPED: u8 = 1;
const STARTED: u8 = 2;

static STARTS: [Start; MAX_HARTS] = [const {
    Start {
        state: AtomicU8::new(ABSENT),
        entry: AtomicUsize::new(0),
        opaque: AtomicUsize::new(0),
    }
}; MAX_HARTS];

/// Harts that the device tree lists.
static LISTED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// Drops to HS-mode at `entry` with a0 and a1. In `entry`.
    fn __machine_drop(a0: usize, a1: usize, entry: usize) -> !;
    /// Where HS-mode begins on the first hart. In `boot`.
    fn __supervisor_start();
    /// M-mode's trap vector. In `entry`.
    fn __machine_trap();
}

/// M-mode's Rust, on each hart once: the first goes on to the program, the others wait for it to start them.
pub extern "C" fn machine_main(hart: usize, device_tree: *const u8, is_first: bool) -> ! {
    // SAFETY: M-mode, interrupts off, out of reset.
    unsafe { open() };
    if is_first {
        let tree = if device_tree.is_null() {
            None
        } else {
            // SAFETY: the machine's convention is null or its device tree.
            unsafe { Fdt::from_raw(device_tree) }.ok()
        };
        LISTED.store(tree.map_or(0, harts::listed), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { board::choose(tree) };
        STARTS[hart].state.store(STARTED, Ordering::Release);
        STANDALONE.store(true, Ordering::Relaxed);
        // SAFETY: HS-mode finds what it finds under firmware.
        unsafe {
            __machine_drop(
                hart,
                device_tree as usize,
                __supervisor_start as *const () as usize,
            )
        }
    }
    wait(hart)
}

/// Gives HS-mode what firmware gives it.
///
/// # Safety
///
/// In M-mode with interrupts off.
unsafe fn open() {
    // SAFETY: each of these only gives lower modes more; the trap vector is the shim's own. HS has no translation yet.
    unsafe {
        csr::medeleg::write(DELEGATED);
        csr::mideleg::write(INTERRUPTS);
        attempt::write::<MCOUNTEREN>(u64::MAX);
        attempt::write::<MSTATEEN0>(u64::MAX);
        attempt::write::<MENVCFG>(attempt::read::<MENVCFG>() | ENVIRONMENT);
        attempt::write::<{ PMPADDR0 + 2 }>(natural(HOLE.start, HOLE.end - HOLE.start));
        attempt::write::<{ PMPADDR0 + 3 }>(u64::MAX);
        protect(0, 0);
        crate::csr::satp::write(0);
        crate::csr::vsatp::write(0);
        crate::csr::hgatp::write(0);
        csr::mtvec::write(__machine_trap as *const () as u64);
        csr::mie::write(csr::MACHINE_SOFTWARE);
    }
}

/// `pmpaddr` of a naturally aligned range.
const fn natural(start: u64, size: u64) -> u64 {
    (start >> 2) | ((size >> 3) - 1)
}

/// Refuses HS-mode the range, or nothing if it is empty. Answers whether PMP took it as it is.
///
/// # Safety
///
/// In M-mode with interrupts off; HS-mode survives the loss.
pub unsafe fn protect(start: u64, end: u64) -> bool {
    let first = if start < end {
        PMP_TOP_OF_RANGE
    } else {
        PMP_OFF
    };
    let entries = [PMP_OFF, first, PMP_NATURAL, PMP_NATURAL | PMP_OPEN];
    let config = u64::from_le_bytes(core::array::from_fn(|entry| {
        entries.get(entry).map_or(0, |&config| config as u8)
    }));
    // SAFETY: the caller's; PMP binds only what runs below M-mode.
    unsafe {
        attempt::write::<PMPADDR0>(start >> 2);
        attempt::write::<{ PMPADDR0 + 1 }>(end >> 2);
        attempt::write::<PMPCFG0>(config);
        fence();
        attempt::read::<PMPCFG0>() == config
            && attempt::read::<PMPADDR0>() == start >> 2
            && attempt::read::<{ PMPADDR0 + 1 }>() == end >> 2
    }
}

/// Writes `menvcfg` and answers what it was.
///
/// # Safety
///
/// In M-mode with interrupts off; HS-mode survives the new value.
pub unsafe fn environment(menvcfg: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let before = attempt::read::<MENVCFG>();
        attempt::write::<MENVCFG>(menvcfg);
        fence();
        before
    }
}

/// Every translation and every PMP decision that is cached is gone (R42).
fn fence() {
    // SAFETY: fences change no state that a program sees but translations.
    unsafe { core::arch::asm!("sfence.vma") };
    crate::boot::fence_everything();
}

/// Where a hart goes to wait, out of a call or out of reset; M-mode, on the hart's M-mode stack.
pub extern "C" fn wait(hart: usize) -> ! {
    let start = &STARTS[hart];
    crate::boot::clear_translation();
    start.state.store(STOPPED, Ordering::Release);
    while start.state.load(Ordering::Acquire) == STOPPED {
        // SAFETY: the doorbell wakes the hart, whether or not it rang already; interrupts are off, so no trap comes of it.
        unsafe { core::arch::asm!("wfi") };
    }
    board::ring(hart, false);
    let entry = start.entry.load(Ordering::Relaxed);
    // SAFETY: the caller of `start` names code for this hart, which finds what firmware leaves it.
    unsafe { __machine_drop(hart, start.opaque.load(Ordering::Relaxed), entry) }
}

/// The harts that came out of reset, and those that the device tree says will.
pub fn harts() -> usize {
    let is_there = |start: &&Start| start.state.load(Ordering::Acquire) != ABSENT;
    let listed = LISTED.load(Ordering::Relaxed).min(MAX_HARTS);
    STARTS.iter().filter(is_there).count().max(listed)
}

/// Why a hart was not started.
pub enum NotStarted {
    /// There is none of this number.
    Absent,
    /// It runs already.
    Running,
}

/// Starts a waiting hart at `entry`.
pub fn start(hart: usize, entry: usize, opaque: usize) -> Result<(), NotStarted> {
    let start = STARTS.get(hart).ok_or(NotStarted::Absent)?;
    match start.state.load(Ordering::Acquire) {
        ABSENT => return Err(NotStarted::Absent),
        STARTED => return Err(NotStarted::Running),
        _ => {}
    }
    start.entry.store(entry, Ordering::Relaxed);
    start.opaque.store(opaque, Ordering::Relaxed);
    start.state.store(STARTED, Ordering::Release);
    board::ring(hart, true);
    Ok(())
}
