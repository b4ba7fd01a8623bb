//! The five operations that every hypervisor expects, under their usual names.
//!
//! The one idea: they are the vocabulary of [`GuestMemory`] with the space spelled out, for callers who come from a copy
//! loop of their own. `copy_*` take any guest-physical space: the slots of a VM (no vCPU need be loaded: the first image is
//! written before there is one), or a loaded vCPU's for memory that the host does not map. `*_va` and the fetch take the
//! loaded vCPU.
//!
//! ```
//! # use guest_mem::hart::model::{ModelGuest, RamArray};
//! # use guest_mem::translate::entry::{R, W, X};
//! # use guest_mem::{Gpa, Gva, LoadedVcpu, Spa};
//! use guest_mem::{
//!     GuestPrivilege, copy_from_guest, copy_from_guest_va, copy_to_guest, copy_to_guest_va, fetch_guest_instruction,
//! };
//!
//! # let ram = RamArray::<32>::new();
//! # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
//! # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W | X)?;
//! # let hart = guest.hart();
//! # // SAFETY: the guest is loaded on the hart.
//! # let vcpu = unsafe { LoadedVcpu::new(&hart) };
//! // The guest maps GVA 0x5000 to GPA 0x8000_3000.
//! let (gva, gpa, kernel) = (Gva::new(0x5000), Gpa::new(0x8000_3000), GuestPrivilege::Supervisor);
//! let mut bytes = [0; 4];
//!
//! copy_to_guest(&vcpu.guest_physical(), gpa, &[0x13, 0, 0, 0])?; // nop
//! copy_from_guest_va(&vcpu, kernel, gva, &mut bytes)?;
//! assert_eq!(bytes, [0x13, 0, 0, 0]);
//! assert_eq!(fetch_guest_instruction(&vcpu, kernel, gva)?.bits(), 0x13);
//!
//! copy_to_guest_va(&vcpu, kernel, gva, b"text")?;
//! copy_from_guest(&vcpu.guest_physical(), gpa, &mut bytes)?;
//! assert_eq!(&bytes, b"text");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

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
