//! The way to guest-physical memory that the host does not map.

use core::sync::atomic::Ordering;

use crate::access::Width;
use crate::address::Gpa;
use crate::fault::AccessError;
use crate::guest_memory::GuestMemory;

/// Access to the memory of [`GuestOnly`](super::Backing::GuestOnly) slots: [`GuestMemory`] in a form that a view can hold
/// as a trait object.
///
/// Every [`GuestMemory`] over guest-physical addresses has it; on a RISC-V hart that is the loaded vCPU's, by `hlv` and `hsv`
/// with `vsatp` Bare. A view calls it with ranges that lie in one 4 KiB page of one slot; single accesses are aligned.
pub trait UnmappedAccess {
    /// As [`GuestMemory::read`].
    ///
    /// # Errors
    ///
    /// The fault and the bytes of this range before it.
    fn read_unmapped(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError>;

    /// As [`GuestMemory::write`].
    ///
    /// # Errors
    ///
    /// The fault and the bytes of this range before it.
    fn write_unmapped(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError>;

    /// As [`GuestMemory::fill`].
    ///
    /// # Errors
    ///
    /// The fault and the bytes of this range before it.
    fn fill_unmapped(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError>;

    /// As [`GuestMemory::load_width`].
    ///
    /// # Errors
    ///
    /// The fault.
    fn load_unmapped(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError>;

    /// As [`GuestMemory::store_width`].
    ///
    /// # Errors
    ///
    /// The fault.
    fn store_unmapped(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError>;
}

impl<M: GuestMemory<Address = Gpa>> UnmappedAccess for M {
    fn read_unmapped(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        self.read(gpa, destination)
    }

    fn write_unmapped(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.write(gpa, source)
    }

    fn fill_unmapped(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.fill(gpa, byte, len)
    }

    fn load_unmapped(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        self.load_width(gpa, width, order)
    }

    fn store_unmapped(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        self.store_width(gpa, width, value, order)
    }
}
