//! What a vCPU waits for (R72): the two instructions that wait, and what ends a wait.
//!
//! The one idea: `wfi` exits (`hstatus.VTW`), so that a guest that idles sleeps in the host, where ticks of the host's do not
//! end it. The pc is behind the `wfi` before the wait begins and is never put back.

/// An instruction that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// `wfi`: for an interrupt that is enabled.
    ForInterrupt,
    /// `wrs.nto`: for a store of another hart, which nobody tells the hypervisor of. It may end at any time.
    ForStore,
}

impl Waiting {
    /// Bytes of either instruction.
    pub const BYTES: u64 = 4;

    const WFI: u32 = 0x1050_0073;
    const WRS_NTO: u32 = 0x00d0_0073;

    /// The instruction with these bits, if it waits where `supervisor` says who executes it. `wfi` is the supervisor's alone:
    /// for a user it is an illegal instruction wherever a `wfi` may trap.
    pub fn decode(bits: u32, supervisor: bool) -> Option<Self> {
        match bits {
            Self::WFI if supervisor => Some(Self::ForInterrupt),
            Self::WRS_NTO => Some(Self::ForStore),
            _ => None,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// An interrupt is pending and enabled.
    Interrupt,
    /// That, or a software interrupt arrives: one that was pending before the wait does not count.
    InterruptOrArrival,
}

impl Until {
    /// Whether the wait is over, with these interrupts `pending` and `enabled`, and a software interrupt that has `arrived`
    /// since it began.
    pub fn is_over(self, pending: u64, enabled: u64, arrived: bool) -> bool {
        pending & enabled != 0 || self == Self::InterruptOrArrival && arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r72_wfi_of_the_supervisor_and_wrs_nto_wait() {
        for (bits, supervisor, expected) in [
            (0x1050_0073, true, Some(Waiting::ForInterrupt)),
            (0x1050_0073, false, None),
            (0x00d0_0073, true, Some(Waiting::ForStore)),
            (0x00d0_0073, false, Some(Waiting::ForStore)),
            // wrs.sto, sret, ecall, a wfi with a register, a compressed instruction
            (0x01d0_0073, true, None),
            (0x1020_0073, true, None),
            (0x0000_0073, true, None),
            (0x1050_00f3, true, None),
            (0x0073, true, None),
        ] {
            assert_eq!(Waiting::decode(bits, supervisor), expected, "{bits:#x}");
        }
    }

    #[test]
    fn r72_what_is_pending_and_enabled_ends_each_wait() {
        for until in [Until::Interrupt, Until::InterruptOrArrival] {
            assert!(until.is_over(0b110, 0b010, false));
            assert!(!until.is_over(0b100, 0b010, false));
            assert!(!until.is_over(0, !0, false));
        }
    }

    #[test]
    fn r72_an_arrival_ends_a_suspension_that_has_it_disabled() {
        assert!(Until::InterruptOrArrival.is_over(0b10, 0, true));
        assert!(!Until::InterruptOrArrival.is_over(0b10, 0, false));
        assert!(!Until::Interrupt.is_over(0b10, 0, true));
    }
}
