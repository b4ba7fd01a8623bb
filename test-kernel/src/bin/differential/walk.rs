//! A case by the library's walk: as specified, or as a set of this machine's deviations has it.
//!
//! The one idea: a deviation changes what the walk is asked (the purpose, SUM, MXR), what it reads ([`Machine`] stands between
//! it and memory), or how its fault is reported; never whether a case is looked at.

use differential::{Instruction, World};
use guest_mem::cause;
use guest_mem::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SUM};
use guest_mem::fault::{HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE};
use guest_mem::translate::{
    Access, EntryMemory, GRegime, GTables, Purpose, VsCsrs, VsRegime, WalkTrace, translate,
    translate_observed, trap_of,
};
use guest_mem::{FaultKind, GuestPrivilege, Gva, Spa, TrapInfo};
use test_kernel::arena;
use test_kernel::deviation::{self, Deviation};
use test_kernel::harness::Stop;
use test_kernel::oracle::Oracle;

use crate::block::{Block, Refusal};
use crate::deviating::{Entries, Machine};
use crate::deviations::Deviations;
use crate::environment::Measured;

/// The library's walk on this machine.
pub struct Walk {
    /// What the stages hold, by a case's environment.
    pub measured: Measured,
    /// `htval` and `htinst` as they were before the hardware's access.
    pub stale: TrapInfo,
}

impl Walk {
    /// With the machine's extensions and A/D policies as measured. No guest may be loaded.
    pub fn measure(machine: &deviation::Machine) -> Result<Self, Stop> {
        Ok(Self {
            measured: Measured::new(machine, Oracle::measure()?),
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
            if deviations.has(Deviation::HtinstFollowsAccess) && implicit && trap.htinst != 0 {
                trap.htinst = match purpose {
                    Purpose::Store => HTINST_PAGE_TABLE_WRITE,
                    _ => HTINST_PAGE_TABLE_READ,
                };
            }
            trap
        };
        let reported = |fault: &guest_mem::Fault| {
            let htval = match fault.gpa {
                Some(gpa)
                    if machine.table_unreachable()
                        && deviations.has(Deviation::GTableSetsHtval) =>
                {
                    Some(gpa.value() >> 2)
                }
                _ => None,
            };
            let trap = trap_of(fault, purpose).unwrap_or(TrapInfo {
                scause: u64::MAX,
                ..TrapInfo::default()
            });
            let implicit = matches!(fault.kind, FaultKind::GuestPage { implicit: true, .. });
            let mut trap = report(trap, implicit);
            // A table's; what refuses the page itself is found below.
            if trap.scause == cause::STORE_ACCESS && deviations.has(Deviation::TableAccessIsLoad) {
                trap.scause = cause::LOAD_ACCESS;
            }
            let is_wide = world.vsatp == 0 && world.address >> g.mode.gpa_bits() != 0;
            if is_wide && deviations.has(Deviation::WideGpaIsPageFault) {
                return TrapInfo {
                    scause: match purpose {
                        Purpose::Store => cause::STORE_PAGE,
                        Purpose::Fetch => cause::INSTRUCTION_PAGE,
                        Purpose::Load | Purpose::ExecutableLoad => cause::LOAD_PAGE,
                    },
                    htval: 0,
                    ..trap
                };
            }
            TrapInfo {
                htval: htval.unwrap_or(trap.htval),
                ..trap
            }
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
        Some(extended(old >> shift & mask, instruction))
    }

    fn regimes(&self, world: &World, deviations: Deviations) -> (VsRegime, GRegime) {
        let bit = |set: bool, bits: u64| if set { bits } else { 0 };
        let rules = self.measured.rules(world, deviations);
        let csrs = VsCsrs {
            vsatp: world.vsatp,
            vsstatus: bit(world.vs_sum, STATUS_SUM) | bit(world.vs_mxr, STATUS_MXR),
            sstatus: bit(world.host_sum, STATUS_SUM) | bit(world.host_mxr, STATUS_MXR),
            hstatus: bit(world.supervisor, HSTATUS_SPVP),
            henvcfg: rules.henvcfg,
            senvcfg: rules.senvcfg,
        };
        let mut vs = VsRegime {
            // Also of a machine whose henvcfg does not tell.
            rules: rules.vs,
            ..VsRegime::from_csrs(&csrs, rules.vs).expect("a case has known modes")
        };
        let mut g =
            GRegime::from_csrs(world.hgatp, csrs.sstatus, rules.g).expect("a case has known modes");
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
                of_any_user: false,
            },
        )
        .observed(&trace);
        let access = access(world, purpose(world, Deviations::NONE));
        // The trace is the answer.
        let _ = translate_observed(&vs.looking(), &tables, access, &trace);
        trace
    }
}

/// What a load leaves in its register of the bytes that it found.
pub fn extended(value: u64, instruction: Instruction) -> u64 {
    let unused = 64 - 8 * instruction.bytes();
    match instruction.extends_sign() {
        true => ((value << unused).cast_signed() >> unused).cast_unsigned(),
        false => value,
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
