//! Random two-stage page tables and one random access through each, to compare implementations of the walk by.
//!
//! The one idea: a case is an *ordinary* access (a page that both stages map, with all rights) from which a number of
//! [`Choices`] depart, all drawn from one seed. Taking a choice back leaves the others as they are, so that a case that fails
//! is made small by taking choices back ([`shrink`]), and is replayed from three numbers: seed, case, and the choices kept.
//!
//! This crate knows page tables as numbers and shares no code with the library: the same cases drive the software hart
//! against a walker written from the specification (`tests/`), and, on the machine, the instructions against the library's
//! walk (`test-kernel`).
//!
//! Entries are made to lead to the block of memory that was given for a case, or to addresses that the machine refuses. A
//! table that is read as one of the other stage may still lead elsewhere: whoever runs cases on a machine that runs something
//! else as well walks each in software first.
#![no_std]

mod case;
mod choices;
mod describe;
mod draw;
mod found;
mod random;
mod shrink;
mod world;

pub use case::Case;
pub use choices::{Choices, Edit, EntryName, Environment, Instruction, Mode, Offer, Operation};
pub use found::FOUND;
pub use shrink::shrink;
pub use world::{BLOCK, Place, WORDS, Word, World, mark, marks};

/// Bits of page-table entries, by the names of the privileged specification.
pub mod bits {
    /// Valid.
    pub const V: u64 = 1 << 0;
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// User.
    pub const U: u64 = 1 << 4;
    /// Accessed.
    pub const A: u64 = 1 << 6;
    /// Dirty.
    pub const D: u64 = 1 << 7;
    /// Svnapot.
    pub const N: u64 = 1 << 63;
}
