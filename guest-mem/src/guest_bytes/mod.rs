//! Guest bytes in the host's memory: the single loads, stores and exchanges of which every access
//! there is made (R77).
//!
//! The one idea: Rust's memory model does not see them. In that model two accesses of different
//! sizes race, an atomic needs memory that may be written, and a guest keeps to neither. So each
//! access is an instruction in `asm!`, as `hlv` is. The compiler knows that it reads memory, or
//! writes it, and nothing of the bytes. So it keeps the access where it is among fences and
//! atomics, and keeps the caller's values in registers.
//!
//! | file | where |
//! |---|---|
//! | `riscv64` | the machines that this library is for |
//! | `x86_64` | where hosts' tests run |
//! | `under_lock` | Miri and fuzz targets, which see no assembly, and every other host |
//!
//! Each has the same functions. All accesses are relaxed, or what their ordering says, and
//! single-copy atomic: a naturally aligned access of any width is never seen in part by a guest or
//! by another access of this library.

#[cfg_attr(
    all(target_arch = "riscv64", not(miri), not(fuzzing)),
    path = "riscv64.rs"
)]
#[cfg_attr(
    all(target_arch = "x86_64", not(miri), not(fuzzing)),
    path = "x86_64.rs"
)]
#[cfg_attr(
    any(
        miri,
        fuzzing,
        not(any(target_arch = "riscv64", target_arch = "x86_64"))
    ),
    path = "under_lock.rs"
)]
mod single;

pub(crate) use single::{compare_exchange, load_at, opaque, store_at};

use crate::access::Width;

/// One load, relaxed, zero-extended.
///
/// # Safety
///
/// As [`load_at`], without an offset.
#[inline(always)]
pub(crate) unsafe fn load(at: *const u8, width: Width) -> u64 {
    // SAFETY: the bytes at `at` are aligned memory that may be read: caller.
    unsafe { load_at::<0>(at, width) }
}

/// One store of the low bits of `value`, relaxed.
///
/// # Safety
///
/// As [`store_at`], without an offset.
#[inline(always)]
pub(crate) unsafe fn store(at: *mut u8, width: Width, value: u64) {
    // SAFETY: the bytes at `at` are aligned guest memory that may be written: caller.
    unsafe { store_at::<0>(at, width, value) };
}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;
    use core::sync::atomic::Ordering;

    use super::*;

    const ORDERS: [Ordering; 5] = [
        Ordering::Relaxed,
        Ordering::Acquire,
        Ordering::Release,
        Ordering::AcqRel,
        Ordering::SeqCst,
    ];

    #[repr(align(8))]
    struct Bytes(UnsafeCell<[u8; 24]>);

    impl Bytes {
        fn counting() -> Self {
            Self(UnsafeCell::new(core::array::from_fn(|at| 0x81 + at as u8)))
        }

        fn at(&self, offset: usize) -> *mut u8 {
            assert!(offset < 24);
            self.0.get().cast::<u8>().wrapping_add(offset)
        }

        /// The bytes of `width` at `offset`, as a guest's integer.
        fn value(&self, offset: usize, width: Width) -> u64 {
            let mut bytes = [0; 8];
            // SAFETY: one thread has the bytes, and nobody else reads or writes them.
            let all = unsafe { *self.0.get() };
            bytes[..width.bytes()].copy_from_slice(&all[offset..][..width.bytes()]);
            u64::from_le_bytes(bytes)
        }
    }

    #[test]
    fn r77_a_load_extends_with_zeroes_and_a_store_keeps_to_its_bytes() {
        for width in Width::ALL {
            for offset in (0..16).step_by(width.bytes()) {
                let bytes = Bytes::counting();
                // SAFETY: aligned and within the bytes, which one thread has.
                unsafe {
                    assert_eq!(load(bytes.at(offset), width), bytes.value(offset, width));
                    assert_eq!(
                        load_at::<8>(bytes.at(offset), width),
                        bytes.value(offset + 8, width)
                    );
                    store(bytes.at(offset), width, 0x0123_4567_89ab_cdef);
                }
                let untouched = Bytes::counting();
                for at in 0..24usize {
                    let expected = match at.wrapping_sub(offset) {
                        inside if inside < width.bytes() => {
                            u64::from(0x0123_4567_89ab_cdef_u64.to_le_bytes()[inside])
                        }
                        _ => untouched.value(at, Width::Byte),
                    };
                    assert_eq!(bytes.value(at, Width::Byte), expected);
                }
                // SAFETY: aligned and within the bytes, which one thread has.
                unsafe { store_at::<8>(bytes.at(offset), width, !0) };
                assert_eq!(bytes.value(offset + 8, width), width.mask());
            }
        }
    }

    #[test]
    fn r77_an_exchange_of_any_width_and_order_keeps_to_its_bytes() {
        for (width, order) in Width::ALL
            .into_iter()
            .flat_map(|width| ORDERS.map(|it| (width, it)))
        {
            for offset in (0..16).step_by(width.bytes()) {
                let bytes = Bytes::counting();
                let found = bytes.value(offset, width);
                let new = 0xfedc_ba98_7654_3210 & width.mask();
                // SAFETY: aligned and within the bytes, which one thread has; the values have no
                // bits above the width.
                unsafe {
                    let other = found ^ 1;
                    let answer = compare_exchange(bytes.at(offset), width, other, new, order);
                    assert_eq!(answer, found);
                    assert_eq!(bytes.value(offset, width), found);
                    let answer = compare_exchange(bytes.at(offset), width, found, new, order);
                    assert_eq!(answer, found);
                }
                let untouched = Bytes::counting();
                for at in 0..24usize {
                    let expected = match at.wrapping_sub(offset) {
                        inside if inside < width.bytes() => new >> (8 * inside) & 0xff,
                        _ => untouched.value(at, Width::Byte),
                    };
                    assert_eq!(bytes.value(at, Width::Byte), expected);
                }
            }
        }
    }
}
