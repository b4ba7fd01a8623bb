//! The read guard, and guest memory as it shows it.
//!
//! The one idea: a range becomes *runs*, each in one slot and in one piece of host memory; every operation is a loop over runs,
//! and everything that decides whether an access is allowed is in [`PhysicalView::run`].

use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;

use super::dirty_log;
use super::page_entry::HostPage;
use super::reader_entry::ReaderEntry;
use super::slot::{Backing, Slot};
use super::table::Table;
use super::unmapped::UnmappedAccess;
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, PAGE_SIZE};
use crate::fault::{AccessError, Fault, FaultKind, Operation};

/// Guest-physical memory under a read guard: see [`Reader::guard`](super::Reader::guard).
///
/// The slots are those of the moment it was taken; the entries of [`Paged`](Backing::Paged) slots are looked at anew by each
/// access. It carries its vCPU's way to [`GuestOnly`](Backing::GuestOnly) memory if it was given one.
///
/// What an access answers, beyond [`GuestMemory`](crate::GuestMemory)'s rules:
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
    /// The guard's number in `entry`.
    inside: u64,
    hint: &'g Cell<usize>,
    vcpu: Option<&'g dyn UnmappedAccess>,
}

/// How the bytes of a run are reached. Bytes that a copy must not touch have no form here.
#[derive(Clone, Copy)]
pub(super) enum Reach<'v> {
    /// In host memory.
    Direct(*mut u8),
    /// Behind the loaded vCPU's G-stage.
    Vcpu(&'v dyn UnmappedAccess),
}

/// Where a run of bytes is.
#[derive(Clone, Copy)]
pub(super) enum Place<'v> {
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
pub(super) struct Run<'v> {
    pub(super) slot: &'v Slot<'v>,
    pub(super) place: Place<'v>,
    pub(super) len: usize,
}

impl<'g> PhysicalView<'g> {
    /// The caller has entered `entry`, with the number `inside`, and read the table after that.
    #[inline]
    pub(super) fn new(
        table: &'g Table<[Slot<'g>]>,
        entry: &'g ReaderEntry,
        inside: u64,
        hint: &'g Cell<usize>,
    ) -> Self {
        Self {
            table,
            entry,
            inside,
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
        self.table.find(gpa, self.hint)
    }

    /// Which change of the slots this guard sees.
    pub fn generation(&self) -> u64 {
        self.table.generation
    }

    /// Which slot table of which memory this guard sees.
    pub(super) fn identity(&self) -> u64 {
        self.table.identity
    }

    /// Whether any slot is logging. While one is, writes that do not go through this view (`hsv`, the guest's own) are logged
    /// by the write-protection of its pages ([`StageMirror`](super::StageMirror)).
    #[inline]
    pub fn logging(&self) -> bool {
        self.table.logging
    }

    /// Marks the page of `gpa` in its slot's dirty log, if that is logging: for the handler of a store that faulted on a
    /// write-protected page, after it has made the page writable and before the store is retried
    /// ([`StageMirror`](super::StageMirror)).
    pub fn mark_dirty(&self, gpa: Gpa) {
        if let Some(slot) = self.slot_at(gpa) {
            dirty_log::mark(slot, gpa, 1);
        }
    }

    /// Where the host has the page that holds `gpa`, and what `access` may be given there, as its slot says: for whoever fills the
    /// G-stage table, which is to be done under this guard, so that whoever takes the page away waits and then finds the
    /// translation. `None` if no slot holds it or the host does not map it.
    ///
    /// Where pages are replaced ([`replace_page`](super::GuestPhysicalMemory::replace_page)), call this under the lock under which
    /// that is called, and fill the table before the lock is released: a replacement does not wait for guards.
    ///
    /// While the slot logs, only a store is given a writable page, and the page is to be marked
    /// ([`mark_dirty`](Self::mark_dirty)) once it is in the table. One that is filled in writable for a load would let later
    /// stores by that no log has.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use core::sync::atomic::AtomicU64;
    /// # use guest_mem::{AccessKind, Gpa, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, HostPage, NoGStage, Slot};
    /// # #[repr(align(4096))]
    /// # struct Ram([u8; 0x2000]);
    /// # let mut ram = Ram([0; 0x2000]);
    /// # let host: NonNull<u8> = NonNull::from(&mut ram.0).cast();
    /// # let log = [const { AtomicU64::new(0) }; 1];
    /// # let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// # // SAFETY: `ram` outlives `memory`.
    /// # let slot = unsafe { Slot::linear(Gpa::new(0x8000_0000), 0x2000, host) };
    /// # memory.add(slot.with_dirty_log(&log), &mut NoGStage)?;
    /// # memory.start_logging(Gpa::new(0x8000_0000), &mut NoGStage)?;
    /// # let mut reader = memory.reader(0)?;
    /// # fn map(_: Gpa, _: NonNull<u8>, _writable: bool) {}
    /// // The handler of a guest-page fault, in a slot that logs:
    /// let (gpa, access) = (Gpa::new(0x8000_1238), AccessKind::Store);
    /// let view = reader.guard();
    /// match view.host_page(gpa, access) {
    ///     Some(HostPage::Writable(page)) => {
    ///         map(gpa.page_base(), page, true); // first,
    ///         view.mark_dirty(gpa); // then
    ///     }
    ///     Some(HostPage::ReadOnly(page)) => map(gpa.page_base(), page, false),
    ///     Some(HostPage::Absent) | None => {} // page it in, emulate, or inject
    /// }
    /// # assert_ne!(log[0].load(core::sync::atomic::Ordering::Relaxed), 0);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn host_page(&self, gpa: Gpa, access: AccessKind) -> Option<HostPage> {
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
        let protected = slot.read_only || slot.logging && access != AccessKind::Store;
        Some(match page {
            HostPage::Writable(page) if protected => HostPage::ReadOnly(page),
            page => page,
        })
    }

    /// Where the host has the byte at `gpa` as memory, if the operation may use it; `None` where it is behind the G-stage only,
    /// or a device's.
    #[inline]
    pub(super) fn host_address(
        &self,
        operation: Operation,
        gpa: Gpa,
    ) -> Result<Option<NonNull<u8>>, Fault> {
        Ok(match self.run(operation, gpa, 1)?.place {
            Place::Direct(host) => NonNull::new(host),
            Place::Device(_) | Place::Vcpu(_) | Place::NotMapped => None,
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
        if slot.read_only && writes && !matches!(slot.backing, Backing::Trapped) {
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
    pub(super) fn in_last_slot(
        &self,
        operation: Operation,
        gpa: Gpa,
    ) -> Option<(&Slot<'g>, *mut u8)> {
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

    /// The same for a paged slot: the host's address of `gpa`, if its page is there and lets the operation be.
    #[inline]
    pub(super) fn paged_address(&self, operation: Operation, gpa: Gpa) -> Option<NonNull<u8>> {
        let slot = self.table.place(self.hint.get())?;
        let Backing::Paged { pages } = slot.backing else {
            return None;
        };
        let writes = operation.access_kind() == AccessKind::Store;
        if writes && slot.read_only || !slot.contains(gpa) {
            return None;
        }
        match pages[(slot.offset_of(gpa) / PAGE_SIZE) as usize].get() {
            HostPage::ReadOnly(_) if writes => None,
            page => {
                let at = page.address()?.as_ptr();
                NonNull::new(at.wrapping_add(gpa.page_offset() as usize))
            }
        }
    }

    /// [`in_last_slot`](Self::in_last_slot) for `len` bytes from `gpa` on.
    #[inline(always)]
    pub(super) fn range_in_last_slot(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
    ) -> Option<(&Slot<'g>, *mut u8)> {
        let found = self.in_last_slot(operation, gpa)?;
        (len as u64 <= found.0.len - found.0.offset_of(gpa)).then_some(found)
    }

    /// Calls `transfer` for each run of the range, with the bytes before it. It moves all of the run or says how far it got.
    /// A device and memory out of reach are refused here (I16).
    #[inline]
    pub(super) fn for_each_run(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
        mut transfer: impl FnMut(Reach<'_>, Gpa, usize, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        self.check(operation, gpa, len)?;
        let mut done = 0;
        while done < len {
            let at = Gpa::new(gpa.value() + done as u64);
            let run = self
                .run(operation, at, len - done)
                .map_err(|fault| fault.after(done))?;
            let reach = match run.place {
                Place::Direct(host) => Ok(Reach::Direct(host)),
                Place::Vcpu(vcpu) => Ok(Reach::Vcpu(vcpu)),
                Place::Device(_) => Err(FaultKind::DeviceMemory),
                Place::NotMapped => Err(FaultKind::NotMapped),
            };
            let moved = match reach {
                Ok(reach) => transfer(reach, at, done, run.len),
                Err(kind) => Err(Fault::new(operation, kind).at_gpa(at).after(0)),
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
    pub(super) fn single(
        &self,
        operation: Operation,
        gpa: Gpa,
        width: Width,
    ) -> Result<Run<'_>, AccessError> {
        let refused = |kind| Fault::new(operation, kind).at_gpa(gpa).after(0);
        if !gpa.is_aligned_to(width.bytes() as u64) {
            return Err(refused(FaultKind::Misaligned));
        }
        self.check(operation, gpa, width.bytes())?;
        self.run(operation, gpa, width.bytes())
            .map_err(|fault| fault.after(0))
    }
}

impl Drop for PhysicalView<'_> {
    #[inline]
    fn drop(&mut self) {
        self.entry.leave(self.inside);
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
