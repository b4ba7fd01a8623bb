//! Fetching the instruction that trapped.

use super::LoadedVcpu;
use super::window::{Borrow, Window};
use crate::access::GuestPrivilege;
use crate::address::Gva;
use crate::fault::{AccessError, Fault, FaultKind, Operation, TrapInfo};
use crate::hart::Hart;
use crate::instruction::Instruction;

impl<H: Hart> LoadedVcpu<'_, H> {
    /// Fetches the instruction of 2 or 4 bytes at `gva` by `hlvx.hu`, one parcel at a time (R8).
    ///
    /// `gva` is the `sepc` of the guest's exit, and `privilege` that of the guest there (`sstatus.SPP`). The second half of
    /// a 4-byte instruction may lie on another page, with a fault of its own: [`AccessError::completed`] is then 2.
    ///
    /// Needs X at both stages, not R (R5). As for a real fetch, a page with U=1 is refused to VS-mode whatever
    /// `vsstatus.SUM` says (R7), and a fault is to be injected as a fetch fault (12, 1). The A bits of the pages may be
    /// set. Interrupts are off for two accesses.
    ///
    /// The guest may rewrite the instruction meanwhile: what comes back may not be what trapped, and
    /// [`decode_trapped`](crate::instruction::decode_trapped) checks that it fits (R58).
    ///
    /// ```
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::X;
    /// use guest_mem::{Gpa, GuestPrivilege, Gva, LoadedVcpu, Resolution, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), X)?;
    /// # let hart = guest.hart();
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// // The last parcel of an execute-only page is the first half of `lw a0, 0(a1)`; the next page is not mapped.
    /// guest.write(Gpa::new(0x8000_3ffe), &[0x03, 0xa5]).unwrap();
    /// let error = vcpu.fetch_instruction(Gva::new(0x5ffe), GuestPrivilege::Supervisor).unwrap_err();
    /// assert_eq!((error.completed, error.fault.gva), (2, Some(Gva::new(0x6000))));
    /// assert!(matches!(error.fault.resolution(), Resolution::Inject(fault) if fault.cause == 12));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultKind::Misaligned`] if `gva` is odd; [`FaultKind::OutOfRange`] if a second half would lie past the top of the
    /// address space; [`FaultKind::GStageBare`] or [`FaultKind::UnsupportedRegime`]; the fault of the access.
    #[inline]
    pub fn fetch_instruction(
        &self,
        gva: Gva,
        privilege: GuestPrivilege,
    ) -> Result<Instruction, AccessError> {
        if !gva.is_aligned_to(2) || self.check_regime(Operation::Fetch, privilege).is_err() {
            return Err(self.fetch_refused(gva, privilege));
        }
        // SAFETY: the token promises that its CSRs are in the hart.
        let window =
            unsafe { Window::open(self.hart, &self.csrs, Borrow::Instructions(privilege)) };
        // SAFETY: a window is open and the G-stage is on.
        let first = unsafe { self.hart.fetch_parcel(gva.value()) };
        let first = first.map_err(|trap| self.fetch_faulted(&trap, 0))?;
        let second = if Instruction::length_of(first) == 4 {
            let next = gva.checked_add(2).ok_or_else(|| past_the_top(gva))?;
            // SAFETY: a window is open and the G-stage is on.
            let second = unsafe { self.hart.fetch_parcel(next.value()) };
            second.map_err(|trap| self.fetch_faulted(&trap, 2))?
        } else {
            0
        };
        drop(window);
        Ok(Instruction::from_parcels(first, second))
    }

    #[cold]
    #[inline(never)]
    fn fetch_refused(&self, gva: Gva, privilege: GuestPrivilege) -> AccessError {
        let misaligned = Fault::new(Operation::Fetch, FaultKind::Misaligned);
        let fault = match self.check_regime(Operation::Fetch, privilege) {
            Err(fault) if gva.is_aligned_to(2) => fault,
            _ => misaligned,
        };
        fault.at_gva(gva).after(0)
    }

    #[cold]
    #[inline(never)]
    fn fetch_faulted(&self, trap: &TrapInfo, completed: usize) -> AccessError {
        Fault::from_trap(Operation::Fetch, self.virtual_space(), *trap).after(completed)
    }
}

/// The second half of the instruction at `gva` has no address.
#[cold]
#[inline(never)]
fn past_the_top(gva: Gva) -> AccessError {
    Fault::new(Operation::Fetch, FaultKind::OutOfRange)
        .at_gva(gva)
        .after(2)
}
