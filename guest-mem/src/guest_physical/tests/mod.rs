//! Claims about guest-physical memory as a whole.
//!
//! Miri checks the races and the pointers: `MIRIFLAGS=-Zmiri-disable-weak-memory-emulation cargo +nightly miri test -p
//! guest-mem --lib guest_physical::tests`. (Its emulation of weak memory does not know atomics of several sizes at one place.)

extern crate std;

mod accesses;
mod dirty;
mod every_shape;
mod model;
mod page_tables;
mod races;
mod replacing;
mod resolving;
mod reuse;
mod rust_model;
mod shown;
mod slots;

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::address::{Gpa, PAGE_SIZE};

/// A page of "guest memory" on the host's heap.
#[repr(C, align(4096))]
struct Frame(UnsafeCell<[u8; PAGE_SIZE as usize]>);

/// Some pages in a row.
struct Frames(Box<[Frame]>);

// SAFETY: tests access frames only through the library (atomically), or when nobody else does.
unsafe impl Sync for Frames {}
// SAFETY: as above.
unsafe impl Send for Frames {}

impl Frames {
    fn new(count: usize) -> Self {
        let frame = |_| Frame(UnsafeCell::new([0; PAGE_SIZE as usize]));
        Self((0..count).map(frame).collect())
    }

    fn len(&self) -> u64 {
        self.0.len() as u64 * PAGE_SIZE
    }

    /// The host address of the first page, good for all of them.
    fn start(&self) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    fn page(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.0.len());
        // SAFETY: within the allocation.
        unsafe { self.start().add(index * PAGE_SIZE as usize) }
    }

    fn linear(&self, base: u64) -> Slot<'_> {
        // SAFETY: the frames outlive the slot's lifetime, and only the library touches them while a memory has the slot.
        unsafe { Slot::linear(Gpa::new(base), self.len(), self.start()) }
    }
}

/// Entries without pages.
fn absent(count: usize) -> Vec<PageEntry> {
    (0..count).map(|_| PageEntry::absent()).collect()
}

/// A fixed sequence of numbers that look random (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
