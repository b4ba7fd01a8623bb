//! Where the machine at hand is known to differ from the specification, and how that is recognised.
//!
//! The one idea: a deviation counts only if a small probe of its own showed it on *this* machine at boot; a test then accepts
//! exactly what that deviation makes of the case at hand.

mod probes;

use core::fmt;

use crate::console::println;
use crate::{arena, boot, raw};

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
    /// `henvcfg.ADUE` and `henvcfg.PBMTE` have no say in accesses from HS.
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
    /// `htinst` of a page-table access tells the type of the access that it was made for.
    HtinstFollowsAccess "R76" "htinst of a page-table access follows the explicit access";
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
    /// M-mode's redirect of a guest's trap ends in the guest, since `mret` goes back to V=1 in spite of a cleared `mstatus.MPV`.
    RedirectStaysInGuest "R25" "a guest's trap that M-mode redirects to HS-mode ends in the guest";
    /// `hfence` in VU-mode is illegal instead of virtual.
    FenceInVuIllegal "R39" "hfence in VU-mode raises 2 instead of 22";
    /// A page table where the machine has nothing raises a page fault, or a guest-page fault if it is the G-stage's.
    MissingTableIsPageFault "R67" "page tables that the machine does not have are page faults";
    /// A 64 KiB page whose encoding is reserved faults after its rights were judged and its A and D bits were set.
    NapotAfterUpdate "R53" "a reserved 64 KiB page encoding faults after A and D are set";
    /// The VS-stage A/D update ignores the G-stage's W.
    UpdateIgnoresG "R64" "A/D updates go through a G-stage page without W";
    /// An access where the machine has nothing goes through, or its error is dropped.
    NoBusFaults "R69" "an access where the machine has nothing is no access fault";
    /// A misaligned `hlv` raises 5 in place of 4, as if nobody should carry it out.
    MisalignedIsAccessFault "R69" "a misaligned hlv is an access fault";
    /// The G-stage's U bit is not asked for by page-table accesses.
    TableNeedsNoUser "R69" "page tables are read through a G-stage page without U";
    /// What PMP refuses of a store's walk is reported as a load's.
    TableAccessIsLoad "R69" "a store whose page table is protected raises 5 instead of 7";
    /// What PMP refuses of a store is reported as a load's.
    ProtectedStoreIsLoad "R69" "a store that PMP refuses raises 5 instead of 7";
    /// A guest's fetch at a guest-physical address that is too wide raises 12 in place of 20, with `vsatp` Bare.
    WideFetchIsPageFault "R69" "a fetch beyond guest-physical addresses is a page fault";
    /// A guest access there raises 13 or 15 in place of 21 or 23.
    WideGpaIsPageFault "R69" "an access beyond guest-physical addresses is a page fault";
    /// Where both stages refuse a store, it depends on what is cached which one is named.
    CachedRefusalIsGStage "R69" "a refusal by both stages is the G-stage's if the translation is cached";
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

/// An address where the machine has nothing: it has fewer address bits than a page-table entry can name. That an access there
/// is an access fault is for [`Deviation::NoBusFaults`] to say.
pub const NOWHERE: u64 = 1 << 55;

/// `henvcfg.ADUE`: hardware sets A and D at the VS-stage.
pub const HENVCFG_ADUE: u64 = 1 << 61;

/// `henvcfg.PMM`: pointer masking of VS-mode.
pub const HENVCFG_PMM: u64 = 3 << 32;

/// `henvcfg.PMM` that masks 7 bits.
pub const HENVCFG_PMM_7: u64 = 2 << 32;

impl Machine {
    /// Probes every deviation.
    pub fn probe(satp: u64) -> Self {
        let mut machine = Self {
            has: [false; Deviation::COUNT],
        };
        for deviation in Deviation::ALL {
            machine.has[deviation as usize] = probes::probe(deviation);
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
