//! The guest-virtual space with the guest's memory beside it: what the hardware's translation alone cannot do.
//!
//! The one idea: the fast path is the same `hlv` or `hsv`; the software walk over the guest's memory is there for the three
//! cases where the hardware has no answer. A *compare-and-exchange* has no `hsv` form (R17). A *write while a slot logs*
//! must be seen by the dirty log, to which `hsv` shows no guest-physical address. And a *fault* may be a race with the
//! guest's own page-table edits (R46), or may not say enough (R16, R22, R59).

use core::sync::atomic::Ordering;

use super::way::{Elsewhere, Reason};
use super::{GuestVirtual, LoadedVcpu, VsEnvironment};
use crate::access::{AccessKind, Width};
use crate::address::Gva;
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;
use crate::guest_physical::{BackingMemory, direct};
use crate::hart::Hart;
use crate::translate::{Access, Purpose, Translation, VsCsrs, VsRegime, translate};

/// A [`GuestVirtual`] space with the guest's memory beside it: [`GuestVirtual::with_memory`].
///
/// What it adds, each only where it is needed:
/// - [`compare_exchange`](GuestMemory::compare_exchange), by a walk in software and the host's mapping, in ordinary memory.
/// - All accesses of a machine that does not obey SUM ([`VsEnvironment::walk_always`]), by a walk a page and the host's mapping.
/// - Writes while [`BackingMemory::is_logging`] go by a walk a page and the host's mapping, so that the dirty log has them.
/// - Copies and fills of [`VsEnvironment::walk_from`] bytes or more go the same way, because it is faster. For both, a page that
///   is not ordinary memory (Svpbmt, a device, not mapped by the host) or that the walk refuses is left to the hardware.
/// - A fault that a walk does not confirm was a race with the guest's page-table edits: the VM's translations on this hart are
///   fenced and the access is tried once more at that page (R46).
/// - A fault that says too little (no `htval`, R22; an access fault that may be a page fault, R59, or a shadow stack, R16)
///   is classified by a walk.
///
/// Walks set A and D bits exactly where the machine's hardware would ([`VsEnvironment::rules`]), but walks for classifying
/// set none.
#[derive(Debug)]
pub struct BackedVirtual<'v, 'h, H: Hart, M> {
    pub(super) hardware: GuestVirtual<'v, 'h, H>,
    pub(super) memory: &'v M,
    pub(super) environment: VsEnvironment,
}

impl<'v, 'h, H: Hart> GuestVirtual<'v, 'h, H> {
    /// This space with the guest's memory beside it.
    ///
    /// An access by a walk uses a translation of the guest's that is nowhere in the hardware: it ends with the read guard that
    /// `memory` stands for, and with no fence. So whoever carries out a remote fence of the guest's (SBI RFENCE, which orders the
    /// guest's own table edits) waits for the guards that exist, by
    /// [`synchronize`](crate::guest_physical::GuestPhysicalMemory::synchronize), before the guest is told that it is done. Else
    /// the host may still write through a translation whose removal was acknowledged, into a page that the guest has reused.
    ///
    /// ```
    /// use core::sync::atomic::Ordering;
    /// use guest_mem::csr::GMode;
    /// use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot};
    /// use guest_mem::guest_virtual::VsEnvironment;
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::{R, W};
    /// use guest_mem::{AccessKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
    ///
    /// # let array = RamArray::<32>::new();
    /// # let ram = array.at(Spa::new(0x8_0000_0000));
    /// # let guest = ModelGuest::new(ram)?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W)?;
    /// # let hart = guest.hart();
    /// # let host = ram.host_ptr(guest.spa(ModelGuest::BASE).unwrap()).unwrap();
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// // SAFETY: the guest's memory is at `host` for as long as `memory` exists, and is accessed as R77 says.
    /// let slot = unsafe { Slot::linear(ModelGuest::BASE, guest.len(), host) };
    /// memory.add(slot, &mut NoGStage)?;
    /// let mut reader = memory.reader(0)?;
    /// let guard = reader.guard();
    ///
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// let plain = vcpu.guest_virtual(GuestPrivilege::Supervisor); // GVA 0x5000 is GPA 0x8000_3000
    /// let space = plain.with_memory(&guard, VsEnvironment::BASE);
    /// let lock = Gva::new(0x5008);
    /// assert_eq!(space.compare_exchange(lock, 0u32, 1, Ordering::Acquire)?, Ok(0));
    /// assert_eq!(space.compare_exchange(lock, 0u32, 1, Ordering::Acquire)?, Err(1));
    /// assert_eq!(space.translate(lock, AccessKind::Load)?.gpa, Gpa::new(0x8000_3008));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn with_memory<M: BackingMemory>(
        self,
        memory: &'v M,
        environment: VsEnvironment,
    ) -> BackedVirtual<'v, 'h, H, M> {
        BackedVirtual {
            hardware: self,
            memory,
            environment,
        }
    }
}

impl<'h, H: Hart, M: BackingMemory> BackedVirtual<'_, 'h, H, M> {
    pub(super) fn vcpu(&self) -> &LoadedVcpu<'h, H> {
        self.hardware.vcpu
    }

    /// What the VS-stage is at the moment.
    #[inline(always)]
    pub(super) fn regime(&self, operation: Operation) -> Result<VsRegime, Fault> {
        let vcpu = self.vcpu();
        vcpu.check_regime(operation, self.hardware.privilege)?;
        let csrs = VsCsrs {
            vsatp: vcpu.csrs.vsatp,
            vsstatus: vcpu.csrs.vsstatus,
            // `sstatus.MXR` is clear in every access window (I8).
            sstatus: 0,
            // Of it only VSBE counts, which the check has seen to be clear.
            hstatus: 0,
            henvcfg: self.environment.henvcfg,
            senvcfg: self.environment.senvcfg,
        };
        let mut regime = VsRegime::from_csrs(&csrs, self.environment.rules)
            .map_err(|kind| Fault::new(operation, kind))?;
        // The environment knows who updates A and D bits, henvcfg does not say for every machine (R65, R74).
        regime.rules.ad = self.environment.rules.ad;
        Ok(regime)
    }

    /// Where an access leads: walks the guest's page tables through its memory.
    ///
    /// Under a probed hardware update of A and D bits the walk sets them, as the access would.
    ///
    /// # Errors
    ///
    /// The fault that the guest's own access would meet.
    pub fn translate(&self, gva: Gva, access: AccessKind) -> Result<Translation<M::Page>, Fault> {
        let operation = match access {
            AccessKind::Load => Operation::Read,
            AccessKind::Store => Operation::Write,
            AccessKind::Fetch => Operation::Fetch,
        };
        let regime = self.regime(operation)?;
        self.walk(&regime, operation, gva)
    }

    pub(super) fn walk(
        &self,
        regime: &VsRegime,
        operation: Operation,
        gva: Gva,
    ) -> Result<Translation<M::Page>, Fault> {
        let access = Access {
            gva,
            purpose: Purpose::of(operation.access_kind()),
            privilege: self.hardware.privilege,
        };
        translate(regime, self.memory, access).map_err(|fault| Fault { operation, ..fault })
    }

    fn aligned(operation: Operation, gva: Gva, width: Width) -> Result<(), AccessError> {
        if gva.is_aligned_to(width.bytes() as u64) {
            return Ok(());
        }
        Err(Fault::new(operation, FaultKind::Misaligned)
            .at_gva(gva)
            .after(0))
    }
}

impl<H: Hart, M: BackingMemory> GuestMemory for BackedVirtual<'_, '_, H, M> {
    type Address = Gva;

    fn read(&self, address: Gva, destination: &mut [u8]) -> Result<(), AccessError> {
        let operation = Operation::Read;
        let Some(reason) = self.by_walk_if(operation, destination.len()) else {
            return self.read_by_hardware(address, destination);
        };
        self.by_walk(
            operation,
            reason,
            (address, destination.len()),
            destination,
            |destination, host, _, offset, len| {
                let part = &mut destination[offset..offset + len];
                // SAFETY: the memory's contract; the piece lies in the page. No host buffer overlaps guest memory.
                unsafe { direct::copy_from(host.as_ptr(), part) };
            },
            |destination, place, offset, len| {
                let part = &mut destination[offset..offset + len];
                match place {
                    Elsewhere::Memory(gpa) => self.memory.read(gpa, part),
                    Elsewhere::Hardware(at) => self.read_by_hardware(at, part),
                }
            },
        )
    }

    fn write(&self, address: Gva, source: &[u8]) -> Result<(), AccessError> {
        let operation = Operation::Write;
        let Some(reason) = self.by_walk_if(operation, source.len()) else {
            return self.write_by_hardware(address, source);
        };
        let logging = self.memory.is_logging();
        self.by_walk(
            operation,
            reason,
            (address, source.len()),
            (),
            |(), host, gpa, offset, len| {
                // SAFETY: as in `read`; the page was located for a store.
                unsafe { direct::copy_to(host.as_ptr(), &source[offset..offset + len]) };
                if logging {
                    self.memory.mark_dirty(gpa);
                }
            },
            |(), place, offset, len| {
                let part = &source[offset..offset + len];
                match place {
                    Elsewhere::Memory(gpa) => self.memory.write(gpa, part),
                    Elsewhere::Hardware(at) => self.write_by_hardware(at, part),
                }
            },
        )
    }

    fn fill(&self, address: Gva, byte: u8, len: usize) -> Result<(), AccessError> {
        let operation = Operation::Fill;
        let Some(reason) = self.by_walk_if(operation, len) else {
            return self.fill_by_hardware(address, byte, len);
        };
        let logging = self.memory.is_logging();
        self.by_walk(
            operation,
            reason,
            (address, len),
            (),
            |(), host, gpa, _, len| {
                // SAFETY: as in `write`.
                unsafe { direct::fill(host.as_ptr(), byte, len) };
                if logging {
                    self.memory.mark_dirty(gpa);
                }
            },
            |(), place, _, len| match place {
                Elsewhere::Memory(gpa) => self.memory.fill(gpa, byte, len),
                Elsewhere::Hardware(at) => self.fill_by_hardware(at, byte, len),
            },
        )
    }

    fn load_width(&self, address: Gva, width: Width, order: Ordering) -> Result<u64, AccessError> {
        let (operation, len) = (Operation::Load, width.bytes());
        let by_hardware = |value: &mut u64, address| {
            self.confirmed(address, len, |at, _| {
                *value = self.hardware.load_width(at, width, order)?;
                Ok(())
            })
        };
        let mut value = 0;
        let Some(reason) = self.single_by_walk_if(operation) else {
            by_hardware(&mut value, address)?;
            return Ok(value);
        };
        Self::aligned(operation, address, width)?;
        self.by_walk(
            operation,
            reason,
            (address, len),
            &mut value,
            |value, host, _, _, _| {
                // SAFETY: as in `read`; host and guest addresses are aligned alike. Not looked up again: the page may be on
                // its way out, and until the guard ends it is there.
                **value = unsafe { direct::load(host.as_ptr(), width, order) };
            },
            |value, place, _, _| {
                match place {
                    Elsewhere::Memory(gpa) => {
                        **value = self.memory.load_width(gpa, width, order)?;
                    }
                    Elsewhere::Hardware(at) => by_hardware(value, at)?,
                }
                Ok(())
            },
        )?;
        Ok(value)
    }

    fn store_width(
        &self,
        address: Gva,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        let (operation, len) = (Operation::Store, width.bytes());
        let by_hardware = |address| {
            self.confirmed(address, len, |at, _| {
                self.hardware.store_width(at, width, value, order)
            })
        };
        let Some(reason) = self.single_by_walk_if(operation) else {
            return by_hardware(address);
        };
        Self::aligned(operation, address, width)?;
        let logging = self.memory.is_logging();
        self.by_walk(
            operation,
            reason,
            (address, len),
            (),
            |(), host, gpa, _, _| {
                // SAFETY: as in `write` and `load_width`.
                unsafe { direct::store(host.as_ptr(), width, value, order) };
                if logging {
                    self.memory.mark_dirty(gpa);
                }
            },
            |(), place, _, _| match place {
                Elsewhere::Memory(gpa) => self.memory.store_width(gpa, width, value, order),
                Elsewhere::Hardware(at) => by_hardware(at),
            },
        )
    }

    fn compare_exchange_width(
        &self,
        address: Gva,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        let operation = Operation::CompareExchange;
        Self::aligned(operation, address, width)?;
        let mut found = 0;
        let logging = self.memory.is_logging();
        self.by_walk(
            operation,
            Reason::OnlyWay,
            (address, width.bytes()),
            &mut found,
            |found, host, gpa, _, _| {
                let at = host.as_ptr();
                // SAFETY: as in `store_width`; the word around is in the same page.
                **found = unsafe { direct::compare_exchange(at, width, current, new, order) };
                if logging && **found == current {
                    self.memory.mark_dirty(gpa);
                }
            },
            |found, place, _, _| match place {
                Elsewhere::Memory(gpa) => {
                    let memory = self.memory;
                    **found = memory.compare_exchange_width(gpa, width, current, new, order)?;
                    Ok(())
                }
                Elsewhere::Hardware(_) => {
                    Err(Fault::new(operation, FaultKind::AtomicUnavailable).after(0))
                }
            },
        )?;
        Ok(found)
    }
}
