//! The device tree that is made for a guest.
//!
//! The one idea: the guest learns of its machine from here and from nowhere else, so what is not described does not exist
//! for it. The shape is that of QEMU's `virt` machine, reduced to what the hypervisor emulates. Bindings: the Devicetree
//! Specification 0.4 and the kernel's `Documentation/devicetree/bindings` for `riscv/cpus.yaml`,
//! `interrupt-controller/sifive,plic-1.0.0.yaml` and `serial/8250.yaml`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use vm_fdt::FdtWriter;

use crate::devices::{Wiring, finisher, plic, rtc, uart};

/// The rate that the serial port's divisor divides. No bit is ever timed, but drivers compute with it.
const UART_CLOCK_HZ: u32 = 3_686_400;

/// `riscv,cpu-intc`: the number of the supervisor external interrupt (`scause` 9).
const SUPERVISOR_EXTERNAL: u32 = 9;
/// The number of M-mode's, which no hart of a guest has. Its context counts all the same.
const MACHINE_EXTERNAL: u32 = 11;

const PHANDLE_PLIC: u32 = 1;
const PHANDLE_FINISHER: u32 = 2;
/// The interrupt controller of hart n has phandle `PHANDLE_HART + n`.
const PHANDLE_HART: u32 = 3;

/// Free bytes behind the tree's strings, which `totalsize` counts: a boot loader edits the tree where it is.
pub const SLACK: usize = 0x4000;

/// Where `totalsize` is in a tree's header.
const TOTAL_SIZE: Range<usize> = 4..8;

/// What a guest is told of its machine.
#[derive(Clone, Debug)]
pub struct GuestMachine<'a> {
    /// RAM in guest-physical addresses.
    pub memory: Range<u64>,
    /// Harts, numbered from 0.
    pub harts: u32,
    /// `riscv,isa`, such as `rv64imafdc_zicsr`: the extensions that the hypervisor lets the guest have, and no others.
    pub isa: &'a str,
    /// `mmu-type`, such as `riscv,sv48`.
    pub mmu_type: &'a str,
    /// Ticks of `time` in a second.
    pub timebase_frequency: u64,
    /// Bytes that `cbo.clean`, `cbo.flush` and `cbo.inval` work on; 0 where `isa` has no Zicbom.
    pub cache_management_block: u32,
    /// Bytes that `cbo.zero` works on; 0 where `isa` has no Zicboz.
    pub cache_zero_block: u32,
    /// Bytes that `prefetch.i`, `prefetch.r` and `prefetch.w` work on; 0 where `isa` has no Zicbop.
    pub cache_prefetch_block: u32,
    /// Where the devices are.
    pub wiring: Wiring,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The initial RAM disk in guest-physical addresses.
    pub initrd: Option<Range<u64>>,
    /// Entropy for the guest's random-number generator.
    pub rng_seed: &'a [u8],
}

/// The machine cannot be described.
#[derive(Debug)]
pub enum DeviceTreeError {
    /// The writer of the tree says so.
    Writer(vm_fdt::Error),
    /// The tree is longer than the room for it.
    TooLong {
        /// Its bytes, with [`SLACK`].
        len: usize,
        /// The bytes of the room.
        room: usize,
        /// The bytes of the command line in it.
        command_line: usize,
    },
}

impl From<vm_fdt::Error> for DeviceTreeError {
    fn from(error: vm_fdt::Error) -> Self {
        Self::Writer(error)
    }
}

impl fmt::Display for DeviceTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer(error) => write!(f, "no device tree for the guest: {error}"),
            Self::TooLong {
                len,
                room,
                command_line,
            } => write!(
                f,
                "the guest's device tree has {len} bytes, {room} at most: its command line has {command_line}"
            ),
        }
    }
}

impl GuestMachine<'_> {
    /// The flattened device tree, with [`SLACK`] free bytes in it.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError`], also if the tree has more than `room` bytes.
    pub fn to_device_tree(&self, room: u64) -> Result<Vec<u8>, DeviceTreeError> {
        let mut tree = self.packed_device_tree()?;
        let (len, room) = (tree.len() + SLACK, room as usize);
        if len > room {
            return Err(DeviceTreeError::TooLong {
                len,
                room,
                command_line: self.command_line.len(),
            });
        }
        tree.resize(len, 0);
        tree[TOTAL_SIZE].copy_from_slice(&(len as u32).to_be_bytes());
        Ok(tree)
    }

    fn packed_device_tree(&self) -> Result<Vec<u8>, DeviceTreeError> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("compatible", "riscv-virtio")?;
        fdt.property_string("model", "guest-mem,virt")?;
        self.chosen(&mut fdt)?;
        self.memory(&mut fdt)?;
        self.cpus(&mut fdt)?;
        self.soc(&mut fdt)?;
        self.finish(&mut fdt, "poweroff", finisher::PASS)?;
        self.finish(&mut fdt, "reboot", finisher::RESET)?;
        fdt.end_node(root)?;
        Ok(fdt.finish()?)
    }

    fn uart_name(&self) -> String {
        format!("serial@{:x}", self.wiring.uart)
    }

    fn chosen(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let node = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", self.command_line)?;
        fdt.property_string("stdout-path", &format!("/soc/{}", self.uart_name()))?;
        if let Some(initrd) = &self.initrd {
            fdt.property_u64("linux,initrd-start", initrd.start)?;
            fdt.property_u64("linux,initrd-end", initrd.end)?;
        }
        fdt.property("rng-seed", self.rng_seed)?;
        fdt.end_node(node)?;
        Ok(())
    }

    fn memory(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let Range { start, end } = self.memory;
        let node = fdt.begin_node(&format!("memory@{start:x}"))?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[start, end.saturating_sub(start)])?;
        fdt.end_node(node)?;
        Ok(())
    }

    fn cpus(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let extensions = extensions(self.isa);
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        match u32::try_from(self.timebase_frequency) {
            Ok(frequency) => fdt.property_u32("timebase-frequency", frequency)?,
            Err(_) => fdt.property_u64("timebase-frequency", self.timebase_frequency)?,
        }
        for hart in 0..self.harts {
            let cpu = fdt.begin_node(&format!("cpu@{hart:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            fdt.property_string("compatible", "riscv")?;
            fdt.property_u32("reg", hart)?;
            fdt.property_string("status", "okay")?;
            fdt.property_string("riscv,isa", self.isa)?;
            fdt.property_string("riscv,isa-base", "rv64i")?;
            fdt.property_string_list("riscv,isa-extensions", extensions.clone())?;
            fdt.property_string("mmu-type", self.mmu_type)?;
            for (name, bytes) in [
                ("riscv,cbom-block-size", self.cache_management_block),
                ("riscv,cboz-block-size", self.cache_zero_block),
                ("riscv,cbop-block-size", self.cache_prefetch_block),
            ] {
                if bytes != 0 {
                    fdt.property_u32(name, bytes)?;
                }
            }
            let controller = fdt.begin_node("interrupt-controller")?;
            fdt.property_string("compatible", "riscv,cpu-intc")?;
            fdt.property_u32("#interrupt-cells", 1)?;
            fdt.property_null("interrupt-controller")?;
            fdt.property_phandle(PHANDLE_HART + hart)?;
            fdt.end_node(controller)?;
            fdt.end_node(cpu)?;
        }
        fdt.end_node(cpus)?;
        Ok(())
    }

    fn soc(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let soc = fdt.begin_node("soc")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("compatible", "simple-bus")?;
        fdt.property_null("ranges")?;
        self.plic(fdt)?;
        self.uart(fdt)?;
        self.finisher(fdt)?;
        self.rtc(fdt)?;
        fdt.end_node(soc)?;
        Ok(())
    }

    fn plic(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let base = self.wiring.plic.value();
        let node = fdt.begin_node(&format!("interrupt-controller@{base:x}"))?;
        let compatible = ["sifive,plic-1.0.0", "riscv,plic0"].map(String::from);
        fdt.property_string_list("compatible", compatible.into())?;
        fdt.property_array_u64("reg", &[base, plic::WINDOW])?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_u32("#address-cells", 0)?;
        fdt.property_null("interrupt-controller")?;
        // One entry a context, in order: a hart's M-mode and then its S-mode (`plic::supervisor_context`).
        let of_hart = |hart| {
            let phandle = PHANDLE_HART + hart;
            [phandle, MACHINE_EXTERNAL, phandle, SUPERVISOR_EXTERNAL]
        };
        let contexts: Vec<u32> = (0..self.harts).flat_map(of_hart).collect();
        fdt.property_array_u32("interrupts-extended", &contexts)?;
        // Source 0 does not count.
        fdt.property_u32("riscv,ndev", plic::SOURCES - 1)?;
        fdt.property_phandle(PHANDLE_PLIC)?;
        fdt.end_node(node)?;
        Ok(())
    }

    fn uart(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let node = fdt.begin_node(&self.uart_name())?;
        fdt.property_string("compatible", "ns16550a")?;
        fdt.property_array_u64("reg", &[self.wiring.uart.value(), uart::WINDOW])?;
        fdt.property_u32("clock-frequency", UART_CLOCK_HZ)?;
        fdt.property_u32("reg-shift", 0)?;
        fdt.property_u32("reg-io-width", 1)?;
        fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
        fdt.property_u32("interrupts", self.wiring.uart_source)?;
        fdt.end_node(node)?;
        Ok(())
    }
}

impl GuestMachine<'_> {
    fn finisher(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let base = self.wiring.finisher.value();
        let node = fdt.begin_node(&format!("test@{base:x}"))?;
        let compatible = ["sifive,test1", "sifive,test0", "syscon"].map(String::from);
        fdt.property_string_list("compatible", compatible.into())?;
        fdt.property_array_u64("reg", &[base, finisher::WINDOW])?;
        fdt.property_phandle(PHANDLE_FINISHER)?;
        fdt.end_node(node)?;
        Ok(())
    }

    /// How a system without SBI reset is ended: by `value` in the finisher.
    fn finish(&self, fdt: &mut FdtWriter, name: &str, value: u32) -> Result<(), DeviceTreeError> {
        let node = fdt.begin_node(name)?;
        fdt.property_string("compatible", &format!("syscon-{name}"))?;
        fdt.property_u32("regmap", PHANDLE_FINISHER)?;
        fdt.property_u32("offset", 0)?;
        fdt.property_u32("value", value)?;
        fdt.end_node(node)?;
        Ok(())
    }

    fn rtc(&self, fdt: &mut FdtWriter) -> Result<(), DeviceTreeError> {
        let base = self.wiring.rtc.value();
        let node = fdt.begin_node(&format!("rtc@{base:x}"))?;
        fdt.property_string("compatible", "google,goldfish-rtc")?;
        fdt.property_array_u64("reg", &[base, rtc::WINDOW])?;
        fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
        fdt.property_u32("interrupts", self.wiring.rtc_source)?;
        fdt.end_node(node)?;
        Ok(())
    }
}

/// The extensions of an ISA string, one by one, as `riscv,isa-extensions` lists them.
fn extensions(isa: &str) -> Vec<String> {
    let mut parts = isa.strip_prefix("rv64").unwrap_or(isa).split('_');
    let letters = parts.next().unwrap_or("").chars().map(String::from);
    letters
        .chain(parts.filter(|part| !part.is_empty()).map(String::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use dtoolkit::fdt::{Fdt, FdtNode};
    use dtoolkit::{Node, Property};
    use guest_mem::Gpa;

    use super::*;
    use crate::image::plan::DEVICE_TREE_ROOM;

    fn machine() -> GuestMachine<'static> {
        GuestMachine {
            memory: 0x8000_0000..0x9000_0000,
            harts: 2,
            isa: "rv64imafdc_zicboz_zicsr_sstc",
            mmu_type: "riscv,sv57",
            timebase_frequency: 10_000_000,
            cache_management_block: 0,
            cache_zero_block: 64,
            cache_prefetch_block: 0,
            wiring: Wiring::VIRT,
            command_line: "console=ttyS0 quiet",
            initrd: Some(0x8f00_0000..0x8f12_3456),
            rng_seed: &[1, 2, 3],
        }
    }

    /// The bytes of the property at `path`, whose last part is the property's name.
    fn value(blob: &[u8], path: &str) -> Option<Vec<u8>> {
        let tree = Fdt::new(blob).unwrap();
        let (nodes, name) = path.rsplit_once('/').unwrap();
        let mut node: FdtNode<'_> = tree.root();
        for part in nodes.split('/').filter(|part| !part.is_empty()) {
            node = node.child(part)?;
        }
        let property = node.properties().find(|property| property.name() == name)?;
        Some(property.value().to_vec())
    }

    fn cells(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|cell| cell.to_be_bytes()).collect()
    }

    #[test]
    fn every_property_has_the_form_its_binding_asks_for() {
        let blob = machine().to_device_tree(DEVICE_TREE_ROOM).unwrap();
        let text = |text: &str| text.as_bytes().to_vec();
        let plic = "/soc/interrupt-controller@c000000";
        let uart = "/soc/serial@10000000";
        for (path, expected) in [
            ("/chosen/bootargs", text("console=ttyS0 quiet\0")),
            ("/chosen/stdout-path", text("/soc/serial@10000000\0")),
            ("/chosen/linux,initrd-start", cells(&[0, 0x8f00_0000])),
            ("/chosen/linux,initrd-end", cells(&[0, 0x8f12_3456])),
            ("/chosen/rng-seed", vec![1, 2, 3]),
            ("/memory@80000000/device_type", text("memory\0")),
            (
                "/memory@80000000/reg",
                cells(&[0, 0x8000_0000, 0, 0x1000_0000]),
            ),
            ("/cpus/timebase-frequency", cells(&[10_000_000])),
            ("/cpus/cpu@1/reg", cells(&[1])),
            (
                "/cpus/cpu@1/riscv,isa",
                text("rv64imafdc_zicboz_zicsr_sstc\0"),
            ),
            ("/cpus/cpu@1/riscv,isa-base", text("rv64i\0")),
            (
                "/cpus/cpu@1/riscv,isa-extensions",
                text("i\0m\0a\0f\0d\0c\0zicboz\0zicsr\0sstc\0"),
            ),
            ("/cpus/cpu@1/mmu-type", text("riscv,sv57\0")),
            ("/cpus/cpu@1/riscv,cboz-block-size", cells(&[64])),
            ("/cpus/cpu@0/interrupt-controller/phandle", cells(&[3])),
            ("/cpus/cpu@1/interrupt-controller/phandle", cells(&[4])),
            (
                &format!("{plic}/reg"),
                cells(&[0, 0xc00_0000, 0, 0x60_0000]),
            ),
            (
                &format!("{plic}/interrupts-extended"),
                cells(&[3, 11, 3, 9, 4, 11, 4, 9]),
            ),
            (&format!("{plic}/riscv,ndev"), cells(&[31])),
            (&format!("{plic}/phandle"), cells(&[1])),
            (&format!("{uart}/compatible"), text("ns16550a\0")),
            (&format!("{uart}/reg"), cells(&[0, 0x1000_0000, 0, 8])),
            (&format!("{uart}/interrupt-parent"), cells(&[1])),
            (&format!("{uart}/interrupts"), cells(&[10])),
            ("/soc/test@100000/reg", cells(&[0, 0x10_0000, 0, 0x1000])),
            (
                "/soc/test@100000/compatible",
                text("sifive,test1\0sifive,test0\0syscon\0"),
            ),
            ("/soc/test@100000/phandle", cells(&[2])),
            ("/poweroff/compatible", text("syscon-poweroff\0")),
            ("/poweroff/regmap", cells(&[2])),
            ("/poweroff/offset", cells(&[0])),
            ("/poweroff/value", cells(&[0x5555])),
            ("/reboot/compatible", text("syscon-reboot\0")),
            ("/reboot/value", cells(&[0x7777])),
            ("/soc/rtc@101000/compatible", text("google,goldfish-rtc\0")),
            ("/soc/rtc@101000/reg", cells(&[0, 0x10_1000, 0, 0x1000])),
            ("/soc/rtc@101000/interrupts", cells(&[11])),
        ] {
            assert_eq!(value(&blob, path), Some(expected), "{path}");
        }
        assert_eq!(value(&blob, "/cpus/cpu@2/reg"), None);
        assert_eq!(value(&blob, "/cpus/cpu@0/riscv,cbom-block-size"), None);
    }

    #[test]
    fn what_the_guest_does_not_have_is_not_described() {
        let machine = GuestMachine {
            initrd: None,
            cache_zero_block: 0,
            harts: 1,
            ..machine()
        };
        let blob = machine.to_device_tree(DEVICE_TREE_ROOM).unwrap();
        for path in [
            "/chosen/linux,initrd-start",
            "/chosen/linux,initrd-end",
            "/cpus/cpu@0/riscv,cboz-block-size",
            "/cpus/cpu@0/riscv,cbop-block-size",
            "/cpus/cpu@1/reg",
        ] {
            assert_eq!(value(&blob, path), None, "{path}");
        }
        assert_eq!(
            value(&blob, "/chosen/bootargs").unwrap(),
            b"console=ttyS0 quiet\0"
        );
    }

    #[test]
    fn the_largest_machine_fits_into_the_room_that_the_load_plan_keeps() {
        let isa = format!("rv64imafdc{}", "_zsomething".repeat(100));
        let command_line = "x".repeat(2048);
        let machine = GuestMachine {
            harts: 8,
            isa: &isa,
            command_line: &command_line,
            ..machine()
        };
        let blob = machine.to_device_tree(DEVICE_TREE_ROOM).unwrap();
        assert!(blob.len() as u64 <= DEVICE_TREE_ROOM);
    }

    #[test]
    fn i17_a_boot_loader_finds_room_to_edit_the_tree_in_place() {
        let blob = machine().to_device_tree(DEVICE_TREE_ROOM).unwrap();
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize;
        let (total, strings, strings_len) = (word(4), word(12), word(32));
        assert_eq!(total, blob.len());
        assert_eq!(total - (strings + strings_len), SLACK);
        assert!(Fdt::new(&blob).is_ok());
    }

    #[test]
    fn i17_a_tree_that_is_longer_than_its_room_is_refused() {
        let line = |len| "x".repeat(len);
        let room = DEVICE_TREE_ROOM as usize;
        let tree = |command_line: &str| {
            let machine = GuestMachine {
                command_line,
                ..machine()
            };
            machine.to_device_tree(DEVICE_TREE_ROOM)
        };
        let error = tree(&line(70_000)).unwrap_err();
        assert!(matches!(
            error,
            DeviceTreeError::TooLong { command_line: 70_000, len, .. } if len > room
        ));
        assert!(format!("{error}").ends_with("65536 at most: its command line has 70000"));
        // To the byte: one more is too long, in steps of the four that a property is rounded to.
        let spare = room - tree("").unwrap().len();
        assert_eq!(tree(&line(spare / 4 * 4)).unwrap().len(), room / 4 * 4);
        assert!(tree(&line(spare + 4)).is_err());
    }

    #[test]
    fn i17_each_block_extension_of_the_guest_has_its_size() {
        let machine = GuestMachine {
            cache_management_block: 64,
            cache_zero_block: 32,
            cache_prefetch_block: 128,
            ..machine()
        };
        let blob = machine.to_device_tree(DEVICE_TREE_ROOM).unwrap();
        for (name, bytes) in [("cbom", 64), ("cboz", 32), ("cbop", 128)] {
            let path = format!("/cpus/cpu@1/riscv,{name}-block-size");
            assert_eq!(value(&blob, &path), Some(cells(&[bytes])), "{name}");
        }
    }

    #[test]
    fn a_command_line_that_no_string_can_hold_is_an_error() {
        let machine = GuestMachine {
            command_line: "a\0b",
            ..machine()
        };
        assert!(machine.to_device_tree(DEVICE_TREE_ROOM).is_err());
    }

    #[test]
    fn the_wiring_decides_where_devices_are() {
        let wiring = Wiring {
            plic: Gpa::new(0x2000_0000),
            uart: Gpa::new(0x3000_0000),
            uart_source: 4,
            ..Wiring::VIRT
        };
        let blob = GuestMachine {
            wiring,
            ..machine()
        }
        .to_device_tree(DEVICE_TREE_ROOM)
        .unwrap();
        let interrupts = value(&blob, "/soc/serial@30000000/interrupts");
        assert_eq!(interrupts, Some(cells(&[4])));
        assert!(value(&blob, "/soc/interrupt-controller@20000000/reg").is_some());
    }
}
