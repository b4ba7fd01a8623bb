//! A range of guest memory that is used again and again: a ring, a steal-time record, a doorbell page.
//!
//! The one idea: what is remembered is which slot holds the range, never a host address, so nothing remembered can dangle:
//! pages may be swapped and slots changed between uses, and a range may cross pages and slots like any other.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use super::slot::Backing;
use super::view::PhysicalView;
use crate::access::Width;
use crate::address::Gpa;
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::{GuestInteger, GuestMemory};

/// A guest-physical range that was found to be memory, with the slot it was found in.
///
/// Each use takes the view of the moment. If the slots have changed since the last use, or the view is one of another memory
/// (I16), the range is validated again, and the use fails if it is not memory throughout; else the slot is found without a
/// search. Offsets are bytes from the start of the range; a use that leaves the range is [`FaultKind::OutOfRange`].
#[derive(Clone, Debug)]
pub struct CachedRange {
    gpa: Gpa,
    len: usize,
    /// The slot table that it was validated against.
    table: Cell<u64>,
    slot: Cell<usize>,
}

impl PhysicalView<'_> {
    /// Remembers a range that will be used often. All of it must lie in slots that hold memory; pages may be absent.
    ///
    /// ```
    /// # use core::{ptr::NonNull, sync::atomic::Ordering};
    /// # use guest_mem::{Gpa, csr::GMode, guest_physical::{GuestPhysicalMemory, NoGStage, Slot}};
    /// # #[repr(align(4096))]
    /// # struct Ram([u8; 0x2000]);
    /// # let mut ram = Ram([0; 0x2000]);
    /// # let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// # // SAFETY: `ram` outlives `memory`.
    /// # let slot = unsafe { Slot::linear(Gpa::new(0x1000), 0x2000, NonNull::from(&mut ram.0).cast()) };
    /// # memory.add(slot, &mut NoGStage)?;
    /// # let mut reader = memory.reader(0)?;
    /// let ring = reader.guard().cache(Gpa::new(0x1ff0), 32)?;
    /// // ... at a later VM exit:
    /// let view = reader.guard();
    /// ring.store(&view, 2, 5u16, Ordering::Release)?;
    /// assert_eq!(ring.load::<u16>(&view, 2, Ordering::Acquire)?, 5);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultKind::OutOfRange`], [`FaultKind::NoSlot`], [`FaultKind::Trapped`], [`FaultKind::DeviceMemory`], with the first
    /// address that is to blame.
    pub fn cache(&self, gpa: Gpa, len: usize) -> Result<CachedRange, Fault> {
        self.check_memory(gpa, len)?;
        Ok(CachedRange {
            gpa,
            len,
            table: Cell::new(self.identity()),
            slot: Cell::new(self.last_slot()),
        })
    }

    /// Checks that the range is memory throughout, slot by slot, and leaves the first slot as the last one found.
    fn check_memory(&self, gpa: Gpa, len: usize) -> Result<(), Fault> {
        self.check(Operation::Read, gpa, len)
            .map_err(|error| error.fault)?;
        // In range: neither sum below overflows.
        let end = gpa.value() + len as u64;
        let mut at = gpa;
        let mut first = None;
        while at.value() < end {
            let refused = |kind| Err(Fault::new(Operation::Read, kind).at_gpa(at));
            let Some(slot) = self.slot_at(at) else {
                return refused(FaultKind::NoSlot);
            };
            match slot.backing() {
                Backing::Linear { .. } | Backing::Paged { .. } | Backing::GuestOnly => {}
                Backing::Device { .. } => return refused(FaultKind::DeviceMemory),
                Backing::Trapped => return refused(FaultKind::Trapped),
            }
            first.get_or_insert(self.last_slot());
            at = Gpa::new(slot.base().value() + slot.byte_len());
        }
        if let Some(first) = first {
            self.expect_slot(first);
        }
        Ok(())
    }
}

impl CachedRange {
    /// Where it begins.
    pub const fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// Its length in bytes.
    pub const fn byte_len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `offset`, once the range is known to hold them and to be memory still.
    fn at(
        &self,
        view: &PhysicalView<'_>,
        operation: Operation,
        offset: usize,
        len: usize,
    ) -> Result<Gpa, AccessError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Fault::new(operation, FaultKind::OutOfRange).after(0));
        }
        if self.table.get() == view.identity() {
            view.expect_slot(self.slot.get());
        } else {
            view.check_memory(self.gpa, self.len).map_err(|fault| {
                let operation = Fault { operation, ..fault };
                operation.after(0)
            })?;
            self.table.set(view.identity());
            self.slot.set(view.last_slot());
        }
        // Inside the range, which was checked.
        Ok(Gpa::new(self.gpa.value() + offset as u64))
    }

    /// As [`GuestMemory::read`], at an offset.
    ///
    /// # Errors
    ///
    /// As there, and [`FaultKind::OutOfRange`] or the fault of [`PhysicalView::cache`] before anything is accessed.
    pub fn read(
        &self,
        view: &PhysicalView<'_>,
        offset: usize,
        destination: &mut [u8],
    ) -> Result<(), AccessError> {
        let gpa = self.at(view, Operation::Read, offset, destination.len())?;
        view.read(gpa, destination)
    }

    /// As [`GuestMemory::write`], at an offset.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write(
        &self,
        view: &PhysicalView<'_>,
        offset: usize,
        source: &[u8],
    ) -> Result<(), AccessError> {
        let gpa = self.at(view, Operation::Write, offset, source.len())?;
        view.write(gpa, source)
    }

    /// As [`GuestMemory::load`], at an offset.
    ///
    /// # Errors
    ///
    /// As there, and as [`read`](Self::read).
    pub fn load<T: GuestInteger>(
        &self,
        view: &PhysicalView<'_>,
        offset: usize,
        order: Ordering,
    ) -> Result<T, AccessError> {
        let gpa = self.at(view, Operation::Load, offset, Width::bytes(T::WIDTH))?;
        view.load(gpa, order)
    }

    /// As [`GuestMemory::store`], at an offset.
    ///
    /// # Errors
    ///
    /// As there, and as [`read`](Self::read).
    pub fn store<T: GuestInteger>(
        &self,
        view: &PhysicalView<'_>,
        offset: usize,
        value: T,
        order: Ordering,
    ) -> Result<(), AccessError> {
        let gpa = self.at(view, Operation::Store, offset, Width::bytes(T::WIDTH))?;
        view.store(gpa, value, order)
    }

    /// As [`GuestMemory::compare_exchange`], at an offset.
    ///
    /// # Errors
    ///
    /// As there, and as [`read`](Self::read).
    pub fn compare_exchange<T: GuestInteger>(
        &self,
        view: &PhysicalView<'_>,
        offset: usize,
        current: T,
        new: T,
        order: Ordering,
    ) -> Result<Result<T, T>, AccessError> {
        let width = Width::bytes(T::WIDTH);
        let gpa = self.at(view, Operation::CompareExchange, offset, width)?;
        view.compare_exchange(gpa, current, new, order)
    }
}
