//! What kind of machine the model is: its extensions, its habits, and the deviations of known machines.

use core::ops::Range;

use crate::address::Spa;

/// What the model does at choices that the specification leaves open, and which extensions it has.
///
/// [`Machine::new`] has every extension, traps misaligned accesses, keeps no translations and writes `htval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What a misaligned access does (R10).
    pub misaligned: Misaligned,
    /// Which translations it keeps.
    pub translations: Translations,
    /// Whether a lazy hart also keeps that an entry was not valid, as one without Svvptc may: what became valid meanwhile
    /// faults until a fence (R46).
    pub keeps_refusals: bool,
    /// How the host recovers from a fault of a guest access.
    pub recovery: Recovery,
    /// Whether `htval` is written for guest-page faults; the specification allows 0 (R22).
    pub writes_htval: bool,
    /// Svnapot, at both stages.
    pub svnapot: bool,
    /// Svrsw60t59b, at both stages.
    pub svrsw60t59b: bool,
    /// Where it deviates from the specification.
    pub quirks: Quirks,
}

/// What a misaligned access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misaligned {
    /// It traps with cause 4 or 6.
    Traps,
    /// It is done byte by byte.
    Works,
}

/// Which translations a hart keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translations {
    /// None: each access walks. A missing fence goes unnoticed.
    None,
    /// Pages, and the way to the tables that hold their entries: as many as it has room for, until a fence that the
    /// specification says must drop them, and no fence drops others. Code that forgets a fence meets the old translation; so
    /// does code that edits more than a leaf and fences one address (R40).
    Lazy,
}

/// How the host recovers from a fault of a guest access, which decides what remains in the trap CSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Its own trap handler does: the record of the guest's exit is overwritten (R19, R20).
    HandlerHook,
    /// A vector of the library's, installed around the access: every CSR is as before.
    ScopedStvec,
}

/// Deviations of machines that a hypervisor will meet, so that what stands above is tested against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Translations outlive a write of `vsatp` or `hgatp`, whatever they were made under; any fence drops them all (R34:
    /// QEMU before 9.0).
    pub stale_vsatp: bool,
    /// Faults of `hlvx` arrive as 12, 1 or 0 (R60: QEMU since 8.1).
    pub hlvx_faults_as_fetch: bool,
    /// VS-stage faults arrive as access faults 5 and 7 (R59: QEMU before 8.2 under a host without translation).
    pub page_faults_as_access_faults: bool,
    /// Access faults arrive through the firmware with `hstatus.GVA` clear (R21).
    pub access_faults_without_gva: bool,
    /// Writes of `htinst` are ignored, so that a scoped vector cannot restore it (R58: QEMU).
    pub htinst_is_read_only: bool,
    /// A page-table access that the G-stage refuses has the cause of a load (R67: QEMU before 8.1).
    pub implicit_faults_are_loads: bool,
    /// `htinst` of a page-table access tells the type of the access it was made for (R76: QEMU 11.1).
    pub htinst_follows_access: bool,
    /// What physical memory protection refuses arrives as cause 5 with `stval` 0, of a store as well (R69: CVA6, reported).
    pub protected_accesses_are_loads: bool,
}

impl Machine {
    /// The machine of most tests.
    pub const fn new() -> Self {
        Self {
            misaligned: Misaligned::Traps,
            translations: Translations::None,
            keeps_refusals: false,
            recovery: Recovery::HandlerHook,
            writes_htval: true,
            svnapot: true,
            svrsw60t59b: true,
            quirks: Quirks {
                stale_vsatp: false,
                hlvx_faults_as_fetch: false,
                page_faults_as_access_faults: false,
                access_faults_without_gva: false,
                htinst_is_read_only: false,
                implicit_faults_are_loads: false,
                htinst_follows_access: false,
                protected_accesses_are_loads: false,
            },
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// A range of machine addresses with fewer rights than memory has, as PMP gives it (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The bytes.
    pub range: Range<Spa>,
    /// Whether loads pass.
    pub read: bool,
    /// Whether stores pass.
    pub write: bool,
    /// Whether `hlvx` passes; it needs `read` as well (R5).
    pub execute: bool,
}

/// What a [`ModelHart`](super::ModelHart) did since it was made or since [`reset_counts`](super::ModelHart::reset_counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// `hlv` executed, those that faulted included.
    pub loads: u64,
    /// `hsv` executed, those that faulted included.
    pub stores: u64,
    /// `hlvx` executed, those that faulted included.
    pub fetches: u64,
    /// Page-table entries read.
    pub entries_read: u64,
    /// Page-table entries whose A or D bit was set.
    pub entries_updated: u64,
    /// Faults of guest accesses.
    pub faults: u64,
    /// CSR reads.
    pub csr_reads: u64,
    /// CSR writes.
    pub csr_writes: u64,
    /// `hfence.vvma`.
    pub hfence_vvma: u64,
    /// `hfence.gvma`.
    pub hfence_gvma: u64,
    /// `fence.i`.
    pub fence_i: u64,
}

impl Counts {
    pub(super) const ZERO: Self = Self {
        loads: 0,
        stores: 0,
        fetches: 0,
        entries_read: 0,
        entries_updated: 0,
        faults: 0,
        csr_reads: 0,
        csr_writes: 0,
        hfence_vvma: 0,
        hfence_gvma: 0,
        fence_i: 0,
    };

    /// `hlv`, `hsv` and `hlvx` together.
    pub const fn accesses(&self) -> u64 {
        self.loads + self.stores + self.fetches
    }

    /// HFENCEs of both kinds together.
    pub const fn fences(&self) -> u64 {
        self.hfence_vvma + self.hfence_gvma
    }
}
