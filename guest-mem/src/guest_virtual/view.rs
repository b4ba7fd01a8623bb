//! One guest-virtual space: the [`GuestMemory`] vocabulary at a stated privilege.

use core::sync::atomic::Ordering;

use super::LoadedVcpu;
use super::access::{self, HardwareSpace};
use super::window::{Borrow, Window};
use crate::access::{GuestPrivilege, Width};
use crate::address::Gva;
use crate::fault::{AccessError, Fault, Operation, Space};
use crate::guest_memory::GuestMemory;
use crate::hart::Hart;

/// The guest-virtual space of a loaded vCPU, as guest code of one privilege sees it.
///
/// Every access is made by the hardware through both stages, exactly as the guest's own would be: `vsstatus.SUM` and
/// `vsstatus.MXR` count (R3, R4), pointer masking applies (R14), and where hardware updates A and D bits, it sets them.
/// Nothing is paged in: a guest-page fault comes back as [`Resolution::Resolve`](crate::Resolution::Resolve).
///
/// Interrupts are off for at most 4096 bytes of copying: an access of more is cut at page boundaries.
#[derive(Debug)]
pub struct GuestVirtual<'v, 'h, H: Hart> {
    pub(super) vcpu: &'v LoadedVcpu<'h, H>,
    pub(super) privilege: GuestPrivilege,
}

impl<H: Hart> Clone for GuestVirtual<'_, '_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: Hart> Copy for GuestVirtual<'_, '_, H> {}

impl<'v, 'h, H: Hart> GuestVirtual<'v, 'h, H> {
    pub(super) fn new(vcpu: &'v LoadedVcpu<'h, H>, privilege: GuestPrivilege) -> Self {
        Self { vcpu, privilege }
    }
}

impl<'h, H: Hart> HardwareSpace for GuestVirtual<'_, 'h, H> {
    type Hart = H;
    type Address = Gva;

    type Window = Window<'h, H>;

    #[inline(always)]
    fn hart(&self) -> &H {
        self.vcpu.hart
    }

    #[inline(always)]
    fn open(&self, _: usize) -> Window<'h, H> {
        // SAFETY: the token promises that its CSRs are in the hart.
        unsafe {
            Window::open(
                self.vcpu.hart,
                &self.vcpu.csrs,
                Borrow::Virtual(self.privilege),
            )
        }
    }

    #[inline(always)]
    fn open_unfenced(&self) -> Window<'h, H> {
        // SAFETY: the token promises that its CSRs are in the hart.
        unsafe {
            Window::open_unfenced(
                self.vcpu.hart,
                &self.vcpu.csrs,
                Borrow::Virtual(self.privilege),
            )
        }
    }

    #[inline(always)]
    fn is_open_anyway(&self) -> bool {
        Window::is_open_anyway(self.vcpu.hart, &self.vcpu.csrs, self.privilege)
    }

    #[inline(always)]
    fn is_plain(&self, _: Gva, _: usize) -> bool {
        self.vcpu.is_plain(self.privilege)
    }

    #[inline]
    fn check(&self, operation: Operation, _: Gva, _: usize) -> Result<(), Fault> {
        self.vcpu.check_regime(operation, self.privilege)
    }

    fn locate(&self, fault: Fault, gva: Gva) -> Fault {
        fault.at_gva(gva)
    }

    #[inline(always)]
    fn space(&self) -> Space {
        self.vcpu.virtual_space()
    }

    fn completed(&self, error: AccessError) -> AccessError {
        self.vcpu.completed(error)
    }
}

impl<H: Hart> GuestMemory for GuestVirtual<'_, '_, H> {
    type Address = Gva;

    #[inline]
    fn read(&self, address: Gva, destination: &mut [u8]) -> Result<(), AccessError> {
        access::read(*self, address, destination)
    }

    #[inline]
    fn write(&self, address: Gva, source: &[u8]) -> Result<(), AccessError> {
        access::write(*self, address, source)
    }

    #[inline]
    fn fill(&self, address: Gva, byte: u8, len: usize) -> Result<(), AccessError> {
        access::fill(*self, address, byte, len)
    }

    #[inline]
    fn load_width(&self, address: Gva, width: Width, order: Ordering) -> Result<u64, AccessError> {
        access::load(*self, address, width, order)
    }

    #[inline]
    fn store_width(
        &self,
        address: Gva,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        access::store(*self, address, width, value, order)
    }

    fn compare_exchange_width(
        &self,
        address: Gva,
        width: Width,
        _current: u64,
        _new: u64,
        _order: Ordering,
    ) -> Result<u64, AccessError> {
        Err(access::no_compare_exchange(*self, address, width))
    }
}
