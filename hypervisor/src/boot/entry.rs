//! The first instructions of each hart.
//!
//! The one idea: the hart that the firmware picks clears the image's zeroed data and runs on the first hart's stack with
//! translation off; every other hart is started by it through the SBI, and finds its table and its stacks in its
//! `HartLocal`.

use core::arch::global_asm;

use crate::boot::hart_local;

// Contract of `_start` (the firmware's jump, in S-mode with translation and interrupts off):
//   in:  a0 = hart id, a1 = device tree
//   out: `primary(a0, a1)` on the stack of the first hart; does not return
//   faults: none, `stvec` is the firmware's business until `primary` sets it
// Contract of `secondary_start` (the firmware's jump after `hart_start`):
//   in:  a0 = hart id, a1 = `HartLocal` of the hart
//   out: `secondary()` with satp, tp, stvec, sscratch and sp as HS-mode code of this hart expects them
// Contract of `settle(a0 = HartLocal, a1 = function)`:
//   the same for the first hart: leaves the stack frames so far behind and calls the function, which does not return
global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    ".balign 4",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "csrw sie, zero",
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
    ".size _start, . - _start",
    "",
    ".balign 4",
    ".globl secondary_start",
    ".type secondary_start, @function",
    "secondary_start:",
    "csrw sie, zero",
    "mv a0, a1",
    "la a1, {secondary}",
    "j settle",
    ".size secondary_start, . - secondary_start",
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
    secondary = sym super::secondary,
    trap_stack_top = const hart_local::TRAP_STACK_TOP_OFFSET,
    stack_top = const hart_local::STACK_TOP_OFFSET,
    satp = const hart_local::SATP_OFFSET,
);
