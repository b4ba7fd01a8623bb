//! What the two stages share: going down the levels, and the A and D bits.
//!
//! The one idea: a walk that cannot set an A or D bit because the entry changed starts over at the root, since the table
//! it was in may be gone as well; and it does so a bounded number of times.

use super::entry::{A, D, Decoded, INDEX_BITS, Leaf, Reason, decode, level_shift};
use super::regime::{AdPolicy, StageRules};
use super::trace::{Observer, Outcome, Stage, Step};

/// Walks from the root that one translation may take, before it is [`Stop::Contended`].
pub(super) const ATTEMPTS: usize = 16;

/// A table below the root, where a hart that remembers the way there begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Below {
    /// Its address, in the space that the stage leads to.
    pub table: u64,
    /// The level of its entries.
    pub level: usize,
}

/// Why a walk ended without a page.
pub(super) enum Stop<E> {
    /// This stage refused.
    Refused(Reason),
    /// The entry at `at` could not be reached.
    Entry {
        at: u64,
        error: E,
        /// It was to be updated, not read.
        update: bool,
    },
    /// Other harts kept changing the entry.
    Contended,
}

/// The tables of one stage, and how their entries are reached.
pub(super) struct Tables<'a, M, O> {
    pub stage: Stage,
    pub root: u64,
    pub levels: usize,
    /// Index bits that the root has beyond those of the other levels: 2 at the G-stage (R50).
    pub wider_root: u32,
    pub rules: &'a StageRules,
    pub shadow_stack: bool,
    pub memory: M,
    pub observer: &'a O,
}

/// How a stage reaches its entries.
pub(super) trait Entries {
    type Error;
    fn read(&self, at: u64) -> Result<u64, Self::Error>;
    fn compare_exchange(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Self::Error>;
}

impl<M: Entries, O: Observer> Tables<'_, M, O> {
    /// The part of the tables that begins at one of them.
    pub fn from(self, begin: Option<Below>) -> Self {
        match begin {
            Some(Below { table, level }) => Self {
                root: table,
                levels: level + 1,
                wider_root: 0,
                ..self
            },
            None => self,
        }
    }

    /// Finds the page of `input`, lets `check` judge it, and sees to its A bit and, for a store, its D bit.
    pub fn walk(
        &self,
        input: u64,
        store: bool,
        check: impl Fn(&Leaf) -> Result<(), Reason>,
    ) -> Result<Leaf, Stop<M::Error>> {
        for _ in 0..ATTEMPTS {
            if let Some(leaf) = self.attempt(input, store, &check)? {
                return Ok(leaf);
            }
        }
        Err(Stop::Contended)
    }

    fn tell(&self, level: usize, input: u64, at: u64, entry: Option<u64>, outcome: Outcome) {
        self.observer.observe(Step {
            stage: self.stage,
            level,
            input,
            at,
            entry,
            outcome,
        });
    }

    /// One walk from the root; `None` if the entry changed under an update.
    fn attempt(
        &self,
        input: u64,
        store: bool,
        check: &impl Fn(&Leaf) -> Result<(), Reason>,
    ) -> Result<Option<Leaf>, Stop<M::Error>> {
        let mut table = self.root;
        for level in (0..self.levels).rev() {
            let is_root = level == self.levels - 1;
            let bits = INDEX_BITS + if is_root { self.wider_root } else { 0 };
            let index = input >> level_shift(level) & ((1 << bits) - 1);
            let at = table + index * 8;
            let entry = self.memory.read(at).map_err(|error| {
                self.tell(
                    level,
                    input,
                    at,
                    None,
                    Outcome::Refused(Reason::Unreachable),
                );
                Stop::Entry {
                    at,
                    error,
                    update: false,
                }
            })?;
            let refuse = |reason| {
                self.tell(level, input, at, Some(entry), Outcome::Refused(reason));
                Stop::Refused(reason)
            };
            let leaf = match decode(entry, level, self.rules, self.shadow_stack).map_err(refuse)? {
                Decoded::Table(next) => {
                    self.tell(level, input, at, Some(entry), Outcome::Table(next));
                    table = next;
                    continue;
                }
                Decoded::Leaf(leaf) => leaf,
            };
            check(&leaf).map_err(refuse)?;
            let wanted = A | if store { D } else { 0 };
            let missing = wanted & !entry;
            let mut dirty = leaf.dirty;
            if missing != 0 {
                match self.rules.ad {
                    AdPolicy::Fault if missing & A != 0 => return Err(refuse(Reason::NotAccessed)),
                    AdPolicy::Fault => return Err(refuse(Reason::NotDirty)),
                    AdPolicy::Ignore => {}
                    AdPolicy::Update => {
                        if !self.update(level, input, at, entry, entry | wanted)? {
                            return Ok(None);
                        }
                        dirty |= store;
                    }
                }
            }
            let output = leaf.output(input);
            self.tell(level, input, at, Some(entry), Outcome::Leaf(output));
            return Ok(Some(Leaf { dirty, ..leaf }));
        }
        // Level 0 is a leaf or refused, so this is the Bare mode's, which has no tables to walk.
        Err(Stop::Refused(Reason::NoLeaf))
    }

    /// Sets A and D bits. `false` if the entry was no longer what the walk had read.
    fn update(
        &self,
        level: usize,
        input: u64,
        at: u64,
        entry: u64,
        new: u64,
    ) -> Result<bool, Stop<M::Error>> {
        match self.memory.compare_exchange(at, entry, new) {
            Ok(Ok(_)) => {
                self.tell(level, input, at, Some(entry), Outcome::Updated(new));
                Ok(true)
            }
            Ok(Err(_)) => {
                let outcome = Outcome::Refused(Reason::Contended);
                self.tell(level, input, at, Some(entry), outcome);
                Ok(false)
            }
            Err(error) => {
                let outcome = Outcome::Refused(Reason::Unreachable);
                self.tell(level, input, at, Some(entry), outcome);
                Err(Stop::Entry {
                    at,
                    error,
                    update: true,
                })
            }
        }
    }
}
