//! Arguments of SBI calls: the widths that the SBI specification declares, and those that name
//! harts or ranges of addresses, checked as it says.
//!
//! The one idea: a call with a bad argument has no effect at all, so everything is checked before
//! anything is done.

use guest_mem::Gpa;
use sbi_spec::binary::{Error, SbiRet};
use sbi_spec::{cppc, fwft, hsm, mpxy, nacl, srst, sse, sta, susp};

/// The arguments of a call as its function takes them: of a `uint32_t` the low half of the register
/// alone counts (R84).
pub fn as_declared(extension: usize, function: usize, registers: [usize; 6]) -> [usize; 6] {
    let mut arguments = registers;
    for &register in uint32_registers(extension, function) {
        arguments[register] = arguments[register] as u32 as usize;
    }
    arguments
}

/// The registers (n is `a{n}`) whose argument the SBI specification declares as `uint32_t`. All
/// functions that have any are here, also those of extensions that no guest has: who adds one of
/// these gets it right.
const fn uint32_registers(extension: usize, function: usize) -> &'static [usize] {
    match (extension, function) {
        (hsm::EID_HSM, hsm::HART_SUSPEND) => &[0],
        (srst::EID_SRST, srst::SYSTEM_RESET) => &[0, 1],
        (susp::EID_SUSP, susp::SUSPEND) => &[0],
        (cppc::EID_CPPC, cppc::PROBE | cppc::READ | cppc::READ_HI | cppc::WRITE) => &[0],
        (nacl::EID_NACL, nacl::PROBE_FEATURE) => &[0],
        (nacl::EID_NACL, nacl::SET_SHMEM) | (sta::EID_STA, sta::SET_SHMEM) => &[2],
        (fwft::EID_FWFT, fwft::SET | fwft::GET) => &[0],
        (sse::EID_SSE, sse::READ_ATTRS | sse::WRITE_ATTRS) => &[0, 1, 2],
        (
            sse::EID_SSE,
            sse::REGISTER | sse::UNREGISTER | sse::ENABLE | sse::DISABLE | sse::INJECT,
        ) => &[0],
        (mpxy::EID_MPXY, mpxy::GET_CHANNEL_IDS | mpxy::GET_NOTIFICATION_EVENTS) => &[0],
        (mpxy::EID_MPXY, mpxy::READ_ATTRIBUTE | mpxy::WRITE_ATTRIBUTE) => &[0, 1, 2],
        (
            mpxy::EID_MPXY,
            mpxy::SEND_MESSAGE_WITH_RESPONSE | mpxy::SEND_MESSAGE_WITHOUT_RESPONSE,
        ) => &[0, 1],
        _ => &[],
    }
}

/// A set of guest harts: bit n stands for guest hart n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// The harts that `mask` names, bit i being hart `base + i`; a `base` of all ones means every
    /// hart, and no bit means no hart at any other `base` (R85). `None` if one of them does not
    /// exist, which is SBI_ERR_INVALID_PARAM.
    pub fn from_mask(mask: usize, base: usize, harts: usize) -> Option<Self> {
        if base == usize::MAX {
            return Some(Self::all(harts));
        }
        if mask == 0 {
            return Some(Self(0));
        }
        if base >= harts {
            return None;
        }
        let mask = mask as u64;
        // Bits that the shift would lose name harts beyond 63, which no guest has.
        let fits = mask.leading_zeros() as usize >= base;
        let set = mask.checked_shl(base as u32)?;
        (fits && set & !Self::all(harts).0 == 0).then_some(Self(set))
    }

    /// Adds guest hart `index`, which is below 64.
    pub const fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Whether guest hart `index` is one of them.
    pub const fn contains(self, index: usize) -> bool {
        index < 64 && self.0 >> index & 1 != 0
    }

    /// Gives `call` masks and bases that name all of them once, where the machine calls guest hart
    /// n `ids[n]`: one if their numbers lie close together. Harts without a number are left out.
    pub fn masks(self, ids: &[u64], mut call: impl FnMut(usize, usize)) {
        let mut left = Self(self.0 & Self::all(ids.len()).0);
        while let Some(base) = left.iter().map(|index| ids[index]).min() {
            let mut mask = 0;
            for index in left.iter() {
                let distance = ids[index] - base;
                if distance < u64::from(usize::BITS) {
                    mask |= 1 << distance;
                    left.0 &= !(1 << index);
                }
            }
            call(mask, base as usize);
        }
    }

    /// Their numbers.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |index| self.0 & 1 << index != 0)
    }
}

/// The guest-physical address of a buffer of `len` bytes, from the two halves of its address;
/// `None` is SBI_ERR_INVALID_PARAM (R85). Every byte has to be RAM, and no byte is RAM anywhere. No
/// address has a high half, and the low half alone would be another address.
pub fn buffer_at(
    len: usize,
    low: usize,
    high: usize,
    is_ram: impl FnOnce(Gpa, u64) -> bool,
) -> Option<Gpa> {
    let gpa = Gpa::new(low as u64);
    (high == 0 && (len == 0 || is_ram(gpa, len as u64))).then_some(gpa)
}

/// Start and size of a remote fence of every address.
const ALL: (usize, usize) = (0, usize::MAX);

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
    /// The range of a remote-fence call: everything if start and size are both 0 or size is all
    /// ones. `None` if it runs past the top of the address space, which is SBI_ERR_INVALID_ADDRESS.
    pub const fn new(start: usize, size: usize) -> Option<Self> {
        if (start == 0 && size == 0) || size == usize::MAX {
            return Some(Self::All);
        }
        if size != 0 && start.checked_add(size - 1).is_none() {
            return None;
        }
        Some(Self::Part { start, len: size })
    }

    /// The address of the only page that it covers, if it is one.
    pub const fn only_page(self) -> Option<u64> {
        match self {
            Self::Part { start, len } if len > 0 && len <= 4096 - start % 4096 => {
                Some(start as u64)
            }
            _ => None,
        }
    }

    /// Start and size as a firmware call takes them: whole pages, since there is firmware that
    /// refuses other ranges.
    pub const fn arguments(self) -> (usize, usize) {
        const PAGE: usize = 4096;
        match self {
            Self::All => ALL,
            Self::Part { start, len } => {
                let first = start - start % PAGE;
                match start.checked_add(len) {
                    Some(end) if end <= usize::MAX - PAGE => {
                        (first, end.next_multiple_of(PAGE) - first)
                    }
                    _ => ALL,
                }
            }
        }
    }

    /// Makes a firmware's call for the range, and for everything if it refuses the range: too much
    /// fencing is never wrong (R40).
    ///
    /// # Errors
    ///
    /// The firmware refuses that as well.
    pub fn ask(self, call: impl Fn(usize, usize) -> SbiRet) -> Result<(), Error> {
        let (start, len) = self.arguments();
        let (all, all_len) = ALL;
        call(start, len)
            .into_result()
            .or_else(|_| call(all, all_len).into_result())
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use sbi_spec::{dbcn, rfnc, spi};

    use super::*;

    #[test]
    fn r85_a_mask_names_exactly_the_harts_of_its_bits() {
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
            (0b0, 2, 2, Some(0)),
            (0b0, 64, 2, Some(0)),
            (0b0, usize::MAX - 1, 2, Some(0)),
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
    fn r85_a_buffer_is_ram_or_nothing_and_below_2_to_the_64() {
        let is_ram = |gpa: Gpa, len| gpa.value() >= 0x1000 && gpa.value() + len <= 0x2000;
        for (len, low, high, is_right) in [
            (0x1000, 0x1000, 0, true),
            (1, 0x1fff, 0, true),
            (1, 0x2000, 0, false),
            (2, 0x1fff, 0, false),
            (0, 0x1000, 0, true),
            (0, 0, 0, true),
            (0, usize::MAX, 0, true),
            (1, 0x1000, 1, false),
            (1, 0x1000, 1 << 32, false),
            (1, 0x1000, usize::MAX, false),
            (0, 0x1000, 1, false),
            (0, 0, 1 << 63, false),
        ] {
            let gpa = buffer_at(len, low, high, is_ram);
            let expected = is_right.then_some(Gpa::new(low as u64));
            assert_eq!(gpa, expected, "{len:#x} bytes at {high:#x} {low:#x}");
        }
    }

    #[test]
    fn r84_of_a_32_bit_argument_the_low_half_counts() {
        let high = 0xffff_ffff_0000_0000;
        let registers = [high | 0x8000_0000; 6];
        let low = 0x8000_0000;
        let as_it_is = high | low;
        for (extension, function, arguments) in [
            (hsm::EID_HSM, hsm::HART_SUSPEND, [low, as_it_is]),
            (srst::EID_SRST, srst::SYSTEM_RESET, [low, low]),
            // Hart numbers, addresses and masks have the register's width.
            (hsm::EID_HSM, hsm::HART_START, [as_it_is; 2]),
            (hsm::EID_HSM, hsm::HART_GET_STATUS, [as_it_is; 2]),
            (rfnc::EID_RFNC, rfnc::REMOTE_FENCE_I, [as_it_is; 2]),
            (spi::EID_SPI, spi::SEND_IPI, [as_it_is; 2]),
            (dbcn::EID_DBCN, dbcn::CONSOLE_WRITE, [as_it_is; 2]),
            (fwft::EID_FWFT, fwft::SET, [low, as_it_is]),
            (sse::EID_SSE, sse::COMPLETE, [as_it_is; 2]),
        ] {
            let taken = as_declared(extension, function, registers);
            assert_eq!(taken[..2], arguments, "{extension:#x} {function}");
            assert_eq!(taken[2..], registers[2..], "{extension:#x} {function}");
        }
    }

    #[test]
    fn r40_a_fence_covers_whole_pages() {
        const TOP: usize = usize::MAX;
        for (start, len, expected) in [
            (0, 0, ALL),
            (0x1001, 8, (0x1000, 0x1000)),
            (0x1fff, 2, (0x1000, 0x2000)),
            (0x1000, 0x1000, (0x1000, 0x1000)),
            (0x1000, 0, (0x1000, 0)),
            (TOP - 4095, 4096, ALL),
            (5, TOP - 4, ALL),
        ] {
            let range = FenceRange::new(start, len).unwrap();
            assert_eq!(range.arguments(), expected, "{start:#x} {len:#x}");
        }
    }

    #[test]
    fn r40_a_range_that_the_firmware_refuses_is_everything() {
        let range = FenceRange::new(0x1000, 8).unwrap();
        let asked = core::cell::RefCell::new(Vec::new());
        let picky = |start, len| {
            asked.borrow_mut().push((start, len));
            match (start, len) {
                ALL => SbiRet::success(0),
                _ => SbiRet::invalid_address(),
            }
        };
        assert_eq!(range.ask(picky), Ok(()));
        assert_eq!(*asked.borrow(), [(0x1000, 0x1000), ALL]);
        let refused = range.ask(|_, _| SbiRet::not_supported());
        assert_eq!(refused, Err(Error::NotSupported));
    }

    #[test]
    fn a_set_lists_its_harts() {
        assert!(HartSet(0b1010).iter().eq([1, 3]));
        assert!(HartSet::all(3).iter().eq([0, 1, 2]));
    }

    #[test]
    fn masks_name_each_hart_once_by_the_machines_number() {
        let near = &[4, 2, 67, 3][..];
        let far = &[0, 64, 63, 1 << 40][..];
        for (set, ids, expected) in [
            (0b0000, near, &[][..]),
            (0b0011, near, &[(0b101, 2)]),
            (0b0111, near, &[(0b101, 2), (1, 67)]),
            (0b1011, near, &[(0b111, 2)]),
            (0b1111, far, &[(1 << 63 | 1, 0), (1, 64), (1, 1 << 40)]),
            (0b0110, far, &[(0b11, 63)]),
            (!0b1111, near, &[]),
        ] {
            let mut called = Vec::new();
            HartSet(set).masks(ids, |mask, base| called.push((mask, base)));
            assert_eq!(called, expected, "{set:#b} of {ids:?}");
        }
    }

    #[test]
    fn a_range_within_a_page_is_that_page_alone() {
        let part = |start, len| FenceRange::Part { start, len }.only_page();
        assert_eq!(part(0x1000, 0x1000), Some(0x1000));
        assert_eq!(part(0x1ff8, 8), Some(0x1ff8));
        assert_eq!(part(0x1ff8, 9), None);
        assert_eq!(part(0x1000, 0), None);
        assert_eq!(part(0, usize::MAX), None);
        assert_eq!(FenceRange::All.only_page(), None);
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
