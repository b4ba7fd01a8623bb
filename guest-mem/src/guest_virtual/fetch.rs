//! Fetching the instruction that trapped.

use core::sync::atomic::Ordering;

use super::resolving::GuardedResolver;
use super::window::{Borrow, Window};
use super::{BackedVirtual, LoadedVcpu};
use crate::access::{AccessKind, GuestPrivilege, Width};
use crate::address::{Gpa, Gva};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_physical::BackingMemory;
use crate::guest_physical::resolver::retry;
use crate::hart::{Hart, Interrupted};
use crate::instruction::Instruction;

/// Where the second half of an instruction would have no address.
const LAST_PARCEL: u64 = u64::MAX - 1;

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
        // Most fetches find every CSR as they need it, and have room for a second parcel.
        if gva.is_aligned_to(2)
            && gva.value() < LAST_PARCEL
            && self.fetches_plainly(privilege)
            && Window::is_open_anyway(self.hart, &self.csrs, privilege)
        {
            // SAFETY: the CSRs are as in a window, and the G-stage is on; the next parcel has an address.
            return match unsafe { self.hart.fetch_instruction(gva.value()) } {
                Ok(bits) => Ok(Instruction::of_fetched(bits)),
                Err(interrupted) => Err(self.fetch_faulted(interrupted)),
            };
        }
        self.fetch_otherwise(gva, privilege)
    }

    /// [`fetch_instruction`](Self::fetch_instruction) at any address, refused ones and those that need fences included.
    #[inline(never)]
    fn fetch_otherwise(
        &self,
        gva: Gva,
        privilege: GuestPrivilege,
    ) -> Result<Instruction, AccessError> {
        let refuse = |kind| Fault::new(Operation::Fetch, kind).at_gva(gva);
        if !gva.is_aligned_to(2) {
            return Err(refuse(FaultKind::Misaligned).after(0));
        }
        self.check_regime(Operation::Fetch, privilege)
            .map_err(|fault| fault.at_gva(gva).after(0))?;
        let borrow = Borrow::Instructions(privilege);
        // SAFETY: the token promises that its CSRs are in the hart.
        let window = unsafe { Window::open(self.hart, &self.csrs, borrow) };
        let fetched = if gva.value() < LAST_PARCEL {
            // SAFETY: a window is open and the G-stage is on; the next parcel has an address.
            unsafe { self.hart.fetch_instruction(gva.value()) }
        } else {
            // SAFETY: a window is open and the G-stage is on.
            let parcel = unsafe { self.hart.fetch_parcel(gva.value()) };
            parcel
                .map(u32::from)
                .map_err(|trap| Interrupted { completed: 0, trap })
        };
        drop(window);
        let instruction = fetched
            .map(Instruction::of_fetched)
            .map_err(|interrupted| self.completed(self.fetch_faulted(interrupted)))?;
        if gva.value() == LAST_PARCEL && instruction.length() == 4 {
            return Err(refuse(FaultKind::OutOfRange).after(2));
        }
        Ok(instruction)
    }

    #[inline(always)]
    fn fetch_faulted(&self, Interrupted { completed, trap }: Interrupted) -> AccessError {
        AccessError::from_trap(Operation::Fetch, self.virtual_space(), completed, trap)
    }
}

impl<H: Hart, M: BackingMemory> BackedVirtual<'_, '_, H, M> {
    /// The instruction at `gva`, with the privilege of this space: as [`LoadedVcpu::fetch_instruction`], but by a walk and the
    /// guest's memory on a machine whose `hlvx` cannot be believed
    /// ([`VsEnvironment::walk_fetches`](super::VsEnvironment::walk_fetches)).
    ///
    /// # Errors
    ///
    /// As of [`LoadedVcpu::fetch_instruction`].
    pub fn fetch_instruction(&self, gva: Gva) -> Result<Instruction, AccessError> {
        if !self.environment.walk_fetches {
            return self.vcpu().fetch_instruction(gva, self.hardware.privilege);
        }
        let refuse = |kind| Fault::new(Operation::Fetch, kind).at_gva(gva);
        if !gva.is_aligned_to(2) {
            return Err(refuse(FaultKind::Misaligned).after(0));
        }
        let first = self.parcel_by_walk(gva, 0)?;
        if Instruction::length_of(first) == 2 {
            return Ok(Instruction::from_parcels(first, 0));
        }
        let second = gva
            .checked_add(2)
            .ok_or_else(|| refuse(FaultKind::OutOfRange).after(2))?;
        let second = self.parcel_by_walk(second, 2)?;
        Ok(Instruction::from_parcels(first, second))
    }

    fn parcel_by_walk(&self, gva: Gva, completed: usize) -> Result<u16, AccessError> {
        let found = self
            .translate(gva, AccessKind::Fetch)
            .map_err(|fault| fault.after(completed))?;
        self.memory
            .load_width(found.gpa, Width::Half, Ordering::Relaxed)
            .map(|parcel| parcel as u16)
            .map_err(|error| {
                // The memory was asked for data.
                let kind = match error.fault.kind {
                    FaultKind::GuestPage {
                        access: AccessKind::Load,
                        implicit: false,
                    } => FaultKind::GuestPage {
                        access: AccessKind::Fetch,
                        implicit: false,
                    },
                    other => other,
                };
                let fault = Fault {
                    operation: Operation::Fetch,
                    kind,
                    ..error.fault
                };
                fault.at_gva(gva).after(completed)
            })
    }

    /// [`fetch_instruction`](Self::fetch_instruction) that pages in what it needs, as
    /// [`LoadedVcpu::fetch_instruction_with`].
    ///
    /// # Errors
    ///
    /// As of [`LoadedVcpu::fetch_instruction_with`].
    pub fn fetch_instruction_with(
        &self,
        gva: Gva,
        resolver: &mut (impl GuardedResolver<M> + ?Sized),
    ) -> Result<Instruction, AccessError> {
        let mut ask = |fault: &Fault, gpa: Gpa, access: AccessKind| {
            resolver.resolve(self.memory, fault, gpa, access)
        };
        retry(gva, self.vcpu().resolves_per_page(), &mut ask, |done| {
            // An attempt fetches both halves again, and counts from the first.
            self.fetch_instruction(gva).map_err(|error| AccessError {
                completed: error.completed.saturating_sub(done),
                ..error
            })
        })
    }
}
