//! Single accesses through the host's own mapping: guest memory's, atomic and with an ordering, and
//! a device's, volatile.
//!
//! The one idea: one instruction of exactly the width asked for, whatever the ordering adds around
//! it.

use core::sync::atomic::{Ordering, fence};

use crate::access::Width;
use crate::guest_bytes;

/// One atomic load, zero-extended.
///
/// # Safety
///
/// The bytes at `at` are guest memory that may be read, aligned to `width`.
#[inline]
pub(crate) unsafe fn load(at: *const u8, width: Width, order: Ordering) -> u64 {
    // The fences are those that an atomic of `core` has on riscv64, for each ordering.
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
    // SAFETY: aligned guest memory that may be read: caller.
    let value = unsafe { guest_bytes::load(at, width) };
    if order != Ordering::Relaxed {
        fence(Ordering::Acquire);
    }
    value
}

/// One atomic store of the low bits of `value`.
///
/// # Safety
///
/// The bytes at `at` are guest memory that may be written, aligned to `width`.
#[inline]
pub(crate) unsafe fn store(at: *mut u8, width: Width, value: u64, order: Ordering) {
    if order != Ordering::Relaxed {
        fence(Ordering::Release);
    }
    // SAFETY: aligned guest memory that may be written: caller.
    unsafe { guest_bytes::store(at, width, value) };
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
}

/// One compare-and-exchange; returns the value found. On riscv64 the 1- and 2-byte ones are LR/SC
/// of the word around.
///
/// # Safety
///
/// The bytes at `at` are guest memory that may be read and written, as is the 4-byte word that
/// holds them, aligned to `width`.
#[inline]
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    width: Width,
    current: u64,
    new: u64,
    order: Ordering,
) -> u64 {
    if current & !width.mask() != 0 {
        // No value of this width equals it: the compare fails.
        let failure = match order {
            Ordering::Release => Ordering::Relaxed,
            Ordering::AcqRel => Ordering::Acquire,
            other => other,
        };
        // SAFETY: aligned guest memory that may be read: caller.
        return unsafe { load(at, width, failure) };
    }
    // SAFETY: aligned guest memory that may be read and written: caller. Both values are of the
    // width.
    unsafe { guest_bytes::compare_exchange(at, width, current, new & width.mask(), order) }
}

/// One volatile load of exactly `width` from a device. Any order but relaxed is a full fence, I/O
/// included.
///
/// # Safety
///
/// `at` is aligned to `width`, and reading there is sound.
pub(crate) unsafe fn load_device(at: *mut u8, width: Width, order: Ordering) -> u64 {
    device_fence(order);
    // SAFETY: `at` is aligned, and reading the device there is sound: caller.
    let value = unsafe {
        match width {
            Width::Byte => at.read_volatile().into(),
            Width::Half => at.cast::<u16>().read_volatile().into(),
            Width::Word => at.cast::<u32>().read_volatile().into(),
            Width::Double => at.cast::<u64>().read_volatile(),
        }
    };
    device_fence(order);
    value
}

/// One volatile store of exactly `width` to a device. Any order but relaxed is a full fence, I/O
/// included.
///
/// # Safety
///
/// `at` is aligned to `width`, and writing there is sound.
pub(crate) unsafe fn store_device(at: *mut u8, width: Width, value: u64, order: Ordering) {
    device_fence(order);
    // SAFETY: `at` is aligned, and writing the device there is sound: caller.
    unsafe {
        match width {
            Width::Byte => at.write_volatile(value as u8),
            Width::Half => at.cast::<u16>().write_volatile(value as u16),
            Width::Word => at.cast::<u32>().write_volatile(value as u32),
            Width::Double => at.cast::<u64>().write_volatile(value),
        }
    }
    device_fence(order);
}

/// Orders device accesses with all others, which the fences of `core` do not.
fn device_fence(order: Ordering) {
    if order == Ordering::Relaxed {
        return;
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: a fence has no operands and no effect but order.
    unsafe {
        core::arch::asm!("fence iorw, iorw", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "riscv64"))]
    core::sync::atomic::fence(Ordering::SeqCst);
}
