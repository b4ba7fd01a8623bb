//! What went wrong with a guest access, where, how far it got, and what to do about it.
//!
//! The one idea: a fault has exactly one owner. The VS-stage refused: it is the guest's, *inject* it. The G-stage refused:
//! it is the hypervisor's, *resolve* it and retry. Anything else is a mistake of one of them, *refuse*.

use core::fmt;

use crate::access::AccessKind;
use crate::address::{Gpa, Gva};
use crate::inject::Injection;

mod from_exit;
mod from_trap;

pub use from_exit::GuestExit;
pub(crate) use from_trap::Space;

/// `htinst` when the fault is an implicit read of a VS-stage page-table entry (R58).
pub const HTINST_PAGE_TABLE_READ: u64 = 0x3000;

/// `htinst` when the fault is an implicit A/D update of a VS-stage page-table entry (R58).
pub const HTINST_PAGE_TABLE_WRITE: u64 = 0x3020;

/// The trap CSRs of one fault, as they stood when the handler was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TrapInfo {
    /// The cause: see [`cause`](crate::cause).
    pub scause: u64,
    /// The faulting guest-virtual address (the guest-physical one while `vsatp` is Bare), of the portion that faulted.
    pub stval: u64,
    /// The faulting guest-physical address shifted right by 2, or 0 (R22).
    pub htval: u64,
    /// The transformed instruction, a page-table pseudo-instruction, or 0 (R58).
    pub htinst: u64,
}

/// What the caller asked for.
///
/// The upper half of a discriminant is that of the [`AccessKind`] which the operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Bytes from guest to host.
    Read = 0x00,
    /// One single-copy-atomic load.
    Load = 0x01,
    /// A software walk without an access.
    Translate = 0x02,
    /// Bytes from host to guest.
    Write = 0x10,
    /// One byte value over a guest range.
    Fill = 0x11,
    /// One single-copy-atomic store.
    Store = 0x12,
    /// One atomic compare-and-exchange.
    CompareExchange = 0x13,
    /// One instruction.
    Fetch = 0x20,
    /// The guest's own load, that it exited by.
    GuestLoad = 0x03,
    /// The guest's own store, or read-modify-write, that it exited by.
    GuestStore = 0x14,
    /// The guest's own fetch of an instruction, that it exited by.
    GuestFetch = 0x21,
}

impl Operation {
    /// The type under which the architecture reports a fault of this operation.
    #[inline(always)]
    pub const fn access_kind(self) -> AccessKind {
        match self as u8 >> 4 {
            0 => AccessKind::Load,
            1 => AccessKind::Store,
            2 => AccessKind::Fetch,
            _ => unreachable!(),
        }
    }

    /// Whether the guest made the access itself, and the host only hears of it.
    #[inline]
    pub const fn is_guests_own(self) -> bool {
        matches!(self, Self::GuestLoad | Self::GuestStore | Self::GuestFetch)
    }

    /// The guest's own access of a type.
    pub(crate) const fn of_guest(access: AccessKind) -> Self {
        match access {
            AccessKind::Load => Self::GuestLoad,
            AccessKind::Store => Self::GuestStore,
            AccessKind::Fetch => Self::GuestFetch,
        }
    }
}

/// Who refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The VS-stage refused (cause 12/13/15): the guest's own page tables, a non-canonical address, or its A/D bits.
    Page,
    /// The G-stage refused (cause 20/21/23), or a slot has no page there, or the page is write-protected.
    GuestPage {
        /// What the G-stage was asked for at the faulting guest-physical address: the type of the access itself, or, when
        /// [`implicit`](Self::GuestPage::implicit), [`AccessKind::Load`] for a read of a VS-stage page-table entry and
        /// [`AccessKind::Store`] for an update of its A or D bit.
        access: AccessKind,
        /// The access that faulted was a page-table access of the VS-stage walk, not the one asked for.
        implicit: bool,
    },
    /// The machine refused (cause 1/5/7): PMP or PMA at the supervisor-physical address.
    Access,
    /// A VS-stage shadow-stack page was written by an ordinary store, or fetched from (R16): the guest's own business, cause 7
    /// or 1.
    ShadowStack,
    /// The access was misaligned for the machine (cause 0/4/6), or the caller's address for a typed access that has to be
    /// naturally aligned.
    Misaligned,
    /// `address + len` runs past the top of the address space, or a guest-physical address is wider than its mode (R13).
    OutOfRange,
    /// No slot covers the guest-physical address.
    NoSlot,
    /// The slot is read-only.
    ReadOnlySlot,
    /// The slot is emulated (MMIO): the caller has to decode the access and emulate it.
    Trapped,
    /// The slot is passed-through device memory, which has no block copies and whose width has to be exact.
    DeviceMemory,
    /// The slot's memory is out of the host's reach, and no loaded vCPU was given to reach it through.
    NotMapped,
    /// Atomic accesses need a host mapping, and there is none here (R17).
    AtomicUnavailable,
    /// `hgatp.MODE` is Bare: a guest access would go to machine memory unprotected (R12).
    GStageBare,
    /// The hart's `hgatp`, `vsatp` or `vsstatus` hold a value that this access cannot run under: an unknown mode or a
    /// big-endian guest (R9).
    UnsupportedRegime,
    /// The instruction bytes changed, or were not the kind of access that trapped (R58): retry the guest.
    InstructionChanged,
    /// A resolver gave up, or did not help within its bounds.
    Unresolved,
    /// A cause that this access cannot raise by the specification.
    UnexpectedCause,
}

/// One fault of one guest access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the caller asked for.
    pub operation: Operation,
    /// Who refused, and why.
    pub kind: FaultKind,
    /// The guest-virtual address of the portion that faulted, for accesses that have one.
    pub gva: Option<Gva>,
    /// The guest-physical address that was refused, if it is known: the one asked for, that of the explicit access after
    /// the VS-stage, or that of a page-table entry.
    pub gpa: Option<Gpa>,
    /// The trap CSRs, for a fault that the hardware raised.
    pub trap: Option<TrapInfo>,
}

/// What to do about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Give it to the guest, as if its own access had met it.
    Inject(Injection),
    /// Make the page at `gpa` accessible for `access` and retry from `completed`.
    Resolve {
        /// The guest-physical address that has to become accessible.
        gpa: Gpa,
        /// What it has to be accessible for.
        access: AccessKind,
    },
    /// The G-stage refused an access of the guest's own, and the trap does not say enough: `htval` is 0 (R22), or `htinst`
    /// does not tell a read of a page table from its update (R76). [`Fault::walked`] finds out.
    Walk,
    /// Neither: a bad request of the caller's, or a machine that refuses. Report it.
    Refuse,
}

/// A guest access that did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError {
    /// The largest n such that bytes `[0, n)` of the request were transferred, and nothing at or after n was written.
    pub completed: usize,
    /// Why it ended there.
    pub fault: Fault,
}

impl Fault {
    /// A fault that software found before the machine was asked.
    pub(crate) const fn new(operation: Operation, kind: FaultKind) -> Self {
        Self {
            operation,
            kind,
            gva: None,
            gpa: None,
            trap: None,
        }
    }

    pub(crate) const fn at_gva(mut self, gva: Gva) -> Self {
        self.gva = Some(gva);
        self
    }

    pub(crate) const fn at_gpa(mut self, gpa: Gpa) -> Self {
        self.gpa = Some(gpa);
        self
    }

    /// An [`AccessError`] of this fault after `completed` bytes.
    pub(crate) const fn after(self, completed: usize) -> AccessError {
        AccessError {
            completed,
            fault: self,
        }
    }

    /// Who has to act, and how.
    ///
    /// A guest-page fault is `Resolve` when its guest-physical address is known; if no slot covers that address, the owner
    /// of the G-stage asks [`injection_when_unbacked`](Self::injection_when_unbacked) instead.
    ///
    /// For an access of the guest's own ([`from_guest_exit`](Self::from_guest_exit)) that the machine refused, or that is
    /// misaligned, it is `Inject`; for one of the host's on its behalf it is `Refuse`.
    ///
    /// A fault of a guest-physical operation is never `Inject`: the guest gave a bad number, not a bad access, and how it
    /// is told is up to the interface it gave it through.
    pub fn resolution(&self) -> Resolution {
        let access = self.operation.access_kind();
        let own = self.operation.is_guests_own();
        match (self.kind, self.gva, self.gpa) {
            (FaultKind::Page, Some(gva), _) => {
                Resolution::Inject(Injection::page_fault(access, gva))
            }
            (FaultKind::ShadowStack, Some(gva), _) => {
                Resolution::Inject(Injection::access_fault(access, gva))
            }
            (FaultKind::GuestPage { access, .. }, _, Some(gpa)) => {
                Resolution::Resolve { gpa, access }
            }
            (FaultKind::GuestPage { .. }, Some(_), None) if own => Resolution::Walk,
            (FaultKind::Access, Some(gva), _) if own => {
                Resolution::Inject(Injection::access_fault(access, gva))
            }
            (FaultKind::Misaligned, Some(gva), _) if own => {
                Resolution::Inject(Injection::misaligned(access, gva))
            }
            (FaultKind::NoSlot | FaultKind::ReadOnlySlot, Some(gva), _) => {
                Resolution::Inject(Injection::access_fault(access, gva))
            }
            _ => Resolution::Refuse,
        }
    }

    /// What the guest sees when nothing backs the guest-physical address: the access fault (1/5/7) of the *original* type,
    /// also when it was a page-table entry that is not backed. `None` for a guest-physical operation.
    ///
    /// ```
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::{R, W};
    /// use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Resolution, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W)?;
    /// # let hart = guest.hart();
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// guest.unback(Gpa::new(0x8000_3000))?; // what the guest maps at GVA 0x5000
    /// let error = vcpu.guest_virtual(GuestPrivilege::Supervisor).write(Gva::new(0x5000), &[1]).unwrap_err();
    /// assert!(matches!(error.fault.resolution(), Resolution::Resolve { .. }));
    /// // The owner of the G-stage finds that no memory belongs there: a store access fault for the guest.
    /// let injection = error.fault.injection_when_unbacked().unwrap();
    /// assert_eq!((injection.cause, injection.tval), (7, 0x5000));
    /// # Ok::<(), guest_mem::translate::builder::BuildError>(())
    /// ```
    pub fn injection_when_unbacked(&self) -> Option<Injection> {
        self.gva
            .map(|gva| Injection::access_fault(self.operation.access_kind(), gva))
    }
}

impl AccessError {
    /// The same error for a request of which `bytes` lay before this part.
    pub(crate) const fn later(mut self, bytes: usize) -> Self {
        self.completed += bytes;
        self
    }
}

impl From<AccessError> for Fault {
    fn from(error: AccessError) -> Self {
        error.fault
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "page fault (VS-stage)",
            Self::GuestPage {
                implicit: false, ..
            } => "guest-page fault (G-stage)",
            Self::GuestPage {
                implicit: true,
                access: AccessKind::Store,
            } => "guest-page fault (G-stage) on the A/D update of a page-table entry",
            Self::GuestPage { implicit: true, .. } => {
                "guest-page fault (G-stage) on a page-table entry"
            }
            Self::Access => "access fault (PMP or PMA)",
            Self::ShadowStack => "access fault (shadow-stack page)",
            Self::Misaligned => "misaligned address",
            Self::OutOfRange => "range outside the address space",
            Self::NoSlot => "no slot covers the address",
            Self::ReadOnlySlot => "slot is read-only",
            Self::Trapped => "address is emulated (MMIO)",
            Self::DeviceMemory => "device memory takes exact-width accesses only",
            Self::NotMapped => "memory is not mapped by the host and no vCPU is loaded",
            Self::AtomicUnavailable => "no atomic access to memory that the host does not map",
            Self::GStageBare => "hgatp.MODE is Bare",
            Self::UnsupportedRegime => "unsupported translation regime",
            Self::InstructionChanged => "instruction does not match the trap",
            Self::Unresolved => "not resolved",
            Self::UnexpectedCause => "unexpected trap cause",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Fill => "fill",
            Operation::Load => "load",
            Operation::Store => "store",
            Operation::CompareExchange => "compare-exchange",
            Operation::Fetch => "fetch",
            Operation::Translate => "translate",
            Operation::GuestLoad => "load of its own",
            Operation::GuestStore => "store of its own",
            Operation::GuestFetch => "fetch of its own",
        };
        write!(f, "guest {operation}")?;
        if let Some(gva) = self.gva {
            write!(f, " at GVA {gva:#x}")?;
        }
        if let Some(gpa) = self.gpa {
            write!(f, " at GPA {gpa:#x}")?;
        }
        write!(f, ": {}", self.kind)?;
        if let Some(trap) = self.trap {
            write!(
                f,
                " [scause {} stval {:#x} htval {:#x} htinst {:#x}]",
                trap.scause, trap.stval, trap.htval, trap.htinst
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {} bytes)", self.fault, self.completed)
    }
}

impl core::error::Error for Fault {}
impl core::error::Error for AccessError {}
