//! Code that appears and changes: pages whose first access is a fetch, and `fence.i`.

use core::arch::asm;

use guest_kit::trap::{catch, cause};

use crate::memory::untouched;
use crate::report::Report;

/// `addi a0, x0, value`, then `ret`: a function that gives `value`.
pub fn constant_function(value: u32) -> [u32; 2] {
    [0x0000_0513 | value << 20, 0x0000_8067]
}

/// Writes instructions (whole words) at `address`.
pub fn write_code(address: u64, code: &[u32]) {
    for (index, &word) in code.iter().enumerate() {
        // SAFETY: callers pass memory that is theirs and in which nothing runs now.
        unsafe { (address as *mut u32).add(index).write_volatile(word) };
    }
}

/// Makes this hart see what was written as instructions.
pub fn fence_i() {
    // SAFETY: a fence changes no state that Rust knows of.
    unsafe { asm!("fence.i") };
}

/// Calls the code at `address`.
pub fn call(address: u64) -> u64 {
    let result;
    // SAFETY: callers pass code that follows the C convention, or that faults while `catch` is armed.
    unsafe {
        asm!("jalr {}", in(reg) address, lateout("a0") result, clobber_abi("C"));
    }
    result
}

/// The chapter.
pub fn visit(report: &mut Report<'_>) {
    report.chapter("Code: written, changed, and never written");
    let page = untouched(report, 5);
    write_code(page, &constant_function(11));
    fence_i();
    let first = call(page);
    write_code(page, &constant_function(22));
    fence_i();
    let second = call(page);
    report.step(
        "code that was changed runs as changed after fence.i",
        (first, second) == (11, 22),
        format_args!("{first}, then {second}"),
    );

    // The page's last two bytes are executed; the trap handler steps over them, to a `ret` in the next page.
    let page = untouched(report, 6);
    let last = page + 4094;
    write_code(page + 4096, &constant_function(0)[1..]);
    fence_i();
    let (_, trap) = catch(|| call(last));
    let right = trap.is_some_and(|trap| trap.cause == cause::ILLEGAL && trap.pc == last);
    let claim = "the first access to a page can be a fetch, which finds zeros: illegal";
    match trap {
        Some(trap) => report.step(claim, right, format_args!("{trap}")),
        None => report.step(claim, false, format_args!("no trap")),
    }
}
