//! The model as a [`Hart`]: CSR instructions, copies, single accesses, fences.

use super::{ModelHart, Register};
use crate::access::Width;
use crate::fault::TrapInfo;
use crate::hart::{Csr, FenceState, Hart, Interrupted};
use crate::translate::Purpose;

/// The elements of a copy: single bytes up to a multiple of the width that two addresses share, then that width, then single
/// bytes. Answers each element's offset and width, in order.
fn elements(guest: u64, host: usize, len: usize) -> impl Iterator<Item = (usize, Width)> {
    let shared = (guest ^ host as u64).trailing_zeros().min(3);
    let wide = Width::ALL[shared as usize];
    let mut offset = 0;
    core::iter::from_fn(move || {
        let left = len - offset;
        let aligned = guest
            .wrapping_add(offset as u64)
            .is_multiple_of(wide.bytes() as u64);
        let width = match left {
            0 => return None,
            _ if aligned && left >= wide.bytes() => wide,
            _ => Width::Byte,
        };
        let at = offset;
        offset += width.bytes();
        Some((at, width))
    })
}

impl ModelHart<'_> {
    /// One `hlvx.hu` or `hlvx.wu`, zero-extended. The library fetches by parcels and has no `hlvx.wu` (R8), so that
    /// [`Hart`] has none either; this is for comparing the model with other machines.
    ///
    /// # Errors
    ///
    /// The trap that it takes.
    ///
    /// # Panics
    ///
    /// If there is no such instruction for `width`; where [`Hart`]'s contract is broken.
    pub fn hlvx(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        assert!(
            matches!(width, Width::Half | Width::Word),
            "hlvx is of 16 or 32 bits (R8)"
        );
        self.access(address, width, Purpose::ExecutableLoad, 0)
    }

    fn swap(&self, csr: Csr, value: u64) -> u64 {
        self.count(|counts| counts.csr_writes += 1);
        let old = self.registers.get(csr.into());
        self.registers.set(csr.into(), value);
        old
    }
}

// SAFETY: the CSRs are the model's own, and only the given buffers are touched, within their length.
unsafe impl Hart for ModelHart<'_> {
    type Series<'s>
        = &'s Self
    where
        Self: 's;

    fn series(&self) -> &Self {
        self
    }

    fn read_csr(&self, csr: Csr) -> u64 {
        self.count(|counts| counts.csr_reads += 1);
        self.registers.get(csr.into())
    }

    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64 {
        self.swap(csr, value)
    }

    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        self.swap(csr, self.registers.get(csr.into()) | bits)
    }

    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        self.swap(csr, self.registers.get(csr.into()) & !bits)
    }

    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        for (completed, width) in elements(source, destination.addr(), len) {
            let address = source.wrapping_add(completed as u64);
            let value = self
                .access(address, width, Purpose::Load, 0)
                .map_err(|trap| Interrupted { completed, trap })?;
            let bytes = value.to_le_bytes();
            // SAFETY: the element lies within the `len` bytes that are valid for writes.
            unsafe {
                destination
                    .add(completed)
                    .copy_from_nonoverlapping(bytes.as_ptr(), width.bytes());
            }
        }
        Ok(())
    }

    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        for (completed, width) in elements(destination, source.addr(), len) {
            let address = destination.wrapping_add(completed as u64);
            let mut bytes = [0; 8];
            // SAFETY: the element lies within the `len` bytes that are valid for reads, and fits into eight.
            unsafe {
                source
                    .add(completed)
                    .copy_to_nonoverlapping(bytes.as_mut_ptr(), width.bytes());
            }
            let value = u64::from_le_bytes(bytes);
            self.access(address, width, Purpose::Store, value)
                .map_err(|trap| Interrupted { completed, trap })?;
        }
        Ok(())
    }

    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        let value = u64::from_le_bytes([byte; 8]);
        // No host buffer to be aligned with.
        for (completed, width) in elements(destination, destination as usize, len) {
            let address = destination.wrapping_add(completed as u64);
            self.access(address, width, Purpose::Store, value)
                .map_err(|trap| Interrupted { completed, trap })?;
        }
        Ok(())
    }

    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        self.access(address, width, Purpose::Load, 0)
    }

    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        self.access(address, width, Purpose::Store, value).map(drop)
    }

    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        self.access(address, Width::Half, Purpose::ExecutableLoad, 0)
            .map(|parcel| parcel as u16)
    }

    fn hfence_vvma(&self, gva: Option<u64>) {
        self.count(|counts| counts.hfence_vvma += 1);
        let hgatp = self.registers.get(Register::Hgatp);
        self.tlb.hfence_vvma(super::lookup::vmid_of(hgatp), gva);
    }

    fn hfence_gvma(&self, gpa: Option<u64>) {
        self.count(|counts| counts.hfence_gvma += 1);
        self.tlb.hfence_gvma(gpa);
    }

    fn fence_i(&self) {
        self.count(|counts| counts.fence_i += 1);
    }

    fn fence_state(&self) -> &FenceState {
        &self.fences
    }

    fn token_made(&self) {
        assert!(
            !self.has_token.replace(true),
            "a second LoadedVcpu on one hart: `LoadedVcpu::new` promises one token a hart (I15)"
        );
    }

    fn token_dropped(&self) {
        self.has_token.set(false);
    }
}
