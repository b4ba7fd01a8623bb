//! A case by the library's walk: as specified, or as a set of this machine's deviations has it.
//!
//! The one idea: a deviation changes what the walk is asked (the purpose, SUM, MXR), what it reads ([`Machine`] stands between
//! it and memory), or how its fault is reported; never whether a case is looked at.

use core::cell::Cell;

use differential::World;
use guest_mem::cause;
use guest_mem::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SUM};
use guest_mem::translate::{
    Access, EntryMemory, GPage, GRegime, GStage, GTables, Purpose, Refused, VsCsrs, VsRegime,
    WalkTrace, translate, translate_observed, trap_of,
};
use guest_mem::{AccessKind, FaultKind, Gpa, GuestPrivilege, Gva, Spa, TrapInfo};
use test_kernel::arena;
use test_kernel::csr;
use test_kernel::deviation::{self, Deviation};
use test_kernel::harness::Stop;
use test_kernel::oracle::Oracle;
use test_kernel::tables::bits::{N, R, X};

use crate::block::{Block, Refusal};

/// Bits 60:54 of an entry.
const RESERVED: u64 = 0x7f << 54;
/// The low bits of the page number that make a 64 KiB page, and where they are.
const NAPOT: u64 = 0b1000 << 10;
const NAPOT_FIELD: u64 = 0xf << 10;
/// The two bits of the memory type.
const PBMT: u64 = 3 << 61;

/// A set of deviations.
#[derive(Clone, Copy)]
pub struct Deviations(u64);

impl Deviations {
    /// What the specification says.
    pub const NONE: Self = Self(0);

    /// Those of a machine that the walk knows.
    pub fn of(machine: &deviation::Machine) -> Self {
        let all = KNOWN.iter().filter(|&&one| machine.has(one));
        Self(all.fold(0, |set, &one| set | 1 << one as u32))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The same without one.
    pub fn without(self, one: Deviation) -> Self {
        Self(self.0 & !(1 << one as u32))
    }

    /// Each.
    pub fn iter(self) -> impl Iterator<Item = Deviation> {
        Deviation::ALL.into_iter().filter(move |&one| self.has(one))
    }

    fn has(self, one: Deviation) -> bool {
        self.0 >> one as u32 & 1 != 0
    }
}

/// The deviations that make a difference here.
const KNOWN: [Deviation; 17] = [
    Deviation::FetchCauses,
    Deviation::FetchChecksRead,
    Deviation::SumIgnored,
    Deviation::VsMxrIgnored,
    Deviation::VsMxrAtGStage,
    Deviation::HostMxrNotAtGStage,
    Deviation::MxrOnPageTables,
    Deviation::ProtectionIsGuestPage,
    Deviation::RedirectLeavesHtinst,
    Deviation::RedirectLeavesHtval,
    Deviation::WideGpa,
    Deviation::ImplicitIsLoad,
    Deviation::ReservedIgnored,
    Deviation::PbmtReservedAllowed,
    Deviation::NapotAfterUpdate,
    Deviation::UpdateIgnoresG,
    Deviation::MissingTableIsPageFault,
];

/// The library's walk on this machine.
pub struct Walk {
    oracle: Oracle,
    /// `htval` and `htinst` as they were before the hardware's access.
    pub stale: TrapInfo,
}

impl Walk {
    /// With the machine's extensions and A/D policies as measured.
    pub fn measure(_: &deviation::Machine) -> Result<Self, Stop> {
        Ok(Self {
            oracle: Oracle::measure()?,
            stale: TrapInfo::default(),
        })
    }

    /// Does the access of a case whose words are in memory, as software.
    pub fn execute(
        &self,
        block: &Block,
        world: &World,
        deviations: Deviations,
    ) -> Result<u64, TrapInfo> {
        let (vs, g) = self.regimes(world, deviations);
        let purpose = purpose(world, deviations);
        let machine = Machine::new(block, g, deviations);
        let access = access(world, purpose);
        let report = |mut trap: TrapInfo, implicit: bool| {
            if deviations.has(Deviation::FetchCauses) && purpose == Purpose::Fetch {
                trap.scause = match trap.scause {
                    cause::INSTRUCTION_GUEST_PAGE => cause::INSTRUCTION_PAGE,
                    other => other,
                };
            }
            let is_access_fault = matches!(
                trap.scause,
                cause::INSTRUCTION_ACCESS | cause::LOAD_ACCESS | cause::STORE_ACCESS
            );
            if is_access_fault && deviations.has(Deviation::RedirectLeavesHtinst) {
                trap.htinst = self.stale.htinst;
            }
            if is_access_fault && deviations.has(Deviation::RedirectLeavesHtval) {
                trap.htval = self.stale.htval;
            }
            if deviations.has(Deviation::ImplicitIsLoad)
                && implicit
                && trap.scause == cause::STORE_GUEST_PAGE
            {
                trap.scause = cause::LOAD_GUEST_PAGE;
            }
            trap
        };
        let reported = |fault: &guest_mem::Fault| {
            let trap = trap_of(fault, purpose).unwrap_or(TrapInfo {
                scause: u64::MAX,
                ..TrapInfo::default()
            });
            report(
                trap,
                matches!(fault.kind, FaultKind::GuestPage { implicit: true, .. }),
            )
        };
        let found = translate(&vs, &machine, access).map_err(|fault| reported(&fault))?;
        if let Some(value) = self.access(block, world, found.page.spa.value()) {
            return Ok(value);
        }
        let stval = found.gva.value();
        let protected = block.refusal.get() == Refusal::Protected;
        let trap = match (protected, deviations.has(Deviation::ProtectionIsGuestPage)) {
            (true, true) => TrapInfo {
                scause: match purpose {
                    Purpose::Store => cause::STORE_GUEST_PAGE,
                    Purpose::Fetch => cause::INSTRUCTION_GUEST_PAGE,
                    Purpose::Load | Purpose::ExecutableLoad => cause::LOAD_GUEST_PAGE,
                },
                stval,
                htval: found.gpa.value() >> 2,
                htinst: 0,
            },
            _ => TrapInfo {
                scause: match purpose {
                    Purpose::Store => cause::STORE_ACCESS,
                    Purpose::Fetch => cause::INSTRUCTION_ACCESS,
                    Purpose::Load | Purpose::ExecutableLoad => cause::LOAD_ACCESS,
                },
                stval,
                ..TrapInfo::default()
            },
        };
        Err(report(trap, false))
    }

    /// The access itself; `None` if there is no memory.
    fn access(&self, block: &Block, world: &World, spa: u64) -> Option<u64> {
        let old = block.read_entry(Spa::new(spa & !7)).ok()?;
        let instruction = world.instruction;
        let shift = spa % 8 * 8;
        let mask = u64::MAX >> (64 - 8 * instruction.bytes());
        if instruction.stores() {
            arena::write(
                spa & !7,
                old & !(mask << shift) | (world.value & mask) << shift,
            );
            return Some(0);
        }
        let value = old >> shift & mask;
        let unused = 64 - 8 * instruction.bytes();
        Some(match instruction.extends_sign() {
            true => ((value << unused).cast_signed() >> unused).cast_unsigned(),
            false => value,
        })
    }

    fn regimes(&self, world: &World, deviations: Deviations) -> (VsRegime, GRegime) {
        let bit = |set: bool, bits: u64| if set { bits } else { 0 };
        let csrs = VsCsrs {
            vsatp: world.vsatp,
            vsstatus: bit(world.vs_sum, STATUS_SUM) | bit(world.vs_mxr, STATUS_MXR),
            sstatus: bit(world.host_sum, STATUS_SUM) | bit(world.host_mxr, STATUS_MXR),
            hstatus: bit(world.supervisor, HSTATUS_SPVP),
            henvcfg: csr::henvcfg::read(),
            senvcfg: csr::senvcfg::read(),
        };
        let Oracle { vs, g, .. } = self.oracle;
        let mut vs = VsRegime {
            // What was measured counts: QEMU does not ask henvcfg (R65).
            rules: vs,
            ..VsRegime::from_csrs(&csrs, vs).expect("a case has known modes")
        };
        let mut g =
            GRegime::from_csrs(world.hgatp, csrs.sstatus, g).expect("a case has known modes");
        if deviations.has(Deviation::SumIgnored) {
            vs.sum = true;
        }
        if deviations.has(Deviation::VsMxrIgnored) {
            vs.mxr = world.host_mxr;
        }
        if deviations.has(Deviation::HostMxrNotAtGStage) {
            g.mxr = false;
        }
        if deviations.has(Deviation::VsMxrAtGStage) {
            g.mxr |= world.vs_mxr;
        }
        (vs, g)
    }

    /// The steps of the walk, as specified. The words are in memory; A and D bits stay.
    pub fn trace(&self, block: &Block, world: &World) -> WalkTrace {
        let (vs, g) = self.regimes(world, Deviations::NONE);
        let trace = WalkTrace::new();
        let tables = GTables::new(
            g.looking(),
            Entries {
                block,
                deviations: Deviations::NONE,
            },
        )
        .observed(&trace);
        let access = access(world, purpose(world, Deviations::NONE));
        // The trace is the answer.
        let _ = translate_observed(&vs.looking(), &tables, access, &trace);
        trace
    }
}

fn purpose(world: &World, deviations: Deviations) -> Purpose {
    if world.instruction.stores() {
        Purpose::Store
    } else if !world.instruction.executes() || deviations.has(Deviation::FetchChecksRead) {
        Purpose::Load
    } else if deviations.has(Deviation::FetchCauses) {
        // Those machines treat it as a fetch altogether (R7).
        Purpose::Fetch
    } else {
        Purpose::ExecutableLoad
    }
}

fn access(world: &World, purpose: Purpose) -> Access {
    Access {
        gva: Gva::new(world.address),
        purpose,
        privilege: match world.supervisor {
            true => GuestPrivilege::Supervisor,
            false => GuestPrivilege::User,
        },
    }
}

/// Memory and the G-stage as the machine with its deviations has them.
struct Machine<'a> {
    block: &'a Block,
    deviations: Deviations,
    regime: GRegime,
    /// The G-stage, for explicit accesses and for entries.
    tables: GTables<Entries<'a>>,
    /// The VS-stage met a 64 KiB page with a reserved encoding.
    reserved_page: Cell<bool>,
}

impl<'a> Machine<'a> {
    fn new(block: &'a Block, regime: GRegime, deviations: Deviations) -> Self {
        Self {
            block,
            deviations,
            regime,
            tables: GTables::new(regime, Entries { block, deviations }),
            reserved_page: Cell::new(false),
        }
    }

    fn has(&self, deviation: Deviation) -> bool {
        self.deviations.has(deviation)
    }

    fn entries(&self) -> Entries<'a> {
        Entries {
            block: self.block,
            deviations: self.deviations,
        }
    }

    /// A guest-physical address as the machine looks at it: `None` if it is too wide.
    fn narrow(&self, at: Gpa) -> Option<Gpa> {
        if !self.has(Deviation::WideGpa) {
            return Some(at);
        }
        let bits = self.regime.mode.gpa_bits();
        let top = at.value().cast_signed() >> (bits - 1);
        matches!(top, 0 | -1).then(|| Gpa::new(at.value() & ((1 << bits) - 1)))
    }

    /// Where a page-table entry of the guest's is, as for a load.
    fn entry(&self, at: Gpa) -> Result<GPage, FaultKind> {
        let kinds = [Deviation::MxrOnPageTables, Deviation::VsMxrAtGStage];
        let mxr = self.regime.mxr && kinds.iter().any(|&kind| self.has(kind));
        let regime = GRegime { mxr, ..self.regime };
        let refused = FaultKind::GuestPage {
            access: AccessKind::Load,
            implicit: true,
        };
        let narrow = self.narrow(at).ok_or(refused)?;
        // The library says whether the entry may be read; a load finds where it is.
        let readable = match self.tables.read_entry(narrow) {
            Err(FaultKind::GuestPage { .. }) => false,
            _ => true,
        };
        let tables = GTables::new(regime, self.entries());
        let found = self.unless_reserved(refused, || tables.locate(narrow, Purpose::Load));
        let located = !matches!(found, Err(FaultKind::GuestPage { .. }));
        if !mxr && readable != located && !self.block.reserved_page.get() {
            // No machine reports this: the case is a disagreement.
            return Err(FaultKind::UnexpectedCause);
        }
        // Whatever the G-stage does not find is its page fault.
        match found {
            Err(FaultKind::Access) if self.has(Deviation::MissingTableIsPageFault) => Err(refused),
            other => other,
        }
    }
}

impl Machine<'_> {
    /// A walk of the G-stage, refused if its page has a reserved encoding that was not seen on the way.
    fn unless_reserved(
        &self,
        refused: FaultKind,
        walk: impl FnOnce() -> Result<GPage, FaultKind>,
    ) -> Result<GPage, FaultKind> {
        self.block.reserved_page.set(false);
        match (walk(), self.block.reserved_page.get()) {
            (Ok(_), true) => Err(refused),
            (found, _) => found,
        }
    }
}

impl GStage for Machine<'_> {
    type Page = GPage;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        if self.deviations.is_empty() {
            return self.tables.read_entry(at);
        }
        let spa = self.entry(at)?.spa;
        self.block.reserved_page.set(false);
        let entry = self.entries().read_entry(spa);
        self.reserved_page.set(self.block.reserved_page.get());
        entry.map_err(|Refused| {
            let missing = self.block.refusal.get() == Refusal::Nothing;
            match missing && self.has(Deviation::MissingTableIsPageFault) {
                true => FaultKind::Page,
                false => FaultKind::Access,
            }
        })
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        if !self.has(Deviation::UpdateIgnoresG) {
            return match self.narrow(at) {
                Some(at) => self.tables.compare_exchange_entry(at, current, new),
                None => Err(FaultKind::Access),
            };
        }
        let spa = self.entry(at)?.spa;
        self.entries()
            .compare_exchange_entry(spa, current, new)
            .map_err(|Refused| FaultKind::Access)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<GPage, FaultKind> {
        let refused = FaultKind::GuestPage {
            access: purpose.access_kind(),
            implicit: false,
        };
        if self.reserved_page.get() {
            return Err(FaultKind::Page);
        }
        let at = self.narrow(at).ok_or(refused)?;
        let found = self.unless_reserved(refused, || self.tables.locate(at, purpose));
        let as_guest_page = match self.block.refusal.get() {
            Refusal::Nothing => Deviation::MissingTableIsPageFault,
            Refusal::Protected => Deviation::ProtectionIsGuestPage,
        };
        match found {
            Err(FaultKind::Access) if self.has(as_guest_page) => Err(refused),
            other => other,
        }
    }
}

/// Entries in memory as the machine with its deviations looks at them.
struct Entries<'a> {
    block: &'a Block,
    deviations: Deviations,
}

impl Entries<'_> {
    /// Bits of `entry` that the machine does not look at.
    fn unseen(&self, entry: u64) -> u64 {
        let mut unseen = 0;
        if self.deviations.has(Deviation::ReservedIgnored) {
            unseen |= entry & RESERVED;
        }
        // The reserved memory type is taken for another.
        if self.deviations.has(Deviation::PbmtReservedAllowed) && entry & PBMT == PBMT {
            unseen |= 1 << 62;
        }
        if self.is_late(entry) {
            unseen |= N;
        }
        unseen
    }

    /// Whether the entry is one of a 64 KiB page whose encoding is reserved, which the machine sees too late.
    fn is_late(&self, entry: u64) -> bool {
        let reserved = entry & N != 0 && entry & (R | X) != 0 && entry & NAPOT_FIELD != NAPOT;
        reserved && self.deviations.has(Deviation::NapotAfterUpdate)
    }
}

impl EntryMemory for Entries<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        let entry = self.block.read_entry(at)?;
        if self.is_late(entry) {
            self.block.reserved_page.set(true);
        }
        Ok(entry & !self.unseen(entry))
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let entry = self.block.read_entry(at)?;
        let unseen = self.unseen(entry);
        self.block
            .compare_exchange_entry(at, current | unseen, new | unseen)
    }
}
