//! Arguments of SBI calls that name harts or ranges of addresses, checked as the SBI specification says.
//!
//! The one idea: a call with a bad argument has no effect at all, so everything is checked before anything is done.

/// A set of guest harts: bit n stands for guest hart n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HartSet(pub u64);

impl HartSet {
    /// Every hart of a guest that has `harts` of them.
    pub const fn all(harts: usize) -> Self {
        Self(if harts >= 64 {
            u64::MAX
        } else {
            (1 << harts) - 1
        })
    }

    /// The harts that `mask` names, bit i being hart `base + i`; a `base` of all ones means every hart. `None` if one of them
    /// does not exist, which is SBI_ERR_INVALID_PARAM.
    pub fn from_mask(mask: usize, base: usize, harts: usize) -> Option<Self> {
        if base == usize::MAX {
            return Some(Self::all(harts));
        }
        if base >= harts {
            return None;
        }
        let mask = mask as u64;
        // Bits that the shift would lose name harts beyond 63, which no guest has.
        let fits = mask.leading_zeros() as usize >= base || mask == 0;
        let set = mask.checked_shl(base as u32)?;
        (fits && set & !Self::all(harts).0 == 0).then_some(Self(set))
    }

    /// Their numbers.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |index| self.0 & 1 << index != 0)
    }
}

/// What a remote fence covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceRange {
    /// Every address.
    All,
    /// `len` bytes from `start`.
    Part {
        /// First byte.
        start: usize,
        /// Bytes.
        len: usize,
    },
}

impl FenceRange {
    /// The range of a remote-fence call: everything if start and size are both 0 or size is all ones. `None` if it runs past
    /// the top of the address space, which is SBI_ERR_INVALID_ADDRESS.
    pub const fn new(start: usize, size: usize) -> Option<Self> {
        if (start == 0 && size == 0) || size == usize::MAX {
            return Some(Self::All);
        }
        if size != 0 && start.checked_add(size - 1).is_none() {
            return None;
        }
        Some(Self::Part { start, len: size })
    }

    /// Start and size as a firmware call takes them.
    pub const fn arguments(self) -> (usize, usize) {
        match self {
            Self::All => (0, usize::MAX),
            Self::Part { start, len } => (start, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_exactly_the_harts_of_its_bits() {
        let cases = [
            // mask, base, harts, set
            (0b1, 0, 1, Some(0b1)),
            (0b11, 0, 2, Some(0b11)),
            (0b1, 1, 2, Some(0b10)),
            (0b0, 0, 2, Some(0)),
            (0b0, 1, 2, Some(0)),
            (0b10, 1, 2, None),
            (0b100, 0, 2, None),
            (0b1, 2, 2, None),
            (0b0, 2, 2, None),
            (1 << 63, 1, 2, None),
            (1, 64, 2, None),
            (1, usize::MAX - 1, 2, None),
            (0, usize::MAX, 2, Some(0b11)),
            (usize::MAX, usize::MAX, 1, Some(0b1)),
        ];
        for (mask, base, harts, set) in cases {
            assert_eq!(
                HartSet::from_mask(mask, base, harts),
                set.map(HartSet),
                "mask {mask:#x} base {base:#x} harts {harts}"
            );
        }
    }

    #[test]
    fn a_set_lists_its_harts() {
        assert!(HartSet(0b1010).iter().eq([1, 3]));
        assert!(HartSet::all(3).iter().eq([0, 1, 2]));
    }

    #[test]
    fn a_fence_range_is_everything_a_part_or_an_error() {
        let part = |start, len| Some(FenceRange::Part { start, len });
        let cases = [
            (0, 0, Some(FenceRange::All)),
            (0x1000, usize::MAX, Some(FenceRange::All)),
            (0, usize::MAX, Some(FenceRange::All)),
            (0x1000, 0x2000, part(0x1000, 0x2000)),
            (0x1000, 0, part(0x1000, 0)),
            (usize::MAX - 0xfff, 0x1000, part(usize::MAX - 0xfff, 0x1000)),
            (usize::MAX - 0xfff, 0x1001, None),
        ];
        for (start, size, expected) in cases {
            assert_eq!(
                FenceRange::new(start, size),
                expected,
                "{start:#x} {size:#x}"
            );
        }
    }
}
