//! The VS-stage: the guest's own tables, every entry of which is itself behind the G-stage.

use super::entry::{Leaf, Reason};
use super::regime::VsRegime;
use super::trace::{Observer, Outcome, Stage, Step};
use super::walk::{Below, Entries, Stop, Tables};
use super::{Access, GStage, Purpose};
use crate::access::{AccessKind, GuestPrivilege};
use crate::address::Gpa;
use crate::csr::VsMode;
use crate::fault::{Fault, FaultKind};

/// Whether a page allows the access (R2 to R5, R7, R16).
pub(crate) fn check(regime: &VsRegime, leaf: &Leaf, access: Access) -> Result<(), Reason> {
    match access.privilege {
        GuestPrivilege::User if !leaf.user => return Err(Reason::NotUser),
        GuestPrivilege::Supervisor
            if leaf.user && (!regime.sum || access.purpose == Purpose::Fetch) =>
        {
            return Err(Reason::User);
        }
        _ => {}
    }
    let (allowed, reason) = match access.purpose {
        Purpose::Load => (leaf.read || regime.mxr && leaf.execute, Reason::NotReadable),
        Purpose::Store | Purpose::Fetch if leaf.shadow_stack => (false, Reason::ShadowStack),
        Purpose::Store => (leaf.write, Reason::NotWritable),
        Purpose::ExecutableLoad | Purpose::Fetch => (leaf.execute, Reason::NotExecutable),
    };
    if allowed { Ok(()) } else { Err(reason) }
}

/// Walks the VS-stage for an access whose address is already masked.
pub(crate) fn walk<G: GStage>(
    regime: &VsRegime,
    g: &G,
    access: Access,
    observer: &impl Observer,
) -> Result<(Gpa, Option<Leaf>), Fault> {
    walk_from(regime, g, access, observer, None)
}

/// [`walk`] that begins at a table below the root.
pub(crate) fn walk_from<G: GStage>(
    regime: &VsRegime,
    g: &G,
    access: Access,
    observer: &impl Observer,
    begin: Option<Below>,
) -> Result<(Gpa, Option<Leaf>), Fault> {
    let gva = access.gva;
    let fault = |kind| Fault::new(access.purpose.operation(), kind).at_gva(gva);
    if let VsMode::Bare = regime.mode {
        return Ok((Gpa::new(gva.value()), None));
    }
    if !regime.is_canonical(gva) {
        observer.observe(Step {
            stage: Stage::Vs,
            level: regime.mode.levels() - 1,
            input: gva.value(),
            at: regime.root.value(),
            entry: None,
            outcome: Outcome::Refused(Reason::NotCanonical),
        });
        return Err(fault(FaultKind::Page));
    }
    let tables = Tables {
        stage: Stage::Vs,
        root: regime.root.value(),
        levels: regime.mode.levels(),
        wider_root: 0,
        rules: &regime.rules,
        shadow_stack: regime.shadow_stack,
        memory: GuestEntries(g),
        observer,
    }
    .from(begin);
    let store = access.purpose == Purpose::Store;
    match tables.walk(gva.value(), store, |leaf| check(regime, leaf, access)) {
        Ok(leaf) => Ok((Gpa::new(leaf.output(gva.value())), Some(leaf))),
        Err(Stop::Refused(Reason::ShadowStack)) => Err(fault(FaultKind::ShadowStack)),
        Err(Stop::Refused(_)) => Err(fault(FaultKind::Page)),
        Err(Stop::Contended) => Err(fault(FaultKind::Unresolved)),
        Err(Stop::Entry { at, error, update }) => {
            let kind = match error {
                FaultKind::GuestPage { .. } => FaultKind::GuestPage {
                    access: if update {
                        AccessKind::Store
                    } else {
                        AccessKind::Load
                    },
                    implicit: true,
                },
                other => other,
            };
            Err(fault(kind).at_gpa(Gpa::new(at)))
        }
    }
}

struct GuestEntries<'a, G>(&'a G);

impl<G: GStage> Entries for GuestEntries<'_, G> {
    type Error = FaultKind;

    fn read(&self, at: u64) -> Result<u64, FaultKind> {
        self.0.read_entry(Gpa::new(at))
    }

    fn compare_exchange(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        self.0.compare_exchange_entry(Gpa::new(at), current, new)
    }
}
