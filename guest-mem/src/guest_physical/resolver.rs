//! Accesses that page in: on a fault to resolve, the host is asked, and the access goes on where it stopped.
//!
//! The one idea: the host is asked a bounded number of times for each 4 KiB page of the request, so neither a guest that
//! unmaps as fast as the host maps nor a resolver that does nothing keeps a hart here ([`retry`] is where the bound is).

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;

use super::reader::Reader;
use super::unmapped::UnmappedAccess;
use crate::access::{AccessKind, Width};
use crate::address::{Address, Gpa};
use crate::fault::{AccessError, Fault, FaultKind, Resolution};
use crate::guest_memory::GuestMemory;

/// A resolver cannot make the page accessible: the access ends with [`FaultKind::Unresolved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolvable;

impl fmt::Display for Unresolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page cannot be made accessible")
    }
}

impl core::error::Error for Unresolvable {}

/// Who makes guest-physical pages accessible: the host's demand paging, copy-on-write and the like. Any closure of the
/// method's signature is one. Where a read guard is held meanwhile, a
/// [`GuardedResolver`](crate::guest_virtual::GuardedResolver) is asked in its place.
pub trait Resolver {
    /// Makes the 4 KiB page of `gpa` accessible for `access`, in the slot's backing and, for accesses through a vCPU, in the
    /// G-stage table. It is called without a read guard of the library's, so it may wait for others
    /// ([`synchronize`](super::GuestPhysicalMemory::synchronize)), unless its own caller holds one. `fault` is the whole story.
    ///
    /// # Errors
    ///
    /// [`Unresolvable`] ends the access.
    fn resolve(&mut self, fault: &Fault, gpa: Gpa, access: AccessKind) -> Result<(), Unresolvable>;
}

impl<F: FnMut(&Fault, Gpa, AccessKind) -> Result<(), Unresolvable>> Resolver for F {
    fn resolve(&mut self, fault: &Fault, gpa: Gpa, access: AccessKind) -> Result<(), Unresolvable> {
        self(fault, gpa, access)
    }
}

/// Resolves of one page of guest-physical memory. It is absent, then read-only, then absent once more on its way to another
/// frame, then writable ([`replace_page`](super::GuestPhysicalMemory::replace_page)); and a hart may remember that it was absent.
pub(crate) const RESOLVES_PER_PHYSICAL_PAGE: u32 = 4;

/// Runs `attempt(done)`, which goes on with a request of which `done` bytes are transferred, until it succeeds or fails for
/// good. Between two attempts the resolver is asked, at most `resolves_per_page` times while the request stands in the same
/// 4 KiB page of its own address space; then the fault becomes [`FaultKind::Unresolved`].
pub(crate) fn retry<A: Address, T, R: Resolver + ?Sized>(
    start: A,
    resolves_per_page: u32,
    resolver: &mut R,
    mut attempt: impl FnMut(usize) -> Result<T, AccessError>,
) -> Result<T, AccessError> {
    const PAGE_SHIFT: u32 = crate::address::PAGE_SHIFT;
    let mut done = 0;
    let mut page = None;
    let mut left = resolves_per_page;
    loop {
        let error = match attempt(done) {
            Ok(value) => return Ok(value),
            Err(error) => error.later(done),
        };
        done = error.completed;
        let Resolution::Resolve { gpa, access } = error.fault.resolution() else {
            return Err(error);
        };
        // The request's range was checked by the attempt, so this does not wrap.
        let now = Some(start.to_u64().wrapping_add(done as u64) >> PAGE_SHIFT);
        if page != now {
            page = now;
            left = resolves_per_page;
        }
        let resolved = match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                resolver.resolve(&error.fault, gpa, access)
            }
            None => Err(Unresolvable),
        };
        if let Err(Unresolvable) = resolved {
            let mut fault = error.fault;
            fault.kind = FaultKind::Unresolved;
            return Err(fault.after(done));
        }
    }
}

/// Guest-physical memory whose faults a [`Resolver`] resolves: [`GuestMemory`] with a retry around each operation.
///
/// Each attempt takes its own guard, and none is held while the resolver runs. Made by [`Reader::resolving`].
pub struct Resolving<'r, 'a, R: ?Sized> {
    /// Borrowed for one operation at a time: neither a guard's user nor the resolver can reach it.
    parts: RefCell<(&'r mut Reader<'a>, &'r mut R)>,
    vcpu: Option<&'r dyn UnmappedAccess>,
}

impl<'a> Reader<'a> {
    /// Guest memory that asks `resolver` to page in. An operation asks at most four times for each 4 KiB page, which is enough
    /// for one that is read-only and then gets another frame while it is accessed. Then it fails with [`FaultKind::Unresolved`].
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use guest_mem::csr::GMode;
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, HostPage, NoGStage, PageEntry, Slot};
    /// # use guest_mem::{AccessKind, Fault, Gpa, GuestMemory};
    /// # #[repr(align(4096))]
    /// # struct Frame([u8; 4096]);
    /// # let mut frame = Frame([0; 4096]);
    /// # let page = NonNull::from(&mut frame.0).cast();
    /// let pages = [PageEntry::absent()];
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// memory.add(Slot::paged(Gpa::new(0x1000), &pages), &mut NoGStage)?;
    ///
    /// let mut page_in = |_: &Fault, gpa: Gpa, _: AccessKind| {
    ///     assert_eq!(gpa, Gpa::new(0x1ff8));
    ///     // SAFETY: `page` is a page that outlives `memory`.
    ///     unsafe { pages[0].set(HostPage::Writable(page)) };
    ///     Ok(())
    /// };
    /// let mut reader = memory.reader(0)?;
    /// let memory = reader.resolving(&mut page_in);
    /// memory.write_obj(Gpa::new(0x1ff8), &7u64)?;
    /// assert_eq!(memory.read_obj::<u64>(Gpa::new(0x1ff8))?, 7);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn resolving<'r, R: Resolver + ?Sized>(
        &'r mut self,
        resolver: &'r mut R,
    ) -> Resolving<'r, 'a, R> {
        Resolving {
            parts: RefCell::new((self, resolver)),
            vcpu: None,
        }
    }

    /// [`GuestMemory::read`] that pages in.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::read`], and [`FaultKind::Unresolved`].
    pub fn read_with(
        &mut self,
        gpa: Gpa,
        destination: &mut [u8],
        resolver: &mut (impl Resolver + ?Sized),
    ) -> Result<(), AccessError> {
        self.resolving(resolver).read(gpa, destination)
    }

    /// [`GuestMemory::write`] that pages in.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::write`], and [`FaultKind::Unresolved`].
    pub fn write_with(
        &mut self,
        gpa: Gpa,
        source: &[u8],
        resolver: &mut (impl Resolver + ?Sized),
    ) -> Result<(), AccessError> {
        self.resolving(resolver).write(gpa, source)
    }

    /// [`GuestMemory::fill`] that pages in.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::fill`], and [`FaultKind::Unresolved`].
    pub fn fill_with(
        &mut self,
        gpa: Gpa,
        byte: u8,
        len: usize,
        resolver: &mut (impl Resolver + ?Sized),
    ) -> Result<(), AccessError> {
        self.resolving(resolver).fill(gpa, byte, len)
    }
}

impl<'r, R: Resolver + ?Sized> Resolving<'r, '_, R> {
    /// The same, reaching [`GuestOnly`](super::Backing::GuestOnly) slots through `vcpu`.
    #[must_use]
    pub fn with_vcpu(mut self, vcpu: &'r dyn UnmappedAccess) -> Self {
        self.vcpu = Some(vcpu);
        self
    }

    fn retry<T>(
        &self,
        gpa: Gpa,
        mut attempt: impl FnMut(&super::PhysicalView<'_>, Gpa, usize) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let (reader, resolver) = &mut *self.parts.borrow_mut();
        retry(gpa, RESOLVES_PER_PHYSICAL_PAGE, *resolver, |done| {
            // The rest of a range that an attempt has checked.
            let at = Gpa::new(gpa.value().wrapping_add(done as u64));
            let guard = reader.guard();
            match self.vcpu {
                Some(vcpu) => attempt(&guard.with_vcpu(vcpu), at, done),
                None => attempt(&guard, at, done),
            }
        })
    }
}

impl<R: Resolver + ?Sized> GuestMemory for Resolving<'_, '_, R> {
    type Address = Gpa;

    fn read(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        self.retry(gpa, |view, at, done| {
            view.read(at, &mut destination[done..])
        })
    }

    fn write(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.retry(gpa, |view, at, done| view.write(at, &source[done..]))
    }

    fn fill(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.retry(gpa, |view, at, done| view.fill(at, byte, len - done))
    }

    fn load_width(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        self.retry(gpa, |view, _, _| view.load_width(gpa, width, order))
    }

    fn store_width(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        self.retry(gpa, |view, _, _| view.store_width(gpa, width, value, order))
    }

    fn compare_exchange_width(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        self.retry(gpa, |view, _, _| {
            view.compare_exchange_width(gpa, width, current, new, order)
        })
    }
}
