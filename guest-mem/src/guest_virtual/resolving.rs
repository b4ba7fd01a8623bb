//! Guest-virtual accesses that page in: on a guest-page fault the host is asked, and the access goes on where it stopped.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;

use super::{BackedVirtual, GuestVirtual, LoadedVcpu};
use crate::access::{AccessKind, GuestPrivilege, Width};
use crate::address::{Gpa, Gva};
use crate::csr::VsMode;
use crate::fault::{AccessError, Fault};
use crate::guest_memory::GuestMemory;
use crate::guest_physical::resolver::{RESOLVES_PER_PHYSICAL_PAGE, retry};
use crate::guest_physical::{BackingMemory, Resolver, Unresolvable};
use crate::hart::Hart;
use crate::instruction::Instruction;

/// Who makes guest-physical pages accessible while a read guard is held: as a [`Resolver`], but one that must not wait for
/// guards. Any closure of the method's signature is one.
pub trait GuardedResolver<M: ?Sized> {
    /// Makes the 4 KiB page of `gpa` accessible for `access`, in the slot's backing and in the G-stage table. `fault` is the whole
    /// story, and `memory` the memory whose guard is held.
    ///
    /// Nothing here may wait for guards: not [`synchronize`](crate::guest_physical::GuestPhysicalMemory::synchronize), no change
    /// of slots, no harvest, nor another hart that does one of these. This hart would wait for itself for ever. A page that is to
    /// be found by taking another one away is found before the access, or the access is refused and begun anew.
    ///
    /// # Errors
    ///
    /// [`Unresolvable`] ends the access.
    fn resolve(
        &mut self,
        memory: &M,
        fault: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable>;
}

impl<M, F> GuardedResolver<M> for F
where
    F: FnMut(&M, &Fault, Gpa, AccessKind) -> Result<(), Unresolvable>,
{
    fn resolve(
        &mut self,
        memory: &M,
        fault: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable> {
        self(memory, fault, gpa, access)
    }
}

/// A space that asks an `R` to page in.
pub trait Asks<R: ?Sized> {
    /// Asks.
    fn ask(
        &self,
        resolver: &mut R,
        fault: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable>;
}

impl<H: Hart, R: Resolver + ?Sized> Asks<R> for GuestVirtual<'_, '_, H> {
    fn ask(
        &self,
        resolver: &mut R,
        fault: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable> {
        resolver.resolve(fault, gpa, access)
    }
}

impl<H: Hart, M, R: GuardedResolver<M> + ?Sized> Asks<R> for BackedVirtual<'_, '_, H, M> {
    fn ask(
        &self,
        resolver: &mut R,
        fault: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable> {
        resolver.resolve(self.memory, fault, gpa, access)
    }
}

/// A guest-virtual space whose guest-page faults a resolver resolves: made by [`GuestVirtual::resolving`] for a [`Resolver`] and
/// by [`BackedVirtual::resolving`] for a [`GuardedResolver`].
///
/// The resolver makes the page accessible in the G-stage table that the vCPU runs under, and fences if it has to. It is
/// asked a bounded number of times for each 4 KiB page of the request: four times (as by
/// [`Reader::resolving`](crate::guest_physical::Reader::resolving)) for the page
/// itself and for each page-table page that may lead to it. After that the access fails with
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
    /// Pages that one access to a 4 KiB page may need, some times each: its own and one page-table page a level.
    pub(super) fn resolves_per_page(&self) -> u32 {
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
    /// This space, asking `resolver` to page in. It runs while the memory's read guard is held, so it must not wait for guards: it
    /// is a [`GuardedResolver`], which is handed the memory.
    ///
    /// ```
    /// # use guest_mem::csr::GMode;
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, HostPage, NoGStage, PhysicalView, Slot, Unresolvable};
    /// # use guest_mem::guest_virtual::VsEnvironment;
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::{R, W};
    /// use guest_mem::{AccessKind, Fault, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
    ///
    /// # let array = RamArray::<32>::new();
    /// # let ram = array.at(Spa::new(0x8_0000_0000));
    /// # let guest = ModelGuest::new(ram)?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W)?;
    /// # let hart = guest.hart();
    /// # let host = ram.host_ptr(guest.spa(ModelGuest::BASE).unwrap()).unwrap();
    /// # let frame = guest.spa(Gpa::new(0x8000_3000)).unwrap();
    /// # let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// # // SAFETY: the guest's memory is at `host` for as long as `memory` exists, and is accessed as R77 says.
    /// # memory.add(unsafe { Slot::linear(ModelGuest::BASE, guest.len(), host) }, &mut NoGStage)?;
    /// # let mut reader = memory.reader(0)?;
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// // The guest maps GVA 0x5000 to GPA 0x8000_3000, which a slot has and the G-stage table has not yet.
    /// guest.unback(Gpa::new(0x8000_3000))?;
    /// let mut map = |view: &PhysicalView<'_>, _: &Fault, gpa: Gpa, access: AccessKind| {
    ///     // Under the guard: who takes the page away waits for it, and then finds the translation.
    ///     let Some(HostPage::Writable(_)) = view.host_page(gpa, access) else {
    ///         return Err(Unresolvable);
    ///     };
    ///     guest.back(gpa.page_base(), frame, R | W).map_err(|_| Unresolvable)
    /// };
    /// let view = reader.guard();
    /// let space = vcpu.guest_virtual(GuestPrivilege::Supervisor);
    /// let space = space.with_memory(&view, VsEnvironment::BASE).resolving(&mut map);
    /// space.write(Gva::new(0x5ff8), b"mapped!!")?;
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// What is only a [`Resolver`], which may wait for guards, is not taken:
    ///
    /// ```compile_fail,E0277
    /// # use guest_mem::guest_physical::{PhysicalView, Unresolvable};
    /// # use guest_mem::guest_virtual::BackedVirtual;
    /// # use guest_mem::hart::Hart;
    /// # use guest_mem::{AccessKind, Fault, Gpa};
    /// struct Reclaims;
    /// impl guest_mem::guest_physical::Resolver for Reclaims {
    ///     fn resolve(&mut self, _: &Fault, _: Gpa, _: AccessKind) -> Result<(), Unresolvable> {
    ///         Err(Unresolvable)
    ///     }
    /// }
    /// fn read<H: Hart>(space: BackedVirtual<'_, '_, H, PhysicalView<'_>>) {
    ///     let _ = space.resolving(&mut Reclaims);
    /// }
    /// ```
    pub fn resolving<R: GuardedResolver<M> + ?Sized>(
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

impl<M: GuestMemory<Address = Gva> + Asks<R>, R: ?Sized> ResolvingVirtual<'_, M, R> {
    /// Runs `attempt` at the address where the request stands, with the bytes that are done.
    fn retry<T>(
        &self,
        gva: Gva,
        mut attempt: impl FnMut(Gva, usize) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let resolver = &mut **self.resolver.borrow_mut();
        let mut ask = |fault: &Fault, gpa, access| self.space.ask(resolver, fault, gpa, access);
        retry(gva, self.resolves_per_page, &mut ask, |done| {
            // The rest of a range that an attempt has checked.
            attempt(Gva::new(gva.value().wrapping_add(done as u64)), done)
        })
    }
}

impl<M: GuestMemory<Address = Gva> + Asks<R>, R: ?Sized> GuestMemory
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
