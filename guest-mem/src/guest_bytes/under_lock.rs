//! Guest bytes on hosts for which the instructions are not written down, and under tools that must
//! see each access: plain bytes under one lock.
//!
//! The lock lets no two accesses of the library happen at once. So none races, whatever their sizes
//! are, and none is torn. It also orders accesses more than the real ones are, so loom has a model
//! of its own (`direct_model`). Code outside the library that touches the bytes must be ordered
//! with the library's accesses; Miri checks that. A load makes no reference, so the memory may
//! be read-only.

use core::sync::atomic::{AtomicBool, Ordering};
use core::{hint, ptr};

use crate::access::Width;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Runs `access` while nobody else runs one.
fn alone<R>(access: impl FnOnce() -> R) -> R {
    // The strong form, because Miri lets most of the weak ones fail.
    while TAKEN
        .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        hint::spin_loop();
    }
    let result = access();
    TAKEN.store(false, Ordering::Release);
    result
}

/// # Safety
///
/// As [`load_at`], under the lock.
unsafe fn get(at: *const u8, width: Width) -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the bytes at `at` are readable, and nobody writes them meanwhile: caller. `bytes` has
    // room for the widest access.
    unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), width.bytes()) };
    u64::from_le_bytes(bytes)
}

/// # Safety
///
/// As [`store_at`], under the lock.
unsafe fn put(at: *mut u8, width: Width, value: u64) {
    let bytes = value.to_le_bytes();
    // SAFETY: the bytes at `at` are writable, and nobody accesses them meanwhile: caller. `bytes`
    // has as many.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, width.bytes()) };
}

/// One load of the bytes `OFFSET` after `at`, relaxed, zero-extended.
///
/// # Safety
///
/// The bytes there are memory that may be read, and what is not this library writes it only in
/// order with the access.
pub(crate) unsafe fn load_at<const OFFSET: usize>(at: *const u8, width: Width) -> u64 {
    // SAFETY: the bytes are readable, and only accesses in order with this one touch them: caller.
    alone(|| unsafe { get(at.wrapping_add(OFFSET), width) })
}

/// One store of the low bits of `value` to the bytes `OFFSET` after `at`, relaxed.
///
/// # Safety
///
/// The bytes there are memory that may be written, and what is not this library accesses it only in
/// order with the access.
pub(crate) unsafe fn store_at<const OFFSET: usize>(at: *mut u8, width: Width, value: u64) {
    // SAFETY: the bytes are writable, and only accesses in order with this one touch them: caller.
    alone(|| unsafe { put(at.wrapping_add(OFFSET), width, value) });
}

/// One compare-and-exchange; returns the value found, zero-extended.
///
/// # Safety
///
/// As [`store_at`] without an offset. `current` and `new` have no bits above `width`.
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    width: Width,
    current: u64,
    new: u64,
    _: Ordering,
) -> u64 {
    // SAFETY: the bytes are readable and writable, and only accesses in order with this one touch
    // them: caller.
    alone(|| unsafe {
        let found = get(at, width);
        if found == current {
            put(at, width, new);
        }
        found
    })
}

/// The same pointer.
pub(crate) fn opaque(value: *mut u8) -> *mut u8 {
    value
}
