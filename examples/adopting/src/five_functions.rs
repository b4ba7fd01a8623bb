//! The five functions with the signatures that callers of today's copy loops have: a count in place of an error, and the
//! privilege as a `bool`.
//!
//! The one idea: a count is what is left of an [`AccessError`] when the fault is dropped. It is the
//! exact number of bytes transferred, so that a caller who compares it with the length is right; one who wants to know
//! *why* asks the library itself.
//!
//! Order of arguments, types and answers are those of arceos' `riscv_vcpu`. Addresses are anything that converts to `usize`,
//! as the address types of that family of crates do. What differs is the call: these are methods, because the promise that
//! a vCPU is loaded on this hart has to be made somewhere ([`FiveFunctions::new`]).

use guest_mem::hart::Hart;
use guest_mem::{AccessError, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};

/// The five functions on the hart that the vCPU is loaded on.
#[derive(Debug)]
pub struct FiveFunctions<'h, H: Hart> {
    vcpu: LoadedVcpu<'h, H>,
}

const fn privilege(supervisor: bool) -> GuestPrivilege {
    if supervisor {
        GuestPrivilege::Supervisor
    } else {
        GuestPrivilege::User
    }
}

fn count(result: Result<(), AccessError>, len: usize) -> usize {
    match result {
        Ok(()) => len,
        Err(error) => error.completed,
    }
}

impl<'h, H: Hart> FiveFunctions<'h, H> {
    /// Takes the vCPU that is loaded on `hart`.
    ///
    /// # Safety
    ///
    /// As [`LoadedVcpu::new`].
    pub unsafe fn new(hart: &'h H) -> Self {
        // SAFETY: the vCPU is loaded on `hart`, and this is its one token: caller.
        let vcpu = unsafe { LoadedVcpu::new(hart) };
        Self { vcpu }
    }

    /// Copies from a guest-physical address; answers the bytes copied.
    pub fn copy_from_guest(&self, destination: &mut [u8], gpa: impl Into<usize>) -> usize {
        let len = destination.len();
        count(
            self.vcpu
                .guest_physical()
                .read(Gpa::new(gpa.into() as u64), destination),
            len,
        )
    }

    /// Copies to a guest-physical address; answers the bytes copied.
    pub fn copy_to_guest(&self, source: &[u8], gpa: impl Into<usize>) -> usize {
        count(
            self.vcpu
                .guest_physical()
                .write(Gpa::new(gpa.into() as u64), source),
            source.len(),
        )
    }

    /// Copies from a guest-virtual address, as the guest's supervisor or its user; answers the bytes copied.
    pub fn copy_from_guest_va(
        &self,
        destination: &mut [u8],
        gva: impl Into<usize>,
        supervisor: bool,
    ) -> usize {
        let len = destination.len();
        let space = self.vcpu.guest_virtual(privilege(supervisor));
        count(space.read(Gva::new(gva.into() as u64), destination), len)
    }

    /// Copies to a guest-virtual address, as the guest's supervisor or its user; answers the bytes copied.
    pub fn copy_to_guest_va(
        &self,
        source: &[u8],
        gva: impl Into<usize>,
        supervisor: bool,
    ) -> usize {
        let space = self.vcpu.guest_virtual(privilege(supervisor));
        count(
            space.write(Gva::new(gva.into() as u64), source),
            source.len(),
        )
    }

    /// Fetches the instruction at a guest-virtual address: its bits, 16 or 32 of them.
    ///
    /// # Errors
    ///
    /// The fault, whose resolution says what to inject.
    pub fn fetch_guest_instruction(
        &self,
        gva: impl Into<usize>,
        supervisor: bool,
    ) -> Result<u32, AccessError> {
        self.vcpu
            .fetch_instruction(Gva::new(gva.into() as u64), privilege(supervisor))
            .map(|instruction| instruction.bits())
    }
}
