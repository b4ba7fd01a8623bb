//! A hypervisor whose trap entry cannot be changed lets the library put a vector of its own into `stvec` around each
//! access.
//!
//! There is nothing to implement. Traps that are not faults of a guest access reach the hypervisor's own entry with the trap
//! CSRs as the hardware left them (t6, and t2 to t4 in single accesses, are not as they were), and a recovered fault leaves
//! `sepc`, `scause`, `stval`, `htval`, `htinst`, `sstatus` and `hstatus` as the guest's exit left them.

use guest_mem::hart::riscv64::{Riscv64, ScopedStvec};
use guest_mem::{AccessError, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};

/// Reads a buffer that the guest named by a guest-virtual address.
///
/// # Safety
///
/// As [`LoadedVcpu::new`] and [`Riscv64::new`]: this is HS-mode, faults of guest accesses come back to it, and the vCPU's
/// `hgatp`, `vsatp` and `vsstatus` are in this hart's CSRs and lead to nothing but the guest's memory.
///
/// # Errors
///
/// The fault, and how many bytes came before it.
pub unsafe fn read_guest_buffer(
    privilege: GuestPrivilege,
    buffer: Gva,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    // A value a call is fine on a machine that needs no fences; `guest_mem::probe` tells whether this is one, and then the
    // value is to be kept, one a hart.
    // SAFETY: the caller's promise; the value does not leave this function.
    let hart = unsafe { Riscv64::<ScopedStvec>::new() };
    // SAFETY: the caller's promise; the token ends with this function.
    let vcpu = unsafe { LoadedVcpu::new(&hart) };
    vcpu.guest_virtual(privilege).read(buffer, destination)
}
