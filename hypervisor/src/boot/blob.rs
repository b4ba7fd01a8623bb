//! The bytes of a device tree, checked before anything walks through them.
//!
//! The one idea: the parser `dtoolkit` refuses a whole tree for one name of more than 31
//! characters. Linux does not, and real boards have such names. So a tree that is refused for a
//! name is checked here, for all that the parser relies on: each token is inside the structure
//! block, nodes begin and end in pairs, and every name is text that ends.

use dtoolkit::error::FdtErrorKind;
use dtoolkit::fdt::Fdt;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Offsets of fields in the header.
const OFF_DT_STRUCT: usize = 8;
const OFF_DT_STRINGS: usize = 12;
const SIZE_DT_STRINGS: usize = 32;
const SIZE_DT_STRUCT: usize = 36;

/// The tree in `blob`, if it is one.
pub fn parse(blob: &[u8]) -> Option<Fdt<'_>> {
    match Fdt::new(blob) {
        Ok(tree) => Some(tree),
        Err(error) => match error.kind {
            // The parser checks the header and the reservations before any name.
            FdtErrorKind::InvalidNodeName | FdtErrorKind::InvalidPropertyName => {
                is_well_formed(blob)?.then(|| Fdt::new_unchecked(blob))
            }
            _ => None,
        },
    }
}

/// Whether the structure block is one tree, and all names are text. `None` if something is cut off.
fn is_well_formed(blob: &[u8]) -> Option<bool> {
    let block = |offset, size| {
        let start = word(blob, offset)? as usize;
        blob.get(start..start.checked_add(word(blob, size)? as usize)?)
    };
    let structure = block(OFF_DT_STRUCT, SIZE_DT_STRUCT)?;
    let strings = block(OFF_DT_STRINGS, SIZE_DT_STRINGS)?;
    let (mut at, mut depth) = (0, 0_usize);
    // The properties of a node stand before its children.
    let mut takes_properties = false;
    loop {
        let token = word(structure, at)?;
        at += 4;
        match token {
            BEGIN_NODE => {
                depth += 1;
                takes_properties = true;
                let name = text(structure.get(at..)?)?;
                let is_root = at == 4;
                if name.is_empty() != is_root {
                    return Some(false);
                }
                at = (at + name.len() + 1).next_multiple_of(4);
            }
            END_NODE => {
                depth = depth.checked_sub(1)?;
                takes_properties = false;
                if depth == 0 {
                    return Some(word(structure, at)? == END);
                }
            }
            PROPERTY if takes_properties => {
                let len = word(structure, at)? as usize;
                let name = text(strings.get(word(structure, at + 4)? as usize..)?)?;
                at = at.checked_add(8)?.checked_add(len)?;
                if name.is_empty() || at > structure.len() {
                    return Some(false);
                }
                at = at.next_multiple_of(4);
            }
            NOP if depth > 0 => {}
            _ => return Some(false),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

/// The text that `bytes` begins with, up to a NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    core::ffi::CStr::from_bytes_until_nul(bytes)
        .ok()?
        .to_str()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Node;
    use std::vec::Vec;
    use vm_fdt::FdtWriter;

    const LONG: &str = "a-node-whose-name-has-more-than-31-characters@1234";

    fn blob() -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        let first = fdt.begin_node("first").unwrap();
        fdt.property_string("compatible", "one").unwrap();
        fdt.end_node(first).unwrap();
        // The writer has the limit of 31 characters, too.
        let name = LONG.replace("than-31", "31");
        let short = fdt.begin_node(&name[..31]).unwrap();
        fdt.property_u32("reg", 7).unwrap();
        fdt.end_node(short).unwrap();
        let last = fdt.begin_node("last").unwrap();
        fdt.end_node(last).unwrap();
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    /// The same with a character in a node's name that the parser refuses.
    fn with_an_odd_name() -> Vec<u8> {
        let mut blob = blob();
        let at = blob.windows(5).position(|part| part == b"first").unwrap();
        blob[at] = b'!';
        assert!(Fdt::new(&blob).is_err());
        blob
    }

    #[test]
    fn r80_a_name_that_the_specification_forbids_does_not_cost_the_tree() {
        let blob = with_an_odd_name();
        let tree = parse(&blob).expect("a tree");
        let names: Vec<_> = tree
            .root()
            .children()
            .map(|node| node.name().len())
            .collect();
        assert_eq!(names, [5, 31, 4]);
    }

    #[test]
    fn a_tree_that_is_cut_or_broken_anywhere_is_refused_or_walked_to_its_end() {
        let whole = with_an_odd_name();
        for at in 0..whole.len() {
            for value in [0, 1, 0x80, 0xff, whole[at].wrapping_add(1)] {
                let mut blob = whole.clone();
                blob[at] = value;
                if let Some(tree) = parse(&blob) {
                    walk(&tree.root());
                }
            }
            assert!(parse(&whole[..at]).is_none());
        }
    }

    /// A tree whose root has a child with an odd name, and then what `last` says.
    fn tree_that_ends_with(last: &[u32]) -> Vec<u8> {
        const CHILD: [u32; 4] = [BEGIN_NODE, u32::from_be_bytes(*b"a!\0\0"), END_NODE, NOP];
        let structure: Vec<u32> = [BEGIN_NODE, 0].into_iter().chain(CHILD).collect();
        let structure = [&structure, last, &[END_NODE, END]].concat();
        let (reservations, strings) = (40, b"p\0\0\0");
        let start = reservations + 16;
        let end = start + 4 * structure.len() as u32;
        let size = end - start;
        let header = [
            0xd00d_feed,
            end + 4,
            start,
            end,
            reservations,
            17,
            16,
            0,
            4,
            size,
        ];
        let words = header.into_iter().chain([0; 4]).chain(structure);
        let blob = words.flat_map(u32::to_be_bytes);
        blob.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn r80_a_property_behind_a_child_is_no_tree() {
        assert!(parse(&tree_that_ends_with(&[])).is_some());
        assert!(parse(&tree_that_ends_with(&[PROPERTY, 0, 0])).is_none());
    }

    fn walk(node: &dtoolkit::fdt::FdtNode<'_>) {
        use dtoolkit::Property;
        for property in node.properties() {
            assert!(property.name().len() + property.value().len() < 4096);
        }
        for child in node.children() {
            walk(&child);
        }
    }
}
