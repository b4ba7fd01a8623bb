//! The 16550 that a machine without firmware prints by: where it is, and how its registers lie.
//!
//! The one idea: register n is `n << shift` bytes from the base, and is accessed by so many bytes as the device tree says. Both
//! matter: a UART whose registers are words may answer a byte at offset 5 with the wrong register, for ever.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::{NodeStandard, Status};
use dtoolkit::{Node, Property};

/// The register that takes a byte to print.
const TRANSMIT: usize = 0;
/// The line status.
const LINE_STATUS: usize = 5;
/// Line status: the transmitter is empty, and so is its queue.
const TRANSMITTER_IDLE: u32 = 0b0110_0000;

/// How many bytes an access of a register has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One.
    Byte,
    /// Four.
    Word,
}

/// A 16550.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    base: usize,
    shift: u32,
    /// How its registers are accessed.
    pub width: Width,
}

impl Uart {
    /// Where one is looked for on a machine without a device tree, and in which form: the first whose transmitter is idle.
    pub const GUESSES: [Self; 2] = [
        Self::at(0x1000_0000, 0, Width::Byte),
        Self::at(0x1000_0000, 2, Width::Word),
    ];

    const fn at(base: usize, shift: u32, width: Width) -> Self {
        Self { base, shift, width }
    }

    /// The first 16550 of the device tree that is in use and of a form that can be accessed.
    pub fn of(tree: Fdt<'_>) -> Option<Self> {
        Self::below(tree.root(), &Some)
    }

    /// The one below the bus `node`, whose addresses harts have at `for_harts`.
    fn below(node: FdtNode<'_>, for_harts: &dyn Fn(u64) -> Option<u64>) -> Option<Self> {
        node.children().find_map(|child| {
            let through = |address| for_harts(through(child, address)?);
            Self::described_by(child, for_harts).or_else(|| Self::below(child, &through))
        })
    }

    /// The 16550 that the node is.
    fn described_by(node: FdtNode<'_>, for_harts: &dyn Fn(u64) -> Option<u64>) -> Option<Self> {
        let is_one = ["ns16550a", "ns16550"]
            .into_iter()
            .any(|model| node.is_compatible(model));
        if !is_one || node.status() != Ok(Status::Okay) {
            return None;
        }
        let number = |name, default| match node.property(name) {
            Some(property) => property.value_as::<u32>().ok(),
            None => Some(default),
        };
        let base = for_harts(node.reg().ok()??.next()?.address().ok()?)?;
        let shift = number("reg-shift", 0)?;
        let width = match number("reg-io-width", 1)? {
            1 => Width::Byte,
            4 => Width::Word,
            _ => return None,
        };
        let is_aligned = width == Width::Byte || shift >= 2 && base.is_multiple_of(4);
        (is_aligned && shift <= 12).then(|| Self::at(base as usize, shift, width))
    }

    /// Where a byte to print is stored.
    pub const fn transmit(self) -> usize {
        self.register(TRANSMIT)
    }

    /// Where the line status is loaded from.
    pub const fn line_status(self) -> usize {
        self.register(LINE_STATUS)
    }

    const fn register(self, number: usize) -> usize {
        self.base + (number << self.shift)
    }
}

/// Where the parent of the bus has this address of it, by `ranges` (R87).
fn through(bus: FdtNode<'_>, address: u64) -> Option<u64> {
    let mut windows = bus.ranges().ok()??.peekable();
    if windows.peek().is_none() {
        return Some(address);
    }
    windows.find_map(|window| {
        let offset = address.checked_sub(window.child_bus_address().ok()?)?;
        let parent: u64 = window.parent_bus_address().ok()?;
        let is_inside = offset < window.length().ok()?;
        parent.checked_add(offset).filter(|_| is_inside)
    })
}

/// Whether a line status says that a byte can be printed. Nobody's answer, all ones, does not.
pub const fn is_idle(line_status: u32) -> bool {
    line_status & TRANSMITTER_IDLE == TRANSMITTER_IDLE && line_status & 0xff != 0xff
}

#[cfg(test)]
mod tests {
    use vm_fdt::FdtWriter;

    use super::*;

    /// The properties of a node besides `reg`, each a number.
    type Numbers<'a> = &'a [(&'a str, u32)];

    /// A tree with a UART of this model at this address, below `/soc` as CVA6 has it, behind a device that is none.
    fn tree(model: &str, status: Option<&str>, address: u64, numbers: Numbers<'_>) -> Vec<u8> {
        tree_with_ranges(Some(&[]), model, status, address, numbers)
    }

    /// The same with these `ranges` of `/soc`, or without any.
    fn tree_with_ranges(
        ranges: Option<&[u64]>,
        model: &str,
        status: Option<&str>,
        address: u64,
        numbers: Numbers<'_>,
    ) -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        for cells in ["#address-cells", "#size-cells"] {
            fdt.property_u32(cells, 2).unwrap();
        }
        let soc = fdt.begin_node("soc").unwrap();
        for cells in ["#address-cells", "#size-cells"] {
            fdt.property_u32(cells, 2).unwrap();
        }
        if let Some(ranges) = ranges {
            fdt.property_array_u64("ranges", ranges).unwrap();
        }
        let clint = fdt.begin_node("clint@2000000").unwrap();
        fdt.property_string("compatible", "riscv,clint0").unwrap();
        fdt.property_array_u64("reg", &[0x200_0000, 0xc_0000])
            .unwrap();
        fdt.end_node(clint).unwrap();
        let uart = fdt.begin_node("serial@10000000").unwrap();
        fdt.property_string("compatible", model).unwrap();
        fdt.property_array_u64("reg", &[address, 0x1000]).unwrap();
        if let Some(status) = status {
            fdt.property_string("status", status).unwrap();
        }
        for (name, value) in numbers {
            fdt.property_u32(name, *value).unwrap();
        }
        fdt.end_node(uart).unwrap();
        fdt.end_node(soc).unwrap();
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    fn uart(model: &str, numbers: Numbers<'_>) -> Option<Uart> {
        let tree = tree(model, None, 0x1000_0000, numbers);
        Uart::of(Fdt::new(&tree).unwrap())
    }

    #[test]
    fn registers_that_are_words_lie_four_apart_and_are_accessed_as_words() {
        let cva6 = uart("ns16550a", &[("reg-shift", 2), ("reg-io-width", 4)]).unwrap();
        assert_eq!(cva6.line_status(), 0x1000_0014);
        assert_eq!(cva6.transmit(), 0x1000_0000);
        assert_eq!(cva6.width, Width::Word);
    }

    #[test]
    fn registers_are_bytes_side_by_side_where_the_tree_does_not_say() {
        for numbers in [&[][..], &[("reg-shift", 0), ("reg-io-width", 1)]] {
            for model in ["ns16550a", "ns16550"] {
                let uart = uart(model, numbers).unwrap();
                assert_eq!(uart.line_status(), 0x1000_0005);
                assert_eq!(uart.width, Width::Byte);
            }
        }
        let spread = uart("ns16550", &[("reg-shift", 2)]).unwrap();
        assert_eq!(
            (spread.line_status(), spread.width),
            (0x1000_0014, Width::Byte)
        );
    }

    #[test]
    fn a_uart_may_be_anywhere() {
        let tree = tree("ns16550a", Some("okay"), 0x6000_0000, &[]);
        let uart = Uart::of(Fdt::new(&tree).unwrap()).unwrap();
        assert_eq!(uart.line_status(), 0x6000_0005);
    }

    #[test]
    fn r87_a_uart_on_a_bus_with_other_addresses_is_found() {
        let window = [0x1000_0000, 0x7000_0000, 0x1000];
        for (ranges, address, expected) in [
            (Some(&window[..]), 0x1000_0800, Some(0x7000_0805)),
            (Some(&window[..]), 0x1000_1000, None),
            (Some(&window[..]), 0x0fff_f000, None),
            (None, 0x1000_0000, None),
        ] {
            let tree = tree_with_ranges(ranges, "ns16550a", None, address, &[]);
            let uart = Uart::of(Fdt::new(&tree).unwrap());
            assert_eq!(uart.map(Uart::line_status), expected, "{address:#x}");
        }
    }

    #[test]
    fn what_is_no_16550_or_is_off_or_has_a_form_of_its_own_is_left_alone() {
        assert_eq!(uart("sifive,uart0", &[]), None);
        assert_eq!(uart("ns16550a", &[("reg-io-width", 2)]), None);
        assert_eq!(uart("ns16550a", &[("reg-io-width", 4)]), None);
        assert_eq!(uart("ns16550a", &[("reg-shift", 64)]), None);
        let off = tree("ns16550a", Some("disabled"), 0x1000_0000, &[]);
        assert_eq!(Uart::of(Fdt::new(&off).unwrap()), None);
    }

    #[test]
    fn an_idle_transmitter_is_told_from_a_busy_one_and_from_nobody() {
        for (status, idle) in [(0x60, true), (0x61, true), (0x20, false), (0, false)] {
            assert_eq!(is_idle(status), idle, "{status:#x}");
        }
        assert!(!is_idle(0xff) && !is_idle(u32::MAX));
    }
}
