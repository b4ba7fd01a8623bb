//! What must happen, judged byte by byte from a description of the guest that shares no code with the library.

use std::collections::BTreeSet;

use arbitrary::Arbitrary;

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Pages of guest memory that the actions are about.
pub const DATA_PAGES: usize = 16;
/// Pages of guest memory, those at its end included that hold the guest's page tables.
pub const PAGES: usize = 28;
/// Pages of one slot.
pub const SLOT_PAGES: usize = 2;
/// Slots of data pages.
pub const SLOTS: usize = DATA_PAGES / SLOT_PAGES;
/// Where guest-physical memory begins.
pub const GPA_BASE: u64 = 0x8000_0000;
/// Where the guest's mappings begin, one page of addresses for each data page.
pub const GVA_BASE: u64 = 0x1000_0000;
/// Bytes of the large page, which comes after as many bytes of addresses and leads to the start of guest memory.
pub const LARGE: u64 = 1 << 21;

/// The low bits of a page-table entry.
pub mod bits {
    pub const V: u8 = 1 << 0;
    pub const R: u8 = 1 << 1;
    pub const W: u8 = 1 << 2;
    pub const X: u8 = 1 << 3;
    pub const U: u8 = 1 << 4;
    pub const A: u8 = 1 << 6;
    pub const D: u8 = 1 << 7;
}

use bits::{A, D, R, U, V, W, X};

/// The four spaces.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The slots.
    Slots,
    /// Guest-physical, by the hart.
    LoadedPhysical,
    /// Guest-virtual, by the hart.
    Virtual { user: bool },
    /// Guest-virtual, by the hart and the slots.
    Backed { user: bool },
}

/// What an access does.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read {
        len: u16,
    },
    Write {
        len: u16,
        byte: u8,
    },
    Fill {
        len: u16,
        byte: u8,
    },
    /// Widths are logarithms, of which the two low bits count.
    Load {
        width: u8,
    },
    Store {
        width: u8,
        value: u64,
    },
    CompareExchange {
        width: u8,
        current: u8,
        new: u64,
    },
}

/// Why an access ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Page,
    GuestPage,
    NoSlot,
    ReadOnlySlot,
    Misaligned,
    OutOfRange,
    AtomicUnavailable,
}

/// What an access did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where it stopped, in bytes from its start, and why.
    pub stop: Option<(usize, Stop)>,
    /// What it read.
    pub found: Vec<u8>,
}

/// A leaf entry of the guest's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// The page it leads to, counted from the start of guest memory; there may be none.
    pub frame: usize,
    pub bits: u8,
}

/// A slot that is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotState {
    pub read_only: bool,
    pub logging: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Load,
    Store,
    Fetch,
}

/// The guest as it should be.
pub struct Oracle {
    pub bytes: Vec<u8>,
    pub entries: [Entry; DATA_PAGES],
    /// The bits of the large page's entry.
    pub large: u8,
    /// One past the last guest-physical address of the mode.
    pub gpa_end: u64,
    /// R, W and X of each page at the G-stage.
    pub rights: [u8; PAGES],
    pub slots: [Option<SlotState>; SLOTS],
    pub dirty: BTreeSet<usize>,
    pub sum: bool,
    pub mxr: bool,
}

impl Operation {
    pub fn len(self) -> usize {
        match self {
            Self::Read { len } | Self::Write { len, .. } | Self::Fill { len, .. } => {
                // Three pages at most: longer ones say no more and take their time.
                usize::from(len) % (PAGE as usize + 600)
            }
            Self::Load { width } | Self::Store { width, .. } => 1 << (width & 3),
            Self::CompareExchange { width, .. } => 1 << (width & 3),
        }
    }

    fn is_single(self) -> bool {
        matches!(
            self,
            Self::Load { .. } | Self::Store { .. } | Self::CompareExchange { .. }
        )
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Read { .. } | Self::Load { .. } => Purpose::Load,
            _ => Purpose::Store,
        }
    }

    /// The bytes of a write: a sequence, so that none can stand for its neighbour.
    pub fn source(self) -> Vec<u8> {
        match self {
            Self::Write { byte, .. } => (0..self.len())
                .map(|at| byte.wrapping_add(at as u8))
                .collect(),
            Self::Fill { byte, .. } => vec![byte; self.len()],
            Self::Store { value, .. } | Self::CompareExchange { new: value, .. } => {
                value.to_le_bytes()[..self.len()].to_vec()
            }
            Self::Read { .. } | Self::Load { .. } => Vec::new(),
        }
    }
}

impl Oracle {
    pub fn is_logging(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.logging)
    }

    /// The VS-stage: the guest-physical address of a byte.
    fn vs_stage(&self, gva: u64, purpose: Purpose, user: bool) -> Result<u64, Stop> {
        let offset = gva.wrapping_sub(GVA_BASE);
        let (bits, gpa) = match (self.entries.get((offset / PAGE) as usize), offset / LARGE) {
            (Some(entry), _) => {
                let base = GPA_BASE + entry.frame as u64 * PAGE;
                (entry.bits, base + offset % PAGE)
            }
            (None, 1) => (self.large, GPA_BASE + offset % LARGE),
            _ => return Err(Stop::Page),
        };
        let has = |bit| bits & bit != 0;
        let well_formed = has(V) && (has(R) || has(X)) && (has(R) || !has(W));
        let whose = match (user, has(U)) {
            (true, of_user) => of_user,
            (false, false) => true,
            (false, true) => self.sum && purpose != Purpose::Fetch,
        };
        let right = match purpose {
            Purpose::Load => has(R) || self.mxr && has(X),
            Purpose::Store => has(W) && has(D),
            Purpose::Fetch => has(X),
        };
        if well_formed && whose && right && has(A) {
            Ok(gpa)
        } else {
            Err(Stop::Page)
        }
    }

    fn offset(gpa: u64) -> Option<usize> {
        let offset = usize::try_from(gpa.checked_sub(GPA_BASE)?).ok()?;
        (offset < PAGES * PAGE as usize).then_some(offset)
    }

    /// The G-stage: where a byte of guest-physical memory is.
    fn g_stage(&self, gpa: u64, purpose: Purpose) -> Result<usize, Stop> {
        let offset = Self::offset(gpa).ok_or(Stop::GuestPage)?;
        let right = match purpose {
            Purpose::Load => R,
            Purpose::Store => W,
            Purpose::Fetch => X,
        };
        match self.rights[offset / PAGE as usize] & right {
            0 => Err(Stop::GuestPage),
            _ => Ok(offset),
        }
    }

    /// The slots: the same.
    fn slot(&self, gpa: u64, purpose: Purpose) -> Result<usize, Stop> {
        let offset = Self::offset(gpa).ok_or(Stop::NoSlot)?;
        let page = offset / PAGE as usize;
        let tables = SlotState {
            read_only: true,
            logging: false,
        };
        let slot = match self.slots.get(page / SLOT_PAGES) {
            Some(slot) => slot.ok_or(Stop::NoSlot)?,
            None => tables,
        };
        if slot.read_only && purpose == Purpose::Store {
            return Err(Stop::ReadOnlySlot);
        }
        Ok(offset)
    }

    /// Where the byte at `address` is, and whether the access goes there through the slots and not by the hart's own translation.
    fn locate(
        &self,
        space: Space,
        operation: Operation,
        address: u64,
    ) -> Result<(usize, bool), Stop> {
        let purpose = operation.purpose();
        let by_slots = |gpa| Ok((self.slot(gpa, purpose)?, true));
        let by_hart = |gpa| Ok((self.g_stage(gpa, purpose)?, false));
        match space {
            Space::Slots => by_slots(address),
            Space::LoadedPhysical => by_hart(address),
            Space::Virtual { user } => by_hart(self.vs_stage(address, purpose, user)?),
            Space::Backed { user } => {
                let gpa = self.vs_stage(address, purpose, user)?;
                if matches!(operation, Operation::CompareExchange { .. }) {
                    by_slots(gpa)
                } else if purpose == Purpose::Store && self.is_logging() {
                    // For the log. What a slot refuses the hart is asked for.
                    by_slots(gpa).or_else(|_| by_hart(gpa))
                } else {
                    by_hart(gpa)
                }
            }
        }
    }

    /// What is wrong with an access before any byte of it is looked at.
    fn refusal(&self, space: Space, operation: Operation, address: u64) -> Option<Stop> {
        let len = operation.len() as u64;
        if len == 0 {
            return None;
        }
        if operation.is_single() && address % len != 0 {
            return Some(Stop::Misaligned);
        }
        let atomic = matches!(operation, Operation::CompareExchange { .. });
        if atomic && matches!(space, Space::LoadedPhysical | Space::Virtual { .. }) {
            return Some(Stop::AtomicUnavailable);
        }
        let top = match space {
            Space::Slots => self.gpa_end - 1,
            // Where the hart might mask pointers it is not asked (R14).
            Space::LoadedPhysical => (self.gpa_end - 1).min((1 << 48) - 1),
            Space::Virtual { .. } | Space::Backed { .. } => u64::MAX,
        };
        let last = address.checked_add(len - 1);
        last.is_none_or(|last| last > top)
            .then_some(Stop::OutOfRange)
    }

    /// Does an access, and says what has to be seen of it.
    pub fn access(&mut self, space: Space, operation: Operation, address: u64) -> Outcome {
        let mut outcome = Outcome {
            stop: None,
            found: Vec::new(),
        };
        if let Some(stop) = self.refusal(space, operation, address) {
            outcome.stop = Some((0, stop));
            return outcome;
        }
        let mut places = Vec::new();
        for at in 0..operation.len() {
            match self.locate(space, operation, address + at as u64) {
                Ok(place) => places.push(place),
                Err(stop) => {
                    outcome.stop = Some((at, stop));
                    break;
                }
            }
        }
        let old: Vec<u8> = places.iter().map(|&(place, _)| self.bytes[place]).collect();
        let writes = match operation {
            Operation::Read { .. } | Operation::Load { .. } => {
                outcome.found = old;
                false
            }
            Operation::CompareExchange { current, .. } => {
                let equal = old.first() == Some(&current) && old[1..].iter().all(|&byte| byte == 0);
                outcome.found = old;
                equal
            }
            _ => true,
        };
        if writes {
            for ((place, logged), byte) in places.into_iter().zip(operation.source()) {
                self.bytes[place] = byte;
                if logged {
                    self.mark(place / PAGE as usize);
                }
            }
        }
        outcome
    }

    /// A page is dirty if its slot is logging.
    pub fn mark(&mut self, page: usize) {
        let slot = self.slots.get(page / SLOT_PAGES).copied().flatten();
        if slot.is_some_and(|slot| slot.logging) {
            self.dirty.insert(page);
        }
    }

    /// What a fetch at `gva` answers: where it stops and why, or the instruction's bits.
    pub fn fetch(&self, gva: u64, user: bool) -> Result<u32, (usize, Stop)> {
        if gva % 2 != 0 {
            return Err((0, Stop::Misaligned));
        }
        let parcel = |gva| {
            let gpa = self.vs_stage(gva, Purpose::Fetch, user)?;
            let at = self.g_stage(gpa, Purpose::Fetch)?;
            Ok(u32::from(self.bytes[at]) | u32::from(self.bytes[at + 1]) << 8)
        };
        let first = parcel(gva).map_err(|stop| (0, stop))?;
        if first & 0b11 != 0b11 {
            return Ok(first);
        }
        let next = gva.checked_add(2).ok_or((2, Stop::OutOfRange))?;
        let second = parcel(next).map_err(|stop| (2, stop))?;
        Ok(first | second << 16)
    }
}
