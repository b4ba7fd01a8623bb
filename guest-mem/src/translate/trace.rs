//! The steps of a walk, kept for a report.
//!
//! The one idea: the walk does not know whether anybody watches; an [`Observer`] that does nothing costs nothing.

use core::cell::Cell;
use core::fmt;

use super::entry::Reason;

/// One of the two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Guest-virtual to guest-physical.
    Vs,
    /// Guest-physical to machine.
    G,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It leads to the table at this address.
    Table(u64),
    /// It is the page, and leads the input to this address.
    Leaf(u64),
    /// Its A and D bits were set: this is the new entry.
    Updated(u64),
    /// The walk ends here.
    Refused(Reason),
}

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose table.
    pub stage: Stage,
    /// The level, 0 for 4 KiB pages.
    pub level: usize,
    /// The address that the stage translates.
    pub input: u64,
    /// The address of the entry: guest-physical for the VS-stage, the machine's for the G-stage.
    pub at: u64,
    /// The entry; `None` if it was not read.
    pub entry: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Who is told of each step of a walk.
pub trait Observer {
    /// Takes note of a step.
    fn observe(&self, step: Step);
}

impl Observer for () {
    fn observe(&self, _: Step) {}
}

impl<O: Observer> Observer for &O {
    fn observe(&self, step: Step) {
        O::observe(self, step);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, from, to) = match self.stage {
            Stage::Vs => ("VS-stage", "GVA", "GPA"),
            Stage::G => ("  G-stage", "GPA", "SPA"),
        };
        let Self {
            level, input, at, ..
        } = self;
        write!(f, "{name} {from} {input:#x} level {level}: ")?;
        if let Some(entry) = self.entry {
            write!(f, "{to} {at:#x} holds {entry:#018x}, ")?;
        }
        match self.outcome {
            Outcome::Table(table) => write!(f, "table at {to} {table:#x}"),
            Outcome::Leaf(output) => write!(f, "page, {to} {output:#x}"),
            Outcome::Updated(entry) => write!(f, "set to {entry:#018x}"),
            Outcome::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// Steps that a [`WalkTrace`] keeps: more than a walk of five levels at both stages takes, with A/D updates.
const KEPT: usize = 64;

/// The steps of one walk, in order. Prints one line a step.
///
/// ```
/// # use guest_mem::{Gva, Spa, GuestPrivilege, csr::{GMode, VsMode}, Gpa};
/// # use guest_mem::translate::*;
/// # struct Nothing;
/// # impl EntryMemory for Nothing {
/// #     fn read_entry(&self, _: Spa) -> Result<u64, Refused> { Ok(0) }
/// #     fn compare_exchange_entry(&self, _: Spa, _: u64, _: u64) -> Result<Result<u64, u64>, Refused> { Err(Refused) }
/// # }
/// # let vs = VsRegime { mode: VsMode::Sv39, root: Gpa::new(0x8000_0000), ..VsRegime::BARE };
/// # let g = GRegime { mode: GMode::Sv39x4, root: Spa::new(0x4000), rules: StageRules::BASE, mxr: false };
/// let trace = WalkTrace::new();
/// let g = GTables::new(g.looking(), Nothing).observed(&trace);
/// let access = Access::load(Gva::new(0x1234), GuestPrivilege::Supervisor);
/// assert!(translate_observed(&vs.looking(), &g, access, &trace).is_err());
/// let expected = [
///     "  G-stage GPA 0x80000000 level 2: SPA 0x4010 holds 0x0000000000000000, refused: not valid",
///     "VS-stage GVA 0x1234 level 2: refused: entry out of reach",
/// ];
/// assert!(trace.to_string().lines().eq(expected));
/// ```
#[derive(Debug)]
pub struct WalkTrace {
    steps: [Cell<Option<Step>>; KEPT],
    seen: Cell<usize>,
}

impl WalkTrace {
    /// An empty trace.
    pub const fn new() -> Self {
        Self {
            steps: [const { Cell::new(None) }; KEPT],
            seen: Cell::new(0),
        }
    }

    /// The steps that were kept: the first 64.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        self.steps.iter().map_while(Cell::get)
    }

    /// Steps beyond those, which only a walk over changing tables has.
    pub fn lost(&self) -> usize {
        self.seen.get().saturating_sub(KEPT)
    }
}

impl Default for WalkTrace {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for WalkTrace {
    fn observe(&self, step: Step) {
        if let Some(slot) = self.steps.get(self.seen.get()) {
            slot.set(Some(step));
        }
        self.seen.set(self.seen.get().saturating_add(1));
    }
}

impl fmt::Display for WalkTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps() {
            writeln!(f, "{step}")?;
        }
        match self.lost() {
            0 => Ok(()),
            lost => writeln!(f, "and {lost} steps more"),
        }
    }
}
