//! Where everything is.

use core::ops::Range;

use guest_kit::machine::Machine;

/// The serial port.
pub const UART: u64 = 0x1000_0000;
/// The interrupt controller.
pub const PLIC: u64 = 0x0c00_0000;
/// One past its last register.
pub const PLIC_END: u64 = PLIC + 0x60_0000;
/// Where nothing is.
pub const HOLE: u64 = 0x0d00_0800;
/// Registers that do something: priorities, pending, enable, threshold, claim; data, line control, the last of the port.
pub const DEVICES: [u64; 12] = [
    PLIC + 4 * 10,
    PLIC + 0x1000,
    PLIC + 0x2000,
    PLIC + 0x2080,
    PLIC + 0x20_0000,
    PLIC + 0x20_1000,
    PLIC + 0x20_1004,
    UART,
    UART + 1,
    UART + 2,
    UART + 3,
    UART + 7,
];

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Bytes that the device tree has, and is aligned to.
const DEVICE_TREE_ROOM: u64 = 0x1_0000;

unsafe extern "C" {
    static __image_end: u8;
}

/// What is where in guest-physical memory.
pub struct Layout {
    /// RAM.
    pub ram: Range<u64>,
    /// Where the host's second slot of RAM begins, in a series: after three quarters, in memory that is free.
    pub seam: u64,
    /// The device tree.
    pub device_tree: u64,
    /// Page tables: 16 pages.
    pub tables: Range<u64>,
    /// Two pages for code.
    pub code: u64,
    /// Memory that this program has no use for.
    pub free: Range<u64>,
}

impl Layout {
    /// The layout on this machine.
    pub fn new(machine: &Machine, device_tree: u64) -> Self {
        let image_end = &raw const __image_end as u64;
        let behind_tree = device_tree + DEVICE_TREE_ROOM;
        // The hypervisor puts the tree right behind the image, QEMU at the top of RAM.
        let (start, end) = if device_tree - image_end < machine.ram.end.saturating_sub(behind_tree)
        {
            (behind_tree, machine.ram.end)
        } else {
            (image_end, device_tree & !(PAGE - 1))
        };
        let tables = start..start + 16 * PAGE;
        Self {
            ram: machine.ram.clone(),
            seam: machine.ram.start + (machine.ram.end - machine.ram.start) / 4 * 3,
            device_tree,
            code: tables.end,
            free: tables.end + 2 * PAGE..end,
            tables,
        }
    }
}
