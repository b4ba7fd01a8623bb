//! The atomics by which harts share slots, guards, page entries and logs.
//!
//! The one idea: built with `--cfg loom` they are [loom](https://docs.rs/loom)'s, which tries every order that the memory model
//! allows of what two or three harts do (`guest_physical/tests_in_every_order`). Nothing else of the code under test differs, but
//! that guest memory itself is a model too (`guest_physical/direct_model.rs`).

#[cfg(not(all(test, loom)))]
pub(crate) use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, fence},
};

#[cfg(all(test, loom))]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, fence},
};

/// A function that makes atomics: `const`, except where they are loom's, which must be made while loom looks on.
macro_rules! const_but_for_loom {
    ($(#[$attribute:meta])* $visibility:vis const fn $name:ident($($parameters:tt)*) -> $made:ty $body:block) => {
        #[cfg(not(all(test, loom)))]
        $(#[$attribute])*
        $visibility const fn $name($($parameters)*) -> $made $body
        #[cfg(all(test, loom))]
        $(#[$attribute])*
        $visibility fn $name($($parameters)*) -> $made $body
    };
}

/// An array of so many, each made anew.
macro_rules! array_of {
    ($make:expr; $len:expr) => {{
        #[cfg(not(all(test, loom)))]
        let array = [const { $make }; $len];
        #[cfg(all(test, loom))]
        let array: [_; $len] = core::array::from_fn(|_| $make);
        array
    }};
}

pub(crate) use {array_of, const_but_for_loom};

/// A witness of plain accesses: it lies beside what raw pointers share, and is told when that is read and written. Under loom
/// a read and a write that no order separates fail the test; otherwise it is nothing.
#[derive(Default)]
pub(crate) struct Witness(#[cfg(all(test, loom))] loom::cell::UnsafeCell<()>);

impl Witness {
    const_but_for_loom! {
        /// For something new.
        pub(crate) const fn new() -> Self {
            Self(
                #[cfg(all(test, loom))]
                loom::cell::UnsafeCell::new(()),
            )
        }
    }

    /// What it stands for is being read.
    #[inline(always)]
    pub(crate) fn reads(&self) {
        #[cfg(all(test, loom))]
        self.0.with(|_| ());
    }

    /// What it stands for is being written.
    #[inline(always)]
    pub(crate) fn writes(&self) {
        #[cfg(all(test, loom))]
        self.0.with_mut(|_| ());
    }
}
