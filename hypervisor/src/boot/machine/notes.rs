//! What of the machine is not used, a line for each.

use core::fmt;

use super::harts::Unfit;
use super::{MAX_HARTS, MAX_RANGES};
use crate::memory::page_table::Stage;

/// Something of the machine that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// RAM in more ranges than there is room for.
    MemoryRanges {
        /// The bytes of the others.
        bytes: u64,
    },
    /// RAM at addresses that the hypervisor's page table does not reach.
    MemoryOutOfReach {
        /// Its bytes.
        bytes: u64,
    },
    /// Reservations in more ranges than there is room for: what lies between some of them is given
    /// up, too.
    ReservedRanges {
        /// The bytes between them.
        bytes: u64,
    },
    /// Harts that cannot run a guest.
    Harts {
        /// How many.
        count: u64,
        /// The reason.
        why: Unfit,
    },
    /// Harts that could run a guest, but are too many.
    MoreHarts {
        /// How many.
        count: u64,
    },
    /// More extensions than there is room for.
    Isa,
    /// An extension whose block size is not given, or not the same on each hart.
    NoBlockSize {
        /// The extension.
        extension: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Self::MemoryRanges { bytes } => write!(
                f,
                "the memory has more than {MAX_RANGES} ranges: {} MiB are not used",
                bytes / MIB
            ),
            Self::MemoryOutOfReach { bytes } => write!(
                f,
                "{} MiB of memory lie above {} GiB and are not used",
                bytes / MIB,
                Stage::Host.address_end() >> 30
            ),
            Self::ReservedRanges { bytes } => write!(
                f,
                "the reserved memory has more than {MAX_RANGES} ranges: {} KiB between them are not used either",
                bytes >> 10
            ),
            Self::Harts { count, why } => write!(f, "harts that are not used: {count} ({why})"),
            Self::MoreHarts { count } => {
                write!(
                    f,
                    "harts that are not used: {count} (more than {MAX_HARTS})"
                )
            }
            Self::Isa => {
                f.write_str("the harts have too many extensions: the last ones are not used")
            }
            Self::NoBlockSize { extension } => {
                write!(
                    f,
                    "{extension} is not used: the device tree has no one block size for it"
                )
            }
        }
    }
}

/// Notes, in the order of the device tree's reading. Each kind comes once, so there is room for
/// all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    notes: [Option<Note>; 16],
}

impl Notes {
    pub(super) fn push(&mut self, note: Note) {
        if let Some(slot) = self.notes.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(note);
        }
    }

    /// The notes.
    pub fn iter(&self) -> impl Iterator<Item = Note> + '_ {
        self.notes.iter().flatten().copied()
    }
}
