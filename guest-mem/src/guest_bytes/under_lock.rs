//! Where nobody has written the instructions down, or where a tool has to see the access: plain bytes under one lock.
//!
//! The one idea: no two accesses of the library happen at once, so none races, whatever their sizes are, and none is torn. The lock
//! orders accesses to guest memory more than the real ones are, which is why loom has a model of its own (`direct_model`). Who else
//! touches the bytes has to be ordered with the library's accesses, which Miri checks. Loads make no reference, so the memory may be
//! one that nobody may write.

use core::hint;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::access::Width;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Runs `access` while nobody else runs one.
fn alone<R>(access: impl FnOnce() -> R) -> R {
    while TAKEN
        .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
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
    let mut bytes = [0; 8];
    for (offset, byte) in bytes[..width.bytes()].iter_mut().enumerate() {
        // SAFETY: readable, and nobody writes it meanwhile: the function's contract.
        *byte = unsafe { at.wrapping_add(offset).read_volatile() };
    }
    u64::from_le_bytes(bytes)
}

/// # Safety
///
/// As [`store_at`], under the lock.
unsafe fn put(at: *mut u8, width: Width, value: u64) {
    for (offset, byte) in value.to_le_bytes()[..width.bytes()].iter().enumerate() {
        // SAFETY: writable, and nobody accesses it meanwhile: the function's contract.
        unsafe { at.wrapping_add(offset).write_volatile(*byte) };
    }
}

/// One load of the bytes `OFFSET` after `at`, relaxed, zero-extended.
///
/// # Safety
///
/// The bytes there are memory that may be read, and what is not this library writes it only in order with the access.
pub(crate) unsafe fn load_at<const OFFSET: usize>(at: *const u8, width: Width) -> u64 {
    // SAFETY: the function's contract.
    alone(|| unsafe { get(at.wrapping_add(OFFSET), width) })
}

/// One store of the low bits of `value` to the bytes `OFFSET` after `at`, relaxed.
///
/// # Safety
///
/// The bytes there are memory that may be written, and what is not this library accesses it only in order with the access.
pub(crate) unsafe fn store_at<const OFFSET: usize>(at: *mut u8, width: Width, value: u64) {
    // SAFETY: the function's contract.
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
    // SAFETY: the function's contract.
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
