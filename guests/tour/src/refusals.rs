//! What is refused: pointers that lead nowhere, instructions that the guest does not have, addresses without anything.

use core::arch::asm;

use guest_kit::sbi::{SbiRet, call as sbi_call};
use guest_kit::trap::{Trap, catch, cause};
use guest_kit::vectors::has_vectors;
use guest_kit::{console, csr_set, sbi};
use sbi_spec::{dbcn, hsm};

use crate::code::call;
use crate::edges;
use crate::paging::{self, window};
use crate::report::Report;

/// Guest-physical, between interrupt controller and serial port: nothing is there.
const HOLE: u64 = 0x0d00_0000;

const UART: u64 = 0x1000_0000;

/// The guest's vector unit: Dirty.
const SSTATUS_VS: u64 = 3 << 9;

const INVALID_PARAM: isize = -3;
const INVALID_ADDRESS: isize = -5;

fn expect_error(report: &mut Report<'_>, claim: &str, answer: SbiRet, expected: isize) {
    let error = answer.error as isize;
    report.step(claim, error == expected, format_args!("error {error}"));
}

fn expect_trap(report: &mut Report<'_>, claim: &str, trap: Option<Trap>, cause: u64, at: u64) {
    match trap {
        Some(trap) => {
            // stval of an illegal instruction is the instruction, or 0.
            let right = trap.cause == cause && (cause == cause::ILLEGAL || trap.value == at);
            report.step(claim, right, format_args!("{trap}"));
        }
        None => report.step(claim, false, format_args!("no trap")),
    }
}

/// The chapter.
pub fn visit(report: &mut Report<'_>) {
    report.chapter("Refusals: what must not work, and how it says so");
    pointers(report);
    instructions(report);
    addresses(report);
    tables(report);
    edges::visit(report);
}

fn pointers(report: &mut Report<'_>) {
    if !report.machine.under_hypervisor {
        report.skip("bad pointers to SBI", "other firmware answers otherwise");
        return;
    }
    if !console::has_debug_console() {
        report.skip("bad pointers to the debug console", "the firmware has none");
        return;
    }
    let end = report.machine.ram.end;
    for (claim, len, low, high) in [
        ("a buffer in a hole", 16, HOLE, 0),
        ("a buffer in a device", 4, 0x1000_0000, 0),
        ("a buffer that begins past the end of RAM", 16, end, 0),
        ("a buffer that ends past the end of RAM", 16, end - 8, 0),
        (
            "a buffer whose end is past the top of the address space",
            16,
            u64::MAX - 3,
            0,
        ),
        ("a buffer of all lengths there are", u64::MAX, end - 8, 0),
        ("a buffer above 2^64", 16, report.machine.ram.start, 1),
    ] {
        let answer = sbi_call(dbcn::EID_DBCN, dbcn::CONSOLE_WRITE, [len, low, high, 0, 0]);
        expect_error(report, claim, answer, INVALID_PARAM);
    }
    let answer = sbi::console_read(16, HOLE);
    expect_error(report, "input into a hole", answer, INVALID_PARAM);
    let answer = sbi::hart_start(99, crate::harts::second_hart_entry(), 0);
    expect_error(
        report,
        "starting a hart that does not exist",
        answer,
        INVALID_PARAM,
    );
    if report.machine.harts > 1 {
        let answer = sbi_call(hsm::EID_HSM, hsm::HART_START, [1, HOLE, 0, 0, 0]);
        expect_error(report, "starting a hart in a hole", answer, INVALID_ADDRESS);
    }
    let answer = sbi::send_ipi(1 << 40, 0);
    expect_error(
        report,
        "an interrupt to a hart that does not exist",
        answer,
        INVALID_PARAM,
    );
}

/// Executes one instruction that may trap.
macro_rules! execute {
    ($($instruction:literal),+) => {
        catch(|| {
            // SAFETY: the instruction traps and is stepped over; what it might write is listed.
            unsafe {
                asm!(
                    ".option push",
                    ".option norvc",
                    ".option arch, +h",
                    $($instruction),+,
                    ".option pop",
                    in("a0") window(1), out("a1") _,
                );
            }
        }).1
    };
}

fn instructions(report: &mut Report<'_>) {
    let trap = execute!(".4byte 0xffffffff");
    expect_trap(
        report,
        "an instruction that does not exist",
        trap,
        cause::ILLEGAL,
        0,
    );
    let trap = execute!("csrr a1, mstatus");
    expect_trap(report, "a CSR of M-mode", trap, cause::ILLEGAL, 0);
    if !report.machine.under_hypervisor {
        report.skip("hypervisor instructions", "the hart has them");
        return;
    }
    for (claim, trap) in [
        ("hlv.d", execute!("hlv.d a1, (a0)")),
        ("hlvx.hu", execute!("hlvx.hu a1, (a0)")),
        ("hsv.d", execute!("hsv.d zero, (a0)")),
        ("hfence.gvma", execute!("hfence.gvma")),
        ("reading hgatp", execute!("csrr a1, 0x680")),
        ("reading vsatp", execute!("csrr a1, 0x280")),
    ] {
        expect_trap(report, claim, trap, cause::ILLEGAL, 0);
    }
    let claim = "a vector instruction, which the ISA string does not list";
    if has_vectors(report.machine) {
        report.skip(claim, "this machine's guests have vectors");
        return;
    }
    // SAFETY: turns the guest's own vector unit on, if it has one.
    unsafe { csr_set!("sstatus", SSTATUS_VS) };
    let trap = execute!(".4byte 0x010075d7"); // vsetvli a1, zero, e32, m1
    expect_trap(report, claim, trap, cause::ILLEGAL, 0);
}

/// A page table where nothing is: the access gets an access fault of its own type.
fn tables(report: &mut Report<'_>) {
    let at = paging::NEXT_TABLE + 8;
    for (claim, physical) in [
        ("through a page table in a hole", HOLE),
        ("through a page table in a device", UART),
    ] {
        if physical == UART && !report.machine.under_hypervisor {
            report.skip(claim, "the bus may answer");
            continue;
        }
        paging::set_next_table(physical);
        paging::fence();
        // SAFETY: these accesses trap and are stepped over.
        let (load, store, atomic) = unsafe {
            (
                catch(|| asm!("ld {}, 0({})", out(reg) _, in(reg) at)).1,
                catch(|| asm!("sd zero, 0({})", in(reg) at)).1,
                catch(|| asm!("amoadd.d zero, zero, ({})", in(reg) at)).1,
            )
        };
        let fetch = catch(|| call(at)).1;
        for (what, trap, cause) in [
            ("a load", load, cause::LOAD_ACCESS),
            ("a store", store, cause::STORE_ACCESS),
            ("an atomic add", atomic, cause::STORE_ACCESS),
            ("a jump", fetch, cause::FETCH_ACCESS),
        ] {
            match trap {
                Some(trap) => {
                    let right = trap.cause == cause && trap.value == at;
                    report.step(claim, right, format_args!("{what}: {trap}"));
                }
                None => report.step(claim, false, format_args!("{what}: no trap")),
            }
        }
    }
    paging::set_next_table(0);
    paging::fence();
}

fn addresses(report: &mut Report<'_>) {
    // SAFETY: these accesses trap and are stepped over.
    let (load, store) = unsafe {
        (
            catch(|| asm!("lw {}, 0({})", out(reg) _, in(reg) HOLE)).1,
            catch(|| asm!("sw zero, 0({})", in(reg) HOLE)).1,
        )
    };
    expect_trap(report, "a load from a hole", load, cause::LOAD_ACCESS, HOLE);
    expect_trap(
        report,
        "a store to a hole",
        store,
        cause::STORE_ACCESS,
        HOLE,
    );

    let nowhere = window(100) + 8;
    // SAFETY: these accesses trap and are stepped over.
    let (load, store) = unsafe {
        (
            catch(|| asm!("ld {}, 0({})", out(reg) _, in(reg) nowhere)).1,
            catch(|| asm!("sd zero, 0({})", in(reg) nowhere)).1,
        )
    };
    expect_trap(
        report,
        "a load from an unmapped page",
        load,
        cause::LOAD_PAGE,
        nowhere,
    );
    expect_trap(
        report,
        "a store to an unmapped page",
        store,
        cause::STORE_PAGE,
        nowhere,
    );
    let fetch = catch(|| call(nowhere)).1;
    expect_trap(
        report,
        "a jump to an unmapped page",
        fetch,
        cause::FETCH_PAGE,
        nowhere,
    );
}
