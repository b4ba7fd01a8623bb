//! The software walk against the hardware: one access both ways, and whether they agree on everything that can be seen.
//!
//! The one idea: what can be seen is the byte that is reached, the trap's cause and addresses, and the A and D bits of every
//! entry afterwards. Where this machine is known to differ (`deviation`), the walk is told of the difference and has to agree
//! then.

use guest_mem::csr::{HSTATUS_SPVP, STATUS_MXR};
use guest_mem::fault::{HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE};
use guest_mem::hart::riscv64::HandlerHook;
use guest_mem::probe::MachineProfile;
use guest_mem::translate::{
    Access, AdPolicy, GPage, GRegime, GTables, Purpose, StageRules, Translation, VsCsrs, VsRegime,
    trap_of,
};
use guest_mem::{Fault, GuestPrivilege, Gva, TrapInfo};

use crate::deviation::Deviation;
use crate::harness::{Outcome, Stop, Test, act_as_supervisor, fail};
use crate::library::{ArenaMemory, probed};
use crate::sight::Sight;
use crate::tables::World;
use crate::tables::bits::{N, SUPERVISOR, USER};
use crate::trap::{self, Trap};
use crate::{arena, boot, csr, raw};

/// What entries of either stage may hold on this machine, as measured.
#[derive(Clone, Copy)]
pub struct Oracle {
    /// The VS-stage.
    pub vs: StageRules,
    /// The G-stage.
    pub g: StageRules,
    /// What the library's probe found.
    pub profile: MachineProfile,
}

/// Where the measurements map their page.
const GVA: u64 = 0x20_1000;

/// Svpbmt's lowest value: non-cacheable.
const PBMT_NC: u64 = 1 << 61;

fn works(vs_flags: u64, g_flags: u64) -> bool {
    World::with_page(GVA, vs_flags, g_flags);
    act_as_supervisor(true);
    raw::hlv_d(GVA, 0).is_ok()
}

impl Oracle {
    /// Measures the machine. No guest may be loaded.
    pub fn measure() -> Result<Self, Stop> {
        let hooked = trap::set_hook(true);
        let (_, profile) = probed::<HandlerHook>()?;
        trap::set_hook(hooked);
        // 64 KiB of the contiguous form: the low bits of the page number say so.
        let mut world = World::sv39();
        let block = world.contiguous(16);
        world.map(GVA & !0xffff, block | 0x8000, SUPERVISOR | N, 0);
        world.load();
        act_as_supervisor(true);
        let svnapot = raw::hlv_d(GVA & !0xffff, 0).is_ok();
        let rules = |ad: AdPolicy, pbmt: bool| StageRules {
            ad,
            pbmt,
            svnapot,
            svrsw60t59b: works(SUPERVISOR | 1 << 59, USER),
        };
        let oracle = Self {
            vs: rules(profile.vs_stage_ad, works(SUPERVISOR | PBMT_NC, USER)),
            g: rules(profile.g_stage_ad, works(SUPERVISOR, USER | PBMT_NC)),
            profile,
        };
        boot::reset_csrs(csr::satp::read());
        Ok(oracle)
    }

    fn regime(&self) -> Result<VsRegime, Stop> {
        let csrs = VsCsrs {
            vsatp: csr::vsatp::read(),
            vsstatus: csr::vsstatus::read(),
            sstatus: csr::sstatus::read() & STATUS_MXR,
            hstatus: csr::hstatus::read(),
            henvcfg: csr::henvcfg::read(),
            senvcfg: csr::senvcfg::read(),
        };
        match VsRegime::from_csrs(&csrs, self.vs) {
            // What was measured counts: QEMU does not ask henvcfg (R65).
            Ok(regime) => Ok(VsRegime {
                rules: self.vs,
                ..regime
            }),
            Err(kind) => fail!("the regime is refused: {kind}"),
        }
    }

    /// What a walk over the arena's tables makes of a guest's fault that does not say enough, under the CSRs as they are.
    pub fn walked(&self, fault: &Fault) -> Result<Option<Fault>, Stop> {
        let g = GRegime::from_csrs(csr::hgatp::read(), csr::sstatus::read(), self.g);
        let Ok(g) = g else {
            fail!("the G-stage regime is refused");
        };
        let tables = GTables::new(g, ArenaMemory { ignored: 0 });
        Ok(fault.walked(&self.regime()?, &tables, GuestPrivilege::Supervisor))
    }

    /// The software walk of one access under the CSRs as they are.
    pub fn walk(
        &self,
        gva: u64,
        purpose: Purpose,
        sum: bool,
        sight: Sight,
    ) -> Result<Result<Translation<GPage>, Fault>, Stop> {
        let g = GRegime::from_csrs(csr::hgatp::read(), csr::sstatus::read(), self.g);
        let Ok(g) = g else {
            fail!("the G-stage regime is refused");
        };
        let regime = self.regime()?;
        let regime = VsRegime {
            sum: regime.sum || sum,
            ..regime
        };
        let privilege = match csr::hstatus::read() & HSTATUS_SPVP {
            0 => GuestPrivilege::User,
            _ => GuestPrivilege::Supervisor,
        };
        let access = Access {
            gva: Gva::new(gva),
            purpose,
            privilege,
        };
        Ok(sight.translate(&regime, g, access))
    }

    /// Does the access by one instruction and by the walk, and fails unless they agree. `entries` are the addresses of the
    /// entries that the access may change; they are put back.
    pub fn agrees(
        &self,
        t: &mut Test,
        what: core::fmt::Arguments<'_>,
        gva: u64,
        purpose: Purpose,
        entries: &[u64],
    ) -> Outcome {
        let mut before = [0; 4];
        for (saved, &entry) in before.iter_mut().zip(entries) {
            *saved = arena::read(entry);
        }
        let after_and_back = || {
            let mut after = [0; 4];
            for ((after, &entry), &saved) in after.iter_mut().zip(entries).zip(&before) {
                *after = arena::read(entry);
                arena::write(entry, saved);
            }
            after
        };
        boot::fence_everything();
        let hardware = match purpose {
            Purpose::Load => raw::hlv_bu(gva, 0),
            Purpose::Store => raw::hsv_b(gva, 0x5a),
            Purpose::ExecutableLoad | Purpose::Fetch => raw::hlvx_hu(gva & !1, 0),
        };
        let set_by_hardware = after_and_back();
        boot::fence_everything();

        // As specified, and then as each known difference of this machine makes it.
        let sum = t.machine.has(Deviation::SumIgnored);
        let readable = t.machine.has(Deviation::FetchChecksRead) && purpose != Purpose::Store;
        let as_fetch = t.machine.has(Deviation::FetchCauses) && purpose == Purpose::ExecutableLoad;
        let variants = [
            (None, purpose, false),
            (Some(Deviation::FetchCauses), Purpose::Fetch, false),
            (Some(Deviation::FetchChecksRead), Purpose::Load, false),
            (Some(Deviation::SumIgnored), purpose, true),
            (Some(Deviation::SumIgnored), Purpose::Load, true),
        ];
        let mut first = None;
        let sights = [
            (None, Sight::ALL),
            (Some(Deviation::ReservedIgnored), Sight::NOT_RESERVED),
            (Some(Deviation::TableNeedsNoUser), Sight::NOT_USER_OF_TABLES),
        ];
        let all = sights
            .iter()
            .filter(|(deviation, _)| deviation.is_none_or(|deviation| t.machine.has(deviation)))
            .flat_map(|&(unseen, sight)| variants.map(|it| (unseen, sight, it)));
        for (unseen, sight, (deviation, as_purpose, with_sum)) in all {
            let possible = match as_purpose {
                Purpose::Fetch => as_fetch,
                other => other == purpose || readable,
            };
            if with_sum && !sum || !possible {
                continue;
            }
            let gva = if purpose == Purpose::ExecutableLoad {
                gva & !1
            } else {
                gva
            };
            let software = self.walk(gva, as_purpose, with_sum, sight)?;
            let set_by_software = after_and_back();
            let same = self.same(t, &hardware, &software, as_purpose, purpose);
            if same && set_by_hardware == set_by_software {
                for deviation in [unseen, deviation].into_iter().flatten() {
                    t.deviates(deviation);
                }
                return Ok(());
            }
            first.get_or_insert((software, set_by_software));
        }
        let Some((software, set_by_software)) = first else {
            fail!("{what}: no walk");
        };
        fail!(
            "{what}: {purpose:?} at {gva:#x}: hardware {hardware:x?}, software {:x?}, entries {set_by_hardware:x?} and \
             {set_by_software:x?}",
            software
                .map(|found| found.page.spa)
                .map_err(|fault| (fault.kind, fault.gpa))
        )
    }

    fn same(
        &self,
        t: &mut Test,
        hardware: &Result<u64, Trap>,
        software: &Result<Translation<GPage>, Fault>,
        as_purpose: Purpose,
        purpose: Purpose,
    ) -> bool {
        match (hardware, software) {
            (Ok(value), Ok(found)) => {
                let spa = found.page.spa.value();
                if !arena::contains(spa, 2) {
                    return false;
                }
                let low = u64::from(arena::read_byte(spa));
                match purpose {
                    Purpose::Store => low == 0x5a,
                    Purpose::Load => low == *value,
                    _ => u64::from(arena::read_byte(spa + 1)) << 8 | low == *value,
                }
            }
            (Err(trap), Err(fault)) => {
                let Some(expected) = trap_of(fault, as_purpose) else {
                    return false;
                };
                self.same_trap(t, &trap.info, &expected, purpose)
            }
            _ => false,
        }
    }

    /// Whether `address` is guest-physical, and more than the G-stage's mode has bits for.
    fn is_wide(&self, address: u64) -> bool {
        csr::vsatp::read() == 0
            && GRegime::from_csrs(csr::hgatp::read(), 0, self.g)
                .is_ok_and(|regime| address >> regime.mode.gpa_bits() != 0)
    }

    fn same_trap(
        &self,
        t: &mut Test,
        hardware: &TrapInfo,
        expected: &TrapInfo,
        purpose: Purpose,
    ) -> bool {
        let mut expected = *expected;
        if self.is_wide(expected.stval)
            && hardware.scause + 8 == expected.scause
            && t.machine.has(Deviation::WideGpaIsPageFault)
        {
            t.deviates(Deviation::WideGpaIsPageFault);
            expected = TrapInfo {
                scause: hardware.scause,
                stval: expected.stval,
                ..TrapInfo::default()
            };
        }
        // The causes that a deviation of this machine gives instead.
        let mut cause = expected.scause;
        if hardware.scause != cause {
            let instead = match (cause, purpose) {
                (13 | 21, Purpose::ExecutableLoad) => Some((12, Deviation::FetchCauses)),
                (20, Purpose::ExecutableLoad) => Some((12, Deviation::FetchCauses)),
                (5, Purpose::ExecutableLoad) => Some((1, Deviation::FetchCauses)),
                (23, _) if expected.htinst != 0 => Some((21, Deviation::ImplicitIsLoad)),
                _ => None,
            };
            if let Some((other, deviation)) = instead.filter(|&(_, it)| t.machine.has(it)) {
                t.deviates(deviation);
                cause = other;
            }
        }
        if expected.htinst != 0
            && hardware.htinst != expected.htinst
            && t.machine.has(Deviation::HtinstFollowsAccess)
        {
            t.deviates(Deviation::HtinstFollowsAccess);
            expected.htinst = match purpose {
                Purpose::Store => HTINST_PAGE_TABLE_WRITE,
                _ => HTINST_PAGE_TABLE_READ,
            };
        }
        // The H extension lets htval be 0 (R22). A machine that reports addresses otherwise may have no room for one that no
        // page can have.
        let unreported = hardware.htval == 0 && self.is_wide(expected.stval);
        hardware.scause == cause
            && hardware.stval == expected.stval
            && (hardware.htval == expected.htval || unreported)
            && (expected.htinst == 0 || hardware.htinst == expected.htinst)
    }
}

/// Gives each byte of a page its own value, so that reading one shows which it was.
pub fn mark(spa: u64) {
    for at in (0..4096).step_by(8) {
        arena::write(spa + at, (spa + at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}
