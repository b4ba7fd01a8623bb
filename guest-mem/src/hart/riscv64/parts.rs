//! A copy or a fill as calls of the access unit's routines.
//!
//! The one idea: a range is a head of bytes up to alignment, a body by the widest routine that fits both addresses, and a tail
//! of bytes; what was done before the part that faulted is counted on.

use super::Interrupted;
use super::routines::{Copies, Ended, Routine, Three, ToOneSide};

/// Bytes from which on merging pays: with fewer, the head alone may take them all.
const MERGE_FROM: usize = 48;

/// Runs one routine for what follows `done` bytes of the range.
///
/// # Safety
///
/// As the routine's own.
#[inline(always)]
unsafe fn part<C: Copies>(
    routines: C,
    routine: Routine,
    host: usize,
    guest: u64,
    len: usize,
    done: usize,
) -> Result<(), Interrupted> {
    // SAFETY: the caller's promise.
    let ended = unsafe { routines.run(routine, host, guest, len) };
    result(done + len - ended.left, ended)
}

/// What came of a range of which so many bytes were copied.
#[inline(always)]
fn result(completed: usize, ended: Ended) -> Result<(), Interrupted> {
    if ended.left == 0 {
        return Ok(());
    }
    Err(Interrupted {
        completed,
        trap: ended.trap,
    })
}

/// Copies by the widest element that fits both addresses, or where that is not a double, by merging doubles.
///
/// # Safety
///
/// As the routines' own, for the whole range.
#[inline(always)]
pub(super) unsafe fn copy<C: Copies>(
    routines: C,
    to: &'static ToOneSide,
    host: usize,
    guest: u64,
    len: usize,
) -> Result<(), Interrupted> {
    if (host as u64 | guest | len as u64) & 7 == 0 {
        // SAFETY: the caller's promise; everything is a multiple of a double.
        return unsafe { part(routines, to.elements[3], host, guest, len, 0) };
    }
    if matches!(len, 1 | 2 | 4) && (host as u64 | guest) & (len as u64 - 1) == 0 {
        // SAFETY: the caller's promise; both addresses are multiples of the one element, of 1 << (len >> 1) bytes.
        return unsafe { part(routines, to.elements[len >> 1], host, guest, len, 0) };
    }
    // SAFETY: the caller's promise.
    unsafe { copy_unaligned(routines, to, host, guest, len) }
}

/// [`copy`] where not everything is a multiple of a double.
///
/// # Safety
///
/// As the routines' own, for the whole range.
#[inline(never)]
unsafe fn copy_unaligned<C: Copies>(
    routines: C,
    to: &'static ToOneSide,
    host: usize,
    guest: u64,
    len: usize,
) -> Result<(), Interrupted> {
    if len == 0 {
        return Ok(());
    }
    // The widest element to which both addresses can be brought together: log2 of 1 to 8.
    let shift = ((host as u64 ^ guest) | 8).trailing_zeros() as usize;
    // SAFETY: the caller's promise.
    unsafe {
        if shift != 3 && len >= MERGE_FROM {
            copy_merging(routines, to, host, guest, len)
        } else {
            copy_elements(routines, &to.elements, shift, host, guest, len)
        }
    }
}

/// Runs `head`, wide `body` and `tail` of a copy over `host` and `guest`, which elements of 1 << `shift` bytes fit.
///
/// # Safety
///
/// As the routines' own, for the whole range.
#[inline(always)]
unsafe fn copy_elements<C: Copies>(
    routines: C,
    elements: &[Routine; 4],
    shift: usize,
    host: usize,
    guest: u64,
    len: usize,
) -> Result<(), Interrupted> {
    let width = 1 << shift;
    let (narrow, wide) = (elements[0], elements[shift]);
    let head = (guest.wrapping_neg() as usize & (width - 1)).min(len);
    let body = (len - head) & !(width - 1);
    if body == 0 {
        // SAFETY: the caller's promise; anything is aligned to a byte.
        return unsafe { part(routines, narrow, host, guest, len, 0) };
    }
    let three = Three {
        narrow,
        wide,
        head,
        body,
        tail: len - head - body,
    };
    // SAFETY: the three parts are the range, and the body is aligned to its width on both sides.
    let (reached, ended) = unsafe { routines.run_three(&three, host, guest) };
    result(reached - ended.left, ended)
}

/// Copies at least [`MERGE_FROM`] bytes between addresses that no double fits together.
///
/// # Safety
///
/// As the routines' own, for the whole range.
unsafe fn copy_merging<C: Copies>(
    routines: C,
    to: &'static ToOneSide,
    host: usize,
    guest: u64,
    len: usize,
) -> Result<(), Interrupted> {
    let narrow = to.elements[0];
    let (written, read) = if to.to_guest {
        (guest, host as u64)
    } else {
        (host as u64, guest)
    };
    // The side that is written is brought to a double. The other is then `lag` bytes into one, which must not begin before
    // the range, and the last double that is read must not end after it.
    let mut head = (written.wrapping_neg() & 7) as usize;
    let lag = (read.wrapping_add(head as u64) & 7) as usize;
    if head < lag {
        head += 8;
    }
    let body = (len - head - (8 - lag)) & !7;
    let three = Three {
        narrow,
        wide: to.merge,
        head,
        body,
        tail: len - head - body,
    };
    // SAFETY: the three parts are the range; head and tail hold what the merging reads beyond the body, which begins at a double
    // where it is written.
    let (reached, ended) = unsafe { routines.run_three(&three, host, guest) };
    let completed = reached - ended.left;
    if ended.left == 0 || reached != head + body {
        return result(completed, ended);
    }
    // All that is left, by bytes, so that the fault is the exact one.
    let at = guest.wrapping_add(completed as u64);
    // SAFETY: the rest of the range.
    unsafe {
        part(
            routines,
            narrow,
            host + completed,
            at,
            len - completed,
            completed,
        )
    }
}

/// Fills by doubles, and by bytes up to their alignment and after them.
///
/// # Safety
///
/// As the routines' own, for the whole range.
#[inline]
pub(super) unsafe fn fill<C: Copies>(
    routines: C,
    guest: u64,
    byte: u8,
    len: usize,
) -> Result<(), Interrupted> {
    let pattern = u64::from_ne_bytes([byte; 8]) as usize;
    let head = (guest.wrapping_neg() as usize & 7).min(len);
    let body = (len - head) & !7;
    let tail = len - head - body;
    let mut done = 0;
    // SAFETY: the caller's promise, for three parts one after another; the body is 8-aligned.
    unsafe {
        for (routine, len) in [(C::FILL_1, head), (C::FILL_8, body), (C::FILL_1, tail)] {
            if len != 0 {
                let at = guest.wrapping_add(done as u64);
                part(routines, routine, pattern, at, len, done)?;
                done += len;
            }
        }
    }
    Ok(())
}
