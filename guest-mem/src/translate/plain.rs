//! The short walk: tables of plain entries, which is what almost every walk meets, in a few instructions a level.
//!
//! The one idea: it never refuses and never writes. It follows entries whose bits need no thought (no extension's bits, A set,
//! for a store D too, and exactly the rights that are asked for); at anything else it says nothing, and the full walk decides.

use super::entry::{self, A, D, INDEX_BITS, R, U, V, W, X, level_shift};
use super::regime::{GRegime, VsRegime};
use super::{Access, Purpose};
use crate::access::GuestPrivilege;
use crate::address::PAGE_SHIFT;
use crate::csr::{GMode, VsMode};

/// Bits 63:54: Svnapot, Svpbmt and what is reserved.
const HIGH: u64 = 0x3ff << 54;
/// What an entry that leads to a table has to say, and what of that is to be set.
const TABLE: (u64, u64) = (HIGH | V | R | W | X | U | A | D, V);

/// The short walk of one stage, for accesses of one kind. `ROOT_BITS` is what the index into its root has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainWalk<const ROOT_BITS: u32> {
    root: u64,
    /// Where the index into the root begins in the address.
    top_shift: u32,
    /// The bits of a leaf that are looked at, and what they have to be.
    leaf: (u64, u64),
}

/// Through the VS-stage.
pub(crate) type PlainVsWalk = PlainWalk<INDEX_BITS>;

/// Through the G-stage (R50).
pub(crate) type PlainGWalk = PlainWalk<{ INDEX_BITS + 2 }>;

impl PlainVsWalk {
    /// `None` if no entry is plain for this access, or the stage is Bare.
    pub(crate) fn new(regime: &VsRegime, access: Access) -> Option<Self> {
        let user = match access.privilege {
            GuestPrivilege::User => (U, U),
            GuestPrivilege::Supervisor if regime.sum => (0, 0),
            GuestPrivilege::Supervisor => (U, 0),
        };
        let rights = rights(access.purpose)?;
        (regime.mode != VsMode::Bare).then(|| Self {
            root: regime.root.page_base().value(),
            top_shift: level_shift(regime.mode.levels() - 1),
            leaf: (HIGH | V | rights | user.0, V | rights | user.1),
        })
    }
}

impl PlainGWalk {
    /// `None` if no entry is plain for this access, or the stage is Bare. U is set in every leaf (R54).
    pub(crate) fn new(regime: &GRegime, purpose: Purpose) -> Option<Self> {
        let rights = rights(purpose)? | V | U;
        (regime.mode != GMode::Bare).then(|| Self {
            root: regime.root.page_base().value(),
            top_shift: level_shift(regime.mode.levels() - 1),
            leaf: (HIGH | rights, rights),
        })
    }
}

impl<const ROOT_BITS: u32> PlainWalk<ROOT_BITS> {
    /// Bits of an address that the stage does not translate.
    pub(crate) const fn unused_bits(&self) -> u32 {
        u64::BITS - ROOT_BITS - self.top_shift
    }

    /// Where `input` leads: an address that the stage can translate at all. `read` gives an entry by one atomic load;
    /// it is asked for addresses that are aligned to 8, in tables that begin at pages.
    #[inline(always)]
    pub(crate) fn find(&self, input: u64, mut read: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let mut shift = self.top_shift;
        let mut table = self.root;
        let mut bits = ROOT_BITS;
        loop {
            let index = input >> shift & ((1 << bits) - 1);
            let entry = read(table + index * 8)?;
            if entry & TABLE.0 != TABLE.1 {
                let inside = (1u64 << shift) - 1;
                let base = entry::address(entry);
                let plain = entry & self.leaf.0 == self.leaf.1 && base & inside == 0;
                return plain.then_some(base | input & inside);
            }
            if shift == PAGE_SHIFT {
                return None;
            }
            shift -= INDEX_BITS;
            bits = INDEX_BITS;
            table = entry::address(entry);
        }
    }
}

/// What a leaf has to allow, A and D included, so that nothing has to be set.
fn rights(purpose: Purpose) -> Option<u64> {
    match purpose {
        Purpose::Load => Some(R | A),
        Purpose::Store => Some(R | W | A | D),
        Purpose::ExecutableLoad | Purpose::Fetch => None,
    }
}
