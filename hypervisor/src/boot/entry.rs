//! The first instructions of each hart.
//!
//! The one idea: the first hart that comes clears the image's zeroed data and runs on the first hart's stack with translation
//! off. It starts the others through the SBI, one at a time, and they come the same way; each finds its table and its stacks
//! in the `HartLocal` that is being [`STARTING`](super::STARTING). What firmware hands to them is not looked at: OpenSBI 1.1 may let a hart go
//! before it has written down where to and with what, so that it begins as if it were the first.

use core::arch::global_asm;
use core::sync::atomic::AtomicU32;

use crate::boot::hart_local;

/// 1 until the first hart has come. Not zero, so that it is no part of what that hart clears.
static FIRST: AtomicU32 = AtomicU32::new(1);

// Contract of `_start` (the firmware's jump, in S-mode with translation and interrupts off):
//   in:  a0 = hart id, a1 = device tree, both for the first hart only
//   out: `primary(a0, a1)` on the stack of the first hart;
//        on any other `secondary()` with satp, tp, stvec, sscratch and sp as HS-mode code of this hart expects them;
//        neither returns
//   faults: none, `stvec` is the firmware's business until `primary` or `settle` sets it
// Contract of `settle(a0 = HartLocal, a1 = function)`:
//   the same for the first hart: leaves the stack frames so far behind and calls the function, which does not return
global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    ".balign 4",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "csrw sie, zero",
    "la t0, {first}",
    ".option push",
    ".option arch, +a",
    "amoswap.w.aqrl t1, zero, (t0)",
    ".option pop",
    "beqz t1, 3f",
    "la t0, __bss_start",
    "la t1, __bss_end",
    "1: bgeu t0, t1, 2f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 1b",
    "2: la sp, {stacks}",
    "li t0, {first_stack_bytes}",
    "add sp, sp, t0",
    "li tp, 0",
    "call {primary}",
    "unimp",
    "3: la t0, {starting}",
    "ld a0, 0(t0)",
    "fence r, rw",
    "sd zero, 0(t0)",
    "la a1, {secondary}",
    "j settle",
    ".size _start, . - _start",
    "",
    ".globl settle",
    ".type settle, @function",
    "settle:",
    "mv tp, a0",
    "la t0, host_trap",
    "csrw stvec, t0",
    "ld t0, {trap_stack_top}(tp)",
    "csrw sscratch, t0",
    "ld sp, {stack_top}(tp)",
    "ld t0, {satp}(tp)",
    "sfence.vma",
    "csrw satp, t0",
    "sfence.vma",
    "jalr a1",
    "unimp",
    ".size settle, . - settle",
    ".popsection",
    stacks = sym hart_local::STACKS,
    first_stack_bytes = const hart_local::FIRST_STACK_TOP,
    primary = sym super::primary,
    first = sym FIRST,
    starting = sym super::STARTING,
    secondary = sym super::secondary,
    trap_stack_top = const hart_local::TRAP_STACK_TOP_OFFSET,
    stack_top = const hart_local::STACK_TOP_OFFSET,
    satp = const hart_local::SATP_OFFSET,
);
