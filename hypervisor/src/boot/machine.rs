//! What the firmware's device tree says of the machine.
//!
//! The one idea: everything is read once, early, into plain values, and nothing later goes back to the tree. What a tree has
//! more of than there is room for costs the rest, with a [`Note`], and never the machine.
//!
//! Nothing is read of serial ports: the hypervisor speaks through the firmware's console (SBI), whatever that drives.

use core::fmt;

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use super::blob;
use super::isa::Isa;
use super::tree::{self, Bus, integer, is_available, number, text, texts, value};
use crate::memory::frames::{FRAME, Range};
use crate::memory::page_table::Stage;
use crate::memory::ranges::RangeSet;

/// Harts used at most, one a vCPU.
pub const MAX_HARTS: usize = 8;

/// Ranges of RAM, and of reservations in it, that a machine may have.
pub const MAX_RANGES: usize = 64;

/// The harts that can run, by the machine's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harts {
    ids: [u64; MAX_HARTS],
    len: usize,
}

impl Harts {
    /// The numbers: the boot hart's, and then the others in the order of the device tree.
    pub fn as_slice(&self) -> &[u64] {
        &self.ids[..self.len]
    }

    fn push(&mut self, id: u64) -> bool {
        let Some(slot) = self.ids.get_mut(self.len) else {
            return false;
        };
        *slot = id;
        self.len += 1;
        true
    }
}

/// Address translation of a hart, in the order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mmu {
    /// 39-bit addresses.
    Sv39,
    /// 48-bit addresses.
    Sv48,
    /// 57-bit addresses.
    Sv57,
}

impl Mmu {
    /// The value of `mmu-type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sv39 => "riscv,sv39",
            Self::Sv48 => "riscv,sv48",
            Self::Sv57 => "riscv,sv57",
        }
    }
}

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

/// Cache-block sizes in bytes, 0 where the machine does not have the extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBlocks {
    /// `riscv,cbom-block-size`, of Zicbom.
    pub management: u32,
    /// `riscv,cboz-block-size`, of Zicboz.
    pub zero: u32,
    /// `riscv,cbop-block-size`, of Zicbop.
    pub prefetch: u32,
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

/// Why a hart cannot run a guest. The later, the closer it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It is not in the device tree.
    Unknown,
    /// Its `status` says so.
    Disabled,
    /// No ISA is given, or not a 64-bit one.
    NoIsa,
    /// It has no address translation.
    NoMmu,
    /// It has no hypervisor extension.
    NoHypervisor,
}

impl Unfit {
    const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Disabled,
        Self::NoIsa,
        Self::NoMmu,
        Self::NoHypervisor,
    ];
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "it is not in the device tree",
            Self::Disabled => "the device tree disables it",
            Self::NoIsa => "no 64-bit ISA is given",
            Self::NoMmu => "no address translation",
            Self::NoHypervisor => "no hypervisor extension",
        })
    }
}

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
    /// Reservations in more ranges than there is room for: what lies between some of them is given up, too.
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

/// Notes, in the order of the device tree's reading. Each kind comes once, so there is room for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    notes: [Option<Note>; 16],
}

impl Notes {
    fn push(&mut self, note: Note) {
        if let Some(slot) = self.notes.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(note);
        }
    }

    /// The notes.
    pub fn iter(&self) -> impl Iterator<Item = Note> + '_ {
        self.notes.iter().flatten().copied()
    }
}

impl Machine {
    /// Reads the device tree in `blob`. `boot_hart` is the hart that runs this, or `None` if any will do.
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

/// One hart of the tree.
#[derive(Clone, Copy)]
struct Hart {
    id: u64,
    isa: Isa,
    mmu: Mmu,
    blocks: CacheBlocks,
}

impl Hart {
    /// Reads the node of a hart.
    fn read(node: &FdtNode<'_>, id: u64) -> Result<Self, Unfit> {
        if !is_available(node) {
            return Err(Unfit::Disabled);
        }
        let isa = isa(node).ok_or(Unfit::NoIsa)?;
        let mmu = match text(node, "mmu-type") {
            Some("riscv,sv57") => Mmu::Sv57,
            Some("riscv,sv48") => Mmu::Sv48,
            Some("riscv,none") => return Err(Unfit::NoMmu),
            // The weakest is right for all that have the hypervisor extension.
            _ => Mmu::Sv39,
        };
        if !isa.lists("h") {
            return Err(Unfit::NoHypervisor);
        }
        let block = |name| {
            let given = integer(node, name).and_then(|bytes| u32::try_from(bytes).ok());
            let implied = isa.lists("zic64b").then_some(64);
            given
                .filter(|bytes| bytes.is_power_of_two())
                .or(implied)
                .unwrap_or(0)
        };
        Ok(Self {
            id,
            isa,
            mmu,
            blocks: CacheBlocks {
                management: block("riscv,cbom-block-size"),
                zero: block("riscv,cboz-block-size"),
                prefetch: block("riscv,cbop-block-size"),
            },
        })
    }
}

/// The harts that are used, and what they have in common.
struct UsedHarts {
    harts: Harts,
    isa: Isa,
    mmu: Mmu,
    blocks: CacheBlocks,
}

impl UsedHarts {
    fn find(
        cpus: &FdtNode<'_>,
        boot_hart: Option<u64>,
        notes: &mut Notes,
    ) -> Result<Self, MachineError> {
        let harts = || {
            let nodes = cpus.children();
            nodes.filter_map(|node| {
                let is_cpu = text(&node, "device_type") == Some("cpu");
                let id = hart_id(cpus, &node).filter(|_| is_cpu)?;
                Some((id, Hart::read(&node, id)))
            })
        };
        let first = match boot_hart {
            Some(id) => {
                let node = harts().find(|&(other, _)| other == id);
                let hart = node.map_or(Err(Unfit::Unknown), |(_, hart)| hart);
                hart.map_err(|why| MachineError::BootHart { id, why })?
            }
            None => harts().find_map(|(_, hart)| hart.ok()).ok_or_else(|| {
                let closest = harts().filter_map(|(_, hart)| hart.err()).max();
                closest.map_or(MachineError::Missing("cpu"), MachineError::NoHart)
            })?,
        };
        let mut used = Self {
            harts: Harts::default(),
            isa: first.isa,
            mmu: first.mmu,
            blocks: first.blocks,
        };
        used.harts.push(first.id);
        let (mut unfit, mut more) = ([0; Unfit::ALL.len()], 0);
        for (id, hart) in harts().filter(|&(id, _)| id != first.id) {
            match hart {
                Ok(hart) if used.harts.push(id) => used.join(&hart),
                Ok(_) => more += 1,
                Err(why) => unfit[why as usize] += 1,
            }
        }
        for (why, count) in Unfit::ALL
            .into_iter()
            .zip(unfit)
            .filter(|(_, count)| *count > 0)
        {
            notes.push(Note::Harts { count, why });
        }
        if more > 0 {
            notes.push(Note::MoreHarts { count: more });
        }
        if used.isa.is_cut() {
            notes.push(Note::Isa);
        }
        used.drop_extensions_without_size(notes);
        Ok(used)
    }

    /// Keeps what this hart has, too.
    fn join(&mut self, hart: &Hart) {
        self.isa = self.isa.common(&hart.isa);
        self.mmu = self.mmu.min(hart.mmu);
        let same = |a, b| if a == b { a } else { 0 };
        self.blocks = CacheBlocks {
            management: same(self.blocks.management, hart.blocks.management),
            zero: same(self.blocks.zero, hart.blocks.zero),
            prefetch: same(self.blocks.prefetch, hart.blocks.prefetch),
        };
    }

    /// An extension is of no use to a guest that cannot be told its block size.
    fn drop_extensions_without_size(&mut self, notes: &mut Notes) {
        for (extension, bytes) in [
            ("zicbom", &mut self.blocks.management),
            ("zicboz", &mut self.blocks.zero),
            ("zicbop", &mut self.blocks.prefetch),
        ] {
            if !self.isa.lists(extension) {
                *bytes = 0;
            } else if *bytes == 0 {
                self.isa = self.isa.without(extension);
                notes.push(Note::NoBlockSize { extension });
            }
        }
    }
}

/// The ISA of a hart. Where both forms are given, the new one counts, as it does for Linux.
fn isa(node: &FdtNode<'_>) -> Option<Isa> {
    let extensions = value(node, "riscv,isa-extensions");
    if let (Some(base), Some(_)) = (text(node, "riscv,isa-base"), extensions) {
        return Isa::from_list(base, || texts(node, "riscv,isa-extensions"));
    }
    Isa::from_string(text(node, "riscv,isa")?)
}

fn hart_id(cpus: &FdtNode<'_>, node: &FdtNode<'_>) -> Option<u64> {
    let reg = value(node, "reg")?;
    // A node for several threads has a number for each: the first is the hart's.
    let cells = integer(cpus, "#address-cells").unwrap_or(1).clamp(1, 2) as usize;
    number(reg.get(..4 * cells)?)
}

fn memory(root: &FdtNode<'_>, notes: &mut Notes) -> Result<RangeSet<MAX_RANGES>, MachineError> {
    // Nothing is put at address 0, which is no pointer.
    const REACH: Range = Range {
        start: FRAME,
        end: Stage::Host.address_end(),
    };
    let mut memory = RangeSet::new();
    let (mut out_of_reach, mut no_room, mut is_there) = (0, 0, false);
    let (bus, nodes) = (Bus::root(*root), root.children());
    for node in nodes.filter(|node| text(node, "device_type") == Some("memory")) {
        if !is_available(&node) {
            continue;
        }
        let ranges = bus.registers(node);
        for range in ranges.ok_or(MachineError::Malformed("reg of memory"))? {
            is_there = true;
            let within = Range {
                start: range.start.max(REACH.start),
                end: range.end.min(REACH.end),
            };
            out_of_reach += range.end.saturating_sub(range.start.max(REACH.end));
            if !memory.insert(within) {
                no_room += within.len();
            }
        }
    }
    if out_of_reach > 0 {
        notes.push(Note::MemoryOutOfReach {
            bytes: out_of_reach,
        });
    }
    if no_room > 0 {
        notes.push(Note::MemoryRanges { bytes: no_room });
    }
    match (is_there, memory.as_slice().is_empty()) {
        (false, _) => Err(MachineError::Missing("memory")),
        (true, true) => Err(MachineError::Missing("memory within reach")),
        (true, false) => Ok(memory),
    }
}

/// The reservations that lie in RAM: those of the header, and the nodes that have a place. A node without `reg` asks an
/// operating system to choose one, and nothing is there yet.
///
/// All that has a place is left alone and is not mapped, whether the tree says `no-map` or `reusable`: what is reusable belongs
/// to a driver, which the hypervisor does not have.
fn reserved(
    tree: &Fdt<'_>,
    memory: &RangeSet<MAX_RANGES>,
    notes: &mut Notes,
) -> Result<RangeSet<MAX_RANGES>, MachineError> {
    let mut reserved = RangeSet::new();
    let mut given_up = 0;
    let mut reserve = |range| {
        if memory.touches(range) {
            given_up += reserved.cover(range);
        }
    };
    for entry in tree.memory_reservations() {
        reserve(Range {
            start: entry.address(),
            end: entry.address().saturating_add(entry.size()),
        });
    }
    if let Some(parent) = tree.root().child("reserved-memory") {
        let root = Bus::root(tree.root());
        // `ranges` is required and empty. Where it was left out, the same is meant.
        let bus = match value(&parent, "ranges") {
            Some(_) => root.below(parent),
            None => root,
        };
        for node in parent.children().filter(is_available) {
            let ranges = bus.registers(node);
            ranges
                .ok_or(MachineError::Malformed("reg of reserved memory"))?
                .for_each(&mut reserve);
        }
    }
    if given_up > 0 {
        notes.push(Note::ReservedRanges { bytes: given_up });
    }
    Ok(reserved)
}

fn initrd(root: &FdtNode<'_>) -> Option<Range> {
    let chosen = root.child("chosen")?;
    let range = Range {
        start: integer(&chosen, "linux,initrd-start")?,
        end: integer(&chosen, "linux,initrd-end")?,
    };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod boards;
#[cfg(test)]
mod tests;
