//! Guest-virtual accesses that page in: on a guest-page fault the host is asked, and the access goes on where it stopped.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;

use super::{BackedVirtual, BackingMemory, GuestVirtual, LoadedVcpu};
use crate::access::{GuestPrivilege, Width};
use crate::address::Gva;
use crate::csr::VsMode;
use crate::fault::AccessError;
use crate::guest_memory::GuestMemory;
use crate::guest_physical::Resolver;
use crate::guest_physical::resolver::{RESOLVES_PER_PHYSICAL_PAGE, retry};
use crate::hart::Hart;
use crate::instruction::Instruction;

/// A guest-virtual space whose guest-page faults a [`Resolver`] resolves: made by [`GuestVirtual::resolving`] and
/// [`BackedVirtual::resolving`].
///
/// The resolver makes the page accessible in the G-stage table that the vCPU runs under, and fences if it has to. It is
/// asked a bounded number of times for each 4 KiB page of the request: twice (read-only, then writable) for the page itself
/// and for each page-table page that may lead to it. After that the access fails with
/// [`FaultKind::Unresolved`](crate::FaultKind::Unresolved). Faults of the guest's own are not resolved.
pub struct ResolvingVirtual<'r, M, R: ?Sized> {
    space: M,
    resolves_per_page: u32,
    resolver: RefCell<&'r mut R>,
}

impl<M: fmt::Debug, R: ?Sized> fmt::Debug for ResolvingVirtual<'_, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolvingVirtual")
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

impl<H: Hart> LoadedVcpu<'_, H> {
    /// Pages that one access to a 4 KiB page may need, twice each: its own and one page-table page a level.
    fn resolves_per_page(&self) -> u32 {
        let levels = VsMode::of(self.csrs.vsatp).map_or(0, VsMode::levels) as u32;
        (levels + 1) * RESOLVES_PER_PHYSICAL_PAGE
    }

    /// [`fetch_instruction`](Self::fetch_instruction) that pages in.
    ///
    /// # Errors
    ///
    /// As [`fetch_instruction`](Self::fetch_instruction), and [`FaultKind::Unresolved`](crate::FaultKind::Unresolved).
    pub fn fetch_instruction_with(
        &self,
        gva: Gva,
        privilege: GuestPrivilege,
        resolver: &mut (impl Resolver + ?Sized),
    ) -> Result<Instruction, AccessError> {
        retry(gva, self.resolves_per_page(), resolver, |done| {
            // An attempt fetches both halves again, and counts from the first.
            self.fetch_instruction(gva, privilege)
                .map_err(|error| AccessError {
                    completed: error.completed.saturating_sub(done),
                    ..error
                })
        })
    }
}

impl<'h, H: Hart> GuestVirtual<'_, 'h, H> {
    /// This space, asking `resolver` to page in.
    ///
    /// ```
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::{R, W};
    /// # use guest_mem::guest_physical::Unresolvable;
    /// use guest_mem::{AccessKind, Fault, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W)?;
    /// # let hart = guest.hart();
    /// # let frame = guest.spa(Gpa::new(0x8000_3000)).unwrap();
    /// // The guest maps GVA 0x5000 to GPA 0x8000_3000, which the host has not backed yet.
    /// guest.unback(Gpa::new(0x8000_3000))?;
    /// let mut page_in = |_: &Fault, gpa: Gpa, _: AccessKind| {
    ///     guest.back(gpa.page_base(), frame, R | W).map_err(|_| Unresolvable)
    /// };
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// let space = vcpu.guest_virtual(GuestPrivilege::Supervisor).resolving(&mut page_in);
    /// space.write(Gva::new(0x5ff8), b"paged in")?;
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn resolving<R: Resolver + ?Sized>(
        self,
        resolver: &mut R,
    ) -> ResolvingVirtual<'_, Self, R> {
        let resolves_per_page = self.vcpu.resolves_per_page();
        ResolvingVirtual {
            space: self,
            resolves_per_page,
            resolver: RefCell::new(resolver),
        }
    }
}

impl<'h, H: Hart, M: BackingMemory> BackedVirtual<'_, 'h, H, M> {
    /// This space, asking `resolver` to page in. The resolver runs while the memory's read guard is held, so it must not
    /// wait for guards.
    pub fn resolving<R: Resolver + ?Sized>(
        self,
        resolver: &mut R,
    ) -> ResolvingVirtual<'_, Self, R> {
        let resolves_per_page = self.vcpu().resolves_per_page();
        ResolvingVirtual {
            space: self,
            resolves_per_page,
            resolver: RefCell::new(resolver),
        }
    }
}

impl<M: GuestMemory<Address = Gva>, R: Resolver + ?Sized> ResolvingVirtual<'_, M, R> {
    /// Runs `attempt` at the address where the request stands, with the bytes that are done.
    fn retry<T>(
        &self,
        gva: Gva,
        mut attempt: impl FnMut(Gva, usize) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        retry(
            gva,
            self.resolves_per_page,
            *self.resolver.borrow_mut(),
            |done| {
                // The rest of a range that an attempt has checked.
                attempt(Gva::new(gva.value().wrapping_add(done as u64)), done)
            },
        )
    }
}

impl<M: GuestMemory<Address = Gva>, R: Resolver + ?Sized> GuestMemory
    for ResolvingVirtual<'_, M, R>
{
    type Address = Gva;

    fn read(&self, gva: Gva, destination: &mut [u8]) -> Result<(), AccessError> {
        self.retry(gva, |at, done| {
            self.space.read(at, &mut destination[done..])
        })
    }

    fn write(&self, gva: Gva, source: &[u8]) -> Result<(), AccessError> {
        self.retry(gva, |at, done| self.space.write(at, &source[done..]))
    }

    fn fill(&self, gva: Gva, byte: u8, len: usize) -> Result<(), AccessError> {
        self.retry(gva, |at, done| self.space.fill(at, byte, len - done))
    }

    fn load_width(&self, gva: Gva, width: Width, order: Ordering) -> Result<u64, AccessError> {
        self.retry(gva, |at, _| self.space.load_width(at, width, order))
    }

    fn store_width(
        &self,
        gva: Gva,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        self.retry(gva, |at, _| self.space.store_width(at, width, value, order))
    }

    fn compare_exchange_width(
        &self,
        gva: Gva,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        self.retry(gva, |at, _| {
            self.space
                .compare_exchange_width(at, width, current, new, order)
        })
    }
}
