//! Page tables that a careful reader would refuse.
//!
//! The one idea: most of them still map the image one to one, so that the program goes on; everything beside that is random:
//! every mode, superpages, reserved bits, tables that lead to themselves, to devices and to where no memory is.

use crate::execute::Paging;
use crate::layout::{HOLE, Layout, UART};
use crate::random::Random;

const V: u64 = 1 << 0;
const A: u64 = 1 << 6;
const D: u64 = 1 << 7;
const U: u64 = 1 << 4;
const RWX: u64 = 0b1110;
const ALL: u64 = V | RWX | A | D;

/// Frames of the table that maps the image are the first ones; the others are for anybody to write.
const OWN: u64 = 4;

const PAGE: u64 = 4096;

fn set(table: u64, index: u64, entry: u64) {
    // SAFETY: callers pass a page table of this program.
    unsafe { ((table + 8 * index) as *mut u64).write_volatile(entry) };
}

/// Any entry.
pub fn entry(layout: &Layout, random: &mut Random) -> u64 {
    let target = match random.below(6) {
        0 => layout.tables.start + PAGE * random.below(16),
        1 => UART,
        2 => HOLE,
        3 => layout.code,
        4 => layout.ram.start + random.below(layout.ram.end - layout.ram.start),
        _ => random.address(layout),
    };
    let flags = match random.below(8) {
        0 => random.next() & 0x3ff,
        1 => V,
        2 => ALL,
        3 => ALL | U,
        4 => V | RWX,
        _ => random.next() & 0xff | V,
    };
    // Svnapot, Svpbmt, reserved bits, an address of more bits than there are.
    let high = match random.below(8) {
        0 => 1 << random.below(64),
        1 => random.next() << 54,
        2 => 1 << 63 | 8 << 10,
        _ => 0,
    };
    (target >> 12) << 10 | flags | high
}

/// Writes a random entry where no entry is that maps the image.
pub fn scribble(layout: &Layout, random: &mut Random) {
    let pages = (layout.tables.end - layout.tables.start) / PAGE;
    let table = layout.tables.start + PAGE * (OWN + random.below(pages - OWN));
    let any = random.below(512);
    let index = random.one_of(&[0, 1, 2, 3, 255, 256, 510, 511, any]);
    let entry = entry(layout, random);
    set(table, index, entry);
}

/// The mode of a choice, and its levels.
fn mode(random: &mut Random) -> (u64, u64) {
    random.one_of(&[(8, 3), (8, 3), (9, 4), (10, 5)])
}

/// Random tables. Unless `reckless`, the image is mapped one to one in the first gigabyte of RAM, and so is nothing else.
pub fn grow(layout: &Layout, random: &mut Random, reckless: bool) -> Paging {
    let (mode, levels) = mode(random);
    let root = layout.tables.start;
    // From the top level down to the one of gigabytes: 0x80000000 has index 0 in all but the last.
    for level in 0..levels - 2 {
        let table = root + PAGE * level;
        for _ in 0..random.below(24) {
            let index = random.below(512);
            set(table, index, entry(layout, random));
        }
        let last = level == levels - 3;
        if last {
            set(table, 2, (0x8000_0000 >> 12) << 10 | ALL);
            // Devices and a hole, for S-mode and U-mode.
            let low = random.one_of(&[ALL, ALL | U, V, 0]);
            set(table, 0, low);
        } else {
            set(table, 0, ((table + PAGE) >> 12) << 10 | V);
        }
    }
    for _ in 0..random.below(32) {
        scribble(layout, random);
    }
    if reckless && random.one_in(8) {
        set(root, random.below(4), entry(layout, random));
    }
    let mode = if reckless && random.one_in(8) {
        random.below(16)
    } else {
        mode
    };
    Paging {
        satp: mode << 60 | random.below(1 << 16) << 44 | root >> 12,
        code: layout.code,
        user: random.one_in(8),
    }
}

/// Where the second hart moves the code page: the leaf table's first entry, for the page at 3 GiB.
pub const fn moving_entry(layout: &Layout) -> u64 {
    layout.tables.start + PAGE * (OWN + 1)
}

/// What the second hart lets it be: the page, the page after it, less of either, devices, nothing.
pub fn moved(layout: &Layout, random: &mut Random) -> u64 {
    let page = random.one_of(&[
        layout.code,
        layout.code,
        layout.code,
        layout.code + PAGE,
        UART,
        HOLE,
    ]);
    let flags = random.one_of(&[ALL, ALL, ALL, ALL, ALL | U, V | RWX, V | A | 0b0010, 0]);
    (page >> 12) << 10 | flags
}

/// Sv39 tables with the image and the devices one to one, and code at a page of its own that another hart moves.
pub fn changing_page(layout: &Layout, random: &mut Random) -> Paging {
    const CODE: u64 = 3 << 30;
    if random.one_in(2) {
        // The instruction is rewritten where it is.
        return Paging::BARE;
    }
    let root = layout.tables.start;
    let (middle, leaves) = (root + PAGE * OWN, root + PAGE * (OWN + 1));
    set(root, 0, ALL);
    set(root, 2, (0x8000_0000 >> 12) << 10 | ALL);
    set(root, CODE >> 30, (middle >> 12) << 10 | V);
    set(middle, 0, (leaves >> 12) << 10 | V);
    set(leaves, 0, (layout.code >> 12) << 10 | ALL);
    Paging {
        satp: 8 << 60 | root >> 12,
        code: CODE,
        user: false,
    }
}
