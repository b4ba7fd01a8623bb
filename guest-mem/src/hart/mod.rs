//! The machine under us: the seam between what an access means and how it is carried out.
//!
//! The one idea: everything above this module is portable and asks a [`Hart`]; below it there are the real instructions
//! (`riscv64`, on such a machine) and a software hart ([`model`]) that behaves as the specification says, so that the portable part runs,
//! and is tested, on any machine.

use crate::access::Width;
use crate::fault::TrapInfo;
use crate::instruction::Instruction;

pub mod model;
#[cfg(target_arch = "riscv64")]
pub mod riscv64;

mod fences;
pub mod recovery;

pub use fences::{FenceKey, FenceState};

/// The CSRs that a guest access reads or borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csr {
    /// The host's own status: SIE, SDT and MXR matter here.
    Sstatus,
    /// SPVP: whose rights `hlv`/`hsv` use.
    Hstatus,
    /// The G-stage.
    Hgatp,
    /// The VS-stage.
    Vsatp,
    /// The guest's status: SUM, MXR and UBE matter here.
    Vsstatus,
}

/// A copy loop that a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Bytes transferred before the element that faulted. Nothing after them was written.
    pub completed: usize,
    /// The trap.
    pub trap: TrapInfo,
}

/// One RISC-V hart in HS-mode, as far as guest accesses need it.
///
/// The accesses are raw: they go through whatever `hgatp`, `vsatp`, `vsstatus` and `hstatus.SPVP` hold. Choosing and
/// restoring those is the access window's business, above this trait.
///
/// An implementation is a value that belongs to one hart (its methods speak of *this* hart's CSRs), so it is never shared:
/// implementations hold [`FenceState`], which is not `Sync`.
///
/// # Safety
///
/// Implementations return from every method with the CSRs as the method's contract says, also when the access faults, and
/// touch no host memory but the buffer they are given.
pub unsafe trait Hart {
    /// The hart for the accesses of one window.
    type Series<'s>: Hart
    where
        Self: 's;

    /// The hart for several accesses in one window: what an access has to save of the time before it is saved once, here. A
    /// fault of any of them puts back what was found now. Where nothing is saved, it is the hart itself.
    fn series(&self) -> Self::Series<'_>;

    /// Reads a CSR.
    fn read_csr(&self, csr: Csr) -> u64;

    /// Writes a CSR and answers its old value.
    ///
    /// # Safety
    ///
    /// The caller puts back what the rest of the host relies on.
    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64;

    /// Sets bits of a CSR and answers its old value.
    ///
    /// # Safety
    ///
    /// As [`swap_csr`](Self::swap_csr).
    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64;

    /// Clears bits of a CSR and answers its old value.
    ///
    /// # Safety
    ///
    /// As [`swap_csr`](Self::swap_csr).
    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64;

    /// Copies `len` bytes from the guest address to host memory, by naturally aligned `hlv` that stay inside the range. A fault
    /// ends the copy at the faulting element.
    ///
    /// # Safety
    ///
    /// `destination` is valid for writes of `len` bytes. An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted>;

    /// Copies `len` bytes from host memory to the guest address, by naturally aligned `hsv`. A fault ends the copy at the
    /// faulting element.
    ///
    /// # Safety
    ///
    /// `source` is valid for reads of `len` bytes. An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted>;

    /// Writes `len` copies of `byte` at the guest address, by naturally aligned `hsv`.
    ///
    /// # Safety
    ///
    /// An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted>;

    /// One `hlv` of the given width, zero-extended.
    ///
    /// # Safety
    ///
    /// An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo>;

    /// One `hsv` of the given width.
    ///
    /// # Safety
    ///
    /// An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo>;

    /// One `hlvx.hu`: a 16-bit instruction parcel (R8).
    ///
    /// # Safety
    ///
    /// An access window is open. `hgatp.MODE` is not Bare.
    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo>;

    /// One instruction of 2 or 4 bytes by one or two `hlvx.hu` (R8), zero-extended. A fault of the second one leaves 2 bytes
    /// completed.
    ///
    /// # Safety
    ///
    /// An access window is open. `hgatp.MODE` is not Bare. `address + 2` does not wrap.
    #[inline]
    unsafe fn fetch_instruction(&self, address: u64) -> Result<u32, Interrupted> {
        let parcel = |completed: usize| {
            // SAFETY: the caller's promise.
            unsafe { self.fetch_parcel(address + completed as u64) }
                .map_err(|trap| Interrupted { completed, trap })
        };
        let first = parcel(0)?;
        let second = match Instruction::length_of(first) {
            2 => 0,
            _ => parcel(2)?,
        };
        Ok(Instruction::from_parcels(first, second).bits())
    }

    /// `hfence.vvma`: of one guest-virtual page, or of all, for the VMID in `hgatp` (R37).
    fn hfence_vvma(&self, gva: Option<u64>);

    /// `hfence.gvma`: of one guest-physical page, or of all, for every VMID (R38).
    fn hfence_gvma(&self, gpa: Option<u64>);

    /// `fence.i`: later fetches of this hart see earlier stores (R48).
    fn fence_i(&self);

    /// What the fences of this hart depend on.
    fn fence_state(&self) -> &FenceState;

    /// A [`LoadedVcpu`](crate::LoadedVcpu) of this hart was made. A hart for tests can check here that it is the only one (I15).
    #[inline(always)]
    fn token_made(&self) {}

    /// The [`LoadedVcpu`](crate::LoadedVcpu) of this hart was dropped.
    #[inline(always)]
    fn token_dropped(&self) {}
}

// SAFETY: all methods are the hart's.
unsafe impl<H: Hart> Hart for &H {
    type Series<'s>
        = H::Series<'s>
    where
        Self: 's;

    #[inline(always)]
    fn series(&self) -> H::Series<'_> {
        (**self).series()
    }

    #[inline(always)]
    fn read_csr(&self, csr: Csr) -> u64 {
        (**self).read_csr(csr)
    }

    #[inline(always)]
    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (**self).swap_csr(csr, value) }
    }

    #[inline(always)]
    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (**self).set_csr_bits(csr, bits) }
    }

    #[inline(always)]
    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (**self).clear_csr_bits(csr, bits) }
    }

    #[inline(always)]
    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { (**self).copy_from_guest(source, destination, len) }
    }

    #[inline(always)]
    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { (**self).copy_to_guest(destination, source, len) }
    }

    #[inline(always)]
    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { (**self).fill_guest(destination, byte, len) }
    }

    #[inline(always)]
    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { (**self).load_guest(address, width) }
    }

    #[inline(always)]
    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { (**self).store_guest(address, width, value) }
    }

    #[inline(always)]
    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { (**self).fetch_parcel(address) }
    }

    #[inline(always)]
    unsafe fn fetch_instruction(&self, address: u64) -> Result<u32, Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { (**self).fetch_instruction(address) }
    }

    fn hfence_vvma(&self, gva: Option<u64>) {
        (**self).hfence_vvma(gva);
    }

    fn hfence_gvma(&self, gpa: Option<u64>) {
        (**self).hfence_gvma(gpa);
    }

    fn fence_i(&self) {
        (**self).fence_i();
    }

    #[inline(always)]
    fn fence_state(&self) -> &FenceState {
        (**self).fence_state()
    }

    #[inline(always)]
    fn token_made(&self) {
        (**self).token_made();
    }

    #[inline(always)]
    fn token_dropped(&self) {
        (**self).token_dropped();
    }
}
