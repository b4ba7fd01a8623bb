//! Giving a guest the exception that its access deserved.
//!
//! The one idea: an [`Injection`] is what hardware would have written on a trap into VS-mode; applying it is the same list
//! of moves for every cause. The traps of a guest with Ssdbltrp (`vsstatus.SDT`) or Zicfilp (`vsstatus.SPELP`) do more, which is
//! not here: a vCPU that has them needs that from the hypervisor.

use crate::access::{AccessKind, GuestPrivilege};
use crate::address::Gva;
use crate::cause::{self, Refusal, Refuser};
use crate::csr::{STATUS_SIE, STATUS_SPIE, STATUS_SPP};

/// An exception to take in VS-mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What goes to `vscause`.
    pub cause: u64,
    /// What goes to `vstval`: for a memory fault its guest-virtual address, for an illegal instruction its bits or 0.
    pub tval: u64,
}

/// The part of a vCPU that a trap into VS-mode reads and writes.
///
/// The hypervisor fills it from where it keeps the vCPU (CSRs if it is loaded), applies an [`Injection`], and puts it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestTrapState {
    /// Where the guest goes on: `sepc` of the exit.
    pub pc: u64,
    /// The guest's privilege: `sstatus.SPP` of the exit.
    pub privilege: GuestPrivilege,
    /// `vsstatus`.
    pub vsstatus: u64,
    /// `vstvec`; exceptions go to its base in either mode.
    pub vstvec: u64,
    /// `vsepc`.
    pub vsepc: u64,
    /// `vscause`.
    pub vscause: u64,
    /// `vstval`.
    pub vstval: u64,
}

impl Injection {
    /// A page fault (12/13/15) at `gva`.
    pub const fn page_fault(access: AccessKind, gva: Gva) -> Self {
        Self::refused(Refuser::VsStage, access, gva)
    }

    /// An access fault (1/5/7) at `gva`.
    pub const fn access_fault(access: AccessKind, gva: Gva) -> Self {
        Self::refused(Refuser::Machine, access, gva)
    }

    /// A misaligned address (0/4/6): `gva` is where the access begins. The guest, or its firmware, may carry it out by
    /// smaller accesses.
    ///
    /// ```
    /// use guest_mem::inject::Injection;
    /// use guest_mem::{AccessKind, Gva};
    ///
    /// let injection = Injection::misaligned(AccessKind::Store, Gva::new(0x1ffc));
    /// assert_eq!((injection.cause, injection.tval), (6, 0x1ffc));
    /// ```
    pub const fn misaligned(access: AccessKind, gva: Gva) -> Self {
        Self::refused(Refuser::Alignment, access, gva)
    }

    const fn refused(by: Refuser, access: AccessKind, gva: Gva) -> Self {
        Self {
            cause: cause::of_refusal(Refusal { by, access }),
            tval: gva.value(),
        }
    }

    /// An illegal-instruction exception (2); `bits` are the instruction, or 0 if it is not known.
    pub const fn illegal_instruction(bits: u32) -> Self {
        Self {
            cause: cause::ILLEGAL_INSTRUCTION,
            tval: bits as u64,
        }
    }

    /// Takes the exception: the guest goes on in VS-mode at the base of `vstvec`.
    ///
    /// ```
    /// use guest_mem::{Gva, AccessKind, GuestPrivilege, inject::{GuestTrapState, Injection}};
    ///
    /// let mut guest = GuestTrapState {
    ///     pc: 0x1000, privilege: GuestPrivilege::User, vsstatus: 1 << 1, vstvec: 0x8020_0000,
    ///     vsepc: 0, vscause: 0, vstval: 0,
    /// };
    /// Injection::page_fault(AccessKind::Load, Gva::new(0xdead_b000)).apply(&mut guest);
    /// assert_eq!((guest.pc, guest.vsepc, guest.vscause, guest.vstval), (0x8020_0000, 0x1000, 13, 0xdead_b000));
    /// assert_eq!(guest.privilege, GuestPrivilege::Supervisor);
    /// assert_eq!(guest.vsstatus, 1 << 5); // SPIE holds the old SIE, SPP says VU
    /// ```
    pub const fn apply(self, guest: &mut GuestTrapState) {
        let enabled = guest.vsstatus & STATUS_SIE != 0;
        guest.vsstatus &= !(STATUS_SIE | STATUS_SPIE | STATUS_SPP);
        if enabled {
            guest.vsstatus |= STATUS_SPIE;
        }
        if matches!(guest.privilege, GuestPrivilege::Supervisor) {
            guest.vsstatus |= STATUS_SPP;
        }
        guest.vsepc = guest.pc;
        guest.vscause = self.cause;
        guest.vstval = self.tval;
        guest.privilege = GuestPrivilege::Supervisor;
        guest.pc = guest.vstvec & !0b11;
    }
}
