//! Stamps: values that say which guest left them, in everything that a next guest could read.

use core::arch::{asm, global_asm};

use sbi_spec::srst;

use crate::layout::{PLIC, UART};

/// The bits above the seed.
const MARK: u64 = 0x57a3_b000_0000_0000;
const MARK_BITS: u64 = 0xffff_f000_0000_0000;

/// The UART's scratch register, and its line control.
const SCRATCH: u64 = UART + 7;

/// The stamp of the guest with `seed`.
pub const fn of(seed: u64) -> u64 {
    MARK | seed & !MARK_BITS
}

/// The (low bits of the) seed in a stamp.
pub const fn seed_in(value: u64) -> Option<u64> {
    if value & MARK_BITS == MARK {
        Some(value & !MARK_BITS)
    } else {
        None
    }
}

/// Stamps registers of devices.
pub fn devices(seed: u64) {
    let byte = seed as u8 | 1;
    // SAFETY: stores to device registers that nobody here depends on.
    unsafe {
        (SCRATCH as *mut u8).write_volatile(byte);
        for source in 1..32 {
            ((PLIC + 4 * source) as *mut u32).write_volatile(7);
        }
        for context in 0..2 {
            ((PLIC + 0x2000 + 0x80 * context) as *mut u32).write_volatile(u32::MAX);
            ((PLIC + 0x20_0000 + 0x1000 * context) as *mut u32).write_volatile(5);
        }
    }
}

// hostile_stamp(a0 = stamp): every floating-point register, fcsr, and every S-mode CSR that holds a value and decides nothing.
//   clobbers: a1
// hostile_leave(a0 = stamp): the same, then every other register, then the end of the guest.
global_asm!(
    r#"
    .section .text.hostile_stamp, "ax", @progbits
    .option push
    .option arch, +d
    .balign 4
    .globl hostile_stamp
hostile_stamp:
    li      a1, 3 << 13
    csrs    sstatus, a1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fmv.d.x f\n, a0
    .endr
    li      a1, 0xff
    csrw    fcsr, a1
    .irp    csr, sepc, scause, stval, scounteren, 0x10a
    csrw    \csr, a0
    .endr
    ret

    .globl hostile_leave
hostile_leave:
    csrw    satp, zero
    sfence.vma
    csrw    stvec, a0
    csrw    sscratch, a0
    call    hostile_stamp
    csrw    sie, a0
    mv      x31, a0
    .irp n, 1,2,3,4,5,6,7,8,9,12,13,14,15,18,19,20,21,22,23,24,25,26,27,28,29,30
    mv      x\n, x31
    .endr
    li      a0, {shutdown}
    li      a1, {no_reason}
    li      a6, {system_reset}
    li      a7, {srst}
    ecall
1:  j       1b
    .option pop
    "#,
    shutdown = const srst::RESET_TYPE_SHUTDOWN,
    no_reason = const srst::RESET_REASON_NO_REASON,
    system_reset = const srst::SYSTEM_RESET,
    srst = const srst::EID_SRST,
);

unsafe extern "C" {
    fn hostile_leave(stamp: u64) -> !;
}

/// Stamps the registers that the program does not need.
pub fn registers(seed: u64) {
    // SAFETY: this program uses no floating point, and the trap handler no CSR that is stamped outside of a trap.
    unsafe {
        asm!(
            "call hostile_stamp",
            in("a0") of(seed), out("a1") _, out("ra") _,
        );
    }
}

/// Stamps the vector registers of this hart, which has them.
pub fn vectors(seed: u64) {
    // SAFETY: the device tree lists the instructions: caller. Every machine that runs this guest has elements of 64 bits.
    unsafe { guest_kit::vectors::fill(of(seed)) }
}

/// Stamps everything and shuts down.
pub fn leave(seed: u64) -> ! {
    // SAFETY: the end of this guest.
    unsafe { hostile_leave(of(seed)) }
}
