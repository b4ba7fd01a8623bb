//! Where everything is, and what is in memory that nobody has written yet.

use core::ops::Range;

use guest_kit::machine::Machine;

use crate::found::{Finding, Place};
use crate::random::Random;
use crate::stamp;

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
    PLIC + 0x20_0004,
    PLIC + 0x20_1004,
    UART,
    UART + 1,
    UART + 2,
    UART + 3,
    UART + 7,
];

const PAGE: u64 = 4096;

unsafe extern "C" {
    static __image_end: u8;
}

/// What is where in guest-physical memory.
pub struct Layout {
    /// RAM.
    pub ram: Range<u64>,
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
        let tables = image_end..image_end + 16 * PAGE;
        Self {
            ram: machine.ram.clone(),
            device_tree,
            code: tables.end,
            free: tables.end + 2 * PAGE..device_tree & !(PAGE - 1),
            tables,
        }
    }

    /// Some page that this program has no content in.
    pub fn untouched(&self, random: &mut Random) -> u64 {
        let below_image = (0x8020_0000 - self.ram.start) / PAGE;
        let page = random.below(below_image + (self.free.end - self.tables.start) / PAGE);
        if page < below_image {
            self.ram.start + page * PAGE
        } else {
            self.tables.start + (page - below_image) * PAGE
        }
    }
}

/// Looks for anything but zeroes: in pages that are read first, and in pages of which one word is written first, so that they
/// have to be real.
pub fn look(layout: &Layout, random: &mut Random) -> Result<(), Finding> {
    for round in 0..18 {
        let page = layout.untouched(random);
        if round % 3 != 0 {
            let word = (page + 8 * random.below(512)) as *mut u64;
            // SAFETY: memory that this program does not use.
            unsafe { word.write_volatile(0) };
        }
        for address in (page..page + PAGE).step_by(8) {
            // SAFETY: as above.
            let value = unsafe { (address as *const u64).read_volatile() };
            if value != 0 {
                let place = Place::Memory(address);
                return Err(Finding { place, value });
            }
        }
    }
    Ok(())
}

/// Stamps some pages.
pub fn stamp(layout: &Layout, seed: u64, random: &mut Random) {
    for _ in 0..16 {
        let page = layout.untouched(random);
        for address in (page..page + PAGE).step_by(8) {
            // SAFETY: memory that this program does not use yet.
            unsafe { (address as *mut u64).write_volatile(stamp::of(seed)) };
        }
    }
}
