//! The dirty log of a slot: one bit a page, set after the data, taken a word at a time.
//!
//! The one idea: the order "data, then bit" for who writes, and "take the bit, protect the page, then read the data" for who
//! harvests, loses no write: one that the reader of the page missed has set its bit after the bit was taken.

use core::sync::atomic::Ordering;

use super::mirror::StageMirror;
use super::slot::Slot;
use crate::address::{Gpa, PAGE_SIZE};
use crate::atomic::AtomicU64;

/// Words of the log that one shootdown covers: 8 MiB of guest memory.
const BATCH: usize = 32;

pub(super) fn clear(bits: &[AtomicU64]) {
    for word in bits {
        word.store(0, Ordering::Relaxed);
    }
}

/// Marks the pages of `len` bytes at `gpa`, which lie in the slot. The bytes have been written.
#[inline]
pub(super) fn mark(slot: &Slot<'_>, gpa: Gpa, len: usize) {
    if slot.logging && len != 0 {
        mark_logged(slot, gpa, len);
    }
}

#[inline(never)]
fn mark_logged(slot: &Slot<'_>, gpa: Gpa, len: usize) {
    let Some(bits) = slot.dirty_log else {
        return;
    };
    let first = slot.offset_of(gpa) / PAGE_SIZE;
    let last = (slot.offset_of(gpa) + (len as u64 - 1)) / PAGE_SIZE;
    for page in first..=last {
        // Release: who takes the bit sees the data. Not "if it is not set yet": the bit that was seen could be taken before
        // the data is visible.
        bits[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::Release);
    }
}

/// Takes the marked pages, as [`GuestPhysicalMemory::harvest`](super::GuestPhysicalMemory::harvest) says.
pub(super) fn harvest(
    slot: &Slot<'_>,
    bits: &[AtomicU64],
    stage: &mut impl StageMirror,
    visit: &mut impl FnMut(Gpa),
) {
    let page = |index: usize, bit: u32| {
        Gpa::new(slot.base.value() + (index as u64 * 64 + u64::from(bit)) * PAGE_SIZE)
    };
    let words = (slot.pages() as usize).div_ceil(64);
    for (batch, words) in bits[..words].chunks(BATCH).enumerate() {
        let mut taken = [0u64; BATCH];
        let mut any = false;
        for (at, word) in words.iter().enumerate() {
            // A clean word is only read: harvesting does not fight with writers of other pages for the line.
            if word.load(Ordering::Relaxed) != 0 {
                // Acquire: pairs with the release of `mark`.
                taken[at] = word.swap(0, Ordering::Acquire);
                for (first, len) in runs(taken[at]) {
                    stage
                        .write_protect(page(batch * BATCH + at, first), u64::from(len) * PAGE_SIZE);
                    any = true;
                }
            }
        }
        if any {
            stage.shoot_down();
        }
        for (at, word) in taken.into_iter().enumerate() {
            for (first, len) in runs(word) {
                for bit in first..first + len {
                    visit(page(batch * BATCH + at, bit));
                }
            }
        }
    }
}

/// The runs of set bits, as (first, length).
fn runs(mut word: u64) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let first = word.trailing_zeros();
        let len = (word >> first).trailing_ones();
        word &= !(u64::MAX >> (64 - len) << first);
        Some((first, len))
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_runs_of_a_word_are_its_set_bits() {
        for word in [0, 1, 1 << 63, u64::MAX, 0b1011_0111, 0xf000_0000_0000_000f] {
            let mut rebuilt = 0u64;
            let mut ends = Vec::new();
            for (first, len) in runs(word) {
                rebuilt |= (first..first + len).fold(0, |bits, bit| bits | 1 << bit);
                ends.push((first, first + len));
            }
            assert_eq!(rebuilt, word);
            assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
