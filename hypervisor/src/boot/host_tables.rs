//! The hypervisor's own page table: every address maps to itself, with no more rights than its use needs.
//!
//! The one idea: text cannot be written, data cannot be executed, memory of the firmware and the guard pages below the
//! stacks are not mapped at all. A table is on from the first guest access on, also because QEMU before 8.2 reports wrong
//! fault causes while `satp` is Bare (R59).

use guest_mem::Spa;

use crate::boot::hart_local;
use crate::boot::machine::Machine;
use crate::memory::frames::{FRAME, FrameAllocator, Range};
use crate::memory::host::HostTables;
use crate::memory::page_table::{Flags, MODE_SV39, MapError, PageTable, Stage};
use crate::power;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

/// The image's parts: text, constants, and everything that is written.
struct Image {
    text: Range,
    constants: Range,
    data: Range,
}

fn image_parts() -> Image {
    let start = &raw const __image_start as u64;
    let text_end = &raw const __text_end as u64;
    let constants_end = &raw const __rodata_end as u64;
    let end = &raw const __image_end as u64;
    Image {
        text: Range {
            start,
            end: text_end,
        },
        constants: Range {
            start: text_end,
            end: constants_end,
        },
        data: Range {
            start: constants_end,
            end,
        },
    }
}

/// The memory that the linked image takes.
pub fn image() -> Range {
    let parts = image_parts();
    Range {
        start: parts.text.start,
        end: parts.data.end,
    }
}

/// Builds the table and answers the value of `satp` that turns it on.
pub fn build(machine: &Machine) -> Result<u64, MapError> {
    let mut memory = HostTables;
    let table = PageTable::new(&mut memory, Stage::Host)?;
    let read_write = Flags::READ | Flags::WRITE;

    let mut ram = FrameAllocator::new();
    for &range in machine.memory.as_slice() {
        ram.add(range);
    }
    ram.reserve(image());
    for &range in machine.reserved.as_slice() {
        ram.reserve(range);
    }
    for &range in ram.free_ranges() {
        identity(&table, range, read_write)?;
    }

    // A loader may have reserved the bundle, so that no operating system writes over it; here it is read.
    let bundle = machine.initrd.unwrap_or_default().outward();
    for page in (bundle.start..bundle.end).step_by(FRAME as usize) {
        if table.lookup(&memory, page).is_none() {
            let page = Range {
                start: page,
                end: page + FRAME,
            };
            identity(&table, page, Flags::READ)?;
        }
    }

    let image = image_parts();
    identity(&table, image.text, Flags::READ | Flags::EXECUTE)?;
    identity(&table, image.constants, Flags::READ)?;
    let mut from = image.data.start;
    for guard in hart_local::guard_pages() {
        let guard = guard as u64;
        identity(
            &table,
            Range {
                start: from,
                end: guard,
            },
            read_write,
        )?;
        from = guard + FRAME;
    }
    identity(
        &table,
        Range {
            start: from,
            end: image.data.end,
        },
        read_write,
    )?;
    if let Some(finisher) = power::finisher() {
        identity(&table, finisher, read_write)?;
    }
    Ok(MODE_SV39 << 60 | table.root().page_number())
}

fn identity(table: &PageTable, range: Range, flags: Flags) -> Result<(), MapError> {
    let start = Spa::new(range.start);
    table.map_range(
        &mut HostTables,
        range.start,
        start,
        range.len(),
        flags | Flags::GLOBAL,
    )
}
