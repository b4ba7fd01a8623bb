//! A VM's guest-physical memory as its harts share it: two slot tables, of which one is read while the other is rebuilt.
//!
//! The one idea: a change builds the next table in the place of the last but one, publishes it by its generation number, whose
//! lowest bit says which of the two it is in, and waits for the guards that may still read the old one. Nothing is allocated,
//! nothing has to be reclaimed, and readers never wait.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::Ordering;

use super::dirty_log;
use super::mirror::StageMirror;
use super::reader::{Reader, ReaderUnavailable, Tables};
use super::reader_entry::ReaderEntry;
use super::slot::{Slot, SlotError};
use super::table::Table;
use crate::address::Gpa;
use crate::atomic::{AtomicBool, AtomicU64, array_of, const_but_for_loom, fence, spin_loop};
use crate::csr::GMode;

/// A VM's guest-physical memory: up to `SLOTS` slots, up to `READERS` readers (one for each vCPU or hart).
///
/// Shared by all harts. Slots may be added, removed and changed at any time; each change takes effect for later guards and
/// returns when no earlier guard exists, so it must not be called by a hart that holds one. Changes take turns, and a
/// [`harvest`](Self::harvest) takes its turn among them: neither may a hart that holds a guard harvest.
///
/// Nothing in it allocates; it can be a `static`.
pub struct GuestPhysicalMemory<'m, const SLOTS: usize, const READERS: usize> {
    /// The newest generation.
    newest: AtomicU64,
    /// Held during a change.
    changing: AtomicBool,
    tables: [UnsafeCell<Table<[Slot<'m>; SLOTS]>>; 2],
    readers: [ReaderEntry; READERS],
}

// SAFETY: the tables are what is not `Sync` by itself. The newest one is only ever shared; the other one is written only by
// who holds `changing`, after every guard that could read it is gone (`reader`'s ordering argument). Slots are `Send + Sync`.
unsafe impl<const SLOTS: usize, const READERS: usize> Sync
    for GuestPhysicalMemory<'_, SLOTS, READERS>
{
}

impl<'m, const SLOTS: usize, const READERS: usize> GuestPhysicalMemory<'m, SLOTS, READERS> {
    const_but_for_loom! {
        /// Memory without slots, whose addresses have the width of the G-stage's mode (R13). A Bare G-stage has no
        /// guest-physical space: every slot is refused.
        pub const fn new(mode: GMode) -> Self {
            Self {
                newest: AtomicU64::new(0),
                changing: AtomicBool::new(false),
                tables: [
                    UnsafeCell::new(Table::new(mode)),
                    UnsafeCell::new(Table::new(mode)),
                ],
                readers: array_of![ReaderEntry::new(); READERS],
            }
        }
    }

    /// Claims the reader of the given index for a vCPU or hart; dropping it gives it back.
    ///
    /// # Errors
    ///
    /// [`ReaderUnavailable`]: there is no such reader, or somebody has it.
    pub fn reader(&self, index: usize) -> Result<Reader<'_>, ReaderUnavailable> {
        let readers = READERS;
        let entry = self
            .readers
            .get(index)
            .ok_or(ReaderUnavailable::NoSuchReader { index, readers })?;
        let tables = Tables {
            newest: &self.newest,
            tables: [self.tables[0].get(), self.tables[1].get()],
        };
        Reader::claim(tables, entry).ok_or(ReaderUnavailable::Taken { index })
    }

    /// How often the slots have changed.
    pub fn generation(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Waits until every guard that exists now is gone, calling `serve` meanwhile (see [`StageMirror::serve`]).
    ///
    /// Whatever was taken away before the call (a page entry that was cleared or changed) is no longer used by direct accesses
    /// after it. Harts that access by `hlv`, `hsv` or as the guest are not waited for: those are the shootdown's (R44).
    ///
    /// The order for taking a page away, which [`remove`](Self::remove) and [`replace`](Self::replace) keep by themselves:
    /// 1. Its entry is cleared.
    /// 2. `synchronize`: a guard that saw the entry may be that of a handler that is just putting the page into the G-stage table
    ///    ([`PhysicalView::host_page`](super::PhysicalView::host_page)).
    /// 3. Its translation goes, with the shootdown.
    /// 4. Where [`StageView`](super::StageView)s are used, `synchronize` once more: until step 3 a guard may have found the page in
    ///    the table, and no shootdown ends its plain loads and stores. The same goes for a page of the G-stage table itself.
    ///
    /// The caller holds no guard of this memory: it would wait for itself.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use guest_mem::{Gpa, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, HostPage, NoGStage, PageEntry, Slot};
    /// # #[repr(align(4096))]
    /// # struct Frame([u8; 4096]);
    /// # let mut frame = Frame([0; 4096]);
    /// # let page = NonNull::from(&mut frame.0).cast();
    /// let pages = [PageEntry::absent()];
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// memory.add(Slot::paged(Gpa::new(0x1000), &pages), &mut NoGStage)?;
    /// // SAFETY: the page is the guest's until it is taken back below.
    /// unsafe { pages[0].set(HostPage::Writable(page)) };
    /// // ... the guest runs; then its page is wanted back:
    /// let old = pages[0].clear();
    /// memory.synchronize(core::hint::spin_loop);
    /// // (here the G-stage translation goes, with its shootdown)
    /// memory.synchronize(core::hint::spin_loop); // for views of the table
    /// assert_eq!(old, HostPage::Writable(page)); // and nobody uses it any more
    /// # Ok::<(), guest_mem::guest_physical::SlotError>(())
    /// ```
    pub fn synchronize(&self, mut serve: impl FnMut()) {
        // F_w of `reader_entry`'s ordering argument.
        fence(Ordering::SeqCst);
        for reader in &self.readers {
            reader.wait_for_guard(&mut serve);
        }
    }

    /// Adds a slot.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if it is empty, misaligned, out of range, overlaps another or there is no room; nothing has changed.
    pub fn add(&self, slot: Slot<'m>, stage: &mut impl StageMirror) -> Result<(), SlotError> {
        self.change(stage, |table| table.insert(slot))
    }

    /// Removes the slot that begins at `base`, takes its translations out of the G-stage, and answers it. Its memory may be
    /// reused when this returns.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoSuchSlot`].
    ///
    /// ```
    /// use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot, SlotError};
    /// use guest_mem::{FaultKind, Gpa, GuestMemory, csr::GMode};
    ///
    /// let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    /// let uart = Gpa::new(0x1000_0000);
    /// memory.add(Slot::trapped(uart, 0x1000), &mut NoGStage)?;
    /// let again = memory.add(Slot::trapped(uart, 0x1000), &mut NoGStage);
    /// assert_eq!(again, Err(SlotError::Overlap { existing: uart }));
    ///
    /// let mut reader = memory.reader(0)?;
    /// let kind = |error: guest_mem::AccessError| error.fault.kind;
    /// assert_eq!(reader.guard().read(uart, &mut [0]).map_err(kind), Err(FaultKind::Trapped));
    /// memory.remove(uart, &mut NoGStage)?;
    /// assert_eq!(reader.guard().read(uart, &mut [0]).map_err(kind), Err(FaultKind::NoSlot));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn remove(&self, base: Gpa, stage: &mut impl StageMirror) -> Result<Slot<'m>, SlotError> {
        let slot = self.change(stage, |table| table.remove(base))?;
        stage.unmap(slot.base, slot.len);
        self.shoot_down(stage);
        Ok(slot)
    }

    /// Puts another slot in the place of the one that begins at `base`, in one step: no reader sees neither. The G-stage loses
    /// its translations of the old one, whose memory may be reused when this returns.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add) and [`remove`](Self::remove); nothing has changed.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use guest_mem::{Gpa, GuestMemory, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot};
    /// # #[repr(align(4096))]
    /// # struct Ram([u8; 0x1000]);
    /// # let (mut first, mut second) = (Ram([1; 0x1000]), Ram([2; 0x1000]));
    /// let base = Gpa::new(0x8000_0000);
    /// let slot = |ram: &mut Ram| {
    ///     // SAFETY: both outlive `memory`, and nothing else touches them meanwhile.
    ///     unsafe { Slot::linear(base, 0x1000, NonNull::from(&mut ram.0).cast()) }
    /// };
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// memory.add(slot(&mut first), &mut NoGStage)?;
    /// let old = memory.replace(base, slot(&mut second), &mut NoGStage)?;
    /// assert_eq!(old.byte_len(), 0x1000); // and its memory is the host's again
    /// assert_eq!(memory.reader(0)?.guard().read_obj::<u8>(base)?, 2);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn replace(
        &self,
        base: Gpa,
        slot: Slot<'m>,
        stage: &mut impl StageMirror,
    ) -> Result<Slot<'m>, SlotError> {
        let old = self.change(stage, |table| {
            let old = table.remove(base)?;
            table.insert(slot)?;
            Ok(old)
        })?;
        stage.unmap(old.base, old.len);
        self.shoot_down(stage);
        Ok(old)
    }

    /// Makes a slot read-only or writable. The G-stage's pages of a slot that becomes read-only are write-protected, and nobody
    /// writes there any more when this returns.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoSuchSlot`].
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use guest_mem::{FaultKind, Gpa, GuestMemory, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot};
    /// # #[repr(align(4096))]
    /// # struct Ram([u8; 0x1000]);
    /// # let mut ram = Ram([0; 0x1000]);
    /// # let base = Gpa::new(0x8000_0000);
    /// # let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// # // SAFETY: `ram` outlives `memory`.
    /// # memory.add(unsafe { Slot::linear(base, 0x1000, NonNull::from(&mut ram.0).cast()) }, &mut NoGStage)?;
    /// let mut reader = memory.reader(0)?;
    /// reader.guard().write(base, b"firmware")?;
    /// memory.set_read_only(base, true, &mut NoGStage)?;
    /// let error = reader.guard().write(base, b"something else").unwrap_err();
    /// assert_eq!((error.completed, error.fault.kind), (0, FaultKind::ReadOnlySlot));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn set_read_only(
        &self,
        base: Gpa,
        read_only: bool,
        stage: &mut impl StageMirror,
    ) -> Result<(), SlotError> {
        let slot = self.change_slot(base, stage, |slot| {
            slot.read_only = read_only;
            Ok(())
        })?;
        if read_only {
            stage.write_protect(slot.base, slot.len);
            self.shoot_down(stage);
        }
        Ok(())
    }

    /// Begins to log writes to the slot that begins at `base`, with an empty log. When this returns, every write is logged:
    /// direct ones by this library, others because their first one in each page faults
    /// ([`StageMirror::write_protect`]).
    ///
    /// # Errors
    ///
    /// [`SlotError::NoSuchSlot`], [`SlotError::NoDirtyLog`].
    pub fn start_logging(&self, base: Gpa, stage: &mut impl StageMirror) -> Result<(), SlotError> {
        let slot = self.change_slot(base, stage, |slot| {
            let bits = slot.dirty_log.ok_or(SlotError::NoDirtyLog { base })?;
            if !slot.logging {
                // Nobody marks yet: the log is still off for every guard.
                dirty_log::clear(bits);
            }
            slot.logging = true;
            Ok(())
        })?;
        stage.write_protect(slot.base, slot.len);
        stage.shoot_down();
        Ok(())
    }

    /// Ends logging. What was logged and not harvested is lost. The G-stage's pages become writable again as they fault.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoSuchSlot`].
    pub fn stop_logging(&self, base: Gpa, stage: &mut impl StageMirror) -> Result<(), SlotError> {
        self.change_slot(base, stage, |slot| {
            slot.logging = false;
            Ok(())
        })
        .map(drop)
    }

    /// Takes the pages written since the last harvest out of the log of the slot that begins at `base`, write-protects them in
    /// the G-stage again, and hands each to `visit`, in ascending order. A write that comes later, even one that `visit` does
    /// or does not happen to see in the page, is in the next harvest.
    ///
    /// The caller holds no guard of this memory: a change that is under way waits for it, and this waits for the change. `visit`
    /// may take one.
    ///
    /// # Errors
    ///
    /// [`SlotError::NoSuchSlot`], [`SlotError::NoDirtyLog`] if it is not logging.
    ///
    /// ```
    /// # use core::{ptr::NonNull, sync::atomic::AtomicU64};
    /// # use guest_mem::{Gpa, GuestMemory, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot};
    /// # #[repr(align(4096))]
    /// # struct Ram([u8; 0x4000]);
    /// # let mut ram = Ram([0; 0x4000]);
    /// # let base = Gpa::new(0x8000_0000);
    /// let log = [const { AtomicU64::new(0) }; 1];
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// # // SAFETY: `ram` outlives `memory`.
    /// let slot = unsafe { Slot::linear(base, 0x4000, NonNull::from(&mut ram.0).cast()) };
    /// memory.add(slot.with_dirty_log(&log), &mut NoGStage)?;
    /// memory.start_logging(base, &mut NoGStage)?;
    ///
    /// let mut reader = memory.reader(0)?;
    /// reader.guard().write(Gpa::new(0x8000_1fff), b"ab")?;
    /// let mut dirty = Vec::new();
    /// memory.harvest(base, &mut NoGStage, |page| dirty.push(page.value()))?;
    /// assert_eq!(dirty, [0x8000_1000, 0x8000_2000]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn harvest<S: StageMirror>(
        &self,
        base: Gpa,
        stage: &mut S,
        mut visit: impl FnMut(Gpa),
    ) -> Result<(), SlotError> {
        let changing = Changing::begin(&self.changing, || stage.serve());
        // SAFETY: only who holds `changing` writes tables.
        let table = unsafe { &*self.tables[self.newest_index()].get() };
        let slot = table.get(base)?;
        // The bits live for `'m`, so the table may change from here on.
        drop(changing);
        match slot.dirty_log {
            Some(bits) if slot.logging => {
                dirty_log::harvest(&slot, bits, stage, &mut visit);
                Ok(())
            }
            _ => Err(SlotError::NoDirtyLog { base }),
        }
    }

    /// Ends the use of what the G-stage table no longer shows: by translations, and by guards whose
    /// [`StageView`](super::StageView) found it there.
    fn shoot_down(&self, stage: &mut impl StageMirror) {
        stage.shoot_down();
        self.synchronize(|| stage.serve());
    }

    fn newest_index(&self) -> usize {
        (self.newest.load(Ordering::Relaxed) & 1) as usize
    }

    fn change_slot(
        &self,
        base: Gpa,
        stage: &mut impl StageMirror,
        change: impl FnOnce(&mut Slot<'m>) -> Result<(), SlotError>,
    ) -> Result<Slot<'m>, SlotError> {
        self.change(stage, |table| table.change(base, change))
    }

    /// Publishes the table that `edit` makes of the newest one, and waits for the guards of the older.
    fn change<T>(
        &self,
        stage: &mut impl StageMirror,
        edit: impl FnOnce(&mut Table<[Slot<'m>; SLOTS]>) -> Result<T, SlotError>,
    ) -> Result<T, SlotError> {
        let changing = Changing::begin(&self.changing, || stage.serve());
        let newest = self.newest.load(Ordering::Relaxed);
        let [shared, spare] = [newest & 1, !newest & 1].map(|index| &self.tables[index as usize]);
        // The last change waited for the guards of the spare table already, unless it panicked half-way.
        self.synchronize(|| stage.serve());
        // SAFETY: only who holds `changing` writes tables, and never the newest.
        let shared = unsafe { &*shared.get() };
        // SAFETY: only who holds `changing` writes tables. Every guard that was taken while the spare table was the newest is
        // gone, and none is taken on it before the store below.
        let spare = unsafe { &mut *spare.get() };
        spare.copy_slots_from(shared);
        let outcome = edit(spare)?;
        spare.number(newest + 1);
        // Release: a guard that sees the generation sees the table.
        self.newest.store(newest + 1, Ordering::Release);
        self.synchronize(|| stage.serve());
        drop(changing);
        Ok(outcome)
    }
}

impl<const SLOTS: usize, const READERS: usize> fmt::Debug
    for GuestPhysicalMemory<'_, SLOTS, READERS>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestPhysicalMemory")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// The right to change the tables; given back on drop.
struct Changing<'a>(&'a AtomicBool);

impl<'a> Changing<'a> {
    fn begin(lock: &'a AtomicBool, mut serve: impl FnMut()) -> Self {
        while lock
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            serve();
            spin_loop();
        }
        Self(lock)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
