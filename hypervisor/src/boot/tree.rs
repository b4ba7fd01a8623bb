//! Nodes of the firmware's device tree, and where their registers are.
//!
//! The one idea: an address in `reg` belongs to the bus that the node is on. This file alone reads
//! it, and translates it by `ranges` of every bus on the way to the root, whose addresses are those
//! that harts use (R87).

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

use crate::memory::frames::Range;

/// Buses below each other at most. No tree has as many, and each costs some stack.
const DEPTH: usize = 16;

/// The bytes of a property.
pub fn value<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as().ok()
}

/// A property that is one string.
pub fn text<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a str> {
    let text = value(node, name)?.strip_suffix(&[0])?;
    core::str::from_utf8(text).ok()
}

/// The strings of a property, each of which ends with a byte that is 0.
pub fn texts<'a>(node: &FdtNode<'a>, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let strings = value(node, name)
        .unwrap_or_default()
        .split(|&byte| byte == 0);
    strings
        .filter_map(|text| core::str::from_utf8(text).ok())
        .filter(|text| !text.is_empty())
}

/// A property of one or two cells.
pub fn integer(node: &FdtNode<'_>, name: &str) -> Option<u64> {
    number(value(node, name)?)
}

/// A number of one or two cells.
pub fn number(cells: &[u8]) -> Option<u64> {
    match *cells {
        [a, b, c, d] => Some(u64::from(u32::from_be_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Some(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// Whether `status` lets a node be used.
pub fn is_available(node: &FdtNode<'_>) -> bool {
    let is_there = node
        .properties()
        .any(|property| property.name() == "status");
    !is_there || matches!(text(node, "status"), Some("okay" | "ok"))
}

/// The registers of the first device that is `compatible`, in use, and within reach of the harts:
/// the first range of `reg`, as harts address it.
pub fn device(root: FdtNode<'_>, compatible: &str) -> Option<Range> {
    find(&Bus::root(root), DEPTH, compatible)
}

fn find(bus: &Bus<'_, '_>, depth: usize, compatible: &str) -> Option<Range> {
    let depth = depth.checked_sub(1)?;
    let mut nodes = bus.node.children().filter(is_available);
    nodes.find_map(|node| {
        let is_it = texts(&node, "compatible").any(|name| name == compatible);
        let registers = is_it.then(|| bus.registers(node)?.next()).flatten();
        registers.or_else(|| find(&bus.below(node), depth, compatible))
    })
}

/// A bus: a node whose children have addresses.
#[derive(Clone, Copy, Debug)]
pub struct Bus<'t, 'b> {
    node: FdtNode<'t>,
    /// The bus that it is on; `None` for the root.
    above: Option<&'b Bus<'t, 'b>>,
}

impl<'t> Bus<'t, '_> {
    /// The root's, whose addresses are those of the harts.
    pub const fn root(node: FdtNode<'t>) -> Self {
        Self { node, above: None }
    }

    /// The bus that `node` is, which is on this one.
    pub const fn below<'b>(&'b self, node: FdtNode<'t>) -> Bus<'t, 'b> {
        Bus {
            node,
            above: Some(self),
        }
    }

    /// The ranges of `reg` of `node`, which is on this bus, as harts address them. `None` if `reg`
    /// is not of the form that this bus asks for, or if harts do not reach a part of it.
    pub fn registers(&self, node: FdtNode<'t>) -> Option<impl Iterator<Item = Range>> {
        let ranges = || -> Option<_> {
            let registers = node.reg().ok()?.into_iter().flatten();
            Some(registers.map(|register| {
                let (start, len) = (register.address::<u64>(), register.size());
                // What runs past the top of the address space ends there.
                let end = |start: u64, len| start.saturating_add(len);
                match (start, len) {
                    (Ok(start), Ok(len)) if len > 0 => self.for_harts(Range {
                        start,
                        end: end(start, len),
                    }),
                    (Ok(_), Ok(_)) => Some(Range::default()),
                    _ => None,
                }
            }))
        };
        let is_readable = ranges()?.all(|range| range.is_some());
        let ranges = ranges().filter(|_| is_readable)?;
        Some(ranges.flatten().filter(|range| !range.is_empty()))
    }

    /// A range of this bus as harts address it: `None` if they do not reach it, or not in one piece.
    fn for_harts(&self, range: Range) -> Option<Range> {
        let Some(above) = self.above else {
            return Some(range);
        };
        // Without the property the bus has addresses of its own, such as the numbers of harts.
        let mut windows = self.node.ranges().ok()??.peekable();
        if windows.peek().is_none() {
            // An empty one says that the addresses are the same.
            return above.for_harts(range);
        }
        let through = windows.find_map(|window| {
            let child = window.child_bus_address::<u64>().ok()?;
            let parent = window.parent_bus_address::<u64>().ok()?;
            let offset = range.start.checked_sub(child)?;
            let end = offset.checked_add(range.len())?;
            let start = parent.checked_add(offset)?;
            let is_inside = end <= window.length::<u64>().ok()?;
            is_inside.then(|| Range::from_len(start, range.len()))?
        })?;
        above.for_harts(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::blob;
    use std::vec::Vec;
    use vm_fdt::FdtWriter;

    /// A bus: cells of its children's addresses and sizes, and `ranges` in cells.
    type Level<'a> = (u32, u32, Option<&'a [u32]>);

    /// A tree with a device of two ranges below `buses`, the outermost one first. The root has two
    /// cells for each.
    fn tree(buses: &[Level<'_>], reg: &[u32], status: &str) -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        let cells = |fdt: &mut FdtWriter, address, size| {
            fdt.property_u32("#address-cells", address).unwrap();
            fdt.property_u32("#size-cells", size).unwrap();
        };
        let mut open = Vec::from([fdt.begin_node("").unwrap()]);
        cells(&mut fdt, 2, 2);
        for &(address, size, ranges) in buses {
            open.push(fdt.begin_node("bus").unwrap());
            cells(&mut fdt, address, size);
            fdt.property_string("status", status).unwrap();
            if let Some(ranges) = ranges {
                fdt.property_array_u32("ranges", ranges).unwrap();
            }
        }
        open.push(fdt.begin_node("device").unwrap());
        fdt.property_string("compatible", "it").unwrap();
        fdt.property_array_u32("reg", reg).unwrap();
        while let Some(node) = open.pop() {
            fdt.end_node(node).unwrap();
        }
        fdt.finish().unwrap()
    }

    fn found(buses: &[Level<'_>], reg: &[u32]) -> Option<(u64, u64)> {
        let tree = tree(buses, reg, "okay");
        let range = device(blob::parse(&tree).unwrap().root(), "it")?;
        Some((range.start, range.end))
    }

    #[test]
    fn r87_an_address_is_translated_by_every_bus_above_it() {
        let low = Some((0x10_0000, 0x10_1000));
        for (buses, reg, expected) in [
            // On the root, and on buses with the same addresses.
            (&[][..], &[0, 0x10_0000, 0, 0x1000][..], low),
            (&[(1, 1, Some(&[][..]))], &[0x10_0000, 0x1000], low),
            // Moved up, by windows of which the second one has it.
            (
                &[(
                    1,
                    1,
                    Some(&[0, 5, 0, 0x10_0000, 0x10_0000, 7, 0x20_0000, 0x8_0000]),
                )],
                &[0x10_0800, 0x1000],
                Some((0x7_0020_0800, 0x7_0020_1800)),
            ),
            // Moved down by the inner bus and up by the outer one.
            (
                &[
                    (2, 2, Some(&[0, 0, 1, 0, 1, 0])),
                    (1, 1, Some(&[0x4000_0000, 0, 0, 0x1000_0000])),
                ],
                &[0x4010_0000, 0x1000],
                Some((0x1_0010_0000, 0x1_0010_1000)),
            ),
        ] {
            assert_eq!(found(buses, reg), expected, "{buses:x?} {reg:x?}");
        }
    }

    #[test]
    fn r87_what_harts_do_not_reach_has_no_address() {
        let window = &[0x1000, 0, 0x1000, 0x1000];
        for (buses, reg) in [
            // No `ranges`; before, across the end of, and behind the only window.
            (&[(1, 1, None)][..], &[0x10_0000, 0x1000][..]),
            (&[(1, 1, Some(&window[..]))], &[0xfff, 0x100]),
            (&[(1, 1, Some(&window[..]))], &[0x1fff, 2]),
            (&[(1, 1, Some(&window[..]))], &[0x2000, 1]),
            // The outer bus has nothing; cells that are no number of 64 bits; a cut `ranges`.
            (&[(1, 1, None), (1, 1, Some(&[]))], &[0x1000, 1]),
            (&[(3, 1, Some(&[]))], &[1, 0, 0x1000, 1]),
            (&[(1, 1, Some(&window[..3]))], &[0x1000, 1]),
            // A window to the top of the address space and past it.
            (
                &[(1, 1, Some(&[0, u32::MAX, u32::MAX, 0x1000]))],
                &[0x800, 1],
            ),
            // A `reg` of another form.
            (&[], &[0x10_0000, 0x1000, 0]),
        ] {
            assert_eq!(found(buses, reg), None, "{buses:x?} {reg:x?}");
        }
        let off = tree(&[(1, 1, Some(&[]))], &[0x1000, 1], "disabled");
        assert_eq!(device(blob::parse(&off).unwrap().root(), "it"), None);
    }

    #[test]
    fn r87_a_tree_of_any_depth_is_searched_so_far_only() {
        let bus: Level<'_> = (1, 1, Some(&[]));
        let at = |depth: usize| found(&std::vec![bus; depth], &[0x1000, 1]);
        assert_eq!(at(DEPTH - 1), Some((0x1000, 0x1001)));
        assert_eq!(at(DEPTH), None);
    }
}
