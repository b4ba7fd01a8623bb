//! The two-stage walk in software: guest-virtual to guest-physical to machine address, or the fault that hardware would
//! raise.
//!
//! The one idea: [`translate`] is a function of values. What the CSRs say is a [`VsRegime`] and a [`GRegime`], memory is
//! read through a trait, and each page-table entry is read exactly once (R47). The software hart runs on it, crash reports
//! print it ([`WalkTrace`]), and atomics and dirty logging find guest-virtual memory through it.
//!
//! The VS-stage asks a [`GStage`] three things: read this entry, exchange this entry, where is this address. [`GTables`]
//! answers them from `hgatp`'s tables; a hypervisor that owns guest-physical memory answers them from its slots.
//!
//! ```
//! use std::{cell::RefCell, collections::BTreeMap};
//! use guest_mem::csr::{GMode, VsMode};
//! use guest_mem::translate::{
//!     Access, EntryMemory, GRegime, GTables, Refused, StageRules, VsRegime, builder::{GBuilder, VsBuilder}, entry, translate,
//! };
//! use guest_mem::{AccessKind, FaultKind, Gpa, GuestPrivilege, Gva, Spa};
//!
//! // The machine's memory: entries by address.
//! let memory = RefCell::new(BTreeMap::new());
//! struct Machine<'a>(&'a RefCell<BTreeMap<u64, u64>>);
//! impl EntryMemory for Machine<'_> {
//!     fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
//!         Ok(*self.0.borrow().get(&at.value()).unwrap_or(&0))
//!     }
//!     fn compare_exchange_entry(&self, at: Spa, _: u64, new: u64) -> Result<Result<u64, u64>, Refused> {
//!         Ok(Ok(self.0.borrow_mut().insert(at.value(), new).unwrap_or(0)))
//!     }
//! }
//!
//! // 2 MiB of guest memory at GPA 0x8000_0000 are machine memory at 0x9000_0000; the guest maps one page of it.
//! let store = |at: Spa, entry| { memory.borrow_mut().insert(at.value(), entry); Some(()) };
//! let load = |at: Spa| Some(*memory.borrow().get(&at.value()).unwrap_or(&0));
//! let leaf = entry::R | entry::W | entry::U | entry::A | entry::D;
//! let mut g = GBuilder::new(GMode::Sv39x4, Spa::new(0x1_0000)..Spa::new(0x2_0000), (load, store))?;
//! g.map(Gpa::new(0x8000_0000), Spa::new(0x9000_0000), 1, leaf)?;
//! let to_spa = |at: Gpa| Spa::new(at.value() + 0x1000_0000);
//! let guest = (|at| load(to_spa(at)), |at, entry| store(to_spa(at), entry));
//! let mut vs = VsBuilder::new(VsMode::Sv39, Gpa::new(0x8000_0000)..Gpa::new(0x8001_0000), guest)?;
//! vs.map(Gva::new(0x4000), Gpa::new(0x8002_3000), 0, entry::R | entry::U | entry::A)?;
//!
//! let g = GTables::new(GRegime::from_csrs(g.hgatp(1), 0, StageRules::BASE).unwrap(), Machine(&memory));
//! let vs = VsRegime { mode: VsMode::Sv39, root: vs.root(), ..VsRegime::BARE };
//! let found = translate(&vs, &g, Access::load(Gva::new(0x4567), GuestPrivilege::User)).unwrap();
//! assert_eq!((found.gpa, found.page.spa), (Gpa::new(0x8002_3567), Spa::new(0x9002_3567)));
//! let refused = translate(&vs, &g, Access::store(Gva::new(0x4567), GuestPrivilege::User)).unwrap_err();
//! assert_eq!(refused.kind, FaultKind::Page);
//! # Ok::<(), guest_mem::translate::builder::BuildError>(())
//! ```

use crate::access::{AccessKind, GuestPrivilege};
use crate::address::{Gpa, Gva, Spa};
use crate::fault::{Fault, FaultKind, Operation};

pub mod builder;
pub mod entry;
mod g_stage;
mod plain;
mod regime;
mod trace;
mod trap;
mod vs_stage;
mod walk;

#[cfg(test)]
mod tests;

pub use entry::{Leaf, MemoryType, Reason};
pub use g_stage::{GPage, GTables};
pub use regime::{AdPolicy, GRegime, PointerMask, StageRules, VsCsrs, VsRegime};
pub use trace::{Observer, Outcome, Stage, Step, WalkTrace};
pub use trap::trap_of;

pub(crate) use g_stage::{Need, check as check_g_leaf};
pub(crate) use plain::{PlainGWalk, PlainVsWalk};
pub(crate) use vs_stage::{
    check as check_vs_leaf, walk as walk_vs_stage, walk_from as walk_vs_stage_from,
};
pub(crate) use walk::Below;

/// What an access does with the byte it reaches, and which instruction does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A load, as by `hlv`.
    Load,
    /// A store, as by `hsv`.
    Store,
    /// `hlvx`: a load that needs X in place of R at both stages (R5), for which U and SUM count as for a load (R7) and
    /// whose faults are load faults (R6).
    ExecutableLoad,
    /// A real instruction fetch: needs X, and VS-mode never fetches from a user page, whatever SUM says (R7).
    Fetch,
}

impl Purpose {
    /// What an access of the kind is for, if no instruction says more.
    pub(crate) const fn of(kind: AccessKind) -> Self {
        match kind {
            AccessKind::Load => Self::Load,
            AccessKind::Store => Self::Store,
            AccessKind::Fetch => Self::Fetch,
        }
    }

    /// The type under which a fault is reported (R18).
    pub const fn access_kind(self) -> AccessKind {
        match self {
            Self::Load | Self::ExecutableLoad => AccessKind::Load,
            Self::Store => AccessKind::Store,
            Self::Fetch => AccessKind::Fetch,
        }
    }

    pub(crate) const fn operation(self) -> Operation {
        match self {
            Self::Load => Operation::Load,
            Self::Store => Operation::Store,
            Self::ExecutableLoad | Self::Fetch => Operation::Fetch,
        }
    }
}

/// One access to translate. Its bytes lie in one 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where, before pointer masking.
    pub gva: Gva,
    /// What for.
    pub purpose: Purpose,
    /// With whose rights.
    pub privilege: GuestPrivilege,
}

impl Access {
    /// A load, as by `hlv`.
    pub const fn load(gva: Gva, privilege: GuestPrivilege) -> Self {
        Self {
            gva,
            purpose: Purpose::Load,
            privilege,
        }
    }

    /// A store, as by `hsv`.
    pub const fn store(gva: Gva, privilege: GuestPrivilege) -> Self {
        Self {
            gva,
            purpose: Purpose::Store,
            privilege,
        }
    }

    /// An instruction fetch of the guest's.
    pub const fn fetch(gva: Gva, privilege: GuestPrivilege) -> Self {
        Self {
            gva,
            purpose: Purpose::Fetch,
            privilege,
        }
    }
}

/// The machine refuses the address: PMP, PMA, or nothing there (R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Machine memory, as far as a walk of `hgatp`'s tables needs it.
pub trait EntryMemory {
    /// Reads an entry by one aligned 64-bit atomic load.
    ///
    /// # Errors
    ///
    /// The machine refuses the address.
    fn read_entry(&self, at: Spa) -> Result<u64, Refused>;

    /// Replaces `current` by `new` in one 64-bit atomic operation: `Ok(Ok(current))` if it did, `Ok(Err(found))` if not.
    ///
    /// # Errors
    ///
    /// The machine refuses the address.
    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused>;
}

/// Guest-physical memory, as far as a walk of the VS-stage needs it.
///
/// An error is the [`FaultKind`] of the access as if it were explicit; the walk says itself that a
/// [`GuestPage`](FaultKind::GuestPage) was implicit, and at which guest-physical address.
pub trait GStage {
    /// What [`locate`](Self::locate) finds: a machine address, or a host pointer.
    type Page;

    /// Reads a page-table entry of the guest's by one aligned 64-bit atomic load. Needs read permission; MXR does not
    /// apply (R51).
    ///
    /// # Errors
    ///
    /// What refused.
    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind>;

    /// Replaces `current` by `new` in a page-table entry of the guest's, in one 64-bit atomic operation. Needs write
    /// permission, and makes the page dirty (R55). `Ok(Ok(current))` if it did, `Ok(Err(found))` if not.
    ///
    /// # Errors
    ///
    /// What refused.
    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind>;

    /// Where `at` is, for the explicit access.
    ///
    /// # Errors
    ///
    /// What refused.
    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind>;
}

/// Where a guest-virtual address leads.
///
/// A snapshot: the guest may change its tables at any time, and may rely on the change after its next fence, which the
/// hypervisor does not see. Not to be kept across guest entry (R47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<P> {
    /// The guest-virtual address, after pointer masking.
    pub gva: Gva,
    /// The guest-physical address.
    pub gpa: Gpa,
    /// The VS-stage's page; `None` when `vsatp.MODE` is Bare.
    pub vs: Option<Leaf>,
    /// What the G-stage answered.
    pub page: P,
}

impl Translation<GPage> {
    /// The memory type of the access through both stages (R53).
    pub fn memory_type(&self) -> MemoryType {
        let of = |leaf: Option<Leaf>| leaf.map_or(MemoryType::Pma, |leaf| leaf.memory_type);
        MemoryType::combine(of(self.vs), of(self.page.leaf))
    }

    /// `log2` of the bytes around the address that both stages translate as one piece.
    pub fn page_shift(&self) -> u32 {
        let of = |leaf: Option<Leaf>| leaf.map_or(u64::BITS, |leaf| leaf.page_shift);
        of(self.vs).min(of(self.page.leaf))
    }
}

/// Walks both stages for one access.
///
/// Under [`AdPolicy::Update`] the walk sets A and D bits as the access itself would, the VS-stage's once that stage has
/// agreed; so translate only what is about to be accessed, or use [`VsRegime::looking`] and [`GRegime::looking`].
///
/// # Errors
///
/// The fault that hardware would raise, without a [`TrapInfo`](crate::TrapInfo) ([`trap_of`] makes it): its `operation` is
/// `Load`, `Store` or `Fetch`, for the caller to replace by its own; its `gpa` is what the G-stage or the machine refused.
/// [`FaultKind::Unresolved`] if other harts kept changing an entry whose A or D bit was to be set.
pub fn translate<G: GStage>(
    vs: &VsRegime,
    g: &G,
    access: Access,
) -> Result<Translation<G::Page>, Fault> {
    translate_observed(vs, g, access, &())
}

/// As [`translate`], and tells `observer` each step of the VS-stage. The steps of the G-stage are told by the [`GStage`], if
/// it was made with an observer ([`GTables::observed`]).
///
/// # Errors
///
/// As [`translate`].
pub fn translate_observed<G: GStage>(
    vs: &VsRegime,
    g: &G,
    access: Access,
    observer: &impl Observer,
) -> Result<Translation<G::Page>, Fault> {
    let gva = vs.effective_address(access);
    let access = Access { gva, ..access };
    let (gpa, leaf) = walk_vs_stage(vs, g, access, observer)?;
    match g.locate(gpa, access.purpose) {
        Ok(page) => Ok(Translation {
            gva,
            gpa,
            vs: leaf,
            page,
        }),
        Err(kind) => Err(Fault::new(access.purpose.operation(), kind)
            .at_gva(gva)
            .at_gpa(gpa)),
    }
}
