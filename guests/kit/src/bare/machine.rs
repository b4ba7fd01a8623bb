//! What the device tree says of the machine that the guest is on.

use core::ops::Range;

use super::sbi;
use crate::println;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

/// The model that the hypervisor of this repository calls its machine.
const HYPERVISOR_MODEL: &str = "guest-mem,virt";

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Whether it is the hypervisor's, or a machine with nothing but firmware.
    pub under_hypervisor: bool,
    /// RAM.
    pub ram: Range<u64>,
    /// Harts.
    pub harts: usize,
    /// `riscv,isa` of the first hart.
    pub isa: &'static str,
    /// `riscv,isa-extensions` of the first hart, as it stands in the tree: names, each with a zero
    /// behind it.
    extensions: &'static [u8],
    /// Bytes of a cache block, as cache management has it and as `cbo.zero` does, where the tree
    /// says so.
    pub cache_blocks: [Option<u64>; 2],
    /// Ticks of `time` in a second.
    pub timebase_frequency: u64,
    /// The command line.
    pub arguments: &'static str,
    /// The first 8 bytes of `rng-seed`, as one number.
    pub seed: Option<u64>,
}

impl Machine {
    /// Reads the device tree at `blob`.
    ///
    /// # Safety
    ///
    /// `blob` is what the firmware passed in a1, and nobody writes there.
    pub unsafe fn from_device_tree(blob: *const u8) -> Option<Self> {
        // SAFETY: by the contract a flattened device tree begins here, whose second word is its
        // length.
        let tree = unsafe {
            let len = u32::from_be(blob.cast::<u32>().add(1).read());
            core::slice::from_raw_parts(blob, len as usize)
        };
        let tree = Fdt::new(tree).ok()?;
        let root = tree.root();
        let cpus = root.child("cpus")?;
        let is_hart = |node: &FdtNode<'_>| node.name().starts_with("cpu@");
        let memory = root
            .children()
            .find(|node| node.name().starts_with("memory@"))?;
        let start = cells(&memory, "reg", 0..2)?;
        let len = cells(&memory, "reg", 2..4)?;
        let first_hart = cpus.children().find(is_hart)?;
        Some(Self {
            under_hypervisor: text(&root, "model") == Some(HYPERVISOR_MODEL),
            ram: start..start.checked_add(len)?,
            harts: cpus.children().filter(is_hart).count(),
            isa: text(&first_hart, "riscv,isa")?,
            extensions: bytes(&first_hart, "riscv,isa-extensions").unwrap_or(&[]),
            cache_blocks: ["riscv,cbom-block-size", "riscv,cboz-block-size"]
                .map(|name| cells(&first_hart, name, 0..1)),
            timebase_frequency: cells(&cpus, "timebase-frequency", 0..1)?,
            arguments: root
                .child("chosen")
                .and_then(|chosen| text(&chosen, "bootargs"))
                .unwrap_or(""),
            seed: root
                .child("chosen")
                .and_then(|chosen| cells(&chosen, "rng-seed", 0..2)),
        })
    }

    /// The same for the guest `name`, which has nothing to do on a machine that does not say what
    /// it is: it ends.
    ///
    /// # Safety
    ///
    /// As [`from_device_tree`](Self::from_device_tree).
    pub unsafe fn of_guest(name: &str, blob: *const u8) -> Self {
        // SAFETY: by this function's contract.
        let machine = unsafe { Self::from_device_tree(blob) };
        machine.unwrap_or_else(|| {
            println!("{name}: the device tree cannot be read");
            sbi::shutdown(true)
        })
    }

    /// The names in `riscv,isa-extensions`.
    pub fn extensions(&self) -> impl Iterator<Item = &'static str> {
        let names = self.extensions.split(|&byte| byte == 0);
        names
            .filter_map(|name| core::str::from_utf8(name).ok())
            .filter(|name| !name.is_empty())
    }

    /// The number that the command line gives as `name=N`.
    pub fn argument(&self, name: &str) -> Option<u64> {
        let mut words = self.arguments.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        value.parse().ok()
    }

    /// Whether the ISA string lists a multi-letter extension.
    pub fn has(&self, extension: &str) -> bool {
        self.isa.split('_').skip(1).any(|name| name == extension)
    }
}

fn bytes(node: &FdtNode<'static>, name: &str) -> Option<&'static [u8]> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as().ok()
}

fn text(node: &FdtNode<'static>, name: &str) -> Option<&'static str> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as().ok()
}

/// The 32-bit cells of a property that `range` names, as one number.
fn cells(node: &FdtNode<'static>, name: &str, range: Range<usize>) -> Option<u64> {
    let property = node.properties().find(|property| property.name() == name)?;
    let bytes = property.value().get(4 * range.start..4 * range.end)?;
    let number = bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte));
    Some(number)
}
