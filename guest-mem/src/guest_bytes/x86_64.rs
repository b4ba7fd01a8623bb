//! On x86-64, where hosts' tests run: one `mov`, or one `lock cmpxchg`, which is a full fence
//! whatever the ordering.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::access::Width;

/// One load of the bytes `OFFSET` after `at`, relaxed, zero-extended.
///
/// # Safety
///
/// The bytes there are memory that this thread may read, at any time and whoever writes it; they
/// are aligned to `width`. `OFFSET` is less than 2048.
#[inline(always)]
pub(crate) unsafe fn load_at<const OFFSET: usize>(at: *const u8, width: Width) -> u64 {
    macro_rules! load {
        ($instruction:literal) => {{
            let value: u64;
            // SAFETY: one load of aligned memory that may be read: caller.
            unsafe {
                asm!(
                    concat!($instruction, " ptr [{at} + {offset}]"),
                    value = lateout(reg) value,
                    at = in(reg) at,
                    offset = const OFFSET,
                    options(nostack, preserves_flags, readonly),
                );
            }
            value
        }};
    }
    match width {
        Width::Byte => load!("movzx {value:e}, byte"),
        Width::Half => load!("movzx {value:e}, word"),
        Width::Word => load!("mov {value:e}, dword"),
        Width::Double => load!("mov {value:r}, qword"),
    }
}

/// One store of the low bits of `value` to the bytes `OFFSET` after `at`, relaxed.
///
/// # Safety
///
/// The bytes there are guest memory that this thread may write, at any time and whoever else
/// accesses it; they are aligned to `width`. `OFFSET` is less than 2048.
#[inline(always)]
pub(crate) unsafe fn store_at<const OFFSET: usize>(at: *mut u8, width: Width, value: u64) {
    macro_rules! store {
        ($class:ident, $value:expr, $width:literal, $register:literal) => {
            // SAFETY: one store to aligned guest memory that may be written: caller. No Rust
            // value is made of it.
            unsafe {
                asm!(
                    concat!("mov ", $width, " ptr [{at} + {offset}], ", $register),
                    value = in($class) $value,
                    at = in(reg) at,
                    offset = const OFFSET,
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    match width {
        Width::Byte => store!(reg_byte, value as u8, "byte", "{value}"),
        Width::Half => store!(reg, value, "word", "{value:x}"),
        Width::Word => store!(reg, value, "dword", "{value:e}"),
        Width::Double => store!(reg, value, "qword", "{value:r}"),
    }
}

/// One compare-and-exchange; returns the value found, zero-extended.
///
/// # Safety
///
/// The bytes there are guest memory that this thread may read and write, at any time and whoever
/// else accesses it; they are aligned to `width`. `current` and `new` have no bits above `width`.
#[inline]
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    width: Width,
    current: u64,
    new: u64,
    _: Ordering,
) -> u64 {
    let found: u64;
    macro_rules! exchange {
        ($class:ident, $value:expr, $width:literal, $register:literal) => {
            // SAFETY: one exchange in aligned guest memory that may be read and written: caller.
            // The bits of rax that it does not write are zeroes of `current`.
            unsafe {
                asm!(
                    concat!("lock cmpxchg ", $width, " ptr [{at}], ", $register),
                    value = in($class) $value,
                    at = in(reg) at,
                    inout("rax") current => found,
                    options(nostack),
                );
            }
        };
    }
    match width {
        Width::Byte => exchange!(reg_byte, new as u8, "byte", "{value}"),
        Width::Half => exchange!(reg, new, "word", "{value:x}"),
        Width::Word => exchange!(reg, new, "dword", "{value:e}"),
        Width::Double => exchange!(reg, new, "qword", "{value:r}"),
    }
    found
}

/// The same pointer, from nowhere as far as the compiler knows.
#[inline(always)]
pub(crate) fn opaque(mut value: *mut u8) -> *mut u8 {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {value} */", value = inlateout(reg) value, options(pure, readonly, nostack, preserves_flags));
    }
    value
}
