//! Instructions of M-mode that may trap, since not every machine has what they touch.
//!
//! The one idea: while one runs, `mtvec` leads to a handler that goes on with the next instruction (they are all 4 bytes
//! long), so that a refused write does nothing and a refused read leaves its register as it was.

use core::arch::asm;

use super::csr;
use crate::shim::uart::Width;

unsafe extern "C" {
    /// Goes on 4 bytes after the trapping instruction; clobbers t0. In `entry`.
    fn __machine_skip();
}

/// Runs `body` with every trap of its instructions skipped.
///
/// # Safety
///
/// Runs in M-mode with interrupts off; what traps in `body` are instructions of 4 bytes whose effect nobody relies on, and
/// which leave t0 to the handler.
pub unsafe fn skipping_traps<R>(body: impl FnOnce() -> R) -> R {
    let vector = csr::mtvec::read();
    // SAFETY: the handler returns to the next instruction. In M-mode's own handler MDT is set, and a trap would be a double one.
    unsafe {
        csr::mstatus::clear(csr::MDT);
        csr::mtvec::write(__machine_skip as *const () as u64);
    }
    let result = body();
    // SAFETY: as it was.
    unsafe { csr::mtvec::write(vector) };
    result
}

/// Writes the CSR of this number, if there is one.
///
/// # Safety
///
/// As [`skipping_traps`], and the code that runs next survives the new value.
pub unsafe fn write<const CSR: u16>(value: u64) {
    // SAFETY: the caller's; `csrw` is 4 bytes long.
    unsafe {
        skipping_traps(|| asm!("csrw {csr}, {}", in(reg) value, csr = const CSR, out("t0") _))
    };
}

/// Reads the CSR of this number; 0 if there is none.
///
/// # Safety
///
/// As [`skipping_traps`].
pub unsafe fn read<const CSR: u16>() -> u64 {
    let mut value = 0;
    // SAFETY: the caller's; `csrr` is 4 bytes long and changes its register only if it does not trap.
    unsafe {
        skipping_traps(|| asm!("csrr {}, {csr}", inout(reg) value, csr = const CSR, out("t0") _))
    };
    value
}

/// Reads a device's register; `None` if nothing answers there.
///
/// # Safety
///
/// As [`skipping_traps`], and reading there harms nothing.
pub unsafe fn load(address: usize, width: Width) -> Option<u32> {
    let mut value = u64::MAX;
    // SAFETY: the caller's; the loads are 4 bytes long, and change their register only if they do not trap.
    unsafe {
        skipping_traps(|| match width {
            Width::Byte => asm!(
                ".option push", ".option norvc", "lbu {value}, 0({address})", ".option pop",
                value = inout(reg) value, address = in(reg) address, out("t0") _,
            ),
            Width::Word => asm!(
                ".option push", ".option norvc", "lwu {value}, 0({address})", ".option pop",
                value = inout(reg) value, address = in(reg) address, out("t0") _,
            ),
        });
    }
    u32::try_from(value).ok()
}

/// Writes 32 bits to a device, if there is one.
///
/// # Safety
///
/// As [`skipping_traps`], and writing there harms nothing.
pub unsafe fn store(address: usize, value: u32) {
    // SAFETY: the caller's; the store is 4 bytes long.
    unsafe {
        skipping_traps(|| {
            asm!(
                ".option push", ".option norvc", "sw {value}, 0({address})", ".option pop",
                value = in(reg) value, address = in(reg) address, out("t0") _,
            );
        });
    }
}
