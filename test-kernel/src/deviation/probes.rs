//! The probe of each deviation.
//!
//! The one idea: a probe is the least that shows its deviation, and leads nowhere but to the arena and to what the machine
//! refuses; so it harms nothing on a machine that is right.

use guest_mem::TrapInfo;
use guest_mem::csr::{ENVCFG_PBMTE, HSTATUS_GVA, STATUS_MXR, STATUS_SUM};
use guest_mem::fault::HTINST_PAGE_TABLE_WRITE;

use super::{
    Deviation, FIRMWARE, HENVCFG_ADUE, HENVCFG_PMM, HENVCFG_PMM_7, NOWHERE, firmware_is_protected,
};
use crate::guest::{self, Guest, Mode};
use crate::harness::act_as_supervisor;
use crate::tables::bits::{A, D, N, R, SUPERVISOR, U, USER, V, W, X};
use crate::tables::{World, leaf, loaded_vmid};
use crate::{arena, boot, csr, machine, raw};

/// Where the probes map their page.
const GVA: u64 = 0x1000;

/// The first guest-physical address that Sv39x4 refuses.
const WIDE: u64 = 1 << 41;

/// The cause of an illegal instruction.
const ILLEGAL_INSTRUCTION: u64 = 2;

fn cause(result: Result<u64, crate::trap::Trap>) -> u64 {
    result.map_or_else(|trap| trap.info.scause, |_| u64::MAX)
}

/// One loaded guest with a page at `GVA`: its VS-stage and G-stage flags are given.
fn world(vs_flags: u64, g_flags: u64) -> (World, u64) {
    let mut world = World::sv39();
    let page = world.page(g_flags);
    world.map(GVA, page.gpa, vs_flags, 0);
    world.load();
    act_as_supervisor(true);
    (world, page.gpa)
}

/// A guest-page fault of a page-table read, and after it the access fault of a page that the machine refuses.
fn implicit_fault_then_access_fault() -> (TrapInfo, TrapInfo) {
    let refused = refused();
    let (mut world, page) = world(SUPERVISOR, USER);
    world.map_g(page, refused, USER, 0);
    let entry = world.vs_entry(GVA, 0).gpa;
    let g_entry = world.g_entry(entry, 0);
    let trap = |entry| {
        arena::write(g_entry, entry);
        boot::fence_everything();
        raw::hlv_d(GVA, 0).map_or_else(|trap| trap.info, |_| TrapInfo::default())
    };
    let before = arena::read(g_entry);
    (trap(0), trap(before))
}

/// Whether an access where the machine has nothing is an access fault.
fn bus_faults() -> bool {
    let mut world = World::guest_physical();
    world.map_g(GVA, NOWHERE, USER, 0);
    world.load();
    // No store, unless a load found nothing.
    cause(raw::hlv_d(GVA, 0)) == 5 && cause(raw::hsv_d(GVA, 0)) == 7
}

/// An address where an access is an access fault.
fn refused() -> u64 {
    if bus_faults() { NOWHERE } else { FIRMWARE }
}

/// Whether this machine has the deviation.
pub(super) fn probe(deviation: Deviation) -> bool {
    match deviation {
        Deviation::AccessFaultUnderBareSatp => {
            world(0, USER);
            // SAFETY: the kernel runs where it is linked with translation off, too.
            unsafe { csr::satp::write(0) };
            cause(raw::hlv_d(GVA, 0)) == 5
        }
        Deviation::FetchCauses => {
            world(0, USER);
            cause(raw::hlvx_hu(GVA, 0)) == 12
        }
        Deviation::FetchChecksRead => {
            world(V | R | W | A | D, USER);
            raw::hlvx_hu(GVA, 0).is_ok()
        }
        Deviation::SumIgnored => {
            world(SUPERVISOR | U, USER);
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::PrivilegeNotCached => {
            world(SUPERVISOR, USER);
            let filled = raw::hlv_d(GVA, 0);
            act_as_supervisor(false);
            filled.is_ok() && raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::VsMxrIgnored => {
            // SAFETY: guest state.
            unsafe { csr::vsstatus::write(STATUS_MXR) };
            world(V | X | A | D, USER);
            raw::hlv_d(GVA, 0).is_err()
        }
        Deviation::VsMxrAtGStage => {
            // SAFETY: guest state.
            unsafe { csr::vsstatus::write(STATUS_MXR | STATUS_SUM) };
            world(SUPERVISOR, V | X | U | A | D);
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::HostMxrNotAtGStage => {
            // SAFETY: the host has no pages that MXR would open.
            unsafe { csr::sstatus::set(STATUS_MXR) };
            world(SUPERVISOR, V | X | U | A | D);
            raw::hlv_d(GVA, 0).is_err()
        }
        Deviation::MxrOnPageTables => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0);
            world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, USER & !R & !W, 0);
            world.fence();
            // SAFETY: the host has no pages that MXR would open.
            unsafe { csr::sstatus::set(STATUS_MXR) };
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::ProtectionIsGuestPage => {
            let mut world = World::guest_physical();
            world.map_g(GVA, FIRMWARE, USER, 0);
            world.load();
            cause(raw::hlv_d(GVA, 0)) == 21
        }
        Deviation::ProtectedStoreIsLoad => {
            let mut world = World::guest_physical();
            world.map_g(GVA, FIRMWARE, USER, 0);
            world.load();
            // No store, unless a load is refused.
            firmware_is_protected()
                && cause(raw::hlv_d(GVA, 0)) == 5
                && cause(raw::hsv_d(GVA, 0)) == 5
        }
        Deviation::RedirectClearsGva => {
            let mut world = World::guest_physical();
            world.map_g(GVA, FIRMWARE, USER, 0);
            world.load();
            raw::hlv_d(GVA, 0).is_err_and(|trap| trap.hstatus & HSTATUS_GVA == 0)
        }
        Deviation::RedirectLeavesHtinst => {
            let (implicit, access) = implicit_fault_then_access_fault();
            implicit.htinst != 0 && implicit.htinst == access.htinst
        }
        Deviation::RedirectLeavesHtval => {
            let (implicit, access) = implicit_fault_then_access_fault();
            implicit.htval != 0 && implicit.htval == access.htval
        }
        Deviation::EnvironmentIgnored => {
            let before = csr::henvcfg::read();
            // SAFETY: guest state.
            unsafe { csr::henvcfg::clear(HENVCFG_ADUE | ENVCFG_PBMTE) };
            let (mut clear, _) = world(SUPERVISOR & !A, USER);
            let entry = clear.vs_entry(GVA, 0);
            let updated = raw::hlv_d(GVA, 0).is_ok() && arena::read(entry.spa) & A != 0;
            world(SUPERVISOR | 1 << 61, USER);
            let typed = raw::hlv_d(GVA, 0).is_ok();
            // SAFETY: as it was.
            unsafe { csr::henvcfg::write(before) };
            updated || typed
        }
        Deviation::StaleVsatp => {
            let (mut world, first) = world(SUPERVISOR, USER);
            let other = world.page(USER);
            let same = world.g_entry(GVA, 0);
            arena::write(same, leaf(other.spa, USER));
            arena::write(other.spa, 1);
            arena::write(crate::tables::spa_of(first), 2);
            world.fence();
            let mapped = raw::hlv_d(GVA, 0);
            // SAFETY: guest state.
            unsafe { csr::vsatp::write(0) };
            mapped == Ok(2) && raw::hlv_d(GVA, 0) == Ok(2)
        }
        Deviation::StaleHgatp => {
            let mut one = World::guest_physical();
            let page = one.page(USER);
            let other = World::guest_physical().with_vmid(2);
            one.load();
            let mapped = raw::hlv_d(page.gpa, 0);
            // Between guests of one VMID translations may stay (R41).
            let differ = loaded_vmid() == 1;
            // SAFETY: guest state; `other` maps nothing.
            unsafe { csr::hgatp::write(other.hgatp) };
            differ && mapped.is_ok() && raw::hlv_d(page.gpa, 0).is_ok()
        }
        Deviation::WideGpa => {
            let mut world = World::guest_physical();
            let page = arena::page();
            world.map_g((1 << 41) - 4096, page, USER, 0);
            world.load();
            raw::hlv_d(u64::MAX - 4095, 0).is_ok()
        }
        Deviation::ImplicitIsLoad => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let table = world.vs_entry(GVA, 0).gpa & !0xfff;
            let entry = world.g_entry(table, 0);
            arena::write(entry, 0);
            world.fence();
            cause(raw::hsv_d(GVA, 0)) == 21
        }
        Deviation::HtinstFollowsAccess => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let table = world.vs_entry(GVA, 0).gpa & !0xfff;
            let entry = world.g_entry(table, 0);
            arena::write(entry, 0);
            world.fence();
            raw::hsv_d(GVA, 0).is_err_and(|trap| trap.info.htinst == HTINST_PAGE_TABLE_WRITE)
        }
        Deviation::NoHtinst => {
            world(SUPERVISOR, 0);
            raw::hlv_d(GVA, 0).is_err_and(|trap| trap.info.htinst == 0)
        }
        Deviation::AnyMode => {
            // SAFETY: guest state, and no guest access follows.
            unsafe { csr::vsatp::write(15 << 60) };
            csr::vsatp::read() >> 60 == 15
        }
        Deviation::ReservedIgnored => {
            world(SUPERVISOR | 1 << 54, USER);
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::PbmtReservedAllowed => {
            world(SUPERVISOR | 3 << 61, USER);
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::PointerMaskWrong => {
            let before = csr::henvcfg::read();
            // SAFETY: guest state.
            unsafe { csr::henvcfg::write(before & !HENVCFG_PMM | HENVCFG_PMM_7) };
            let has = csr::henvcfg::read() & HENVCFG_PMM == HENVCFG_PMM_7;
            world(SUPERVISOR, USER);
            let masked = raw::hlv_d(1 << 57 | GVA, 0);
            // SAFETY: as it was.
            unsafe { csr::henvcfg::write(before) };
            has && masked.is_err()
        }
        Deviation::HtinstNotWritable => {
            // A trap that leaves another value than the one that is written.
            world(0, USER);
            let trapped = raw::hlv_d(GVA, 0).is_err();
            // SAFETY: the record of that trap.
            unsafe { csr::htinst::write(0x3000) };
            trapped && csr::htinst::read() != 0x3000
        }
        Deviation::RootBitsWritable => {
            // SAFETY: guest state, and no guest access follows.
            unsafe { csr::hgatp::write(8 << 60 | 3) };
            csr::hgatp::read() & 3 != 0
        }
        Deviation::RedirectStaysInGuest => {
            let (_world, mut guest) = guest::with_code(GVA, &[0], Mode::Vs);
            let mut run = || guest.run(Mode::Vs);
            // Firmware keeps an illegal instruction to itself; without firmware the kernel's own M-mode is told to.
            let exit = if machine::is_standalone() {
                machine::undelegated(ILLEGAL_INSTRUCTION, run)
            } else {
                run()
            };
            exit.info.scause != ILLEGAL_INSTRUCTION && exit.sepc == guest::exit_address()
        }
        Deviation::FenceInVuIllegal => {
            let fence = raw::words().find(|(name, _)| name.starts_with("hfence"));
            let word = fence.map_or(0, |(_, word)| word);
            let (_world, mut guest) = guest::with_code(GVA, &[word], Mode::Vu);
            guest.run(Mode::Vu).info.scause == 2
        }
        Deviation::MissingTableIsPageFault => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0);
            let g_entry = world.g_entry(entry.gpa, 0);
            arena::write(g_entry, leaf(NOWHERE, USER));
            world.fence();
            cause(raw::hlv_d(GVA, 0)) == 13 && bus_faults()
        }
        Deviation::GTableIsGuestPage => {
            let refused = refused();
            let (mut world, _) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0).gpa;
            let pointer = world.g_entry(entry, 1);
            arena::write(pointer, leaf(refused, V));
            world.fence();
            cause(raw::hlv_d(GVA, 0)) == 21
        }
        Deviation::GTableSetsHtval => {
            let (mut world, page) = world(SUPERVISOR, USER);
            let pointer = world.g_entry(page, 1);
            arena::write(pointer, leaf(NOWHERE, V));
            // SAFETY: guest state.
            unsafe { csr::vsatp::write(0) };
            world.fence();
            raw::hlv_d(page, 0)
                .is_err_and(|trap| trap.info.scause == 5 && trap.info.htval == page >> 2)
        }
        Deviation::NapotAfterUpdate => {
            let (mut world, page) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0).spa;
            arena::write(entry, leaf(page, SUPERVISOR & !A | N));
            world.fence();
            raw::hlv_d(GVA, 0).is_err() && arena::read(entry) & A != 0
        }
        Deviation::UpdateIgnoresG => {
            let (mut world, _) = world(SUPERVISOR & !A & !D, USER);
            let entry = world.vs_entry(GVA, 0);
            let g_entry = world.g_entry(entry.gpa, 0);
            arena::write(g_entry, leaf(entry.spa & !0xfff, USER & !W));
            world.fence();
            raw::hlv_d(GVA, 0).is_ok() && arena::read(entry.spa) & A != 0
        }
        Deviation::NoBusFaults => !bus_faults(),
        Deviation::MisalignedIsAccessFault => {
            world(SUPERVISOR, USER);
            cause(raw::hlv_d(GVA + 1, 0)) == 5
        }
        Deviation::TableNeedsNoUser => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0);
            world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, USER & !U, 0);
            world.fence();
            raw::hlv_d(GVA, 0).is_ok()
        }
        Deviation::TableAccessIsLoad => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let table = world.vs_entry(GVA, 0).gpa & !0xfff;
            world.map_g(table, FIRMWARE, USER, 0);
            world.fence();
            cause(raw::hsv_d(GVA, 0)) == 5
        }
        Deviation::WideFetchIsPageFault => {
            World::guest_physical().load();
            Guest::at(WIDE).run(Mode::Vs).info.scause == 12
        }
        Deviation::WideGpaIsPageFault => {
            World::guest_physical().load();
            cause(raw::hlv_d(WIDE, 0)) == 13
        }
        Deviation::CachedRefusalIsGStage => {
            // Read-only at both stages.
            world(SUPERVISOR & !W, USER & !W);
            let not_cached = cause(raw::hsv_d(GVA, 0));
            boot::fence_everything();
            let cached = raw::hlv_d(GVA, 0).is_ok();
            cached && not_cached == 15 && cause(raw::hsv_d(GVA, 0)) == 23
        }
    }
}
