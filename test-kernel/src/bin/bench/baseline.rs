//! What is compared against: guest memory a byte at a time.
//!
//! The one idea: nothing more than this sentence. A byte loop of `hlv.b` or `hsv.b`; for a guest-physical address, save
//! `vsatp`, zero it, `hfence.vvma`, copy, restore, `hfence.vvma`.

use core::arch::asm;

use test_kernel::csr;

/// # Safety
///
/// The loaded guest maps `address`, and `buffer` is valid for writes of `len` bytes.
unsafe fn copy_from(address: u64, buffer: *mut u8, len: usize) {
    for at in 0..len {
        let byte: u8;
        // SAFETY: the caller's.
        unsafe {
            asm!(
                ".option push", ".option arch, +h",
                "hlv.b {byte}, ({at})",
                ".option pop",
                byte = out(reg) byte, at = in(reg) address + at as u64,
            );
            buffer.add(at).write(byte);
        }
    }
}

/// # Safety
///
/// The loaded guest maps `address`, and `buffer` is valid for reads of `len` bytes.
unsafe fn copy_to(address: u64, buffer: *const u8, len: usize) {
    for at in 0..len {
        // SAFETY: the caller's.
        unsafe {
            asm!(
                ".option push", ".option arch, +h",
                "hsv.b {byte}, ({at})",
                ".option pop",
                byte = in(reg) buffer.add(at).read(), at = in(reg) address + at as u64,
            );
        }
    }
}

/// Runs `copy` with the guest's first stage off.
fn without_vsatp(copy: impl FnOnce()) {
    let vsatp = csr::vsatp::read();
    // SAFETY: the same value goes back below, and only `copy` runs in between.
    unsafe { csr::vsatp::write(0) };
    hfence_vvma();
    copy();
    // SAFETY: the value that was there.
    unsafe { csr::vsatp::write(vsatp) };
    hfence_vvma();
}

fn hfence_vvma() {
    // SAFETY: a fence only forgets translations.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +h",
            "hfence.vvma",
            ".option pop"
        );
    }
}

/// Reads at a guest-virtual address.
pub fn gva_read(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own guest and buffer.
    unsafe { copy_from(address, buffer, len) };
    0
}

/// Writes at a guest-virtual address.
pub fn gva_write(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own guest and buffer.
    unsafe { copy_to(address, buffer, len) };
    0
}

/// Reads at a guest-physical address.
pub fn gpa_read(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own guest and buffer.
    without_vsatp(|| unsafe { copy_from(address, buffer, len) });
    0
}

/// Writes at a guest-physical address.
pub fn gpa_write(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own guest and buffer.
    without_vsatp(|| unsafe { copy_to(address, buffer, len) });
    0
}
