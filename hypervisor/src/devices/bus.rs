//! The bus: which device, if any, answers a guest-physical address.
//!
//! The one idea: windows are sorted and disjoint, so the only candidate is the last window that starts at or below the
//! address.

use alloc::vec::Vec;
use core::fmt;

use guest_mem::{Gpa, Width};

/// Windows of guest-physical memory, each with the device (or the name of one) behind it.
#[derive(Debug, Default)]
pub struct Bus<Device> {
    windows: Vec<Window<Device>>,
}

#[derive(Debug)]
struct Window<Device> {
    base: Gpa,
    size: u64,
    device: Device,
}

/// Why a window cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusError {
    /// It has no bytes, or goes past the top of the address space.
    BadRange {
        /// Where it begins.
        base: Gpa,
        /// Its length in bytes.
        size: u64,
    },
    /// It shares bytes with the window that begins at `with`.
    Overlap {
        /// Where it begins.
        base: Gpa,
        /// Where the other begins.
        with: Gpa,
    },
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange { base, size } => {
                write!(f, "no device can have {size:#x} bytes at {base:#x}")
            }
            Self::Overlap { base, with } => {
                write!(f, "the device at {base:#x} overlaps the one at {with:#x}")
            }
        }
    }
}

impl<Device> Bus<Device> {
    /// A bus with nothing on it.
    pub const fn new() -> Self {
        Self {
            windows: Vec::new(),
        }
    }

    /// Puts `device` at [base, base + size).
    pub fn add(&mut self, base: Gpa, size: u64, device: Device) -> Result<(), BusError> {
        let end = base.checked_add(size).filter(|_| size > 0);
        let end = end.ok_or(BusError::BadRange { base, size })?;
        let index = self.windows.partition_point(|window| window.base < base);
        let before = index.checked_sub(1).map(|index| &self.windows[index]);
        let overlap = before
            .filter(|before| base.value() - before.base.value() < before.size)
            .or_else(|| self.windows.get(index).filter(|after| after.base < end));
        if let Some(window) = overlap {
            let with = window.base;
            return Err(BusError::Overlap { base, with });
        }
        let window = Window { base, size, device };
        self.windows.insert(index, window);
        Ok(())
    }

    /// The device that answers all bytes of an access of `width` at `gpa`, and the offset into its window.
    pub fn find(&self, gpa: Gpa, width: Width) -> Option<(&Device, u64)> {
        let index = self.windows.partition_point(|window| window.base <= gpa);
        let window = &self.windows[index.checked_sub(1)?];
        let offset = gpa.value() - window.base.value();
        let end = offset.checked_add(width.bytes() as u64)?;
        (end <= window.size).then_some((&window.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus<char> {
        let mut bus = Bus::new();
        bus.add(Gpa::new(0x1000), 8, 'b').unwrap();
        bus.add(Gpa::new(0x800), 0x800, 'a').unwrap();
        bus.add(Gpa::new(u64::MAX - 16), 16, 'z').unwrap();
        bus
    }

    #[test]
    fn an_access_finds_the_window_that_holds_all_of_it() {
        for (gpa, width, found) in [
            (0x7ff, Width::Byte, None),
            (0x800, Width::Double, Some(('a', 0))),
            (0xfff, Width::Byte, Some(('a', 0x7ff))),
            (0xfff, Width::Half, None),
            (0x1000, Width::Double, Some(('b', 0))),
            (0x1007, Width::Byte, Some(('b', 7))),
            (0x1004, Width::Double, None),
            (0x1008, Width::Byte, None),
            (u64::MAX - 1, Width::Byte, Some(('z', 15))),
            (u64::MAX, Width::Byte, None),
            (u64::MAX, Width::Double, None),
            (0, Width::Byte, None),
        ] {
            let answer = bus().find(Gpa::new(gpa), width).map(|(&d, at)| (d, at));
            assert_eq!(answer, found, "{gpa:#x} {width:?}");
        }
    }

    #[test]
    fn windows_that_overlap_are_refused() {
        for (base, size, with) in [
            (0x1007, 1, 0x1000),
            (0xfff, 1, 0x800),
            (0x700, 0x101, 0x800),
            (0x1000, 8, 0x1000),
            (0, 0x2000, 0x800),
        ] {
            let base = Gpa::new(base);
            let with = Gpa::new(with);
            let answer = bus().add(base, size, 'x');
            assert_eq!(answer, Err(BusError::Overlap { base, with }));
        }
        assert_eq!(bus().add(Gpa::new(0x1008), 8, 'x'), Ok(()));
        assert_eq!(bus().add(Gpa::new(0), 0x800, 'x'), Ok(()));
    }

    #[test]
    fn a_window_without_bytes_or_past_the_top_is_refused() {
        for (base, size) in [(0x4000, 0), (u64::MAX, 2), (1, u64::MAX)] {
            let base = Gpa::new(base);
            let answer = bus().add(base, size, 'x');
            assert_eq!(answer, Err(BusError::BadRange { base, size }));
        }
    }

    #[test]
    fn an_empty_bus_answers_nothing() {
        assert!(Bus::<()>::new().find(Gpa::new(0), Width::Byte).is_none());
    }
}
