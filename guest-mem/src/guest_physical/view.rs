//! The read guard, and guest memory as it shows it.
//!
//! The one idea: a range becomes *runs*, each in one slot and in one piece of host memory; every operation is a loop over runs,
//! and everything that decides whether an access is allowed is in [`PhysicalView::run`].

use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::direct;
use super::dirty_log;
use super::page_entry::HostPage;
use super::reader::ReaderEntry;
use super::slot::{Backing, Slot};
use super::table::Table;
use super::unmapped::UnmappedAccess;
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, PAGE_SIZE};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;

/// Guest-physical memory under a read guard: see [`Reader::guard`](super::Reader::guard).
///
/// The slots are those of the moment it was taken; the entries of [`Paged`](Backing::Paged) slots are looked at anew by each
/// access. It carries its vCPU's way to [`GuestOnly`](Backing::GuestOnly) memory if it was given one.
///
/// What an access answers, beyond [`GuestMemory`]'s rules:
///
/// | at the address | answer |
/// |---|---|
/// | outside the G-stage mode's width | [`FaultKind::OutOfRange`] for all of the range, before anything is accessed |
/// | no slot | [`FaultKind::NoSlot`] |
/// | `Trapped` slot | [`FaultKind::Trapped`] |
/// | read-only slot, written | [`FaultKind::ReadOnlySlot`] |
/// | `Paged`, absent page, or read-only page, written | [`FaultKind::GuestPage`], to be resolved |
/// | `GuestOnly`, no vCPU given | [`FaultKind::NotMapped`]; compare-and-exchange: [`FaultKind::AtomicUnavailable`] |
/// | `Device`, copied or filled | [`FaultKind::DeviceMemory`]; compare-and-exchange: [`FaultKind::AtomicUnavailable`] |
pub struct PhysicalView<'g> {
    table: &'g Table<[Slot<'g>]>,
    entry: &'g ReaderEntry,
    hint: &'g Cell<usize>,
    vcpu: Option<&'g dyn UnmappedAccess>,
}

/// Where a run of bytes is.
#[derive(Clone, Copy)]
enum Place<'v> {
    /// In host memory.
    Direct(*mut u8),
    /// In a device that the host maps.
    Device(*mut u8),
    /// Behind the loaded vCPU's G-stage.
    Vcpu(&'v dyn UnmappedAccess),
    /// Out of reach.
    NotMapped,
}

/// Bytes in one slot and one place.
struct Run<'v> {
    slot: &'v Slot<'v>,
    place: Place<'v>,
    len: usize,
}

impl<'g> PhysicalView<'g> {
    /// The caller has entered `entry` and read the table after that.
    #[inline]
    pub(super) fn new(
        table: &'g Table<[Slot<'g>]>,
        entry: &'g ReaderEntry,
        hint: &'g Cell<usize>,
    ) -> Self {
        Self {
            table,
            entry,
            hint,
            vcpu: None,
        }
    }

    /// The same guard, which reaches the memory of [`GuestOnly`](Backing::GuestOnly) slots through `vcpu`.
    #[must_use]
    pub fn with_vcpu(mut self, vcpu: &'g dyn UnmappedAccess) -> Self {
        self.vcpu = Some(vcpu);
        self
    }

    /// The slots, in ascending order.
    #[inline]
    pub fn slots(&self) -> &[Slot<'g>] {
        self.table.shared_slots()
    }

    /// The slot that holds the address.
    #[inline]
    pub fn slot_at(&self, gpa: Gpa) -> Option<&Slot<'g>> {
        let (at, slot) = self.table.find(gpa, self.hint.get())?;
        self.hint.set(at);
        Some(slot)
    }

    /// Which change of the slots this guard sees.
    pub fn generation(&self) -> u64 {
        self.table.generation
    }

    /// Whether any slot is logging. While one is, writes that do not go through this view (`hsv`, the guest's own) are logged
    /// by the write-protection of its pages ([`StageMirror`](super::StageMirror)).
    #[inline]
    pub fn logging(&self) -> bool {
        self.table.logging
    }

    /// Marks the page of `gpa` in its slot's dirty log, if that is logging: for the handler of a store that faulted on a
    /// write-protected page, before it makes the page writable.
    pub fn mark_dirty(&self, gpa: Gpa) {
        if let Some(slot) = self.slot_at(gpa) {
            dirty_log::mark(slot, gpa, 1);
        }
    }

    /// Where the host has the page that holds `gpa`, as its slot says: for whoever fills the G-stage table. The address is good
    /// while this guard exists, and after that until the slot or the page's entry changes. `None` if no slot holds it or the
    /// host does not map it.
    pub fn host_page(&self, gpa: Gpa) -> Option<HostPage> {
        let slot = self.slot_at(gpa)?;
        let offset = slot.offset_of(gpa.page_base());
        let page = match slot.backing {
            Backing::Linear { host } | Backing::Device { host } => {
                // SAFETY: the page is in the slot, whose bytes are at `host`.
                HostPage::Writable(unsafe { host.add(offset as usize) })
            }
            Backing::Paged { pages } => pages[(offset / PAGE_SIZE) as usize].get(),
            Backing::GuestOnly | Backing::Trapped => return None,
        };
        Some(match page {
            HostPage::Writable(page) if slot.read_only => HostPage::ReadOnly(page),
            page => page,
        })
    }

    /// Where the host has the byte at `gpa`, if the operation may use it; `None` where the host does not map it.
    pub(super) fn host_address(
        &self,
        operation: Operation,
        gpa: Gpa,
    ) -> Result<Option<NonNull<u8>>, Fault> {
        Ok(match self.run(operation, gpa, 1)?.place {
            Place::Direct(host) | Place::Device(host) => NonNull::new(host),
            Place::Vcpu(_) | Place::NotMapped => None,
        })
    }

    /// The place of the slot that was found last.
    pub(super) fn last_slot(&self) -> usize {
        self.hint.get()
    }

    /// Says where the next access will probably find its slot.
    #[inline]
    pub(super) fn expect_slot(&self, place: usize) {
        self.hint.set(place);
    }

    /// Refuses a range that leaves the guest-physical space (R13). Zero bytes never do.
    #[inline]
    pub(super) fn check(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
    ) -> Result<(), AccessError> {
        match gpa.checked_add(len as u64) {
            _ if len == 0 => Ok(()),
            Some(end) if end.value() <= self.table.limit => Ok(()),
            _ => Err(Fault::new(operation, FaultKind::OutOfRange)
                .at_gpa(gpa)
                .after(0)),
        }
    }

    /// The longest run of at most `len` bytes at `gpa` that the operation may use, or why it may not use even the first.
    #[inline]
    fn run(&self, operation: Operation, gpa: Gpa, len: usize) -> Result<Run<'_>, Fault> {
        let refused = |kind| Fault::new(operation, kind).at_gpa(gpa);
        let slot = self
            .slot_at(gpa)
            .ok_or_else(|| refused(FaultKind::NoSlot))?;
        let writes = operation.access_kind() == AccessKind::Store;
        if matches!(slot.backing, Backing::Trapped) {
            return Err(refused(FaultKind::Trapped));
        }
        if slot.read_only && writes {
            return Err(refused(FaultKind::ReadOnlySlot));
        }
        let offset = slot.offset_of(gpa);
        let to_slot_end = slot.len - offset;
        let to_page_end = PAGE_SIZE - gpa.page_offset();
        let (place, room) = match slot.backing {
            Backing::Linear { host } => {
                // The offset is inside the slot, whose bytes are at `host`.
                let at = host.as_ptr().wrapping_add(offset as usize);
                (Place::Direct(at), to_slot_end)
            }
            Backing::Paged { pages } => {
                let page = match pages[(offset / PAGE_SIZE) as usize].get() {
                    HostPage::Writable(page) => page,
                    HostPage::ReadOnly(page) if !writes => page,
                    HostPage::ReadOnly(_) | HostPage::Absent => {
                        return Err(refused(FaultKind::GuestPage {
                            access: operation.access_kind(),
                            implicit: false,
                        }));
                    }
                };
                let at = page.as_ptr().wrapping_add(gpa.page_offset() as usize);
                (Place::Direct(at), to_page_end)
            }
            Backing::Device { host } => {
                let at = host.as_ptr().wrapping_add(offset as usize);
                (Place::Device(at), to_slot_end)
            }
            Backing::GuestOnly => match self.vcpu {
                Some(vcpu) => (Place::Vcpu(vcpu), to_page_end),
                None => (Place::NotMapped, to_page_end),
            },
            Backing::Trapped => return Err(refused(FaultKind::Trapped)),
        };
        Ok(Run {
            slot,
            place,
            // Not above `len`, so it fits.
            len: room.min(len as u64) as usize,
        })
    }

    /// The slot that was used last and the host's address of `gpa`, if that slot is linear, holds the address and lets the
    /// operation be: the way of most accesses, in a few instructions. `None` says nothing about the address.
    #[inline(always)]
    fn in_last_slot(&self, operation: Operation, gpa: Gpa) -> Option<(&Slot<'g>, *mut u8)> {
        let slot = self.table.place(self.hint.get())?;
        let Backing::Linear { host } = slot.backing else {
            return None;
        };
        let writes = operation.access_kind() == AccessKind::Store;
        if !slot.contains(gpa) || writes && slot.read_only {
            return None;
        }
        Some((
            slot,
            host.as_ptr().wrapping_add(slot.offset_of(gpa) as usize),
        ))
    }

    /// The same for `len` bytes from `gpa` on.
    #[inline(always)]
    fn range_in_last_slot(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
    ) -> Option<(&Slot<'g>, *mut u8)> {
        let found = self.in_last_slot(operation, gpa)?;
        (len as u64 <= found.0.len - found.0.offset_of(gpa)).then_some(found)
    }

    /// Calls `transfer` for each run of the range, with the bytes before it. It moves all of the run or says how far it got.
    #[inline]
    fn for_each_run(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
        mut transfer: impl FnMut(Place<'_>, Gpa, usize, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        self.check(operation, gpa, len)?;
        let mut done = 0;
        while done < len {
            let at = Gpa::new(gpa.value() + done as u64);
            let run = self
                .run(operation, at, len - done)
                .map_err(|fault| fault.after(done))?;
            let refused = |kind| Err(Fault::new(operation, kind).at_gpa(at).after(0));
            let moved = match run.place {
                Place::Device(_) => refused(FaultKind::DeviceMemory),
                Place::NotMapped => refused(FaultKind::NotMapped),
                place => transfer(place, at, done, run.len),
            };
            if operation.access_kind() == AccessKind::Store {
                let written = moved
                    .as_ref()
                    .map_or_else(|error| error.completed, |()| run.len);
                dirty_log::mark(run.slot, at, written);
            }
            moved.map_err(|error| error.later(done))?;
            done += run.len;
        }
        Ok(())
    }

    /// The run of a single access, which natural alignment keeps in one page and so in one slot.
    #[inline]
    fn single(&self, operation: Operation, gpa: Gpa, width: Width) -> Result<Run<'_>, AccessError> {
        let refused = |kind| Fault::new(operation, kind).at_gpa(gpa).after(0);
        if !gpa.is_aligned_to(width.bytes() as u64) {
            return Err(refused(FaultKind::Misaligned));
        }
        self.check(operation, gpa, width.bytes())?;
        self.run(operation, gpa, width.bytes())
            .map_err(|fault| fault.after(0))
    }

    /// [`read`](GuestMemory::read), run by run.
    #[inline(never)]
    fn read_runs(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        let len = destination.len();
        self.for_each_run(Operation::Read, gpa, len, |place, at, done, len| {
            let part = &mut destination[done..done + len];
            match place {
                Place::Vcpu(vcpu) => return vcpu.read_unmapped(at, part),
                // SAFETY: a run's bytes are guest memory that the slot's or entry's contract makes valid for atomic reads
                // while this guard exists; no host buffer overlaps guest memory.
                Place::Direct(host) => unsafe { direct::copy_from(host, part) },
                Place::Device(_) | Place::NotMapped => {}
            }
            Ok(())
        })
    }

    /// [`write`](GuestMemory::write), run by run.
    #[inline(never)]
    fn write_runs(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.for_each_run(
            Operation::Write,
            gpa,
            source.len(),
            |place, at, done, len| {
                let part = &source[done..done + len];
                match place {
                    Place::Vcpu(vcpu) => return vcpu.write_unmapped(at, part),
                    // SAFETY: as in `read`; `run` has found the memory to be writable.
                    Place::Direct(host) => unsafe { direct::copy_to(host, part) },
                    Place::Device(_) | Place::NotMapped => {}
                }
                Ok(())
            },
        )
    }

    /// [`load_width`](GuestMemory::load_width) in any slot.
    #[inline(never)]
    fn load_run(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        let run = self.single(Operation::Load, gpa, width)?;
        match run.place {
            // SAFETY: as in `read`; host and guest addresses are aligned alike, to a page.
            Place::Direct(host) => Ok(unsafe { direct::load(host, width, order) }),
            // SAFETY: the contract of `Slot::device`.
            Place::Device(host) => Ok(unsafe { direct::load_device(host, width, order) }),
            Place::Vcpu(vcpu) => vcpu.load_unmapped(gpa, width, order),
            Place::NotMapped => Err(Fault::new(Operation::Load, FaultKind::NotMapped)
                .at_gpa(gpa)
                .after(0)),
        }
    }

    /// [`store_width`](GuestMemory::store_width) in any slot.
    #[inline(never)]
    fn store_run(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        let run = self.single(Operation::Store, gpa, width)?;
        match run.place {
            // SAFETY: as in `write`; host and guest addresses are aligned alike, to a page.
            Place::Direct(host) => unsafe { direct::store(host, width, value, order) },
            // SAFETY: the contract of `Slot::device`.
            Place::Device(host) => unsafe { direct::store_device(host, width, value, order) },
            Place::Vcpu(vcpu) => vcpu.store_unmapped(gpa, width, value, order)?,
            Place::NotMapped => {
                return Err(Fault::new(Operation::Store, FaultKind::NotMapped)
                    .at_gpa(gpa)
                    .after(0));
            }
        }
        dirty_log::mark(run.slot, gpa, width.bytes());
        Ok(())
    }

    /// [`compare_exchange_width`](GuestMemory::compare_exchange_width) in any slot.
    #[inline(never)]
    fn compare_exchange_run(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        let operation = Operation::CompareExchange;
        let run = self.single(operation, gpa, width)?;
        let Place::Direct(host) = run.place else {
            return Err(Fault::new(operation, FaultKind::AtomicUnavailable)
                .at_gpa(gpa)
                .after(0));
        };
        // SAFETY: as in `store_width`; the word around is in the same page.
        let found = unsafe { direct::compare_exchange(host, width, current, new, order) };
        if found == current {
            dirty_log::mark(run.slot, gpa, width.bytes());
        }
        Ok(found)
    }
}

impl GuestMemory for PhysicalView<'_> {
    type Address = Gpa;

    #[inline]
    fn read(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        if let Some((_, host)) = self.range_in_last_slot(Operation::Read, gpa, destination.len()) {
            // SAFETY: guest memory that the slot's contract makes valid for atomic reads while this guard exists; no host
            // buffer overlaps guest memory.
            unsafe { direct::copy_from(host, destination) };
            return Ok(());
        }
        self.read_runs(gpa, destination)
    }

    #[inline]
    fn write(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        if let Some((slot, host)) = self.range_in_last_slot(Operation::Write, gpa, source.len()) {
            // SAFETY: as in `read`; the slot is writable.
            unsafe { direct::copy_to(host, source) };
            dirty_log::mark(slot, gpa, source.len());
            return Ok(());
        }
        self.write_runs(gpa, source)
    }

    fn fill(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.for_each_run(Operation::Fill, gpa, len, |place, at, _, len| {
            match place {
                Place::Vcpu(vcpu) => return vcpu.fill_unmapped(at, byte, len),
                // SAFETY: as in `write`.
                Place::Direct(host) => unsafe { direct::fill(host, byte, len) },
                Place::Device(_) | Place::NotMapped => {}
            }
            Ok(())
        })
    }

    #[inline]
    fn load_width(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        assert!(
            !matches!(order, Ordering::Release | Ordering::AcqRel),
            "a load has no release order"
        );
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((_, host)) = self.in_last_slot(Operation::Load, gpa)
        {
            // SAFETY: as in `read`; slots begin and end at pages, so that an aligned access lies in the slot, and host and
            // guest addresses are aligned alike.
            return Ok(unsafe { direct::load(host, width, order) });
        }
        self.load_run(gpa, width, order)
    }

    #[inline]
    fn store_width(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        assert!(
            !matches!(order, Ordering::Acquire | Ordering::AcqRel),
            "a store has no acquire order"
        );
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((slot, host)) = self.in_last_slot(Operation::Store, gpa)
        {
            // SAFETY: as in `write` and `load_width`.
            unsafe { direct::store(host, width, value, order) };
            dirty_log::mark(slot, gpa, width.bytes());
            return Ok(());
        }
        self.store_run(gpa, width, value, order)
    }

    #[inline]
    fn compare_exchange_width(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((slot, host)) = self.in_last_slot(Operation::CompareExchange, gpa)
        {
            // SAFETY: as in `store_width`; the word around is in the same page.
            let found = unsafe { direct::compare_exchange(host, width, current, new, order) };
            if found == current {
                dirty_log::mark(slot, gpa, width.bytes());
            }
            return Ok(found);
        }
        self.compare_exchange_run(gpa, width, current, new, order)
    }
}

impl Drop for PhysicalView<'_> {
    #[inline]
    fn drop(&mut self) {
        self.entry.leave();
    }
}

impl fmt::Debug for PhysicalView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhysicalView")
            .field("generation", &self.generation())
            .field("slots", &self.slots())
            .finish_non_exhaustive()
    }
}
