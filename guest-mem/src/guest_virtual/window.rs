//! The access window: the few instructions during which this hart's CSRs are borrowed for a guest access.
//!
//! The one idea: whatever happens inside, a fault included, dropping the [`Window`] puts every CSR back as it was. Inside,
//! interrupts are off (R26), `sstatus.MXR` is clear (R4, I8), and `sstatus.SDT` is clear, so that a fault is not a double
//! trap (R24).
//!
//! Only values that are not already right are written, since a write flushes the pipeline of a real core and a read does
//! not. The switch of `vsatp` to Bare and back needs no fence (R28 to R33).

use crate::access::GuestPrivilege;
use crate::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SDT, STATUS_SIE, STATUS_SUM, STATUS_UBE};
use crate::hart::{Csr, FenceKey, Hart};

use super::VcpuCsrs;

/// What an access needs the CSRs to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Borrow {
    /// Data at a guest-virtual address.
    Virtual(GuestPrivilege),
    /// Instructions at a guest-virtual address: `vsstatus.SUM` is off, since a fetch from a page with U=1 is refused to
    /// VS-mode whatever SUM says (R7).
    Instructions(GuestPrivilege),
    /// A guest-physical address: `vsatp` is Bare. Only the byte order still depends on the privilege (R9): that of VS-mode is
    /// used where the guest's user has another.
    Physical,
}

/// `sstatus` bits that are clear in a window.
const STATUS_BORROWED: u64 = STATUS_SIE | STATUS_SDT | STATUS_MXR;

/// In a debug build, that the token's promise is kept.
#[inline(always)]
fn check_loaded(hart: &impl Hart, vcpu: &VcpuCsrs) {
    if cfg!(debug_assertions) {
        let loaded = VcpuCsrs {
            hgatp: hart.read_csr(Csr::Hgatp),
            vsatp: hart.read_csr(Csr::Vsatp),
            vsstatus: hart.read_csr(Csr::Vsstatus),
        };
        assert_eq!(&loaded, vcpu, "another vCPU is loaded");
    }
}

/// An open access window. Dropping it closes it.
pub(crate) struct Window<'h, H: Hart> {
    hart: &'h H,
    /// `sstatus` bits to set again.
    status: u64,
    /// Whether SPVP is to be flipped back.
    privilege_flipped: bool,
    /// `vsatp` to write back.
    vsatp: Option<u64>,
    /// `vsstatus` bits to set again.
    vsstatus: u64,
}

impl<'h, H: Hart> Window<'h, H> {
    /// Whether a guest-virtual access has nothing to borrow, since every CSR is right: so it is after an exit of the guest whose
    /// memory is accessed with its own rights, interrupts still off. Then the access needs no window, if it needs no fence and,
    /// to fetch, finds SUM clear.
    #[inline(always)]
    pub(crate) fn is_open_anyway(hart: &H, vcpu: &VcpuCsrs, privilege: GuestPrivilege) -> bool {
        let supervisor = privilege == GuestPrivilege::Supervisor;
        check_loaded(hart, vcpu);
        hart.read_csr(Csr::Sstatus) & STATUS_BORROWED == 0
            && (hart.read_csr(Csr::Hstatus) & HSTATUS_SPVP != 0) == supervisor
    }

    /// Opens a window for `borrow` on the vCPU whose CSRs are `vcpu`.
    ///
    /// # Safety
    ///
    /// `vcpu` is what the hart's `hgatp`, `vsatp` and `vsstatus` hold.
    #[inline]
    pub(crate) unsafe fn open(hart: &'h H, vcpu: &VcpuCsrs, borrow: Borrow) -> Self {
        // SAFETY: the caller's promise.
        let window = unsafe { Self::open_unfenced(hart, vcpu, borrow) };
        hart.fence_state().prepare(hart, || FenceKey {
            hgatp: vcpu.hgatp,
            vsatp: if borrow == Borrow::Physical {
                0
            } else {
                vcpu.vsatp
            },
            supervisor: hart.read_csr(Csr::Hstatus) & HSTATUS_SPVP != 0,
            vsstatus: vcpu.vsstatus & (STATUS_SUM | STATUS_MXR) & !window.vsstatus,
        });
        window
    }

    /// The same on a hart that needs no fences (R35).
    ///
    /// # Safety
    ///
    /// As [`open`](Self::open).
    #[inline(always)]
    pub(crate) unsafe fn open_unfenced(hart: &'h H, vcpu: &VcpuCsrs, borrow: Borrow) -> Self {
        check_loaded(hart, vcpu);
        let status = hart.read_csr(Csr::Sstatus) & STATUS_BORROWED;
        let mut window = Self {
            hart,
            status,
            privilege_flipped: false,
            vsatp: None,
            vsstatus: 0,
        };
        // SAFETY: dropping the window puts back what is changed here.
        unsafe {
            if status != 0 {
                hart.clear_csr_bits(Csr::Sstatus, STATUS_BORROWED);
            }
            match borrow {
                Borrow::Virtual(privilege) => window.act_as(privilege),
                Borrow::Instructions(privilege) => {
                    window.act_as(privilege);
                    if vcpu.vsstatus & STATUS_SUM != 0 {
                        hart.clear_csr_bits(Csr::Vsstatus, STATUS_SUM);
                        window.vsstatus = STATUS_SUM;
                    }
                }
                Borrow::Physical => {
                    if vcpu.vsstatus & STATUS_UBE != 0 {
                        window.act_as(GuestPrivilege::Supervisor);
                    }
                    if vcpu.vsatp != 0 {
                        // Bare is written as all zeroes (R31).
                        hart.swap_csr(Csr::Vsatp, 0);
                        window.vsatp = Some(vcpu.vsatp);
                    }
                }
            }
        }
        window
    }

    /// Makes `hstatus.SPVP` say `privilege`.
    #[inline(always)]
    fn act_as(&mut self, privilege: GuestPrivilege) {
        let supervisor = privilege == GuestPrivilege::Supervisor;
        let is_supervisor = self.hart.read_csr(Csr::Hstatus) & HSTATUS_SPVP != 0;
        if supervisor != is_supervisor {
            self.flip_privilege(supervisor);
            self.privilege_flipped = true;
        }
    }

    #[inline(always)]
    fn flip_privilege(&self, supervisor: bool) {
        // SAFETY: dropping the window flips it back; nothing of the host depends on SPVP but the record of the guest's exit.
        unsafe {
            if supervisor {
                self.hart.set_csr_bits(Csr::Hstatus, HSTATUS_SPVP);
            } else {
                self.hart.clear_csr_bits(Csr::Hstatus, HSTATUS_SPVP);
            }
        }
    }
}

impl<H: Hart> Drop for Window<'_, H> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: these are the values that `open` found.
        unsafe {
            if let Some(vsatp) = self.vsatp {
                self.hart.swap_csr(Csr::Vsatp, vsatp);
            }
            if self.vsstatus != 0 {
                self.hart.set_csr_bits(Csr::Vsstatus, self.vsstatus);
            }
            if self.privilege_flipped {
                let supervisor = self.hart.read_csr(Csr::Hstatus) & HSTATUS_SPVP != 0;
                self.flip_privilege(!supervisor);
            }
            // Interrupts last: until here they would see borrowed CSRs.
            if self.status != 0 {
                self.hart.set_csr_bits(Csr::Sstatus, self.status);
            }
        }
    }
}
