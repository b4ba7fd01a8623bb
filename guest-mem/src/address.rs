//! The three address spaces a hypervisor lives in, as types, and the page arithmetic that every access shares.
//!
//! The one idea: an address is an untrusted number until a range check has passed, so all arithmetic here is checked, and
//! [`Pieces`] cuts a range at its page boundaries without ever leaving it.

use core::fmt;

/// Bytes in the smallest page of every RISC-V translation scheme.
pub const PAGE_SIZE: u64 = 4096;

/// `log2` of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

mod sealed {
    pub trait Sealed {}
}

/// What [`Gva`], [`Gpa`] and [`Spa`] have in common: a 64-bit byte address.
///
/// Sealed: the three spaces are all there are.
pub trait Address: sealed::Sealed + Copy + Ord + fmt::Debug + fmt::LowerHex {
    /// Makes an address from its number.
    fn from_u64(value: u64) -> Self;

    /// The address as a number.
    fn to_u64(self) -> u64;
}

macro_rules! address_space {
    ($(#[$doc:meta])* $name:ident, $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Makes an address from its number. Nothing is checked: the number may be hostile.
            #[inline]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The address as a number.
            #[inline]
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past the top of the 64-bit space.
            #[inline]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The first byte of the 4 KiB page that holds this address.
            #[inline]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The offset inside its 4 KiB page, in bytes.
            #[inline]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The number of its 4 KiB page.
            #[inline]
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// Whether the address is a multiple of `alignment`, a power of two.
            #[inline]
            pub const fn is_aligned_to(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }
        }

        impl sealed::Sealed for $name {}

        impl Address for $name {
            #[inline]
            fn from_u64(value: u64) -> Self {
                Self(value)
            }

            #[inline]
            fn to_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, " {:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address_space! {
    /// A guest virtual address: what the guest's loads and stores name, before the VS-stage (`vsatp`).
    Gva, "GVA"
}
address_space! {
    /// A guest physical address: after the VS-stage, before the G-stage (`hgatp`).
    Gpa, "GPA"
}
address_space! {
    /// A supervisor physical address: the machine's own, after the G-stage.
    Spa, "SPA"
}

/// The last byte of `len` bytes at `start`, or `None` if the range runs past the top of the 64-bit space.
///
/// A range may end exactly at the top; `len` zero has no last byte and answers `None`.
#[inline]
pub const fn last_byte(start: u64, len: usize) -> Option<u64> {
    match (len as u64).checked_sub(1) {
        Some(more) => start.checked_add(more),
        None => None,
    }
}

/// One part of a range; of those that [`Pieces`] cuts, each lies in a single 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<A> {
    /// Where the piece begins.
    pub address: A,
    /// How many bytes of the range come before it.
    pub offset: usize,
    /// Its bytes: 1 to 4096.
    pub len: usize,
}

/// A range cut at its 4 KiB page boundaries, in ascending order.
///
/// ```
/// use guest_mem::{Gpa, address::Pieces};
///
/// let lens: Vec<usize> = Pieces::new(Gpa::new(0x1ffe), 4100).unwrap().map(|piece| piece.len).collect();
/// assert_eq!(lens, [2, 4096, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Pieces<A> {
    next: u64,
    offset: usize,
    len: usize,
    space: core::marker::PhantomData<A>,
}

impl<A: Address> Pieces<A> {
    /// Cuts `len` bytes at `start`, or `None` if the range runs past the top of the 64-bit space. No bytes, no pieces.
    #[inline]
    pub fn new(start: A, len: usize) -> Option<Self> {
        if len != 0 {
            last_byte(start.to_u64(), len)?;
        }
        Some(Self {
            next: start.to_u64(),
            offset: 0,
            len,
            space: core::marker::PhantomData,
        })
    }
}

impl<A: Address> Iterator for Pieces<A> {
    type Item = Piece<A>;

    #[inline]
    fn next(&mut self) -> Option<Piece<A>> {
        let left = self.len - self.offset;
        if left == 0 {
            return None;
        }
        let room = (PAGE_SIZE - (self.next & (PAGE_SIZE - 1))) as usize;
        let piece = Piece {
            address: A::from_u64(self.next),
            offset: self.offset,
            len: left.min(room),
        };
        // The last piece of a range that ends at the top of the space wraps to zero and is never looked at again.
        self.next = self.next.wrapping_add(piece.len as u64);
        self.offset += piece.len;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn pieces_end_at_page_boundaries_and_cover_the_range_once() {
        for start in [0u64, 1, 0xfff, 0x1000, 0x7fff_ffff_f001, u64::MAX - 9000] {
            for len in [1usize, 2, 4095, 4096, 4097, 8999] {
                let pieces: Vec<_> = Pieces::new(Gva::new(start), len).unwrap().collect();
                assert_eq!(pieces.iter().map(|p| p.len).sum::<usize>(), len);
                let mut expected = start;
                for piece in pieces {
                    assert_eq!(piece.address.value(), expected);
                    assert_eq!(piece.offset as u64, expected - start);
                    assert!(piece.address.page_offset() + piece.len as u64 <= PAGE_SIZE);
                    expected = expected.wrapping_add(piece.len as u64);
                }
            }
        }
    }

    #[test]
    fn a_range_may_end_at_the_top_of_the_space_but_not_pass_it() {
        assert_eq!(Pieces::new(Gva::new(u64::MAX - 7), 8).unwrap().count(), 1);
        assert!(Pieces::new(Gva::new(u64::MAX - 7), 9).is_none());
        assert!(Pieces::new(Gva::new(1), usize::MAX).is_some());
        assert!(Pieces::new(Gva::new(2), usize::MAX).is_none());
    }

    #[test]
    fn an_empty_range_has_no_pieces_wherever_it_is() {
        for start in [0, 5, u64::MAX] {
            assert_eq!(Pieces::new(Gpa::new(start), 0).unwrap().count(), 0);
        }
    }
}
