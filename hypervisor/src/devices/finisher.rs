//! An emulated test finisher (`sifive,test0`): one register, by which a program ends the machine that it runs on.
//!
//! The one idea: it ends the *guest*. The real one, with which a run of the hypervisor may end, is in no guest's reach.

use guest_mem::Width;

/// Bytes of guest-physical address space.
pub const WINDOW: u64 = 0x1000;

/// What is written to power off.
pub const PASS: u32 = 0x5555;
/// What is written to power off after a failure, with a code in the upper half.
pub const FAIL: u32 = 0x3333;
/// What is written to start anew.
pub const RESET: u32 = 0x7777;

/// What a guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Power off.
    PowerOff,
    /// Power off, because something has failed.
    Fail {
        /// The guest's code for it.
        code: u16,
    },
    /// Start anew.
    Reset,
}

/// What a store to the finisher asks for, if anything. It reads as zero.
pub fn finish(offset: u64, width: Width, value: u64) -> Option<Finish> {
    if offset != 0 || !matches!(width, Width::Half | Width::Word) {
        return None;
    }
    match value as u32 & 0xffff {
        PASS => Some(Finish::PowerOff),
        FAIL => Some(Finish::Fail {
            code: match width {
                Width::Half => 0,
                _ => (value >> 16) as u16,
            },
        }),
        RESET => Some(Finish::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_a_known_value_ends_the_guest() {
        for (offset, width, value, expected) in [
            (0, Width::Word, 0x5555, Some(Finish::PowerOff)),
            (0, Width::Half, 0x5555, Some(Finish::PowerOff)),
            (0, Width::Word, 0x7_5555, Some(Finish::PowerOff)),
            (0, Width::Word, 0x7777, Some(Finish::Reset)),
            (0, Width::Word, 0x3333, Some(Finish::Fail { code: 0 })),
            (
                0,
                Width::Word,
                0xffff_fff7_3333,
                Some(Finish::Fail { code: 0xfff7 }),
            ),
            (0, Width::Half, 0x7_3333, Some(Finish::Fail { code: 0 })),
            (0, Width::Byte, 0x55, None),
            (0, Width::Double, 0x5555, None),
            (0, Width::Word, 0, None),
            (0, Width::Word, 0x5554, None),
            (4, Width::Word, 0x5555, None),
        ] {
            assert_eq!(
                finish(offset, width, value),
                expected,
                "{offset} {width:?} {value:#x}"
            );
        }
    }
}
