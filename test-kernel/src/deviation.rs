//! Where the machine at hand is known to differ from the specification, and how that is recognised.
//!
//! The one idea: a deviation counts only if a small probe of its own showed it on *this* machine at boot; a test then accepts
//! exactly what that deviation makes of the case at hand.

use core::fmt;

use guest_mem::TrapInfo;
use guest_mem::csr::{HSTATUS_GVA, STATUS_MXR, STATUS_SUM};

use crate::console::println;
use crate::guest::{self, Mode};
use crate::harness::act_as_supervisor;
use crate::tables::bits::{A, D, N, R, SUPERVISOR, U, USER, V, W, X};
use crate::tables::{World, leaf, loaded_vmid};
use crate::{arena, boot, csr, raw};

macro_rules! deviations {
    ($($(#[$doc:meta])* $name:ident $rule:literal $text:literal;)*) => {
        /// A known deviation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Deviation {
            $($(#[$doc])* $name,)*
        }

        impl Deviation {
            /// All of them.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];
            /// How many there are.
            pub const COUNT: usize = [$($rule),*].len();
        }

        impl fmt::Display for Deviation {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => concat!($rule, " ", $text),)*
                })
            }
        }
    };
}

deviations! {
    /// 5/7 instead of 13/15 while the host's `satp` is Bare.
    AccessFaultUnderBareSatp "R59" "with the host's satp Bare a VS-stage fault is an access fault";
    /// `hlvx` raises 12 and 1 instead of 13, 21 and 5.
    FetchCauses "R60" "hlvx raises fetch causes";
    /// `hlvx` wants R instead of X.
    FetchChecksRead "R61" "hlvx checks R instead of X";
    /// `vsstatus.SUM` is taken as set.
    SumIgnored "R62" "vsstatus.SUM is taken as set";
    /// A translation made as VS-mode serves VU-mode.
    PrivilegeNotCached "R62" "translations are shared between SPVP=1 and SPVP=0";
    /// `vsstatus.MXR` is ignored at the VS-stage.
    VsMxrIgnored "R63" "vsstatus.MXR does nothing at the VS-stage";
    /// `vsstatus.MXR` acts at the G-stage.
    VsMxrAtGStage "R63" "vsstatus.MXR acts at the G-stage";
    /// `sstatus.MXR` does nothing at the G-stage.
    HostMxrNotAtGStage "R63" "sstatus.MXR does nothing at the G-stage";
    /// `sstatus.MXR` acts on the reads of VS-stage page tables, too.
    MxrOnPageTables "R4" "sstatus.MXR applies to page-table reads";
    /// A refusal by physical memory protection is reported as the G-stage's.
    ProtectionIsGuestPage "R67" "an access that PMP refuses is a guest-page fault";
    /// An access fault comes through the firmware, which clears `hstatus.GVA`.
    RedirectClearsGva "R21" "an access fault comes with hstatus.GVA clear";
    /// An access fault comes through the firmware, which leaves `htinst` as it was.
    RedirectLeavesHtinst "R21" "an access fault comes with the htinst of the trap before";
    /// The same for `htval`.
    RedirectLeavesHtval "R21" "an access fault comes with the htval of the trap before";
    /// `henvcfg.ADUE` has no say in accesses from HS.
    EnvironmentIgnored "R65" "henvcfg has no say in accesses from HS";
    /// `vsatp` writes leave translations behind.
    StaleVsatp "R34" "translations outlive a write of vsatp";
    /// `hgatp` writes leave translations of another VMID behind.
    StaleHgatp "R34" "translations of one guest serve another after a write of hgatp";
    /// A guest-physical address is sign-extended.
    WideGpa "R13" "guest-physical addresses are sign-extended";
    /// An implicit access of a store's walk is reported as a load's.
    ImplicitIsLoad "R67" "a store whose page-table entry is not mapped raises 21 instead of 23";
    /// What is wrong with a G-stage table on the way to a page-table entry of the guest's is reported as the G-stage's refusal.
    GTableIsGuestPage "R67" "a page-table read whose G-stage table is out of reach is a guest-page fault";
    /// `htval` is written for the access fault of a G-stage table where nothing is.
    GTableSetsHtval "R67" "an access fault for a missing G-stage table comes with htval";
    /// `htinst` is 0 for loads and stores.
    NoHtinst "R66" "htinst is 0 for loads and stores";
    /// Any mode can be written to `vsatp` and `hgatp`.
    AnyMode "R41" "an unsupported mode reads back";
    /// Bits 60:54 of an entry are not looked at.
    ReservedIgnored "R52" "reserved bits of page-table entries are ignored";
    /// The reserved value of PBMT is taken.
    PbmtReservedAllowed "R67" "the reserved memory type is not refused";
    /// `henvcfg.PMM` does not mask the pointers of `hlv`.
    PointerMaskWrong "R67" "pointers of hlv are masked by another mode's rule";
    /// Writes of `htinst` are ignored.
    HtinstNotWritable "R20" "htinst cannot be written, so it cannot be put back";
    /// `hgatp.PPN[1:0]` can be written.
    RootBitsWritable "R41" "hgatp.PPN[1:0] is writable";
    /// The firmware's redirect of a guest's illegal instruction ends in the guest, since `mret` goes back to V=1 in spite of it.
    IllegalStaysInGuest "R25" "an illegal instruction of a guest is redirected into the guest";
    /// `hfence` in VU-mode is illegal instead of virtual.
    FenceInVuIllegal "R39" "hfence in VU-mode raises 2 instead of 22";
    /// A page table where the machine has nothing raises a page fault, or a guest-page fault if it is the G-stage's.
    MissingTableIsPageFault "R67" "page tables that the machine does not have are page faults";
    /// A 64 KiB page whose encoding is reserved faults after its A and D bits were set.
    NapotAfterUpdate "R53" "a reserved 64 KiB page encoding faults after A and D are set";
    /// The VS-stage A/D update ignores the G-stage's W.
    UpdateIgnoresG "R64" "A/D updates go through a G-stage page without W";
}

/// What the probes found.
pub struct Machine {
    has: [bool; Deviation::COUNT],
}

/// Memory that the firmware keeps to itself by PMP: its own, at the start of RAM.
pub const FIRMWARE: u64 = 0x8000_0000;

/// Whether [`FIRMWARE`] is refused to HS-mode. A hart without PMP has nothing to refuse it by.
pub fn firmware_is_protected() -> bool {
    raw::host_ld(FIRMWARE, 0).is_err()
}

/// An address where the machine has nothing: it has fewer address bits than a page-table entry can name.
pub const NOWHERE: u64 = 1 << 55;

/// `henvcfg.ADUE`: hardware sets A and D at the VS-stage.
pub const HENVCFG_ADUE: u64 = 1 << 61;

/// `henvcfg.PMM`: pointer masking of VS-mode.
pub const HENVCFG_PMM: u64 = 3 << 32;

/// `henvcfg.PMM` that masks 7 bits.
pub const HENVCFG_PMM_7: u64 = 2 << 32;

/// Where the probes map their page.
const GVA: u64 = 0x1000;

impl Machine {
    /// Probes every deviation.
    pub fn probe(satp: u64) -> Self {
        let mut machine = Self {
            has: [false; Deviation::COUNT],
        };
        for deviation in Deviation::ALL {
            machine.has[deviation as usize] = probe(deviation);
            boot::reset_csrs(satp);
            arena::release_all();
        }
        machine
    }

    /// Whether the machine has the deviation.
    pub fn has(&self, deviation: Deviation) -> bool {
        self.has[deviation as usize]
    }

    /// Lists what was found.
    pub fn print(&self) {
        for deviation in Deviation::ALL {
            if self.has(deviation) {
                println!("machine: {deviation}");
            }
        }
    }
}

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

/// A guest-page fault of a page-table read, and after it the access fault of a page where there is nothing.
fn implicit_fault_then_access_fault() -> (TrapInfo, TrapInfo) {
    let (mut world, page) = world(SUPERVISOR, USER);
    world.map_g(page, NOWHERE, USER, 0);
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

fn probe(deviation: Deviation) -> bool {
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
            let (mut world, _) = world(SUPERVISOR & !A, USER);
            let entry = world.vs_entry(GVA, 0);
            let before = csr::henvcfg::read();
            // SAFETY: guest state.
            unsafe { csr::henvcfg::clear(HENVCFG_ADUE) };
            boot::fence_everything();
            let updated = raw::hlv_d(GVA, 0).is_ok() && arena::read(entry.spa) & A != 0;
            // SAFETY: as it was.
            unsafe { csr::henvcfg::write(before) };
            updated
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
        Deviation::IllegalStaysInGuest => {
            let (_world, mut guest) = guest::with_code(GVA, &[0], Mode::Vs);
            let exit = guest.run(Mode::Vs);
            exit.info.scause != 2 && exit.sepc == guest::exit_address()
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
            cause(raw::hlv_d(GVA, 0)) == 13
        }
        Deviation::GTableIsGuestPage => {
            let (mut world, _) = world(SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, 0).gpa;
            let pointer = world.g_entry(entry, 1);
            arena::write(pointer, leaf(NOWHERE, V));
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
    }
}
