//! A hypervisor whose trap entry cannot be changed lets the library put a vector of its own into `stvec` around each
//! access.
//!
//! There is nothing to implement. Traps that are not faults of a guest access reach the hypervisor's own entry with the trap
//! CSRs as the hardware left them (t6, and t2 to t4 in single accesses, are not as they were), and a recovered fault leaves
//! `sepc`, `scause`, `stval`, `htval`, `htinst`, `sstatus` and `hstatus` as the guest's exit left them.

use guest_mem::hart::riscv64::{Riscv64, ScopedStvec};
use guest_mem::probe::{PROBE_BYTES, ProbeError, probe};
use guest_mem::{AccessError, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};

/// Makes the value of this hart, once for each hart; the hypervisor keeps it in its per-hart data.
///
/// `scratch` is memory of [`PROBE_BYTES`] bytes, aligned to 16 KiB, at the machine address `address`.
///
/// # Safety
///
/// As [`Riscv64::new`]: this is HS-mode, and faults of guest accesses come back to it. As [`probe`]: the scratch memory is
/// the probe's alone, and no vCPU is loaded.
///
/// # Errors
///
/// If the machine cannot run a guest of Sv39 under Sv39x4.
pub unsafe fn hart(
    scratch: &mut [u64; PROBE_BYTES / 8],
    address: Spa,
) -> Result<Riscv64<ScopedStvec>, ProbeError> {
    // SAFETY: the caller promises HS-mode and where faults go; the value stays on this hart.
    let hart = unsafe { Riscv64::new() };
    // SAFETY: the caller gives the scratch memory and promises that no vCPU is loaded.
    unsafe { probe(&hart, scratch.as_mut_ptr(), address) }?;
    Ok(hart)
}

/// Reads a buffer that the guest named by a guest-virtual address.
///
/// # Safety
///
/// `hart` is the value in this hart's own data. As [`LoadedVcpu::new`]: the vCPU's `hgatp`, `vsatp` and `vsstatus` are in this
/// hart's CSRs and lead to nothing but the guest's memory.
///
/// # Errors
///
/// The fault, and how many bytes came before it.
pub unsafe fn read_guest_buffer(
    hart: &Riscv64<ScopedStvec>,
    privilege: GuestPrivilege,
    buffer: Gva,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    // SAFETY: the caller promises that the vCPU is loaded; the token ends with this function.
    let vcpu = unsafe { LoadedVcpu::new(hart) };
    vcpu.guest_virtual(privilege).read(buffer, destination)
}
