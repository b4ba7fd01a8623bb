//! Which way an access to a [`BackedVirtual`](super::BackedVirtual) space goes, and why.
//!
//! The one idea: the hardware makes an access unless there is a reason for a walk; and what the walk finds may send it back to the
//! hardware.

use core::ptr::NonNull;

use crate::address::{Gpa, Gva};

/// Why an access goes by a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is large: the hardware would do as well, and does where the walk leads to no ordinary memory.
    Large,
    /// A slot logs: ordinary memory is marked where it is written, and nothing else could be.
    Logging,
    /// The hardware cannot be asked: its answer would be wrong (R62), or it has no such access (R17).
    OnlyWay,
}

/// What a walk found for one page's piece of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Memory that the host maps: all of the piece is here, valid for the access while the guard exists. An access to it
    /// cannot fail.
    Direct(NonNull<u8>, Gpa),
    /// Somewhere else, where an access can fail.
    Elsewhere(Elsewhere),
}

/// Where a piece is that the host's mapping does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// What the guest's memory has to decide about.
    Memory(Gpa),
    /// Nothing that may be touched but by the hardware's own access.
    Hardware(Gva),
}
