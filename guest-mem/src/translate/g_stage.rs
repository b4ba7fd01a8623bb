//! The G-stage through `hgatp`'s tables.

use super::entry::{Leaf, Reason};
use super::regime::GRegime;
use super::trace::{Observer, Outcome, Stage, Step};
use super::walk::{Below, Entries, Stop, Tables};
use super::{EntryMemory, GStage, Purpose, Refused};
use crate::access::AccessKind;
use crate::address::{Gpa, Spa};
use crate::csr::GMode;
use crate::fault::FaultKind;

/// Where a guest-physical address is in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GPage {
    /// The machine address of the byte asked for.
    pub spa: Spa,
    /// The page; `None` when `hgatp.MODE` is Bare.
    pub leaf: Option<Leaf>,
}

/// The tables of `hgatp`, in a machine's memory.
#[derive(Clone, Copy, Debug)]
pub struct GTables<M, O = ()> {
    regime: GRegime,
    memory: M,
    observer: O,
}

/// What the G-stage is asked to allow. Every access counts as one of user mode (R54).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// An implicit read of a page-table entry: R, whatever MXR says.
    ReadEntry,
    /// An implicit update of a page-table entry: W.
    WriteEntry,
    /// The explicit access.
    Explicit(Purpose),
}

impl Need {
    /// The type of the access that a refusal names.
    pub(crate) const fn kind(self) -> AccessKind {
        match self {
            Self::ReadEntry => AccessKind::Load,
            Self::WriteEntry => AccessKind::Store,
            // An `hlvx` needs the page to be executable, so whoever resolves its fault has to know.
            Self::Explicit(Purpose::ExecutableLoad) => AccessKind::Fetch,
            Self::Explicit(purpose) => purpose.access_kind(),
        }
    }

    pub(crate) const fn is_store(self) -> bool {
        matches!(self, Self::WriteEntry | Self::Explicit(Purpose::Store))
    }
}

/// Whether a page allows what is needed (R5, R54).
pub(crate) fn check(regime: &GRegime, leaf: &Leaf, need: Need) -> Result<(), Reason> {
    if !leaf.user {
        return Err(Reason::NotUser);
    }
    let (allowed, reason) = match need {
        Need::ReadEntry => (leaf.read, Reason::NotReadable),
        Need::Explicit(Purpose::Load) => {
            (leaf.read || regime.mxr && leaf.execute, Reason::NotReadable)
        }
        Need::WriteEntry | Need::Explicit(Purpose::Store) => (leaf.write, Reason::NotWritable),
        Need::Explicit(Purpose::ExecutableLoad | Purpose::Fetch) => {
            (leaf.execute, Reason::NotExecutable)
        }
    };
    if allowed { Ok(()) } else { Err(reason) }
}

impl<M: EntryMemory> GTables<M> {
    /// The tables that `regime` points to in `memory`.
    pub const fn new(regime: GRegime, memory: M) -> Self {
        Self {
            regime,
            memory,
            observer: (),
        }
    }
}

impl<M: EntryMemory, O: Observer> GTables<M, O> {
    /// The same tables; every step through them is told to `observer`.
    pub fn observed<P: Observer>(self, observer: P) -> GTables<M, P> {
        GTables {
            regime: self.regime,
            memory: self.memory,
            observer,
        }
    }

    /// Where the tables are.
    #[inline]
    pub(crate) const fn memory(&self) -> &M {
        &self.memory
    }

    /// Walks for `need`. What refuses is told as if the access were explicit.
    pub(crate) fn walk(&self, gpa: Gpa, need: Need) -> Result<GPage, FaultKind> {
        self.walk_from(gpa, need, None)
    }

    /// [`walk`](Self::walk) that begins at a table below the root.
    pub(crate) fn walk_from(
        &self,
        gpa: Gpa,
        need: Need,
        begin: Option<Below>,
    ) -> Result<GPage, FaultKind> {
        self.walk_under(&self.regime, gpa, need, begin)
    }

    /// [`walk`](Self::walk) that leaves A and D bits alone.
    pub(crate) fn look(&self, gpa: Gpa, need: Need) -> Result<GPage, FaultKind> {
        self.walk_under(&self.regime.looking(), gpa, need, None)
    }

    fn walk_under(
        &self,
        regime: &GRegime,
        gpa: Gpa,
        need: Need,
        begin: Option<Below>,
    ) -> Result<GPage, FaultKind> {
        if let GMode::Bare = regime.mode {
            return Ok(GPage {
                spa: Spa::new(gpa.value()),
                leaf: None,
            });
        }
        let refused = FaultKind::GuestPage {
            access: need.kind(),
            implicit: false,
        };
        if gpa.value() >> regime.mode.gpa_bits() != 0 {
            self.observer.observe(Step {
                stage: Stage::G,
                level: regime.mode.levels() - 1,
                input: gpa.value(),
                at: regime.root.value(),
                entry: None,
                outcome: Outcome::Refused(Reason::TooWide),
            });
            return Err(refused);
        }
        let tables = Tables {
            stage: Stage::G,
            root: regime.root.value(),
            levels: regime.mode.levels(),
            wider_root: 2,
            rules: &regime.rules,
            shadow_stack: false,
            memory: MachineEntries(&self.memory),
            observer: &self.observer,
        }
        .from(begin);
        match tables.walk(gpa.value(), need.is_store(), |leaf| {
            check(regime, leaf, need)
        }) {
            Ok(leaf) => Ok(GPage {
                spa: Spa::new(leaf.output(gpa.value())),
                leaf: Some(leaf),
            }),
            Err(Stop::Refused(_)) => Err(refused),
            Err(Stop::Entry { .. }) => Err(FaultKind::Access),
            Err(Stop::Contended) => Err(FaultKind::Unresolved),
        }
    }
}

impl<M: EntryMemory, O: Observer> GStage for GTables<M, O> {
    type Page = GPage;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        let page = self.walk(at, Need::ReadEntry)?;
        self.memory
            .read_entry(page.spa)
            .map_err(|Refused| FaultKind::Access)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        let page = self.walk(at, Need::WriteEntry)?;
        self.memory
            .compare_exchange_entry(page.spa, current, new)
            .map_err(|Refused| FaultKind::Access)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<GPage, FaultKind> {
        self.walk(at, Need::Explicit(purpose))
    }
}

struct MachineEntries<'a, M>(&'a M);

impl<M: EntryMemory> Entries for MachineEntries<'_, M> {
    type Error = Refused;

    fn read(&self, at: u64) -> Result<u64, Refused> {
        self.0.read_entry(Spa::new(at))
    }

    fn compare_exchange(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        self.0.compare_exchange_entry(Spa::new(at), current, new)
    }
}
