//! Guest memory as the table in `hgatp` shows it: with the G-stage's own rights and memory types, page by page.
//!
//! The one idea: slots say what a guest-physical address *is*; the table says what an access may do there at this moment. A
//! [`StageView`] asks the table, so that what goes by a walk in software is refused exactly where the hardware would refuse it
//! (a page not yet mapped, write-protected for the dirty log, execute-only, of another memory type), and asks the slots' view
//! only for the guard and the dirty log.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::backing_memory::BackingMemory;
use super::direct;
use super::view::PhysicalView;
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, Pieces, Spa};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;
use crate::translate::{
    EntryMemory, GPage, GRegime, GStage, GTables, MemoryType, Need, PlainGWalk, Purpose, Refused,
};

/// Machine memory as the host maps it: the tables of a G-stage, and the RAM that they lead to.
///
/// # Safety
///
/// Where [`host_address`](Self::host_address) answers, the bytes from there to the end of the machine's 4 KiB page are valid
/// for reads and writes for as long as a G-stage table leads there and, after that, until every read guard that existed is
/// gone; and they are RAM that nothing but guests and this library accesses, unless in order with that, or as R77 says
/// (assembly, or atomics of single bytes). The host's page is aligned to 4096.
pub unsafe trait MachineMemory: EntryMemory {
    /// Where the host has the byte at `at`, if it is RAM.
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>>;
}

/// Guest-physical memory under a read guard, as the table in `hgatp` shows it: [`PhysicalView::shown_by`].
pub struct StageView<'v, 'g, E> {
    view: &'v PhysicalView<'g>,
    tables: GTables<E>,
    load: Option<PlainGWalk>,
    store: Option<PlainGWalk>,
}

impl<E> fmt::Debug for StageView<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageView")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

impl<'g> PhysicalView<'g> {
    /// The same memory with the rights and memory types that a G-stage table gives: `regime` is that of the `hgatp` of the vCPU
    /// that is loaded, and `memory` is where its table and the guest's RAM are.
    ///
    /// An access answers what the hardware's would: a page that the table does not map, or not for this access, is
    /// [`FaultKind::GuestPage`], also where a slot has memory. What is not RAM, or not of the machine's own memory type
    /// (Svpbmt), is left to the slots, and a guest-virtual copy there to the hardware.
    ///
    /// While the view exists, whoever takes a translation out of the table waits for the guard it was made from before the
    /// page is used again: [`GuestPhysicalMemory::synchronize`](super::GuestPhysicalMemory::synchronize).
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// # use guest_mem::hart::model::{ModelGuest, Ram, RamArray};
    /// use guest_mem::csr::GMode;
    /// use guest_mem::guest_physical::{GuestPhysicalMemory, MachineMemory};
    /// use guest_mem::translate::{EntryMemory, GRegime, Refused, StageRules};
    /// use guest_mem::{FaultKind, Gpa, GuestMemory, Spa, Width};
    ///
    /// struct Machine<'a>(Ram<'a>);
    ///
    /// impl EntryMemory for Machine<'_> {
    ///     fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
    ///         self.0.load(at, Width::Double).ok_or(Refused)
    ///     }
    ///     fn compare_exchange_entry(&self, at: Spa, old: u64, new: u64) -> Result<Result<u64, u64>, Refused> {
    ///         self.0.compare_exchange(at, old, new).ok_or(Refused)
    ///     }
    /// }
    ///
    /// // SAFETY: this RAM is never given back, and accessed as guest memory is.
    /// unsafe impl MachineMemory for Machine<'_> {
    ///     fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
    ///         self.0.host_ptr(at)
    ///     }
    /// }
    ///
    /// # let array = RamArray::<32>::new();
    /// # let ram = array.at(Spa::new(0x8_0000_0000));
    /// # let guest = ModelGuest::new(ram)?;
    /// // What an address is, is for the table to say: no slot is needed.
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// let mut reader = memory.reader(0)?;
    /// let view = reader.guard();
    /// let regime = GRegime::from_csrs(guest.hgatp(), 0, StageRules::BASE).expect("a mode of this machine");
    /// // SAFETY: the guest's table leads to the guest's memory.
    /// let shown = unsafe { view.shown_by(regime, Machine(ram)) };
    /// shown.write(Gpa::new(0x8000_3ffe), b"across")?;
    ///
    /// guest.unback(Gpa::new(0x8000_4000))?; // the hypervisor takes a page out of the table
    /// let error = shown.write(Gpa::new(0x8000_3ffe), b"across").unwrap_err();
    /// assert_eq!(error.completed, 2);
    /// assert!(matches!(error.fault.kind, FaultKind::GuestPage { .. }));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Safety
    ///
    /// Of what the table of `regime` leads to, `memory` has nothing that is not the guest's. A Bare regime leads to all of the
    /// machine (R12).
    pub unsafe fn shown_by<E: MachineMemory>(
        &self,
        regime: GRegime,
        memory: E,
    ) -> StageView<'_, 'g, E> {
        StageView {
            view: self,
            tables: GTables::new(regime, memory),
            load: PlainGWalk::new(&regime, Purpose::Load),
            store: PlainGWalk::new(&regime, Purpose::Store),
        }
    }
}

impl<E: MachineMemory> StageView<'_, '_, E> {
    /// Where the table leads for a load or store, if it takes plain entries only.
    #[inline(always)]
    fn plainly(&self, walk: Option<PlainGWalk>, at: Gpa) -> Option<Spa> {
        let walk = walk?;
        if at.value() >> (u64::BITS - walk.unused_bits()) != 0 {
            return None;
        }
        let spa = walk.find(at.value(), |entry| {
            self.tables.memory().read_entry(Spa::new(entry)).ok()
        });
        spa.map(Spa::new)
    }

    /// Where the host has a byte that the table leads to, if that is RAM of the machine's own memory type.
    fn ram(&self, page: &GPage) -> Option<NonNull<u8>> {
        match page.leaf.map(|leaf| leaf.memory_type).unwrap_or_default() {
            MemoryType::Pma => self.tables.memory().host_address(page.spa),
            MemoryType::NonCacheable | MemoryType::Io => None,
        }
    }

    /// Calls `part` for each page's piece of a range with where the host has it, or if that is not to be had, with `None`.
    fn each(
        &self,
        operation: Operation,
        gpa: Gpa,
        len: usize,
        mut part: impl FnMut(Option<NonNull<u8>>, Gpa, usize, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        self.view.check(operation, gpa, len)?;
        let purpose = Purpose::of(operation.access_kind());
        for piece in Pieces::new(gpa, len).into_iter().flatten() {
            let refused = |kind| {
                Fault::new(operation, kind)
                    .at_gpa(piece.address)
                    .after(piece.offset)
            };
            let host = self.locate(piece.address, purpose).map_err(refused)?;
            part(host, piece.address, piece.offset, piece.len)
                .map_err(|error| error.later(piece.offset))?;
            if host.is_some() && operation.access_kind() == AccessKind::Store {
                self.view.mark_dirty(piece.address);
            }
        }
        Ok(())
    }

    fn aligned(operation: Operation, gpa: Gpa, width: Width) -> Result<(), AccessError> {
        if gpa.is_aligned_to(width.bytes() as u64) {
            return Ok(());
        }
        Err(Fault::new(operation, FaultKind::Misaligned)
            .at_gpa(gpa)
            .after(0))
    }
}

impl<E: MachineMemory> GStage for StageView<'_, '_, E> {
    /// Where the host has the byte, if it is RAM of the machine's own memory type.
    type Page = Option<NonNull<u8>>;

    #[inline]
    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        let spa = match self.plainly(self.load, at) {
            Some(spa) => spa,
            None => self.tables.walk(at, Need::ReadEntry)?.spa,
        };
        self.tables
            .memory()
            .read_entry(spa)
            .map_err(|Refused| FaultKind::Access)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        let done = self.tables.compare_exchange_entry(at, current, new)?;
        if done.is_ok() {
            self.view.mark_dirty(at);
        }
        Ok(done)
    }

    #[inline]
    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
        let plain = match purpose {
            Purpose::Load => self.load,
            Purpose::Store => self.store,
            Purpose::ExecutableLoad | Purpose::Fetch => None,
        };
        if let Some(spa) = self.plainly(plain, at) {
            return Ok(self.tables.memory().host_address(spa));
        }
        let page = self.tables.walk(at, Need::Explicit(purpose))?;
        Ok(self.ram(&page))
    }
}

// SAFETY: a page is located where the table leads for that access: to what is the guest's, by the contract of `shown_by`, and
// to RAM that the contract of `MachineMemory` makes valid while the guard exists from which the view was made.
unsafe impl<E: MachineMemory> BackingMemory for StageView<'_, '_, E> {
    fn is_logging(&self) -> bool {
        self.view.logging()
    }

    #[inline]
    fn direct(&self, page: &Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        *page
    }

    fn look(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
        let page = self.tables.look(at, Need::Explicit(purpose))?;
        Ok(self.ram(&page))
    }

    fn mark_dirty(&self, gpa: Gpa) {
        self.view.mark_dirty(gpa);
    }
}

/// The rights are the table's; what it leads to that is not RAM is accessed as its slot says.
impl<E: MachineMemory> GuestMemory for StageView<'_, '_, E> {
    type Address = Gpa;

    fn read(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        let len = destination.len();
        self.each(Operation::Read, gpa, len, |host, at, offset, len| {
            let part = &mut destination[offset..offset + len];
            match host {
                // SAFETY: the contract of `MachineMemory`; no host buffer overlaps guest memory.
                Some(host) => unsafe { direct::copy_from(host.as_ptr(), part) },
                None => return self.view.read(at, part),
            }
            Ok(())
        })
    }

    fn write(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        let len = source.len();
        self.each(Operation::Write, gpa, len, |host, at, offset, len| {
            let part = &source[offset..offset + len];
            match host {
                // SAFETY: as in `read`; the table lets the guest write here.
                Some(host) => unsafe { direct::copy_to(host.as_ptr(), part) },
                None => return self.view.write(at, part),
            }
            Ok(())
        })
    }

    fn fill(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.each(Operation::Fill, gpa, len, |host, at, _, len| {
            match host {
                // SAFETY: as in `write`.
                Some(host) => unsafe { direct::fill(host.as_ptr(), byte, len) },
                None => return self.view.fill(at, byte, len),
            }
            Ok(())
        })
    }

    fn load_width(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        let (operation, len) = (Operation::Load, width.bytes());
        Self::aligned(operation, gpa, width)?;
        let mut value = 0;
        self.each(operation, gpa, len, |host, at, _, _| {
            value = match host {
                // SAFETY: as in `read`; pages are aligned alike.
                Some(host) => unsafe { direct::load(host.as_ptr(), width, order) },
                None => self.view.load_width(at, width, order)?,
            };
            Ok(())
        })?;
        Ok(value)
    }

    fn store_width(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        let (operation, len) = (Operation::Store, width.bytes());
        Self::aligned(operation, gpa, width)?;
        self.each(operation, gpa, len, |host, at, _, _| {
            match host {
                // SAFETY: as in `write`; pages are aligned alike.
                Some(host) => unsafe { direct::store(host.as_ptr(), width, value, order) },
                None => return self.view.store_width(at, width, value, order),
            }
            Ok(())
        })
    }

    fn compare_exchange_width(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        let (operation, len) = (Operation::CompareExchange, width.bytes());
        Self::aligned(operation, gpa, width)?;
        let mut found = 0;
        self.each(operation, gpa, len, |host, at, _, _| {
            let view = self.view;
            found = match host {
                // SAFETY: as in `store_width`; the word around is in the same page.
                Some(host) => unsafe {
                    direct::compare_exchange(host.as_ptr(), width, current, new, order)
                },
                None => view.compare_exchange_width(at, width, current, new, order)?,
            };
            Ok(())
        })?;
        Ok(found)
    }
}
