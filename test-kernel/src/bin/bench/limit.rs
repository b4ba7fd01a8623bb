//! The limit: the host's own copy of the same bytes, by the plainest loop that loses nothing worth having.
//!
//! The one idea: sixteen doubles a round are 2 instructions for 8 bytes and 3 for the round: 0.273 a byte.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text
    .balign 4
__bench_limit:
    # extern "C" fn(a0 = to, a1 = from, a2 = len): 8-aligned both, or bytes where they are not.
    or      t0, a0, a1
    andi    t0, t0, 7
    add     t6, a0, a2
    bnez    t0, 4f
    andi    a3, a2, -128
    beqz    a3, 2f
    add     a3, a3, a0
1:
    .irp    half, 0, 64
    ld      a4, \half+0(a1)
    ld      a5, \half+8(a1)
    ld      a6, \half+16(a1)
    ld      a7, \half+24(a1)
    ld      t1, \half+32(a1)
    ld      t2, \half+40(a1)
    ld      t3, \half+48(a1)
    ld      t4, \half+56(a1)
    sd      a4, \half+0(a0)
    sd      a5, \half+8(a0)
    sd      a6, \half+16(a0)
    sd      a7, \half+24(a0)
    sd      t1, \half+32(a0)
    sd      t2, \half+40(a0)
    sd      t3, \half+48(a0)
    sd      t4, \half+56(a0)
    .endr
    addi    a0, a0, 128
    addi    a1, a1, 128
    bne     a0, a3, 1b
2:  addi    a3, t6, -8
    bltu    a3, a0, 4f
3:  ld      a4, 0(a1)
    sd      a4, 0(a0)
    addi    a0, a0, 8
    addi    a1, a1, 8
    bgeu    a3, a0, 3b
4:  beq     a0, t6, 6f
5:  lb      a4, 0(a1)
    sb      a4, 0(a0)
    addi    a0, a0, 1
    addi    a1, a1, 1
    bne     a0, t6, 5b
6:  ret
    "#
);

unsafe extern "C" {
    fn __bench_limit(to: *mut u8, from: *const u8, len: usize);
}

/// Copies from the memory behind the guest's.
pub fn read(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own memory.
    unsafe { __bench_limit(buffer, address as *const u8, len) };
    0
}

/// Copies to the memory behind the guest's.
pub fn write(_: &(), address: u64, buffer: *mut u8, len: usize) -> u64 {
    // SAFETY: the bench names its own memory.
    unsafe { __bench_limit(address as *mut u8, buffer, len) };
    0
}
