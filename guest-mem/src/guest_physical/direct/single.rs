//! Single accesses through the host's own mapping: guest memory's, atomic and with an ordering, and a device's, volatile.
//!
//! The one idea: one instruction of exactly the width asked for, whatever the ordering adds around it.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::access::Width;
use crate::guest_memory::GuestInteger;

/// Runs `$body` with `$atomic` bound to the atomic of `$width` bits at `$at`, and `$integer`, if it wants that, as its integer.
macro_rules! at_width {
    ($width:expr, $at:expr, |$atomic:ident $(, $integer:ident)?| $body:expr) => {
        match $width {
            Width::Byte => at_width!(@ AtomicU8, u8, $at, $atomic, [$($integer)?], $body),
            Width::Half => at_width!(@ AtomicU16, u16, $at, $atomic, [$($integer)?], $body),
            Width::Word => at_width!(@ AtomicU32, u32, $at, $atomic, [$($integer)?], $body),
            Width::Double => at_width!(@ AtomicU64, u64, $at, $atomic, [$($integer)?], $body),
        }
    };
    (@ $kind:ident, $type:ident, $at:expr, $atomic:ident, [$($integer:ident)?], $body:expr) => {{
        $(type $integer = $type;)?
        // SAFETY: the contract of the function: `$at` is aligned to the width and valid for the access.
        let $atomic = unsafe { $kind::from_ptr($at.cast()) };
        $body
    }};
}

/// One atomic load, zero-extended.
///
/// # Safety
///
/// `at` is aligned to `width` and valid for the atomic read.
#[inline]
pub(crate) unsafe fn load(at: *mut u8, width: Width, order: Ordering) -> u64 {
    at_width!(width, at, |atomic| atomic.load(order).to_register())
}

/// One atomic store of the low bits of `value`.
///
/// # Safety
///
/// `at` is aligned to `width` and valid for the atomic write.
#[inline]
pub(crate) unsafe fn store(at: *mut u8, width: Width, value: u64, order: Ordering) {
    at_width!(width, at, |atomic, Integer| atomic
        .store(value as Integer, order));
}

/// One compare-and-exchange; answers the value found. On riscv64 the 1- and 2-byte ones are LR/SC of the word around.
///
/// # Safety
///
/// `at` is aligned to `width` and valid for atomic reads and writes of the 4-byte word that holds it.
#[inline]
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    width: Width,
    current: u64,
    new: u64,
    order: Ordering,
) -> u64 {
    let failure = match order {
        Ordering::Release => Ordering::Relaxed,
        Ordering::AcqRel => Ordering::Acquire,
        other => other,
    };
    if current & !width.mask() != 0 {
        // No value of this width equals it: the compare fails.
        // SAFETY: by the contract.
        return unsafe { load(at, width, failure) };
    }
    at_width!(width, at, |atomic, Integer| atomic
        .compare_exchange(current as Integer, new as Integer, order, failure)
        .unwrap_or_else(|found| found)
        .to_register())
}

/// One volatile load of exactly `width` from a device. Any order but relaxed is a full fence, I/O included.
///
/// # Safety
///
/// `at` is aligned to `width`, and reading there is sound.
pub(crate) unsafe fn load_device(at: *mut u8, width: Width, order: Ordering) -> u64 {
    device_fence(order);
    // SAFETY: by the contract.
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

/// One volatile store of exactly `width` to a device. Any order but relaxed is a full fence, I/O included.
///
/// # Safety
///
/// `at` is aligned to `width`, and writing there is sound.
pub(crate) unsafe fn store_device(at: *mut u8, width: Width, value: u64, order: Ordering) {
    device_fence(order);
    // SAFETY: by the contract.
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
