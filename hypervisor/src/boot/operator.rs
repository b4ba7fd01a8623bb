//! What the operator's loader tells the hypervisor itself: its own command line, and a way to end
//! the machine with an exit code.
//!
//! A guest can print whatever the hypervisor prints. So a program that judges a run by the console
//! gives the hypervisor a *mark*, some random text, on the command line (`/chosen/bootargs`,
//! `mark=TEXT`), and the hypervisor writes it before each line of its own (I18). The mark stays in
//! the hypervisor's memory; no guest ever sees it.

use dtoolkit::Node;

use super::blob;
use super::tree::{device, text};
use crate::memory::page_table::Stage;

/// Bytes of the longest mark.
pub const LONGEST_MARK: usize = 64;

/// What is said of the console and the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operator<'a> {
    /// The mark of the hypervisor's lines: letters and digits, [`LONGEST_MARK`] at most.
    pub mark: Option<&'a str>,
    /// Where the machine has a test finisher (`sifive,test0`) that the hypervisor's page table can
    /// reach: a store there ends the machine with an exit code.
    pub finisher: Option<u64>,
}

impl<'a> Operator<'a> {
    /// Reads the device tree in `blob`. What is not there, or makes no sense, is `None`.
    pub fn from_device_tree(blob: &'a [u8]) -> Self {
        let Some(tree) = blob::parse(blob) else {
            return Self::default();
        };
        let root = tree.root();
        let chosen = root.child("chosen");
        Self {
            mark: chosen.and_then(|chosen| mark(text(&chosen, "bootargs")?)),
            finisher: device(root, "sifive,test0")
                .filter(|registers| registers.end <= Stage::Host.address_end())
                .map(|registers| registers.start),
        }
    }
}

/// The last `mark=` of a command line.
fn mark(command_line: &str) -> Option<&str> {
    command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("mark="))
        .rfind(|mark| {
            let plain = mark.bytes().all(|byte| byte.is_ascii_alphanumeric());
            plain && (1..=LONGEST_MARK).contains(&mark.len())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use vm_fdt::FdtWriter;

    /// A machine whose finisher has this status, and the hypervisor's command line.
    fn tree(status: &str, command_line: &str, ranges: &[u64]) -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        let two_cells = |fdt: &mut FdtWriter| {
            fdt.property_u32("#address-cells", 2).unwrap();
            fdt.property_u32("#size-cells", 2).unwrap();
        };
        two_cells(&mut fdt);
        let chosen = fdt.begin_node("chosen").unwrap();
        fdt.property_string("bootargs", command_line).unwrap();
        fdt.end_node(chosen).unwrap();
        let soc = fdt.begin_node("soc").unwrap();
        two_cells(&mut fdt);
        fdt.property_array_u64("ranges", ranges).unwrap();
        for (name, compatible, start) in [
            ("serial", "ns16550a", 0x1000_0000),
            ("test", "sifive,test1\0sifive,test0\0syscon", 0x10_0000),
        ] {
            let node = fdt.begin_node(&std::format!("{name}@{start:x}")).unwrap();
            let strings = compatible.split('\0').map(Into::into).collect();
            fdt.property_string_list("compatible", strings).unwrap();
            fdt.property_array_u64("reg", &[start, 0x1000]).unwrap();
            fdt.property_string("status", status).unwrap();
            fdt.end_node(node).unwrap();
        }
        fdt.end_node(soc).unwrap();
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    #[test]
    fn mark_and_finisher_are_read_from_the_device_tree() {
        let blob = tree("okay", "quiet mark=0123abcd", &[]);
        let expected = Operator {
            mark: Some("0123abcd"),
            finisher: Some(0x10_0000),
        };
        assert_eq!(Operator::from_device_tree(&blob), expected);
    }

    #[test]
    fn r87_the_finisher_of_a_bus_with_other_addresses_is_found() {
        let moved = tree("okay", "", &[0, 0x4_0000_0000, 0x2000_0000]);
        let finisher = Operator::from_device_tree(&moved).finisher;
        assert_eq!(finisher, Some(0x4_0010_0000));
        // Outside the window, and above what the page table reaches.
        for window in [[0, 0x4_0000_0000, 0x1000], [0, 1 << 38, 0x2000_0000]] {
            let out_of_reach = tree("okay", "", &window);
            let finisher = Operator::from_device_tree(&out_of_reach).finisher;
            assert_eq!(finisher, None, "{window:x?}");
        }
    }

    #[test]
    fn what_is_not_there_or_off_is_none() {
        let blob = tree("disabled", "", &[]);
        assert_eq!(Operator::from_device_tree(&blob), Operator::default());
        assert_eq!(Operator::from_device_tree(&[0; 64]), Operator::default());
    }

    #[test]
    fn a_mark_is_letters_and_digits_of_bounded_length() {
        let longest = "x".repeat(LONGEST_MARK);
        for (command_line, expected) in [
            ("mark=a1", Some("a1")),
            ("mark=a1 mark=b2", Some("b2")),
            ("mark=a1 mark=", Some("a1")),
            ("mark=a\u{1b}", None),
            ("bookmark=a1", None),
            ("", None),
        ] {
            assert_eq!(mark(command_line), expected, "{command_line}");
        }
        assert_eq!(mark(&std::format!("mark={longest}")), Some(&longest[..]));
        assert_eq!(mark(&std::format!("mark={longest}x")), None);
    }
}
