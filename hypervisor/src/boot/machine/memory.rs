//! The machine's RAM: what there is, what of it belongs to somebody else, and what the loader put
//! there.

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use super::notes::{Note, Notes};
use super::{MAX_RANGES, MachineError};
use crate::boot::tree::{Bus, integer, is_available, text, value};
use crate::memory::frames::{FRAME, Range};
use crate::memory::page_table::Stage;
use crate::memory::ranges::RangeSet;

/// The RAM that the hypervisor can map.
pub(super) fn memory(
    root: &FdtNode<'_>,
    notes: &mut Notes,
) -> Result<RangeSet<MAX_RANGES>, MachineError> {
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

/// The reservations that lie in RAM: those of the header, and the nodes that have a place. A node
/// without `reg` asks an operating system to choose one, and nothing is there yet.
///
/// All that has a place is left alone and is not mapped, whether the tree says `no-map` or
/// `reusable`: what is reusable belongs to a driver, which the hypervisor does not have.
pub(super) fn reserved(
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

/// The bundle, which the loader says is the initial RAM disk.
pub(super) fn initrd(root: &FdtNode<'_>) -> Option<Range> {
    let chosen = root.child("chosen")?;
    let range = Range {
        start: integer(&chosen, "linux,initrd-start")?,
        end: integer(&chosen, "linux,initrd-end")?,
    };
    (!range.is_empty()).then_some(range)
}
