//! What becomes of a trap that M-mode took in place of a lower mode: the state that the trap would have left there.
//!
//! The one idea: not every machine delegates every cause, and SBI firmware then does in software what the hardware would have
//! done. This is that step, from the values that M-mode finds to those that the lower mode is to find.

use guest_mem::csr::{
    HSTATUS_GVA, HSTATUS_SPV, HSTATUS_SPVP, STATUS_SDT, STATUS_SIE, STATUS_SPIE, STATUS_SPP,
};

/// `mstatus`: the mode that the trap came from, and the values for S and U.
const MPP: u64 = 3 << 11;
const MPP_SUPERVISOR: u64 = 1 << 11;
const MPP_USER: u64 = 0;
/// `mstatus`: `mtval` is a guest-virtual address.
pub const STATUS_GVA: u64 = 1 << 38;
/// `mstatus`: the trap came from a guest.
const STATUS_MPV: u64 = 1 << 39;

/// What M-mode finds.
#[derive(Clone, Copy)]
pub struct Found {
    /// `mcause`, of an exception.
    pub cause: u64,
    /// `mstatus`.
    pub mstatus: u64,
    /// `hstatus`.
    pub hstatus: u64,
    /// `hedeleg`.
    pub hedeleg: u64,
    /// `vsstatus`.
    pub vsstatus: u64,
    /// `stvec`.
    pub stvec: u64,
    /// `vstvec`.
    pub vstvec: u64,
}

/// What the trap leaves besides the CSRs that take over M-mode's: `epc`, `cause` and `tval`, in HS-mode `htval` and `htinst`, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// `mstatus`, for M-mode's return.
    pub mstatus: u64,
    /// Where that leads.
    pub pc: u64,
    /// Who takes the trap.
    pub taker: Taker,
}

/// A mode that takes a trap, with its own status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// HS-mode.
    Hypervisor {
        /// `hstatus`.
        hstatus: u64,
    },
    /// VS-mode, since HS-mode delegates the cause.
    Guest {
        /// `vsstatus`.
        vsstatus: u64,
    },
}

/// Redirects a trap. `None` if there is nobody to take it: it came from M-mode, or is a double trap.
pub const fn redirect(found: Found) -> Option<Left> {
    let Found {
        cause,
        mstatus,
        hstatus,
        hedeleg,
        vsstatus,
        stvec,
        vstvec,
    } = found;
    let from_supervisor = match mstatus & MPP {
        MPP_SUPERVISOR => true,
        MPP_USER => false,
        _ => return None,
    };
    let from_guest = mstatus & STATUS_MPV != 0;
    let to_supervisor = mstatus & !(MPP | STATUS_MPV | STATUS_GVA) | MPP_SUPERVISOR;
    if from_guest && cause < 64 && hedeleg >> cause & 1 != 0 {
        if vsstatus & STATUS_SDT != 0 {
            return None;
        }
        return Some(Left {
            mstatus: to_supervisor | STATUS_MPV,
            pc: vstvec & !3,
            taker: Taker::Guest {
                vsstatus: status_of_taker(vsstatus, from_supervisor),
            },
        });
    }
    // SDT binds HS-mode only while it runs.
    if !from_guest && from_supervisor && mstatus & STATUS_SDT != 0 {
        return None;
    }
    let mut status = hstatus & !(HSTATUS_SPV | HSTATUS_GVA);
    if from_guest {
        // SPVP is left alone by a trap from HS-mode or U-mode.
        status &= !HSTATUS_SPVP;
        status |= HSTATUS_SPV;
        if from_supervisor {
            status |= HSTATUS_SPVP;
        }
    }
    if mstatus & STATUS_GVA != 0 {
        status |= HSTATUS_GVA;
    }
    Some(Left {
        mstatus: status_of_taker(to_supervisor, from_supervisor),
        pc: stvec & !3,
        taker: Taker::Hypervisor { hstatus: status },
    })
}

/// What a trap does to the status of the mode that takes it. SDT stays 0 where there is none.
const fn status_of_taker(status: u64, from_supervisor: bool) -> u64 {
    let mut after = status & !(STATUS_SPP | STATUS_SPIE | STATUS_SIE) | STATUS_SDT;
    if from_supervisor {
        after |= STATUS_SPP;
    }
    if status & STATUS_SIE != 0 {
        after |= STATUS_SPIE;
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that a redirect has nothing to do with.
    const OTHERS: u64 = 1 << 18 | 1 << 13;
    const HSTATUS: u64 = 2 << 32;

    const FOUND: Found = Found {
        cause: 13,
        mstatus: MPP_SUPERVISOR | OTHERS,
        hstatus: HSTATUS,
        hedeleg: 0,
        vsstatus: 1 << 9,
        stvec: 0x8020_1000,
        vstvec: 0x4001,
    };

    /// The `mstatus` and `hstatus` of a redirect to HS-mode.
    fn to_hypervisor(found: Found) -> (u64, u64) {
        let left = redirect(found).unwrap();
        assert_eq!(left.pc, found.stvec & !3);
        let Taker::Hypervisor { hstatus } = left.taker else {
            panic!("the guest takes it");
        };
        (left.mstatus, hstatus)
    }

    #[test]
    fn spp_spie_and_sie_are_those_of_a_trap_from_each_mode() {
        for (mpp, spp) in [(MPP_SUPERVISOR, STATUS_SPP), (MPP_USER, 0)] {
            for (sie, spie) in [(STATUS_SIE, STATUS_SPIE), (0, 0)] {
                // What a trap before left does not shine through.
                let stale = STATUS_SPP | STATUS_SPIE | OTHERS;
                let (mstatus, _) = to_hypervisor(Found {
                    mstatus: mpp | sie | stale,
                    ..FOUND
                });
                let expected = MPP_SUPERVISOR | spp | spie | OTHERS | STATUS_SDT;
                assert_eq!(mstatus, expected, "{mpp:#x} {sie:#x}");
            }
        }
    }

    #[test]
    fn spv_and_spvp_tell_of_the_guest_and_spvp_of_the_last_one() {
        let hstatus = |mstatus, hstatus| {
            to_hypervisor(Found {
                mstatus,
                hstatus,
                ..FOUND
            })
            .1
        };
        let guest = HSTATUS | HSTATUS_SPV;
        for stale in [0, HSTATUS_SPVP | HSTATUS_SPV | HSTATUS_GVA] {
            let stale = HSTATUS | stale;
            assert_eq!(
                hstatus(STATUS_MPV | MPP_SUPERVISOR, stale),
                guest | HSTATUS_SPVP
            );
            assert_eq!(hstatus(STATUS_MPV | MPP_USER, stale), guest);
            assert_eq!(
                hstatus(MPP_SUPERVISOR, stale),
                HSTATUS | stale & HSTATUS_SPVP
            );
            assert_eq!(hstatus(MPP_USER, stale), HSTATUS | stale & HSTATUS_SPVP);
        }
    }

    #[test]
    fn gva_follows_m_modes_and_v_is_0_afterwards() {
        for from in [0, STATUS_MPV] {
            let (mstatus, hstatus) = to_hypervisor(Found {
                mstatus: MPP_SUPERVISOR | STATUS_GVA | from,
                ..FOUND
            });
            assert_eq!(hstatus & HSTATUS_GVA, HSTATUS_GVA);
            assert_eq!(mstatus & (STATUS_MPV | STATUS_GVA), 0);
        }
    }

    #[test]
    fn a_guest_takes_what_is_delegated_to_it_and_nothing_else() {
        let from_guest = Found {
            mstatus: STATUS_MPV | MPP_USER | STATUS_SIE | OTHERS,
            hedeleg: 1 << 13,
            vsstatus: STATUS_SIE | STATUS_SPP | OTHERS,
            ..FOUND
        };
        let left = Left {
            mstatus: STATUS_MPV | MPP_SUPERVISOR | STATUS_SIE | OTHERS,
            pc: 0x4000,
            taker: Taker::Guest {
                vsstatus: STATUS_SPIE | OTHERS | STATUS_SDT,
            },
        };
        assert_eq!(redirect(from_guest), Some(left));
        for other in [
            Found {
                cause: 21,
                ..from_guest
            },
            Found {
                cause: 77,
                ..from_guest
            },
            Found {
                mstatus: MPP_USER,
                ..from_guest
            },
        ] {
            to_hypervisor(other);
        }
    }

    #[test]
    fn m_modes_own_traps_and_double_traps_are_nobodys() {
        for mstatus in [MPP, MPP_SUPERVISOR | STATUS_SDT] {
            assert_eq!(redirect(Found { mstatus, ..FOUND }), None);
        }
        let from_guest = STATUS_MPV | MPP_SUPERVISOR | STATUS_SDT;
        to_hypervisor(Found {
            mstatus: from_guest,
            ..FOUND
        });
        let in_guest = Found {
            mstatus: from_guest,
            hedeleg: u64::MAX,
            vsstatus: STATUS_SDT,
            ..FOUND
        };
        assert_eq!(redirect(in_guest), None);
    }
}
