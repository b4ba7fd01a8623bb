//! On riscv64: one load or store instruction, or one LR/SC loop.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::access::Width;

/// One load of the bytes `OFFSET` after `at`, relaxed, zero-extended.
///
/// # Safety
///
/// The bytes there are memory that this hart may read, at any time and whoever writes it; they are
/// aligned to `width`. `OFFSET` is less than 2048.
#[inline(always)]
pub(crate) unsafe fn load_at<const OFFSET: usize>(at: *const u8, width: Width) -> u64 {
    macro_rules! load {
        ($instruction:literal) => {{
            let value: u64;
            // SAFETY: one load of aligned memory that may be read: caller.
            unsafe {
                asm!(
                    concat!($instruction, " {value}, {offset}({at})"),
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
        Width::Byte => load!("lbu"),
        Width::Half => load!("lhu"),
        Width::Word => load!("lwu"),
        Width::Double => load!("ld"),
    }
}

/// One store of the low bits of `value` to the bytes `OFFSET` after `at`, relaxed.
///
/// # Safety
///
/// The bytes there are guest memory that this hart may write, at any time and whoever else accesses
/// it; they are aligned to `width`. `OFFSET` is less than 2048.
#[inline(always)]
pub(crate) unsafe fn store_at<const OFFSET: usize>(at: *mut u8, width: Width, value: u64) {
    macro_rules! store {
        ($instruction:literal) => {
            // SAFETY: one store to aligned guest memory that may be written: caller. No Rust
            // value is made of it.
            unsafe {
                asm!(
                    concat!($instruction, " {value}, {offset}({at})"),
                    value = in(reg) value,
                    at = in(reg) at,
                    offset = const OFFSET,
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    match width {
        Width::Byte => store!("sb"),
        Width::Half => store!("sh"),
        Width::Word => store!("sw"),
        Width::Double => store!("sd"),
    }
}

/// One compare-and-exchange; returns the value found, zero-extended. One of 1 or 2 bytes is LR/SC
/// of the word around.
///
/// # Safety
///
/// The bytes there are guest memory that this hart may read and write, at any time and whoever else
/// accesses it; they are aligned to `width`, and so is the 4-byte word around them. `current` and
/// `new` have no bits above `width`.
#[inline]
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    width: Width,
    current: u64,
    new: u64,
    order: Ordering,
) -> u64 {
    // LR gives a word sign-extended, and compares as it is given.
    let extended = |word: u64| word as i32 as i64 as u64;
    match width {
        // SAFETY: the bytes at `at` are aligned guest memory that may be read and written: caller.
        Width::Double => unsafe { whole::<true>(at, current, new, order) },
        // SAFETY: the bytes at `at` are aligned guest memory that may be read and written: caller.
        Width::Word => unsafe {
            let found = whole::<false>(at, extended(current), new, order);
            found & width.mask()
        },
        Width::Byte | Width::Half => {
            let shift = at.addr() % 4 * 8;
            let word = at.map_addr(|address| address & !3);
            // SAFETY: the word around the bytes is guest memory that may be read and written:
            // caller.
            let found = unsafe {
                let change = (current ^ new) << shift;
                masked(word, current << shift, width.mask() << shift, change, order)
            };
            found >> shift & width.mask()
        }
    }
}

/// Runs the loop with the bits of LR and SC that the ordering asks for, as compilers map them.
macro_rules! with_order {
    ($order:expr, $run:ident) => {
        match $order {
            Ordering::Relaxed => $run!("", ""),
            Ordering::Acquire => $run!(".aq", ""),
            Ordering::Release => $run!("", ".rl"),
            Ordering::AcqRel => $run!(".aq", ".rl"),
            _ => $run!(".aqrl", ".rl"),
        }
    };
}

/// Exchanges a word or, if `DOUBLE`, a double word; returns it as LR gives it.
///
/// # Safety
///
/// As [`compare_exchange`]. `current` is extended as LR extends.
#[inline(always)]
unsafe fn whole<const DOUBLE: bool>(at: *mut u8, current: u64, new: u64, order: Ordering) -> u64 {
    let found: u64;
    macro_rules! of {
        ($width:literal, $acquire:literal, $release:literal) => {
            // SAFETY: a constrained LR/SC loop over aligned guest memory that may be read and
            // written: caller.
            unsafe {
                asm!(
                    concat!("2: lr.", $width, $acquire, " {found}, ({at})"),
                    "bne {found}, {current}, 3f",
                    concat!("sc.", $width, $release, " {failed}, {new}, ({at})"),
                    "bnez {failed}, 2b",
                    "3:",
                    at = in(reg) at,
                    current = in(reg) current,
                    new = in(reg) new,
                    found = out(reg) found,
                    failed = out(reg) _,
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    macro_rules! double {
        ($acquire:literal, $release:literal) => {
            of!("d", $acquire, $release)
        };
    }
    macro_rules! word {
        ($acquire:literal, $release:literal) => {
            of!("w", $acquire, $release)
        };
    }
    if DOUBLE {
        with_order!(order, double);
    } else {
        with_order!(order, word);
    }
    found
}

/// Exchanges the bits of `mask` in the word; returns the word. `change` has the bits in which the
/// new value differs.
///
/// # Safety
///
/// As [`compare_exchange`], of the word around. `current` and `change` have no bits outside of
/// `mask`.
#[inline(always)]
unsafe fn masked(word: *mut u8, current: u64, mask: u64, change: u64, order: Ordering) -> u64 {
    let found: u64;
    macro_rules! masked {
        ($acquire:literal, $release:literal) => {
            // SAFETY: a constrained LR/SC loop over aligned guest memory that may be read and
            // written: caller.
            unsafe {
                asm!(
                    concat!("2: lr.w", $acquire, " {found}, ({word})"),
                    "and {changed}, {found}, {mask}",
                    "bne {changed}, {current}, 3f",
                    "xor {changed}, {found}, {change}",
                    concat!("sc.w", $release, " {changed}, {changed}, ({word})"),
                    "bnez {changed}, 2b",
                    "3:",
                    word = in(reg) word,
                    mask = in(reg) mask,
                    current = in(reg) current,
                    change = in(reg) change,
                    found = out(reg) found,
                    changed = out(reg) _,
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    with_order!(order, masked);
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
