//! The harts of the machine: which of them can run a guest, and what all of these have in common.

use core::fmt;

use dtoolkit::Node;
use dtoolkit::fdt::FdtNode;

use super::notes::{Note, Notes};
use super::{MAX_HARTS, MachineError};
use crate::boot::isa::Isa;
use crate::boot::tree::{integer, is_available, number, text, texts, value};

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
pub(super) struct UsedHarts {
    pub(super) harts: Harts,
    pub(super) isa: Isa,
    pub(super) mmu: Mmu,
    pub(super) blocks: CacheBlocks,
}

impl UsedHarts {
    /// Reads the nodes below `cpus`; `boot_hart` is the hart that runs this, if it matters.
    pub(super) fn find(
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
