//! A copy, a fill or a single access as calls of the access unit's routines.
//!
//! The one idea: a range is a head of bytes up to alignment, a body by the widest routine that fits both addresses, and a tail
//! of bytes; what was done before the part that faulted is counted on.

use core::mem::MaybeUninit;

use super::forms::Recovery;
use super::routines::{Argument, Routine, ToOneSide};
use super::{Interrupted, Riscv64};
use crate::fault::TrapInfo;

/// Bytes from which on merging pays: with fewer, the head alone may take them all.
const MERGE_FROM: usize = 48;

impl<R: Recovery> Riscv64<R> {
    /// # Safety
    ///
    /// As the routine's own.
    #[inline(always)]
    pub(super) unsafe fn copy(
        &self,
        routine: Routine,
        host: usize,
        guest: u64,
        len: usize,
        total: &mut usize,
    ) -> Result<(), Interrupted> {
        let mut trap = MaybeUninit::uninit();
        let (host, length) = (Argument::new(host), Argument::new(len));
        // SAFETY: the caller's promise; `trap` is valid for writes.
        let left =
            unsafe { R::run(routine, host, guest, length, trap.as_mut_ptr()) }.value as usize;
        *total += len - left;
        if left == 0 {
            return Ok(());
        }
        // SAFETY: a routine that leaves bytes has stored the trap.
        let trap = unsafe { trap.assume_init() };
        Err(Interrupted {
            completed: *total,
            trap,
        })
    }

    /// # Safety
    ///
    /// As the routine's own.
    #[inline(always)]
    pub(super) unsafe fn single(
        &self,
        routine: Routine,
        value: Argument,
        guest: u64,
    ) -> Result<u64, TrapInfo> {
        let mut trap = MaybeUninit::uninit();
        // SAFETY: the caller's promise; `trap` is valid for writes.
        let result =
            unsafe { R::run(routine, value, guest, Argument::uninit(), trap.as_mut_ptr()) };
        if result.faulted == 0 {
            return Ok(result.value);
        }
        // SAFETY: a routine that reports a fault has stored the trap.
        Err(unsafe { trap.assume_init() })
    }

    /// Copies by the widest element that fits both addresses, or where that is not a double, by merging doubles.
    ///
    /// # Safety
    ///
    /// As the routines' own, for the whole range.
    #[inline(always)]
    pub(super) unsafe fn copy_parts(
        &self,
        routines: &ToOneSide,
        host: usize,
        guest: u64,
        len: usize,
    ) -> Result<(), Interrupted> {
        if (host as u64 | guest | len as u64) & 7 == 0 {
            // SAFETY: the caller's promise; everything is a multiple of a double.
            return unsafe { self.copy(routines.elements[3], host, guest, len, &mut 0) };
        }
        if matches!(len, 1 | 2 | 4) && (host as u64 | guest) & (len as u64 - 1) == 0 {
            // SAFETY: the caller's promise; both addresses are multiples of the one element, of 1 << (len >> 1) bytes.
            return unsafe { self.copy(routines.elements[len >> 1], host, guest, len, &mut 0) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.copy_unaligned(routines, host, guest, len) }
    }

    /// [`copy_parts`](Self::copy_parts) where not everything is a multiple of a double.
    ///
    /// # Safety
    ///
    /// As the routines' own, for the whole range.
    #[inline(never)]
    pub(super) unsafe fn copy_unaligned(
        &self,
        routines: &ToOneSide,
        host: usize,
        guest: u64,
        len: usize,
    ) -> Result<(), Interrupted> {
        // The widest element to which both addresses can be brought together: log2 of 1 to 8.
        let shift = ((host as u64 ^ guest) | 8).trailing_zeros() as usize;
        // SAFETY: the caller's promise.
        unsafe {
            if shift != 3 && len >= MERGE_FROM {
                self.copy_merging(routines, host, guest, len)
            } else {
                self.copy_elements(&routines.elements, shift, host, guest, len)
            }
        }
    }

    /// Runs `head`, wide `body` and `tail` of a copy over `host` and `guest`, which elements of 1 << `shift` bytes fit.
    ///
    /// # Safety
    ///
    /// As the routines' own, for the whole range.
    #[inline(always)]
    pub(super) unsafe fn copy_elements(
        &self,
        routines: &[Routine; 4],
        shift: usize,
        host: usize,
        guest: u64,
        len: usize,
    ) -> Result<(), Interrupted> {
        let width = 1 << shift;
        let (narrow, wide) = (routines[0], routines[shift]);
        let head = (guest.wrapping_neg() as usize & (width - 1)).min(len);
        let body = (len - head) & !(width - 1);
        let tail = len - head - body;
        let mut done = 0;
        // SAFETY: the three parts lie in the range one after another, and the body is aligned to its width on both sides.
        unsafe {
            for (routine, part) in [(narrow, head), (wide, body), (narrow, tail)] {
                if part != 0 {
                    let at = guest.wrapping_add(done as u64);
                    self.copy(routine, host + done, at, part, &mut done)?;
                }
            }
        }
        Ok(())
    }

    /// Copies at least [`MERGE_FROM`] bytes between addresses that no double fits together.
    ///
    /// # Safety
    ///
    /// As the routines' own, for the whole range.
    pub(super) unsafe fn copy_merging(
        &self,
        routines: &ToOneSide,
        host: usize,
        guest: u64,
        len: usize,
    ) -> Result<(), Interrupted> {
        let narrow = routines.elements[0];
        let (written, read) = if routines.to_guest {
            (guest, host as u64)
        } else {
            (host as u64, guest)
        };
        // The side that is written is brought to a double. The other is then `lag` bytes into one, which must not begin
        // before the range, and the last double that is read must not end after it.
        let mut head = (written.wrapping_neg() & 7) as usize;
        let lag = (read.wrapping_add(head as u64) & 7) as usize;
        if head < lag {
            head += 8;
        }
        let body = (len - head - (8 - lag)) & !7;
        let mut done = 0;
        let mut trap = MaybeUninit::uninit();
        // SAFETY: the three parts lie in the range one after another; head and tail hold what the merging reads beyond the
        // body, which begins at a double where it is written.
        unsafe {
            if head != 0 {
                self.copy(narrow, host, guest, head, &mut done)?;
            }
            let at = guest.wrapping_add(done as u64);
            let (from, length) = (Argument::new(host + done), Argument::new(body));
            let left = R::run(routines.merge, from, at, length, trap.as_mut_ptr()).value;
            done += body - left as usize;
            // The tail, or after a fault all that is left: by bytes, so that the fault is the exact one.
            let at = guest.wrapping_add(done as u64);
            if done != len {
                self.copy(narrow, host + done, at, len - done, &mut done)?;
            }
        }
        Ok(())
    }
}
