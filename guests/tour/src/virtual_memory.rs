//! Pointers at guest-virtual addresses: the hart mask of the legacy calls, and the code that a trapped access is fetched
//! from.

use guest_kit::sbi::legacy_call;
use guest_kit::trap::{Trap, catch, cause, interrupt, taken};
use guest_kit::{csr_clear, csr_set, wait_until};
use sbi_spec::legacy;

use crate::code::{call, fence_i, write_code};
use crate::memory::untouched;
use crate::paging::{self, pte, window};
use crate::report::Report;

/// Pages of the window.
const DATA: u64 = 1;
const LATER_DATA: u64 = 2;
const USER: u64 = 4;
const CODE: u64 = 6;
const UNMAPPED: u64 = 9;

const SSTATUS_SUM: u64 = 1 << 18;

const SCRATCH_REGISTER: u64 = 0x1000_0007;

fn write_word(address: u64, value: u64) {
    // SAFETY: callers pass addresses in pages of the window that are mapped to frames of theirs.
    unsafe { (address as *mut u64).write_unaligned(value) };
}

/// A legacy call with a pointer to a hart mask that names this hart; whether its interrupt came, and the trap if the call
/// ended in one.
fn ipi_to_self(report: &Report<'_>, pointer: u64) -> (isize, bool, Option<Trap>) {
    let before = taken(interrupt::SOFTWARE);
    // SAFETY: these bits only decide whether interrupts come.
    unsafe {
        csr_set!("sie", 1u64 << interrupt::SOFTWARE);
        csr_set!("sstatus", 2u64);
    }
    let (error, trap) = catch(|| legacy_call(legacy::LEGACY_SEND_IPI, [pointer, 0, 0, 0]));
    let patience = report.machine.timebase_frequency / 10;
    let came = wait_until(patience, || taken(interrupt::SOFTWARE) > before);
    (error, came, trap)
}

/// A mask at `pointer` is read: no error, and the interrupt comes.
fn mask_is_read(report: &mut Report<'_>, claim: &str, pointer: u64) {
    let (error, came, trap) = ipi_to_self(report, pointer);
    report.step(
        claim,
        error == 0 && came && trap.is_none(),
        format_args!(
            "mask at {pointer:#x}, interrupt {}",
            if came { "taken" } else { "missing" }
        ),
    );
}

/// A mask at `pointer` cannot be read: the caller gets the page fault that its own load would get, and no interrupt.
fn mask_is_refused(report: &mut Report<'_>, claim: &str, pointer: u64) {
    let (error, came, trap) = ipi_to_self(report, pointer);
    let faulted = trap.is_some_and(|trap| trap.cause == cause::LOAD_PAGE && trap.value == pointer);
    let right = !came && (faulted || (trap.is_none() && error < 0));
    match trap {
        Some(trap) => report.step(claim, right, format_args!("{trap}")),
        None => report.step(claim, right, format_args!("error {error}")),
    }
}

/// The chapter.
pub fn visit(report: &mut Report<'_>, hart: u64) {
    report.chapter("Virtual addresses: Sv39, neighbours far apart");
    let frames = untouched(report, 8);
    let frame = |index: u64| frames + index * 0x3000;
    paging::build(report.machine.ram.start);
    paging::set(DATA, frame(3), pte::DATA);
    paging::set(LATER_DATA, frame(0), pte::DATA);
    paging::set(USER, frame(1), pte::DATA | pte::U);
    paging::set(CODE, frame(4), pte::ALL);
    paging::set(CODE + 1, frame(2), pte::ALL);
    // SAFETY: the table was built for the gigabyte of RAM that the image is in.
    unsafe { paging::turn_on() };

    write_word(window(DATA) + 16, 0x1234);
    // SAFETY: the frame is this step's.
    let seen = unsafe { ((frame(3) + 16) as *const u64).read_volatile() };
    report.step(
        "a store through the guest's own page table lands in its frame",
        seen == 0x1234,
        format_args!("{:#x} is {:#x}", window(DATA) + 16, frame(3) + 16),
    );

    let mask = 1u64 << hart;
    write_word(window(DATA) + 256, mask);
    let claim = "a legacy call's hart mask is read at its virtual address";
    mask_is_read(report, claim, window(DATA) + 256);

    let straddling = window(LATER_DATA) - 3;
    write_word(straddling, mask);
    let claim = "so is one that lies in two pages whose frames are apart";
    mask_is_read(report, claim, straddling);

    // SAFETY: SUM only decides whether S-mode reaches user pages.
    unsafe { csr_set!("sstatus", SSTATUS_SUM) };
    write_word(window(USER) + 8, mask);
    let claim = "one in a user page counts while SUM is set";
    mask_is_read(report, claim, window(USER) + 8);
    // SAFETY: as above.
    unsafe { csr_clear!("sstatus", SSTATUS_SUM) };
    let claim = "and is refused while it is not";
    mask_is_refused(report, claim, window(USER) + 8);
    let claim = "one at an address without a page is refused";
    mask_is_refused(report, claim, window(UNMAPPED) + 64);
    let claim = "and one at an address that is none";
    mask_is_refused(report, claim, 0x0000_7000_0000_0000);

    crossing_instruction(report);
}

/// A load from a device whose instruction lies in two pages: four bytes, two in each.
fn crossing_instruction(report: &mut Report<'_>) {
    // lui a0, 0x10000; sb a1, 7(a0) | lbu a0, 7(a0); ret, each of the accesses once across the boundary.
    const LUI_A0_UART: u32 = 0x1000_0537;
    const LBU_A0_7_A0: u32 = 0x0075_4503;
    const RET: u32 = 0x0000_8067;
    // SAFETY: the scratch register of the serial port.
    unsafe { (SCRATCH_REGISTER as *mut u8).write_volatile(0x77) };
    let start = window(CODE + 1) - 6;
    for (index, word) in [LUI_A0_UART, LBU_A0_7_A0, RET].into_iter().enumerate() {
        let at = start + 4 * index as u64;
        write_parcels(at, word);
    }
    fence_i();
    let value = call(start);
    report.step(
        "a device load whose instruction crosses into another page is decoded",
        value == 0x77,
        format_args!("at {:#x}, {value:#x}", start + 4),
    );
    // The host may fetch what the guest may execute, and the guest may not read.
    for page in [CODE, CODE + 1] {
        paging::set_rights(page, pte::EXECUTE_ONLY);
    }
    paging::fence();
    let (value, trap) = catch(|| call(start));
    let claim = "so is one whose code can be executed and not read";
    match trap {
        Some(trap) => report.step(claim, false, format_args!("{trap}")),
        None => report.step(claim, value == 0x77, format_args!("{value:#x}")),
    }
    for page in [CODE, CODE + 1] {
        paging::set_rights(page, pte::ALL);
    }
    paging::fence();
    // Nothing is left of it for the next steps.
    write_code(window(CODE), &[0; 2]);
}

/// Writes one instruction at a 2-byte aligned address.
fn write_parcels(address: u64, word: u32) {
    for (index, parcel) in [word as u16, (word >> 16) as u16].into_iter().enumerate() {
        // SAFETY: callers pass pages of the window that are mapped to frames of theirs.
        unsafe { (address as *mut u16).add(index).write_volatile(parcel) };
    }
}
