//! The five operations that every hypervisor expects, under their usual names.
//!
//! The one idea: they are the vocabulary of [`GuestMemory`] with the space spelled out, for callers who come from a copy
//! loop of their own. `copy_*` take any guest-physical space: the slots of a VM (no vCPU need be loaded: the first image is
//! written before there is one), or a loaded vCPU's for memory that the host does not map. `*_va` and the fetch take the
//! loaded vCPU.

use crate::access::GuestPrivilege;
use crate::address::{Gpa, Gva};
use crate::fault::AccessError;
use crate::guest_memory::GuestMemory;
use crate::guest_virtual::LoadedVcpu;
use crate::hart::Hart;
use crate::instruction::Instruction;

/// Copies guest-physical memory into `destination`: [`GuestMemory::read`] of a guest-physical space.
///
/// # Errors
///
/// The fault and how many bytes were copied before it.
pub fn copy_from_guest<M>(
    memory: &M,
    source: Gpa,
    destination: &mut [u8],
) -> Result<(), AccessError>
where
    M: GuestMemory<Address = Gpa>,
{
    memory.read(source, destination)
}

/// Copies `source` into guest-physical memory: [`GuestMemory::write`] of a guest-physical space.
///
/// If the bytes are instructions, [`sync_instructions`](crate::sync_instructions) is owed before the guest runs them.
///
/// # Errors
///
/// The fault and how many bytes were written before it.
pub fn copy_to_guest<M>(memory: &M, destination: Gpa, source: &[u8]) -> Result<(), AccessError>
where
    M: GuestMemory<Address = Gpa>,
{
    memory.write(destination, source)
}

/// Copies guest-virtual memory of the loaded vCPU into `destination`, with the rights of `privilege`.
///
/// # Errors
///
/// The fault and how many bytes were copied before it; [`Fault::resolution`](crate::Fault::resolution) says whether to
/// inject it, or to resolve it and go on.
pub fn copy_from_guest_va<H: Hart>(
    vcpu: &LoadedVcpu<'_, H>,
    privilege: GuestPrivilege,
    source: Gva,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    vcpu.guest_virtual(privilege).read(source, destination)
}

/// Copies `source` into guest-virtual memory of the loaded vCPU, with the rights of `privilege`.
///
/// # Errors
///
/// The fault and how many bytes were written before it.
pub fn copy_to_guest_va<H: Hart>(
    vcpu: &LoadedVcpu<'_, H>,
    privilege: GuestPrivilege,
    destination: Gva,
    source: &[u8],
) -> Result<(), AccessError> {
    vcpu.guest_virtual(privilege).write(destination, source)
}

/// Fetches the instruction of the loaded vCPU at `pc`: [`LoadedVcpu::fetch_instruction`].
///
/// # Errors
///
/// The fault; [`AccessError::completed`] is 2 if it is that of the second half.
pub fn fetch_guest_instruction<H: Hart>(
    vcpu: &LoadedVcpu<'_, H>,
    privilege: GuestPrivilege,
    pc: Gva,
) -> Result<Instruction, AccessError> {
    vcpu.fetch_instruction(pc, privilege)
}
