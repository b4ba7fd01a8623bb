//! The accesses of one window.
//!
//! The one idea: what the scoped form has to save before an access, it saves once for all accesses of a series.

use super::forms::Recovery;
use super::routines::{Copies, Singles};
use super::{Riscv64, parts};
use crate::access::Width;
use crate::fault::TrapInfo;
use crate::hart::{Csr, FenceState, Hart, Interrupted};

/// This hart for the accesses of one window: [`Hart::series`].
pub struct Series<'h, R: Recovery> {
    hart: &'h Riscv64<R>,
    record: R::Record,
}

impl<'h, R: Recovery> Series<'h, R> {
    #[inline(always)]
    pub(super) fn begin(hart: &'h Riscv64<R>) -> Self {
        Self {
            hart,
            record: R::record(),
        }
    }

    #[inline(always)]
    fn routines(&self) -> R::Routines<'_> {
        R::routines(&self.record)
    }
}

impl<R: Recovery> core::fmt::Debug for Series<'_, R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Series").finish_non_exhaustive()
    }
}

// SAFETY: the routines of the access unit touch the host buffer and the guest address they are given, and change no CSR that
// they do not put back; everything else is the hart's.
unsafe impl<R: Recovery> Hart for Series<'_, R> {
    type Series<'s>
        = &'s Self
    where
        Self: 's;

    #[inline(always)]
    fn series(&self) -> &Self {
        self
    }

    #[inline(always)]
    fn read_csr(&self, csr: Csr) -> u64 {
        self.hart.read_csr(csr)
    }

    #[inline(always)]
    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.swap_csr(csr, value) }
    }

    #[inline(always)]
    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.set_csr_bits(csr, bits) }
    }

    #[inline(always)]
    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.clear_csr_bits(csr, bits) }
    }

    #[inline(always)]
    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        let to = &<R::Routines<'_> as Copies>::FROM_GUEST;
        let host = destination.expose_provenance();
        // SAFETY: the caller's promise. The routines write below the exposed address of a buffer that is valid for writes.
        unsafe { parts::copy(self.routines(), to, host, source, len) }
    }

    #[inline(always)]
    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        let to = &<R::Routines<'_> as Copies>::TO_GUEST;
        let host = source.expose_provenance();
        // SAFETY: the caller's promise. The routines read below the exposed address of a buffer that is valid for reads.
        unsafe { parts::copy(self.routines(), to, host, destination, len) }
    }

    #[inline]
    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { parts::fill(self.routines(), destination, byte, len) }
    }

    #[inline(always)]
    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.routines().load(address, width) }
    }

    #[inline(always)]
    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.routines().store(address, width, value) }
    }

    #[inline(always)]
    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.routines().fetch_parcel(address) }
    }

    #[inline(always)]
    unsafe fn fetch_instruction(&self, address: u64) -> Result<u32, Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.routines().fetch_instruction(address) }
    }

    fn hfence_vvma(&self, gva: Option<u64>) {
        self.hart.hfence_vvma(gva);
    }

    fn hfence_gvma(&self, gpa: Option<u64>) {
        self.hart.hfence_gvma(gpa);
    }

    fn fence_i(&self) {
        self.hart.fence_i();
    }

    #[inline(always)]
    fn fence_state(&self) -> &FenceState {
        self.hart.fence_state()
    }
}
