//! The deviations of a machine that matter to a walk, as sets.

use test_kernel::deviation::{self, Deviation};

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

    /// The same with no other than one.
    pub fn only(self, one: Deviation) -> Self {
        Self(self.0 & 1 << one as u32)
    }

    /// The same with one.
    pub fn with(self, one: Deviation) -> Self {
        Self(self.0 | 1 << one as u32)
    }

    /// Each.
    pub fn iter(self) -> impl Iterator<Item = Deviation> {
        Deviation::ALL.into_iter().filter(move |&one| self.has(one))
    }

    /// Whether it is one of them.
    pub fn has(self, one: Deviation) -> bool {
        self.0 >> one as u32 & 1 != 0
    }
}

/// The deviations that make a difference here.
const KNOWN: [Deviation; 24] = [
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
    Deviation::HtinstFollowsAccess,
    Deviation::ReservedIgnored,
    Deviation::PbmtReservedAllowed,
    Deviation::NapotAfterUpdate,
    Deviation::UpdateIgnoresG,
    Deviation::MissingTableIsPageFault,
    Deviation::GTableIsGuestPage,
    Deviation::GTableSetsHtval,
    Deviation::EnvironmentIgnored,
    Deviation::TableNeedsNoUser,
    Deviation::TableAccessIsLoad,
    Deviation::WideGpaIsPageFault,
];
