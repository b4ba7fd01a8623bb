//! What the firmware's device tree says of the machine.
//!
//! The one idea: everything is read once, early, into plain values, and nothing later goes back to
//! the tree. What a tree has more of than there is room for costs the rest, with a [`Note`], and
//! never the machine.
//!
//! Nothing is read of serial ports: the hypervisor speaks through the firmware's console (SBI),
//! whatever that drives.

use core::fmt;

use dtoolkit::Node;
use dtoolkit::fdt::FdtNode;

use super::blob;
use super::isa::Isa;
use super::tree::{self, integer, value};
use crate::memory::frames::Range;
use crate::memory::ranges::RangeSet;

mod harts;
mod memory;
mod notes;

use harts::UsedHarts;
pub use harts::{CacheBlocks, Harts, Mmu, Unfit};
use memory::{initrd, memory, reserved};
pub use notes::{Note, Notes};

/// Harts used at most, one a vCPU.
pub const MAX_HARTS: usize = 8;

/// Ranges of RAM, and of reservations in it, that a machine may have.
pub const MAX_RANGES: usize = 64;

/// The machine, as far as the hypervisor cares.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// RAM that the hypervisor can map.
    pub memory: RangeSet<MAX_RANGES>,
    /// The part of it that belongs to somebody else (firmware).
    pub reserved: RangeSet<MAX_RANGES>,
    /// The harts.
    pub harts: Harts,
    /// What all these harts have of the instruction set.
    pub isa: Isa,
    /// What all these harts have of address translation.
    pub mmu: Mmu,
    /// Ticks of `time` in a second.
    pub timebase_frequency: u64,
    /// Block sizes of the cache-block extensions that `isa` lists.
    pub cache_block_bytes: CacheBlocks,
    /// The bundle that the loader put into memory.
    pub initrd: Option<Range>,
    /// Random bytes that the firmware made for this boot.
    pub rng_seed: RngSeed,
    /// Where a Goldfish clock is.
    pub rtc: Option<u64>,
    /// What of the machine is not used.
    pub notes: Notes,
}

/// The bytes of `rng-seed`, as many as there is room for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RngSeed {
    bytes: [u8; 32],
    len: usize,
}

impl RngSeed {
    fn of(root: &FdtNode<'_>) -> Self {
        let chosen = root.child("chosen");
        let given = chosen.and_then(|chosen| value(&chosen, "rng-seed"));
        let mut seed = Self::default();
        for (slot, byte) in seed.bytes.iter_mut().zip(given.unwrap_or_default()) {
            *slot = *byte;
            seed.len += 1;
        }
        seed
    }

    /// The bytes; none where the firmware made none.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for RngSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody shall read them in a log.
        write!(f, "{} bytes", self.len)
    }
}

/// Why the device tree is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// It does not parse.
    NotADeviceTree,
    /// Something that every machine has is not there.
    Missing(&'static str),
    /// A property that must not be misunderstood is not of its form.
    Malformed(&'static str),
    /// No hart can run a guest. The reason is that of the hart which comes closest.
    NoHart(Unfit),
    /// The hart that the firmware started cannot run a guest.
    BootHart {
        /// Its number.
        id: u64,
        /// The reason.
        why: Unfit,
    },
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADeviceTree => f.write_str("a1 does not point to a device tree"),
            Self::Missing(what) => write!(f, "the device tree has no {what}"),
            Self::Malformed(what) => write!(f, "the device tree has a malformed {what}"),
            Self::NoHart(why) => write!(f, "no hart of this machine can run a guest: {why}"),
            Self::BootHart { id, why } => {
                write!(
                    f,
                    "the firmware started hart {id}, which cannot run a guest: {why}"
                )
            }
        }
    }
}

impl Machine {
    /// Reads the device tree in `blob`. `boot_hart` is the hart that runs this, or `None` if any
    /// will do.
    ///
    /// # Errors
    ///
    /// [`MachineError`], if no guest can run on such a machine.
    pub fn from_device_tree(blob: &[u8], boot_hart: Option<u64>) -> Result<Self, MachineError> {
        let tree = blob::parse(blob).ok_or(MachineError::NotADeviceTree)?;
        let root = tree.root();
        let cpus = root.child("cpus").ok_or(MachineError::Missing("cpus"))?;
        let mut notes = Notes::default();
        let used = UsedHarts::find(&cpus, boot_hart, &mut notes)?;
        let timebase_frequency = integer(&cpus, "timebase-frequency")
            .or_else(|| {
                let mut of_harts = cpus.children();
                of_harts.find_map(|cpu| integer(&cpu, "timebase-frequency"))
            })
            .filter(|&frequency| frequency > 0)
            .ok_or(MachineError::Missing("timebase-frequency"))?;
        let memory = memory(&root, &mut notes)?;
        Ok(Self {
            reserved: reserved(&tree, &memory, &mut notes)?,
            memory,
            harts: used.harts,
            isa: used.isa,
            mmu: used.mmu,
            timebase_frequency,
            cache_block_bytes: used.blocks,
            initrd: initrd(&root),
            rng_seed: RngSeed::of(&root),
            rtc: tree::device(root, "google,goldfish-rtc").map(|registers| registers.start),
            notes,
        })
    }
}

#[cfg(test)]
mod boards;
#[cfg(test)]
mod tests;
