//! What the firmware's device tree says of the machine.
//!
//! The one idea: everything is read once, early, into plain values; nothing later goes back to the tree.

use core::fmt;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

use crate::memory::frames::Range;

/// Harts used at most, one a vCPU.
pub const MAX_HARTS: usize = 8;

/// Entries kept of each list of ranges.
const MAX_RANGES: usize = 16;

/// A short list of ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: [Range; MAX_RANGES],
    len: usize,
}

impl Ranges {
    /// Adds a range; answers whether there was room for it.
    pub fn push(&mut self, range: Range) -> bool {
        let Some(slot) = self.ranges.get_mut(self.len) else {
            return false;
        };
        *slot = range;
        self.len += 1;
        true
    }

    /// The ranges, in the order they were added.
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges[..self.len]
    }
}

/// The harts that can run, by the machine's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harts {
    ids: [u64; MAX_HARTS],
    len: usize,
}

impl Harts {
    /// The numbers, in the order of the device tree.
    pub fn as_slice(&self) -> &[u64] {
        &self.ids[..self.len]
    }
}

/// The machine, as far as the hypervisor cares.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// RAM.
    pub memory: Ranges,
    /// The part of it that belongs to somebody else (firmware).
    pub reserved: Ranges,
    /// The harts.
    pub harts: Harts,
    /// `riscv,isa` of the first hart.
    pub isa: &'a str,
    /// `mmu-type` of the first hart.
    pub mmu_type: &'a str,
    /// Ticks of `time` in a second.
    pub timebase_frequency: u64,
    /// Block sizes of Zicbom and Zicboz, in bytes; 0 if the tree does not say.
    pub cache_block_bytes: CacheBlocks,
    /// The bundle that the loader put into memory.
    pub initrd: Option<Range>,
}

/// Cache-block sizes in bytes, 0 where the tree has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBlocks {
    /// `riscv,cbom-block-size`.
    pub management: u32,
    /// `riscv,cboz-block-size`.
    pub zero: u32,
}

/// Why the device tree is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// It does not parse.
    NotADeviceTree,
    /// Something that every machine has is not there.
    Missing(&'static str),
    /// More ranges than there is room for.
    TooManyRanges(&'static str),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADeviceTree => f.write_str("a1 does not point to a device tree"),
            Self::Missing(what) => write!(f, "the device tree has no {what}"),
            Self::TooManyRanges(what) => write!(f, "the device tree has too many ranges of {what}"),
        }
    }
}

impl<'a> Machine<'a> {
    /// Reads the device tree in `blob`.
    pub fn from_device_tree(blob: &'a [u8]) -> Result<Self, MachineError> {
        let tree = Fdt::new(blob).map_err(|_| MachineError::NotADeviceTree)?;
        let root = tree.root();
        let cpus = root.child("cpus").ok_or(MachineError::Missing("cpus"))?;
        let first = cpus
            .children()
            .find(is_hart)
            .ok_or(MachineError::Missing("cpu"))?;
        let timebase = integer(&cpus, "timebase-frequency")
            .or_else(|| integer(&first, "timebase-frequency"))
            .ok_or(MachineError::Missing("timebase-frequency"))?;
        Ok(Self {
            memory: memory(root)?,
            reserved: reserved(&tree)?,
            harts: harts(&cpus),
            isa: text(&first, "riscv,isa").ok_or(MachineError::Missing("riscv,isa"))?,
            mmu_type: text(&first, "mmu-type").unwrap_or("riscv,sv39"),
            timebase_frequency: timebase,
            cache_block_bytes: CacheBlocks {
                management: integer(&first, "riscv,cbom-block-size").unwrap_or(0) as u32,
                zero: integer(&first, "riscv,cboz-block-size").unwrap_or(0) as u32,
            },
            initrd: initrd(&root),
        })
    }
}

fn is_hart(node: &FdtNode<'_>) -> bool {
    let usable = text(node, "status").is_none_or(|status| status == "okay" || status == "ok");
    text(node, "device_type") == Some("cpu") && usable
}

fn text<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a str> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as().ok()
}

/// A property of one or two cells.
fn integer(node: &FdtNode<'_>, name: &str) -> Option<u64> {
    let property = node.properties().find(|property| property.name() == name)?;
    match *property.value() {
        [a, b, c, d] => Some(u64::from(u32::from_be_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Some(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

fn push_reg(
    ranges: &mut Ranges,
    node: FdtNode<'_>,
    what: &'static str,
) -> Result<(), MachineError> {
    let Ok(Some(regs)) = node.reg() else {
        return Ok(());
    };
    for reg in regs {
        let (Ok(start), Ok(len)) = (reg.address::<u64>(), reg.size::<u64>()) else {
            continue;
        };
        if let Some(range) = Range::from_len(start, len).filter(|range| !range.is_empty())
            && !ranges.push(range)
        {
            return Err(MachineError::TooManyRanges(what));
        }
    }
    Ok(())
}

fn memory(root: FdtNode<'_>) -> Result<Ranges, MachineError> {
    let mut ranges = Ranges::default();
    for node in root.children() {
        if text(&node, "device_type") == Some("memory") {
            push_reg(&mut ranges, node, "memory")?;
        }
    }
    if ranges.as_slice().is_empty() {
        return Err(MachineError::Missing("memory"));
    }
    Ok(ranges)
}

fn reserved(tree: &Fdt<'_>) -> Result<Ranges, MachineError> {
    let mut ranges = Ranges::default();
    for entry in tree.memory_reservations() {
        if let Some(range) = Range::from_len(entry.address(), entry.size())
            && !ranges.push(range)
        {
            return Err(MachineError::TooManyRanges("reserved memory"));
        }
    }
    if let Some(parent) = tree.root().child("reserved-memory") {
        for node in parent.children() {
            push_reg(&mut ranges, node, "reserved memory")?;
        }
    }
    Ok(ranges)
}

fn harts(cpus: &FdtNode<'_>) -> Harts {
    let mut harts = Harts::default();
    for node in cpus.children().filter(is_hart) {
        if let (Some(id), Some(slot)) = (integer(&node, "reg"), harts.ids.get_mut(harts.len)) {
            *slot = id;
            harts.len += 1;
        }
    }
    harts
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
mod tests {
    use super::*;
    use std::vec::Vec;
    use vm_fdt::{FdtReserveEntry, FdtWriter};

    /// A machine like QEMU's, with the parts that `change` adds to each node's properties.
    fn tree(build: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
        let reserved = [FdtReserveEntry::new(0x8000_0000, 0x1000).unwrap()];
        let mut fdt = FdtWriter::new_with_mem_reserv(&reserved).unwrap();
        let root = fdt.begin_node("").unwrap();
        fdt.property_u32("#address-cells", 2).unwrap();
        fdt.property_u32("#size-cells", 2).unwrap();
        build(&mut fdt);
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    fn node(fdt: &mut FdtWriter, name: &str, properties: impl FnOnce(&mut FdtWriter)) {
        let node = fdt.begin_node(name).unwrap();
        properties(fdt);
        fdt.end_node(node).unwrap();
    }

    fn cpu(fdt: &mut FdtWriter, id: u32, status: &str) {
        node(fdt, &std::format!("cpu@{id:x}"), |fdt| {
            fdt.property_string("device_type", "cpu").unwrap();
            fdt.property_u32("reg", id).unwrap();
            fdt.property_string("status", status).unwrap();
            fdt.property_string("riscv,isa", "rv64imafdch_zicboz")
                .unwrap();
            fdt.property_string("mmu-type", "riscv,sv48").unwrap();
            fdt.property_u32("riscv,cboz-block-size", 64).unwrap();
        });
    }

    fn cpus(fdt: &mut FdtWriter) {
        node(fdt, "cpus", |fdt| {
            fdt.property_u32("#address-cells", 1).unwrap();
            fdt.property_u32("#size-cells", 0).unwrap();
            fdt.property_u32("timebase-frequency", 10_000_000).unwrap();
            cpu(fdt, 0, "disabled");
            cpu(fdt, 3, "okay");
            cpu(fdt, 1, "okay");
            node(fdt, "cpu-map", |_| {});
        });
    }

    fn memory(fdt: &mut FdtWriter, start: u64, len: u64) {
        node(fdt, &std::format!("memory@{start:x}"), |fdt| {
            fdt.property_string("device_type", "memory").unwrap();
            fdt.property_array_u64("reg", &[start, len]).unwrap();
        });
    }

    #[test]
    fn a_machine_is_read_from_its_device_tree() {
        let blob = tree(|fdt| {
            memory(fdt, 0x8000_0000, 0x1000_0000);
            memory(fdt, 0x1_0000_0000, 0x4000);
            cpus(fdt);
            node(fdt, "reserved-memory", |fdt| {
                fdt.property_u32("#address-cells", 2).unwrap();
                fdt.property_u32("#size-cells", 2).unwrap();
                fdt.property_null("ranges").unwrap();
                node(fdt, "mmode_resv0@80000000", |fdt| {
                    fdt.property_array_u64("reg", &[0x8000_0000, 0x8_0000])
                        .unwrap();
                });
            });
            node(fdt, "chosen", |fdt| {
                fdt.property_u32("linux,initrd-start", 0x8400_0000).unwrap();
                fdt.property_u64("linux,initrd-end", 0x8400_1234).unwrap();
            });
        });
        let machine = Machine::from_device_tree(&blob).unwrap();
        let range = |start, end| Range { start, end };
        assert_eq!(
            machine.memory.as_slice(),
            [
                range(0x8000_0000, 0x9000_0000),
                range(0x1_0000_0000, 0x1_0000_4000)
            ]
        );
        assert_eq!(
            machine.reserved.as_slice(),
            [
                range(0x8000_0000, 0x8000_1000),
                range(0x8000_0000, 0x8008_0000)
            ]
        );
        assert_eq!(machine.harts.as_slice(), [3, 1]);
        assert_eq!(
            (machine.isa, machine.mmu_type),
            ("rv64imafdch_zicboz", "riscv,sv48")
        );
        assert_eq!(machine.timebase_frequency, 10_000_000);
        assert_eq!(
            machine.cache_block_bytes,
            CacheBlocks {
                management: 0,
                zero: 64
            }
        );
        assert_eq!(machine.initrd, Some(range(0x8400_0000, 0x8400_1234)));
    }

    #[test]
    fn a_machine_without_a_bundle_has_none() {
        let blob = tree(|fdt| {
            memory(fdt, 0x8000_0000, 0x1000_0000);
            cpus(fdt);
        });
        assert_eq!(Machine::from_device_tree(&blob).unwrap().initrd, None);
    }

    #[test]
    fn what_every_machine_has_is_missed() {
        let no_memory = tree(cpus);
        let no_harts = tree(|fdt| {
            memory(fdt, 0x8000_0000, 0x1000);
            node(fdt, "cpus", |_| {});
        });
        let many = tree(|fdt| {
            for index in 0..20 {
                memory(fdt, index << 32, 0x1000);
            }
            cpus(fdt);
        });
        for (blob, error) in [
            (no_memory, MachineError::Missing("memory")),
            (no_harts, MachineError::Missing("cpu")),
            (many, MachineError::TooManyRanges("memory")),
            (Vec::from([0; 64]), MachineError::NotADeviceTree),
        ] {
            assert_eq!(Machine::from_device_tree(&blob).unwrap_err(), error);
        }
    }
}
