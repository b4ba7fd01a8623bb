//! The guest-virtual space with the guest's memory beside it: what the hardware's translation alone cannot do.
//!
//! The one idea: the fast path is the same `hlv` or `hsv`; the software walk over the guest's memory is there for the three
//! cases where the hardware has no answer. A *compare-and-exchange* has no `hsv` form (R17). A *write while a slot logs*
//! must be seen by the dirty log, to which `hsv` shows no guest-physical address. And a *fault* may be a race with the
//! guest's own page-table edits (R46), or may not say enough (R16, R22, R59).

use core::sync::atomic::Ordering;

use super::{GuestVirtual, LoadedVcpu, VsEnvironment};
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, Gva, Pieces};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;
use crate::guest_physical::PhysicalView;
use crate::hart::{Csr, Hart};
use crate::translate::{Access, GStage, Purpose, Translation, VsCsrs, VsRegime, translate};

/// Guest-physical memory that the host maps, as the guest-virtual space uses it: to walk the guest's page tables, and to
/// reach what they lead to.
pub trait BackingMemory: GStage + GuestMemory<Address = Gpa> {
    /// Whether writes have to be seen by a dirty log at the moment.
    fn is_logging(&self) -> bool;
}

impl BackingMemory for PhysicalView<'_> {
    fn is_logging(&self) -> bool {
        self.logging()
    }
}

/// A [`GuestVirtual`] space with the guest's memory beside it: [`GuestVirtual::with_memory`].
///
/// What it adds, each only where it is needed:
/// - [`compare_exchange`](GuestMemory::compare_exchange), by a walk in software and the host's mapping.
/// - All accesses of a machine that does not obey SUM ([`VsEnvironment::walk_always`]), by a walk a page and the host's mapping.
/// - Writes while [`BackingMemory::is_logging`] go by a walk a page and the host's mapping, so that the dirty log has them.
/// - A fault that a walk does not confirm was a race with the guest's page-table edits: the VM's translations on this hart are
///   fenced and the access is tried once more at that page (R46).
/// - A fault that says too little (no `htval`, R22; an access fault that may be a page fault, R59, or a shadow stack, R16)
///   is classified by a walk.
///
/// Walks set A and D bits exactly where the machine's hardware would ([`VsEnvironment::rules`]), but walks for classifying
/// set none.
#[derive(Debug)]
pub struct BackedVirtual<'v, 'h, H: Hart, M> {
    hardware: GuestVirtual<'v, 'h, H>,
    memory: &'v M,
    environment: VsEnvironment,
}

impl<'v, 'h, H: Hart> GuestVirtual<'v, 'h, H> {
    /// This space with the guest's memory beside it.
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
    /// // SAFETY: the guest's memory is at `host` for as long as `memory` exists, and is accessed as atomics only.
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
    fn regime(&self, operation: Operation) -> Result<VsRegime, Fault> {
        let vcpu = self.vcpu();
        vcpu.check_regime(operation, self.hardware.privilege)?;
        let csrs = VsCsrs {
            vsatp: vcpu.csrs.vsatp,
            vsstatus: vcpu.csrs.vsstatus,
            // `sstatus.MXR` is clear in every access window (I8).
            sstatus: 0,
            hstatus: vcpu.hart.read_csr(Csr::Hstatus),
            henvcfg: self.environment.henvcfg,
            senvcfg: self.environment.senvcfg,
        };
        let mut regime = VsRegime::from_csrs(&csrs, self.environment.rules)
            .map_err(|kind| Fault::new(operation, kind))?;
        // What the probe measured counts, not what henvcfg says (R65).
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

    fn walk(
        &self,
        regime: &VsRegime,
        operation: Operation,
        gva: Gva,
    ) -> Result<Translation<M::Page>, Fault> {
        let purpose = match operation.access_kind() {
            AccessKind::Load => Purpose::Load,
            AccessKind::Store => Purpose::Store,
            AccessKind::Fetch => Purpose::Fetch,
        };
        let access = Access {
            gva,
            purpose,
            privilege: self.hardware.privilege,
        };
        translate(regime, self.memory, access).map_err(|fault| Fault { operation, ..fault })
    }

    /// Runs `access` from an offset, until it is done or its fault stands. A fault that a walk does not confirm is retried
    /// once at each page (R46).
    fn confirmed(
        &self,
        gva: Gva,
        len: usize,
        mut access: impl FnMut(Gva, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        let mut done = 0;
        let mut retried_page = None;
        loop {
            let at = Gva::new(gva.value().wrapping_add(done as u64));
            let Err(error) = access(at, done) else {
                return Ok(());
            };
            done += error.completed;
            let page = error.fault.gva.map(Gva::page_base);
            match self.classify(error.fault) {
                Verdict::Stands(fault) => return Err(fault.after(done)),
                Verdict::Raced(_) if done < len && retried_page != page => {
                    retried_page = page;
                    // Of everything: a fence of one address orders its leaf entry only (R40).
                    self.vcpu().hart.hfence_vvma(None);
                }
                Verdict::Raced(fault) => return Err(fault.after(done)),
            }
        }
    }

    /// What a hardware fault was, by a walk that leaves no trace.
    fn classify(&self, fault: Fault) -> Verdict {
        let Some(gva) = fault.gva else {
            return Verdict::Stands(fault);
        };
        let doubtful = match fault.kind {
            FaultKind::Page => true,
            FaultKind::Access => fault.trap.is_some(),
            FaultKind::GuestPage { .. } => fault.gpa.is_none(),
            _ => false,
        };
        if !doubtful {
            return Verdict::Stands(fault);
        }
        let Ok(regime) = self.regime(fault.operation) else {
            return Verdict::Stands(fault);
        };
        let stands = |kind, gpa| Verdict::Stands(Fault { kind, gpa, ..fault });
        match (
            fault.kind,
            self.walk(&regime.looking(), fault.operation, gva),
        ) {
            // The walk knows more.
            (FaultKind::Access, Err(walked))
                if matches!(walked.kind, FaultKind::Page | FaultKind::ShadowStack) =>
            {
                stands(walked.kind, fault.gpa)
            }
            // The walk agrees.
            (FaultKind::Page, Err(walked)) if walked.kind == FaultKind::Page => {
                Verdict::Stands(fault)
            }
            (FaultKind::GuestPage { .. }, Err(walked))
                if matches!(walked.kind, FaultKind::GuestPage { .. }) =>
            {
                stands(walked.kind, walked.gpa)
            }
            // Something other than the VS-stage refuses where the hardware's G-stage does: no slot, or one that is emulated.
            (FaultKind::GuestPage { .. }, Err(walked)) if walked.gpa.is_some() => {
                stands(fault.kind, walked.gpa)
            }
            // The slots have the page and the G-stage table does not (yet).
            (FaultKind::GuestPage { .. }, Ok(found)) => stands(fault.kind, Some(found.gpa)),
            (FaultKind::Access, Err(_)) => Verdict::Stands(fault),
            // The walk disagrees: the tables changed since, and the next access will tell. An access fault is believed only
            // after that, since it may have been a page fault (R59).
            _ => Verdict::Raced(fault),
        }
    }

    /// Runs `part` at the guest-physical address of each page's piece of a guest-virtual range.
    fn by_walk(
        &self,
        operation: Operation,
        gva: Gva,
        len: usize,
        mut part: impl FnMut(Gpa, usize, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        if len == 0 {
            return Ok(());
        }
        let refuse = |fault: Fault| fault.at_gva(gva).after(0);
        let pieces = Pieces::new(gva, len)
            .ok_or_else(|| refuse(Fault::new(operation, FaultKind::OutOfRange)))?;
        self.vcpu().check_g_stage(operation).map_err(refuse)?;
        let regime = self.regime(operation).map_err(refuse)?;
        for piece in pieces {
            let found = self
                .walk(&regime, operation, piece.address)
                .map_err(|fault| fault.after(piece.offset))?;
            part(found.gpa, piece.offset, piece.len).map_err(|error| {
                let gva = Gva::new(piece.address.value() + error.completed as u64);
                let fault = Fault {
                    operation,
                    ..error.fault
                }
                .at_gva(gva);
                fault.after(error.completed + piece.offset)
            })?;
        }
        Ok(())
    }

    fn reads_by_walk(&self) -> bool {
        self.environment.walk_always
    }

    fn writes_by_walk(&self) -> bool {
        self.environment.walk_always || self.memory.is_logging()
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

/// Whether a fault of the hardware is true.
enum Verdict {
    /// It is, as this fault says.
    Stands(Fault),
    /// The guest's tables say otherwise by now.
    Raced(Fault),
}

impl<H: Hart, M: BackingMemory> GuestMemory for BackedVirtual<'_, '_, H, M> {
    type Address = Gva;

    fn read(&self, address: Gva, destination: &mut [u8]) -> Result<(), AccessError> {
        let len = destination.len();
        if self.reads_by_walk() {
            return self.by_walk(Operation::Read, address, len, |gpa, offset, len| {
                self.memory
                    .read(gpa, &mut destination[offset..offset + len])
            });
        }
        self.confirmed(address, len, |at, done| {
            self.hardware.read(at, &mut destination[done..])
        })
    }

    fn write(&self, address: Gva, source: &[u8]) -> Result<(), AccessError> {
        if self.writes_by_walk() {
            return self.by_walk(
                Operation::Write,
                address,
                source.len(),
                |gpa, offset, len| self.memory.write(gpa, &source[offset..offset + len]),
            );
        }
        self.confirmed(address, source.len(), |at, done| {
            self.hardware.write(at, &source[done..])
        })
    }

    fn fill(&self, address: Gva, byte: u8, len: usize) -> Result<(), AccessError> {
        if self.writes_by_walk() {
            return self.by_walk(Operation::Fill, address, len, |gpa, _, len| {
                self.memory.fill(gpa, byte, len)
            });
        }
        self.confirmed(address, len, |at, done| {
            self.hardware.fill(at, byte, len - done)
        })
    }

    fn load_width(&self, address: Gva, width: Width, order: Ordering) -> Result<u64, AccessError> {
        let mut value = 0;
        if self.reads_by_walk() {
            Self::aligned(Operation::Load, address, width)?;
            self.by_walk(Operation::Load, address, width.bytes(), |gpa, _, _| {
                value = self.memory.load_width(gpa, width, order)?;
                Ok(())
            })?;
            return Ok(value);
        }
        self.confirmed(address, width.bytes(), |at, _| {
            value = self.hardware.load_width(at, width, order)?;
            Ok(())
        })?;
        Ok(value)
    }

    fn store_width(
        &self,
        address: Gva,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        if self.writes_by_walk() {
            Self::aligned(Operation::Store, address, width)?;
            return self.by_walk(Operation::Store, address, width.bytes(), |gpa, _, _| {
                self.memory.store_width(gpa, width, value, order)
            });
        }
        self.confirmed(address, width.bytes(), |at, _| {
            self.hardware.store_width(at, width, value, order)
        })
    }

    fn compare_exchange_width(
        &self,
        address: Gva,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        Self::aligned(Operation::CompareExchange, address, width)?;
        let mut found = 0;
        self.by_walk(
            Operation::CompareExchange,
            address,
            width.bytes(),
            |gpa, _, _| {
                found = self
                    .memory
                    .compare_exchange_width(gpa, width, current, new, order)?;
                Ok(())
            },
        )?;
        Ok(found)
    }
}
