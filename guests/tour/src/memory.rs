//! Memory that nobody has touched: it appears, as zeros, when it is.

use core::arch::asm;

use crate::report::Report;

const PAGE: u64 = 4096;

/// Far above the image, in bytes from the start of RAM.
const UNTOUCHED: u64 = 16 << 20;

/// The first page of a part of RAM that no other step uses; each `index` is 1 MiB.
pub fn untouched(report: &Report<'_>, index: u64) -> u64 {
    report.machine.ram.start + UNTOUCHED + (index << 20)
}

fn read(address: u64) -> u64 {
    // SAFETY: `address` is in a part of RAM that belongs to the step that calls.
    unsafe { (address as *const u64).read_volatile() }
}

fn write(address: u64, value: u64) {
    // SAFETY: as for `read`.
    unsafe { (address as *mut u64).write_volatile(value) }
}

/// The chapter.
pub fn visit(report: &mut Report<'_>) {
    report.chapter("Memory: pages that appear when they are touched");
    let base = untouched(report, 0);
    let pages = || (0..64).map(|page| base + page * PAGE);

    let zero = pages().all(|page| read(page) == 0 && read(page + PAGE - 8) == 0);
    report.step(
        "untouched pages read as zero",
        zero,
        format_args!("64 pages"),
    );

    pages().for_each(|page| write(page + 8, page));
    let kept = pages().all(|page| read(page + 8) == page && read(page) == 0);
    report.step(
        "a page that was read before it is written gets memory of its own",
        kept,
        format_args!("64 pages, each with its own value"),
    );

    let base = untouched(report, 1);
    let pages = || (0..64).map(|page| base + page * PAGE);
    pages().for_each(|page| write(page + PAGE - 8, !page));
    let kept = pages().all(|page| read(page + PAGE - 8) == !page && read(page) == 0);
    report.step(
        "so does one whose first access is a store",
        kept,
        format_args!("64 pages"),
    );

    let page = untouched(report, 2);
    let before: u64;
    // SAFETY: the page belongs to this step.
    unsafe { asm!("amoadd.d {}, {}, ({})", out(reg) before, in(reg) 5u64, in(reg) page) };
    let after = read(page);
    report.step(
        "an atomic add can be the first access",
        before == 0 && after == 5,
        format_args!("{before} became {after}"),
    );

    let page = untouched(report, 3);
    let (failed, value): (u64, u64);
    // SAFETY: the page belongs to this step.
    unsafe {
        asm!(
            "1: lr.d {value}, ({page})",
            "addi {value}, {value}, 7",
            "sc.d {failed}, {value}, ({page})",
            "bnez {failed}, 1b",
            value = out(reg) value,
            failed = out(reg) failed,
            page = in(reg) page,
        );
    }
    report.step(
        "so can load-reserved and store-conditional",
        failed == 0 && value == 7 && read(page) == 7,
        format_args!("{}", read(page)),
    );

    let page = untouched(report, 4);
    let straddling = page + PAGE - 4;
    let (loaded, back): (u64, u64);
    // SAFETY: both pages belong to this step.
    unsafe {
        asm!(
            "ld {loaded}, 0({at})",
            "sd {value}, 0({at})",
            "ld {back}, 0({at})",
            at = in(reg) straddling,
            value = in(reg) 0x1122_3344_5566_7788u64,
            loaded = out(reg) loaded,
            back = out(reg) back,
        );
    }
    let halves = (read(page + PAGE - 8) >> 32, read(page + PAGE) & 0xffff_ffff);
    report.step(
        "a misaligned access across two untouched pages is whole",
        loaded == 0 && back == 0x1122_3344_5566_7788 && halves == (0x5566_7788, 0x1122_3344),
        format_args!("{back:#x}"),
    );
}
