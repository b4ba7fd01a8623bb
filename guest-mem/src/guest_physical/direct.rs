//! Moving guest bytes through the host's own mapping.
//!
//! The one idea: guests change this memory at any time, so it is only ever touched by atomic accesses (relaxed, aligned,
//! eight bytes where the alignment of the guest's side allows) at raw pointers: no reference, no `memcpy` (invariant 2). On
//! riscv64 these compile to plain `lb`/`ld`/`sb`/`sd`.

use core::slice;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

mod single;

pub(crate) use single::{compare_exchange, load, store};
pub(super) use single::{load_device, store_device};

const WORD: usize = size_of::<u64>();

/// Words that are loaded together, to be stored together, so that no store waits for the load before it: as many as there are
/// registers that nobody has to save.
const TOGETHER: usize = 8;

/// Words that the loops move before they look at their counter.
const UNROLL: usize = 2 * TOGETHER;

/// The same of loops that merge, which need registers for more than the words.
const MERGED: usize = 4;

/// Bytes before the first aligned word at or after `address`, `len` at most.
#[inline]
fn head(address: *const u8, len: usize) -> usize {
    (address.addr().wrapping_neg() % WORD).min(len)
}

/// # Safety
///
/// `at` is aligned to 8 and valid for an atomic read of 8 bytes.
#[inline]
unsafe fn get_word(at: *const u8) -> u64 {
    // SAFETY: by the contract.
    unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) }.load(Ordering::Relaxed)
}

/// # Safety
///
/// `at` is aligned to 8 and valid for an atomic write of 8 bytes.
#[inline]
unsafe fn put_word(at: *mut u8, word: u64) {
    // SAFETY: by the contract.
    unsafe { AtomicU64::from_ptr(at.cast()) }.store(word, Ordering::Relaxed);
}

/// Reads ends of a range, by the widest units that are aligned in guest memory: what an aligned access of the guest's moves
/// whole stays whole.
///
/// # Safety
///
/// As [`copy_from`].
#[inline]
unsafe fn units_from(mut source: *const u8, mut destination: &mut [u8]) {
    macro_rules! unit {
        ($kind:ident, $bytes:literal, $condition:ident ($wanted:expr)) => {
            $condition destination.len() >= $bytes && $wanted {
                let (part, rest) = destination.split_at_mut($bytes);
                // SAFETY: by the contract; aligned.
                let value = unsafe { $kind::from_ptr(source.cast_mut().cast()) }.load(Ordering::Relaxed);
                part.copy_from_slice(&value.to_ne_bytes());
                destination = rest;
                source = source.wrapping_add($bytes);
            }
        };
    }
    unit!(AtomicU8, 1, if (source.addr() & 1 != 0));
    unit!(AtomicU16, 2, if (source.addr() & 2 != 0));
    unit!(AtomicU32, 4, if (source.addr() & 4 != 0));
    unit!(AtomicU64, 8, while (true));
    unit!(AtomicU32, 4, if (true));
    unit!(AtomicU16, 2, if (true));
    if let Some(last) = destination.first_mut() {
        // SAFETY: by the contract.
        *last = unsafe { AtomicU8::from_ptr(source.cast_mut()) }.load(Ordering::Relaxed);
    }
}

/// Writes ends of a range, by the widest units that are aligned in guest memory.
///
/// # Safety
///
/// As [`copy_to`].
#[inline]
unsafe fn units_to(mut destination: *mut u8, mut source: &[u8]) {
    macro_rules! unit {
        ($kind:ident, $integer:ident, $bytes:literal, $condition:ident ($wanted:expr)) => {
            $condition $wanted && let Some((part, rest)) = source.split_first_chunk::<$bytes>() {
                let value = $integer::from_ne_bytes(*part);
                // SAFETY: by the contract; aligned.
                unsafe { $kind::from_ptr(destination.cast()) }.store(value, Ordering::Relaxed);
                source = rest;
                destination = destination.wrapping_add($bytes);
            }
        };
    }
    unit!(AtomicU8, u8, 1, if (destination.addr() & 1 != 0));
    unit!(AtomicU16, u16, 2, if (destination.addr() & 2 != 0));
    unit!(AtomicU32, u32, 4, if (destination.addr() & 4 != 0));
    unit!(AtomicU64, u64, 8, while (true));
    unit!(AtomicU32, u32, 4, if (true));
    unit!(AtomicU16, u16, 2, if (true));
    if let Some(&last) = source.first() {
        // SAFETY: by the contract.
        unsafe { AtomicU8::from_ptr(destination) }.store(last, Ordering::Relaxed);
    }
}

/// Copies guest bytes into the host's buffer.
///
/// # Safety
///
/// The `destination.len()` bytes at `source` are valid for atomic reads and do not overlap `destination`.
#[inline]
pub(crate) unsafe fn copy_from(source: *const u8, destination: &mut [u8]) {
    if (source.addr() | destination.as_ptr().addr() | destination.len()).is_multiple_of(WORD) {
        let (words, len) = (destination.as_mut_ptr().cast(), destination.len() / WORD);
        // SAFETY: by the contract; all is aligned, and every byte pattern is a `u64` and the other way round.
        return unsafe { words_from(source, slice::from_raw_parts_mut(words, len)) };
    }
    // SAFETY: by the contract.
    unsafe { copy_from_any(source, destination) }
}

/// # Safety
///
/// As [`copy_from`].
#[inline(never)]
unsafe fn copy_from_any(source: *const u8, destination: &mut [u8]) {
    if destination.len() < WORD {
        // SAFETY: the caller's promise.
        return unsafe { units_from(source, destination) };
    }
    let lag = lag(source, destination.as_ptr());
    let (first, body) = parts(destination.as_ptr(), lag, destination.len());
    let (first, rest) = destination.split_at_mut(first);
    let (body, last) = rest.split_at_mut(body);
    let from = source.wrapping_add(first.len());
    let tail = from.wrapping_add(body.len());
    // SAFETY: within the range of the contract.
    unsafe { units_from(source, first) };
    // SAFETY: every byte pattern is a `u64` and the other way round. The body is words of the host's side: `parts`.
    let (_, words, _) = unsafe { body.align_to_mut::<u64>() };
    // SAFETY: within the range of the contract: `parts` leaves the bytes around the body that merging reads.
    unsafe {
        if lag == 0 {
            words_from(from, words);
        } else if !words.is_empty() {
            merge_from(from.wrapping_sub(lag), lag, words);
        }
    }
    // SAFETY: within the range of the contract.
    unsafe { units_from(tail, last) };
}

/// How far into a word `read` is where `written` is at the start of one.
#[inline]
fn lag(read: *const u8, written: *const u8) -> usize {
    read.addr().wrapping_sub(written.addr()) % WORD
}

/// Cuts `len` bytes to be written at `written`: those before the words, and those of the words.
///
/// The words begin aligned where they are written. Where the other side lags, it is read by aligned words, too, of which the
/// first begins before and the last ends after the body: both within the range.
#[inline]
fn parts(written: *const u8, lag: usize, len: usize) -> (usize, usize) {
    let mut first = head(written, len);
    if lag == 0 {
        return (first, (len - first) / WORD * WORD);
    }
    if first < lag {
        first += WORD;
    }
    match len.checked_sub(first + (WORD - lag)) {
        Some(room) => (first, room / WORD * WORD),
        None => (len, 0),
    }
}

/// The next word to write, of the bytes of `before` from `lag` on and the first of `next`.
#[inline]
fn merged(before: u64, next: u64, lag: usize) -> u64 {
    let shift = 8 * lag as u32;
    (u64::from_le(before) >> shift | u64::from_le(next) << (64 - shift)).to_le()
}

/// # Safety
///
/// `source` is aligned to 8 and valid for atomic reads of one word more than `destination` has; `lag` is 1 to 7.
unsafe fn merge_from(source: *const u8, lag: usize, destination: &mut [u64]) {
    // SAFETY: by the contract.
    let mut before = unsafe { get_word(source) };
    let mut source = source.wrapping_add(WORD);
    let (batches, rest) = destination.as_chunks_mut::<MERGED>();
    for batch in batches {
        // SAFETY: by the contract.
        let next: [u64; MERGED] =
            core::array::from_fn(|at| unsafe { get_word(source.add(at * WORD)) });
        for (word, next) in batch.iter_mut().zip(next) {
            *word = merged(before, next, lag);
            before = next;
        }
        source = source.wrapping_add(MERGED * WORD);
    }
    for word in rest {
        // SAFETY: by the contract.
        let next = unsafe { get_word(source) };
        *word = merged(before, next, lag);
        before = next;
        source = source.wrapping_add(WORD);
    }
}

/// # Safety
///
/// `source` is aligned to 8 and valid for atomic reads of as many words as `destination` has.
#[inline(always)]
unsafe fn words_from(source: *const u8, destination: &mut [u64]) {
    if destination.len() < UNROLL {
        // SAFETY: by the contract.
        return unsafe { few_words_from(source, destination) };
    }
    // SAFETY: by the contract.
    unsafe { many_words_from(source, destination) }
}

/// # Safety
///
/// As [`words_from`].
#[inline(never)]
unsafe fn many_words_from(mut source: *const u8, destination: &mut [u64]) {
    let (batches, rest) = destination.as_chunks_mut::<UNROLL>();
    for batch in batches {
        let (halves, _) = batch.as_chunks_mut::<TOGETHER>();
        for half in halves {
            // SAFETY: by the contract.
            *half = unsafe { batch_from(source) };
            source = source.wrapping_add(TOGETHER * WORD);
        }
    }
    if !rest.is_empty() {
        // SAFETY: by the contract.
        unsafe { few_words_from(source, rest) };
    }
}

/// # Safety
///
/// As [`words_from`].
#[inline(never)]
unsafe fn few_words_from(mut source: *const u8, destination: &mut [u64]) {
    let (batches, rest) = destination.as_chunks_mut::<TOGETHER>();
    for batch in batches {
        // SAFETY: by the contract.
        *batch = unsafe { batch_from(source) };
        source = source.wrapping_add(TOGETHER * WORD);
    }
    for (at, word) in rest.iter_mut().enumerate() {
        // SAFETY: by the contract.
        *word = unsafe { get_word(source.add(at * WORD)) };
    }
}

/// # Safety
///
/// `source` is aligned to 8 and valid for atomic reads of `WORDS` words.
#[inline(always)]
unsafe fn batch_from<const WORDS: usize>(source: *const u8) -> [u64; WORDS] {
    // SAFETY: by the contract.
    core::array::from_fn(|at| unsafe { get_word(source.add(at * WORD)) })
}

/// Copies the host's bytes into guest memory.
///
/// # Safety
///
/// The `source.len()` bytes at `destination` are valid for atomic writes and do not overlap `source`.
#[inline]
pub(crate) unsafe fn copy_to(destination: *mut u8, source: &[u8]) {
    if (destination.addr() | source.as_ptr().addr() | source.len()).is_multiple_of(WORD) {
        let (words, len) = (source.as_ptr().cast(), source.len() / WORD);
        // SAFETY: by the contract; all is aligned, and every byte pattern is a `u64`.
        return unsafe { words_to(destination, slice::from_raw_parts(words, len)) };
    }
    // SAFETY: by the contract.
    unsafe { copy_to_any(destination, source) }
}

/// # Safety
///
/// As [`copy_to`].
#[inline(never)]
unsafe fn copy_to_any(destination: *mut u8, source: &[u8]) {
    if source.len() < WORD {
        // SAFETY: the caller's promise.
        return unsafe { units_to(destination, source) };
    }
    let lag = lag(source.as_ptr(), destination);
    let (first, body) = parts(destination, lag, source.len());
    let to = destination.wrapping_add(first);
    let tail = first + body;
    // SAFETY: within the range of the contract.
    unsafe { units_to(destination, &source[..first]) };
    // The words that are read: those of the body, or with a lag all that lie around it, which `parts` has left room for.
    let (from, until) = match lag {
        0 => (first, tail),
        _ if body == 0 => (0, 0),
        _ => (first - lag, tail + WORD - lag),
    };
    // SAFETY: every byte pattern is a `u64`; this part begins and ends at words.
    let (_, words, _) = unsafe { source[from..until].align_to::<u64>() };
    // SAFETY: within the range of the contract; aligned by `parts`.
    unsafe {
        if lag == 0 {
            words_to(to, words);
        } else if let Some((&before, words)) = words.split_first() {
            merge_to(to, lag, before, words);
        }
    }
    // SAFETY: within the range of the contract.
    unsafe { units_to(destination.add(tail), &source[tail..]) };
}

/// # Safety
///
/// `destination` is aligned to 8 and valid for atomic writes of as many words as `source` has; `lag` is 1 to 7.
unsafe fn merge_to(mut destination: *mut u8, lag: usize, mut before: u64, source: &[u64]) {
    let (batches, rest) = source.as_chunks::<MERGED>();
    for batch in batches {
        for (at, &next) in batch.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { put_word(destination.add(at * WORD), merged(before, next, lag)) };
            before = next;
        }
        destination = destination.wrapping_add(MERGED * WORD);
    }
    for &next in rest {
        // SAFETY: by the contract.
        unsafe { put_word(destination, merged(before, next, lag)) };
        before = next;
        destination = destination.wrapping_add(WORD);
    }
}

/// # Safety
///
/// `destination` is aligned to 8 and valid for atomic writes of as many words as `source` has.
#[inline(always)]
unsafe fn words_to(destination: *mut u8, source: &[u64]) {
    if source.len() < UNROLL {
        // SAFETY: by the contract.
        return unsafe { few_words_to(destination, source) };
    }
    // SAFETY: by the contract.
    unsafe { many_words_to(destination, source) }
}

/// # Safety
///
/// As [`words_to`].
#[inline(never)]
unsafe fn many_words_to(mut destination: *mut u8, source: &[u64]) {
    let (batches, rest) = source.as_chunks::<UNROLL>();
    for batch in batches {
        let (halves, _) = batch.as_chunks::<TOGETHER>();
        for &half in halves {
            // SAFETY: by the contract.
            unsafe { batch_to(destination, half) };
            destination = destination.wrapping_add(TOGETHER * WORD);
        }
    }
    if !rest.is_empty() {
        // SAFETY: by the contract.
        unsafe { few_words_to(destination, rest) };
    }
}

/// # Safety
///
/// As [`words_to`].
#[inline(never)]
unsafe fn few_words_to(mut destination: *mut u8, source: &[u64]) {
    let (batches, rest) = source.as_chunks::<TOGETHER>();
    for &batch in batches {
        // SAFETY: by the contract.
        unsafe { batch_to(destination, batch) };
        destination = destination.wrapping_add(TOGETHER * WORD);
    }
    for (at, &word) in rest.iter().enumerate() {
        // SAFETY: by the contract.
        unsafe { put_word(destination.add(at * WORD), word) };
    }
}

/// # Safety
///
/// `destination` is aligned to 8 and valid for atomic writes of `WORDS` words.
#[inline(always)]
unsafe fn batch_to<const WORDS: usize>(destination: *mut u8, batch: [u64; WORDS]) {
    for (at, word) in batch.into_iter().enumerate() {
        // SAFETY: by the contract.
        unsafe { put_word(destination.add(at * WORD), word) };
    }
}

/// Sets guest bytes to one value.
///
/// # Safety
///
/// The `len` bytes at `destination` are valid for atomic writes.
pub(crate) unsafe fn fill(mut destination: *mut u8, byte: u8, len: usize) {
    let word = [byte; WORD];
    let head = head(destination, len);
    let (batches, rest) = (
        (len - head) / (UNROLL * WORD),
        (len - head) % (UNROLL * WORD),
    );
    // SAFETY: within the range of the contract; ends of less than a word.
    unsafe { units_to(destination, &word[..head]) };
    destination = destination.wrapping_add(head);
    for _ in 0..batches {
        for at in 0..UNROLL {
            // SAFETY: within the range of the contract; aligned by `head`.
            unsafe { put_word(destination.add(at * WORD), u64::from_ne_bytes(word)) };
        }
        destination = destination.wrapping_add(UNROLL * WORD);
    }
    for _ in 0..rest / WORD {
        // SAFETY: as above.
        unsafe { put_word(destination, u64::from_ne_bytes(word)) };
        destination = destination.wrapping_add(WORD);
    }
    // SAFETY: as above.
    unsafe { units_to(destination, &word[..rest % WORD]) };
}
