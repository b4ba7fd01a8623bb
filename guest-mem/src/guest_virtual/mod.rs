//! The guest-virtual space: accesses through the vCPU that is loaded on this hart.
//!
//! The one idea: `hlv` and `hsv` go through whatever `hgatp`, `vsatp` and `vsstatus` hold, so the right to use them is a
//! token. [`LoadedVcpu`] is made by one `unsafe fn` whose promise is that those CSRs are the vCPU's until it is dropped;
//! everything on it is safe, whatever address the guest names.
//!
//! The path of one read: [`GuestVirtual::read`](crate::GuestMemory::read) checks the range and, if it has more than 4096 bytes,
//! cuts it at page boundaries; for each piece a `Window` borrows the CSRs, the [`Hart`] copies, and the window closes; a trap is
//! decoded once, in [`fault`](crate::fault).

use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::access::{AccessKind, GuestPrivilege, Width};
use crate::address::{Gpa, last_byte};
use crate::csr::{GMode, HSTATUS_VSBE, STATUS_SUM, STATUS_UBE, VsMode};
use crate::fault::{AccessError, Fault, FaultKind, Operation, Space};
use crate::guest_memory::GuestMemory;
use crate::hart::{Csr, Hart};
use crate::translate::entry::{A, D, R, V, W, X};

mod access;
mod backed;
mod by_walk;
mod confirming;
mod environment;
mod fetch;
mod open;
mod physical;
mod resolving;
// Under loom guest memory is a model that `hlv` does not know.
#[cfg(all(test, not(loom)))]
mod tests;
mod view;
mod way;
mod window;

pub use backed::BackedVirtual;
pub use environment::VsEnvironment;
pub use open::OpenWindow;
pub use physical::LoadedPhysical;
pub use resolving::{GuardedResolver, ResolvingVirtual};
pub use view::GuestVirtual;

/// Bits of a guest-physical address that pointer masking leaves alone at its widest (PMLEN 16, R14).
const UNMASKED_BITS: u32 = 48;

/// The CSRs of a loaded vCPU that decide how its addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuCsrs {
    /// The G-stage.
    pub hgatp: u64,
    /// The VS-stage.
    pub vsatp: u64,
    /// SUM, MXR and UBE matter to accesses.
    pub vsstatus: u64,
}

/// The vCPU that is loaded on this hart: the right to access its memory through the hardware's translation.
///
/// The token holds a snapshot of the CSRs, so that accesses read none of them; a debug build compares on each access.
///
/// It is neither `Send` nor `Sync`: it speaks of this hart. A hart has one at a time: windows of two tokens would close in
/// any order, and put back what the other borrowed.
#[derive(Debug)]
pub struct LoadedVcpu<'h, H: Hart> {
    hart: &'h H,
    csrs: VcpuCsrs,
    /// Why no access may be issued, whatever the VS-stage.
    g_stage: Result<(), FaultKind>,
    /// Guest-physical addresses from here on are refused; 0 if all are.
    gpa_end: u64,
    /// Whether data of VS-mode, and page-table entries, would be big-endian (R9: `hstatus.VSBE`).
    big_endian: bool,
    /// Whether accesses with the rights of VS-mode are possible, and with those of VU-mode.
    supervisor: bool,
    user: bool,
    /// The same three as far as accesses need no fences either: they go the short way.
    plain_gpa_end: u64,
    plain_supervisor: bool,
    plain_user: bool,
    /// The same for fetches, which also need SUM to be clear.
    plain_supervisor_fetches: bool,
    plain_user_fetches: bool,
    not_send: PhantomData<*mut ()>,
}

impl<H: Hart> Drop for LoadedVcpu<'_, H> {
    #[inline(always)]
    fn drop(&mut self) {
        self.hart.token_dropped();
    }
}

impl<'h, H: Hart> LoadedVcpu<'h, H> {
    /// Takes the vCPU whose `hgatp`, `vsatp` and `vsstatus` are in this hart's CSRs.
    ///
    /// Where the hart has pointer masking, `henvcfg` and `senvcfg` are the vCPU's too, or tagged addresses fault (R14).
    ///
    /// Nothing is refused here: a regime that accesses cannot run under (`hgatp.MODE` Bare, R12; an unknown mode; a
    /// big-endian guest, R9) is an error of each access, so that code that only sometimes touches memory needs no second
    /// error path.
    ///
    /// On a hart that may have stale translations ([`FenceState::may_be_stale`](crate::hart::FenceState::may_be_stale): QEMU
    /// before 9.0, or not probed) a trap handler that interrupted an access of the library's, as it does when a copy's *host*
    /// buffer faults, makes no guest access of its own: when the interrupted one goes on, it would use the other's
    /// translations. Elsewhere it may.
    ///
    /// # Safety
    ///
    /// - Until the token is dropped, nothing changes this hart's `hgatp`, `vsatp`, `vsstatus` or `hstatus.VSBE`, no other
    ///   vCPU is loaded and no guest is entered on this hart.
    /// - **One token a hart:** this hart has no other, of this value or another, until this one is dropped. A trap handler that
    ///   runs meanwhile uses this one, through a shared reference. If it makes its own, it makes it of the same hart value, and
    ///   drops it before it returns. (The model hart refuses that as well: it cannot tell a handler.) A token of another value
    ///   would leave translations behind of which this one does not know, on a hart that may have stale ones.
    /// - The record of the guest's exit (`sepc`, `scause`, `stval`, `htval`, `htinst`, `sstatus.SPP`, `hstatus.SPV` and
    ///   `GVA`) has been saved, unless the hart recovers faults by a scoped `stvec` (R20) and nobody looks at `htinst` later.
    /// - The table in `hgatp` gives the guest nothing that is not the guest's: accesses have the guest's own reach.
    /// - The CSRs are the vCPU's at this very moment. They are not in a trap handler that interrupted an access of the library's:
    ///   in a guest-physical one `vsatp` is borrowed and reads 0, in a fetch `vsstatus.SUM` is clear. Such a handler uses the token
    ///   that was made before, or none.
    pub unsafe fn new(hart: &'h H) -> Self {
        let csrs = VcpuCsrs {
            hgatp: hart.read_csr(Csr::Hgatp),
            vsatp: hart.read_csr(Csr::Vsatp),
            vsstatus: hart.read_csr(Csr::Vsstatus),
        };
        let big_endian = hart.read_csr(Csr::Hstatus) & HSTATUS_VSBE != 0;
        let g_stage = match GMode::of(csrs.hgatp) {
            // Without a G-stage an access would reach machine memory (R12).
            Some(GMode::Bare) => Err(FaultKind::GStageBare),
            Some(_) => Ok(()),
            None => Err(FaultKind::UnsupportedRegime),
        };
        let gpa_end = match GMode::of(csrs.hgatp) {
            Some(mode @ (GMode::Sv39x4 | GMode::Sv48x4 | GMode::Sv57x4)) if !big_endian => {
                1 << mode.gpa_bits().min(UNMASKED_BITS)
            }
            _ => 0,
        };
        let supervisor = g_stage.is_ok() && VsMode::of(csrs.vsatp).is_some() && !big_endian;
        let user = supervisor && csrs.vsstatus & STATUS_UBE == 0;
        let plain_gpa = !hart.fence_state().may_be_stale();
        if !plain_gpa {
            hart.fence_state().forget_last();
        }
        // A fault that says too little is completed on the long way only (R76).
        let plain = plain_gpa && !hart.fence_state().htinst_may_mislead();
        hart.token_made();
        let plain_fetches = plain && csrs.vsstatus & STATUS_SUM == 0;
        Self {
            hart,
            csrs,
            g_stage,
            gpa_end,
            big_endian,
            supervisor,
            user,
            plain_gpa_end: if plain_gpa { gpa_end } else { 0 },
            plain_supervisor: plain && supervisor,
            plain_user: plain && user,
            plain_supervisor_fetches: plain_fetches && supervisor,
            plain_user_fetches: plain_fetches && user,
            not_send: PhantomData,
        }
    }

    /// The guest-virtual space, with the rights of `privilege`.
    ///
    /// Use the privilege of the guest code on whose behalf the access is made: for an instruction that trapped, that of the
    /// exit (`sstatus.SPP`, or `hstatus.SPVP`).
    #[inline]
    pub fn guest_virtual(&self, privilege: GuestPrivilege) -> GuestVirtual<'_, 'h, H> {
        GuestVirtual::new(self, privilege)
    }

    /// The guest-physical space, through the G-stage table that `hgatp` names, for memory that the host does not map.
    ///
    /// Where the host maps guest memory, [`guest_physical`](crate::guest_physical) is faster and can do more.
    ///
    /// ```
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// use guest_mem::{FaultKind, Gpa, GuestMemory, LoadedVcpu, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # let hart = guest.hart();
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// let memory = vcpu.guest_physical(); // Sv39x4: addresses of 41 bits
    /// memory.write_obj(Gpa::new(0x8000_3000), &7u64)?;
    /// let error = memory.read_obj::<u64>(Gpa::new((1 << 41) - 4)).unwrap_err();
    /// assert_eq!((error.completed, error.fault.kind), (0, FaultKind::OutOfRange));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[inline]
    pub fn guest_physical(&self) -> LoadedPhysical<'_, 'h, H> {
        LoadedPhysical::new(self)
    }

    /// The snapshot of the CSRs.
    #[inline]
    pub fn csrs(&self) -> &VcpuCsrs {
        &self.csrs
    }

    /// The hart.
    #[inline]
    pub fn hart(&self) -> &'h H {
        self.hart
    }

    /// Whether accesses at `privilege` are possible and need no fences.
    #[inline(always)]
    fn is_plain(&self, privilege: GuestPrivilege) -> bool {
        match privilege {
            GuestPrivilege::Supervisor => self.plain_supervisor,
            GuestPrivilege::User => self.plain_user,
        }
    }

    /// Whether fetches at `privilege` are possible and need neither fences nor a change of `vsstatus`.
    #[inline(always)]
    fn fetches_plainly(&self, privilege: GuestPrivilege) -> bool {
        match privilege {
            GuestPrivilege::Supervisor => self.plain_supervisor_fetches,
            GuestPrivilege::User => self.plain_user_fetches,
        }
    }

    /// The error of a guest-virtual access, with what it asked of the G-stage: on a machine whose `htinst` does not tell, an
    /// entry that can be read, and lacks a bit that the access needs, was to be updated (R76).
    #[cold]
    fn completed(&self, error: AccessError) -> AccessError {
        let fault = error.fault;
        let (FaultKind::GuestPage { implicit: true, .. }, Some(gpa)) = (fault.kind, fault.gpa)
        else {
            return error;
        };
        if !self.hart.fence_state().htinst_may_mislead() {
            return error;
        }
        let entry = self
            .guest_physical()
            .load_width(gpa, Width::Double, Ordering::Relaxed);
        let needed = match fault.operation.access_kind() {
            AccessKind::Store => A | D,
            AccessKind::Load | AccessKind::Fetch => A,
        };
        let updates = entry.is_ok_and(|entry| {
            entry & V != 0 && entry & (R | W | X) != 0 && entry & needed != needed
        });
        let access = if updates {
            AccessKind::Store
        } else {
            AccessKind::Load
        };
        let kind = FaultKind::GuestPage {
            access,
            implicit: true,
        };
        Fault { kind, ..fault }.after(error.completed)
    }

    /// Refuses a regime under which no `hlv` or `hsv` may be issued: without a G-stage it would reach machine memory.
    #[inline]
    fn check_g_stage(&self, operation: Operation) -> Result<(), Fault> {
        self.g_stage.map_err(|kind| Fault::new(operation, kind))
    }

    /// What `stval` is after a fault of a guest-virtual access. Asks the CSR, which is the token's: so an access keeps nothing
    /// for the case that it faults.
    #[inline(always)]
    fn virtual_space(&self) -> Space {
        Space::of_vsatp(self.hart.read_csr(Csr::Vsatp))
    }

    /// Refuses a regime without a G-stage, a guest whose VS-mode is big-endian (R9), and bytes that are not guest-physical.
    #[inline]
    fn check_physical(&self, operation: Operation, gpa: Gpa, len: usize) -> Result<(), Fault> {
        if last_byte(gpa.value(), len).is_some_and(|last| last < self.gpa_end) {
            return Ok(());
        }
        self.check_g_stage(operation)?;
        let kind = if self.big_endian {
            FaultKind::UnsupportedRegime
        } else {
            FaultKind::OutOfRange
        };
        Err(Fault::new(operation, kind))
    }

    /// Refuses a regime without a G-stage, a VS-stage that is unknown, or data that is not little-endian at `privilege`.
    #[inline]
    fn check_regime(&self, operation: Operation, privilege: GuestPrivilege) -> Result<(), Fault> {
        let possible = match privilege {
            GuestPrivilege::Supervisor => self.supervisor,
            // VSBE also governs the page-table reads (R9).
            GuestPrivilege::User => self.user,
        };
        if possible {
            return Ok(());
        }
        self.check_g_stage(operation)?;
        Err(Fault::new(operation, FaultKind::UnsupportedRegime))
    }
}
