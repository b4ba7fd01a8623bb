//! The guest-physical space through `hlv` and `hsv` with `vsatp` Bare: for memory that the host does not map.

use core::sync::atomic::Ordering;

use super::LoadedVcpu;
use super::access::{self, HardwareSpace};
use super::window::{Borrow, Window};
use crate::access::Width;
use crate::address::{Gpa, last_byte};
use crate::fault::{AccessError, Fault, Operation, Space};
use crate::guest_memory::GuestMemory;
use crate::hart::Hart;

/// The guest-physical space of a loaded vCPU, as its G-stage table shows it.
///
/// Each access borrows `vsatp` (0 for Bare, then its old value): no fence is needed around that (R33). Addresses are checked
/// against the width of the G-stage mode (R13) and below 2^48, where pointer masking changes nothing (R14), before anything
/// is accessed: [`FaultKind::OutOfRange`]. A guest whose VS-mode is big-endian is [`FaultKind::UnsupportedRegime`] (R9); the
/// byte order of its user has no say.
///
/// Atomic compare-and-exchange is [`FaultKind::AtomicUnavailable`]: no `hlv` or `hsv` form reads and writes (R17).
///
/// [`FaultKind::OutOfRange`]: crate::FaultKind::OutOfRange
/// [`FaultKind::UnsupportedRegime`]: crate::FaultKind::UnsupportedRegime
/// [`FaultKind::AtomicUnavailable`]: crate::FaultKind::AtomicUnavailable
#[derive(Debug)]
pub struct LoadedPhysical<'v, 'h, H: Hart> {
    vcpu: &'v LoadedVcpu<'h, H>,
}

impl<H: Hart> Clone for LoadedPhysical<'_, '_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: Hart> Copy for LoadedPhysical<'_, '_, H> {}

impl<'v, 'h, H: Hart> LoadedPhysical<'v, 'h, H> {
    pub(super) fn new(vcpu: &'v LoadedVcpu<'h, H>) -> Self {
        Self { vcpu }
    }
}

impl<'h, H: Hart> HardwareSpace for LoadedPhysical<'_, 'h, H> {
    type Hart = H;
    type Address = Gpa;

    type Window = Window<'h, H>;

    const ALWAYS_BORROWS: bool = true;

    #[inline(always)]
    fn hart(&self) -> &H {
        self.vcpu.hart
    }

    #[inline(always)]
    fn open(&self, _: usize) -> Window<'h, H> {
        // SAFETY: the token promises that its CSRs are in the hart.
        unsafe { Window::open(self.vcpu.hart, &self.vcpu.csrs, Borrow::Physical) }
    }

    #[inline(always)]
    fn open_unfenced(&self) -> Window<'h, H> {
        // SAFETY: the token promises that its CSRs are in the hart.
        unsafe { Window::open_unfenced(self.vcpu.hart, &self.vcpu.csrs, Borrow::Physical) }
    }

    #[inline(always)]
    fn is_plain(&self, gpa: Gpa, len: usize) -> bool {
        last_byte(gpa.value(), len).is_some_and(|last| last < self.vcpu.plain_gpa_end)
    }

    /// All of the range must be guest-physical (I5): `hlv` itself would not refuse everything (R13).
    #[inline]
    fn check(&self, operation: Operation, gpa: Gpa, len: usize) -> Result<(), Fault> {
        self.vcpu.check_physical(operation, gpa, len)
    }

    fn locate(&self, fault: Fault, gpa: Gpa) -> Fault {
        fault.at_gpa(gpa)
    }

    #[inline(always)]
    fn space(&self) -> Space {
        Space::Physical
    }
}

impl<H: Hart> GuestMemory for LoadedPhysical<'_, '_, H> {
    type Address = Gpa;

    #[inline]
    fn read(&self, address: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        access::read(*self, address, destination)
    }

    #[inline]
    fn write(&self, address: Gpa, source: &[u8]) -> Result<(), AccessError> {
        access::write(*self, address, source)
    }

    #[inline]
    fn fill(&self, address: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        access::fill(*self, address, byte, len)
    }

    #[inline]
    fn load_width(&self, address: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        access::load(*self, address, width, order)
    }

    #[inline]
    fn store_width(
        &self,
        address: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        access::store(*self, address, width, value, order)
    }

    fn compare_exchange_width(
        &self,
        address: Gpa,
        width: Width,
        _current: u64,
        _new: u64,
        _order: Ordering,
    ) -> Result<u64, AccessError> {
        Err(access::no_compare_exchange(*self, address, width))
    }
}
