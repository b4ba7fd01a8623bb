//! M-mode's assembly: the entry out of reset, the way down to HS-mode, and the way in and out of a trap.

use core::arch::global_asm;

use super::MAX_HARTS;
use super::service;
use super::set_up;

/// What the trap entry saves.
#[repr(C)]
pub struct Frame {
    /// The general registers; `x[0]` is unused.
    pub x: [u64; 32],
    /// `mepc`.
    pub mepc: u64,
    /// `mstatus`.
    pub mstatus: u64,
}

global_asm!(
    r#"
    .section .text.machine, "ax"
    .globl __machine_start
__machine_start:
    # In: M-mode, a1 = device tree or 0; any number of harts at once. Nothing is known of a0 on some machines.
    # Out: machine_main(hart, device tree, whether it is first), .bss cleared, on the hart's M-mode stack, which mscratch holds.
    # A trap on the way clobbers t0 and goes on with the next instruction.
    lla     t0, __machine_skip
    csrw    mtvec, t0
    csrw    mie, zero
    li      t0, {quiet}
    csrc    mstatus, t0
    # Smrnmi: until mnstatus.NMIE is set no trap is taken at all.
    li      t0, 8
    csrs    0x744, t0
    csrr    a0, mhartid
    li      t0, {harts}
    bgeu    a0, t0, 6f
    lla     t0, __machine_first
    li      t1, 1
    .option push
    .option arch, +a
    amoswap.w.aqrl t1, t1, (t0)
    .option pop
    lla     t2, __machine_cleared
    bnez    t1, 3f
    lla     t0, __bss_start
    lla     t3, __bss_end
1:  bgeu    t0, t3, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  fence   rw, w
    li      t0, 1
    sw      t0, 0(t2)
    j       4f
3:  lw      t0, 0(t2)
    beqz    t0, 3b
    fence   r, rw
4:  lla     sp, __machine_stacks
    addi    t0, a0, 1
    slli    t0, t0, 14
    add     sp, sp, t0
    csrw    mscratch, sp
    seqz    a2, t1
    call    {main}
6:  wfi
    j       6b

    .balign 4
__machine_skip:
    # A trap of M-mode's own: goes on 4 bytes later. Clobbers t0.
    csrr    t0, mepc
    addi    t0, t0, 4
    csrw    mepc, t0
    mret
    .globl __machine_skip

    .globl __machine_drop
__machine_drop:
    # extern "C" fn(a0, a1, entry) -> !: HS-mode at entry with a0 and a1; the M-mode stack is empty again.
    li      t0, {down}
    csrc    mstatus, t0
    li      t0, {supervisor}
    csrs    mstatus, t0
    csrw    mepc, a2
    mret

    .globl __machine_park
__machine_park:
    # In: M-mode, from a trap. Waits as out of reset.
    csrr    sp, mscratch
    csrr    a0, mhartid
    call    {wait}

    .balign 4
    .globl __machine_trap
__machine_trap:
    # In: the interrupted code's registers; mscratch = this hart's M-mode stack. All registers come back as the frame says.
    csrrw   sp, mscratch, sp
    addi    sp, sp, -{size}
    sd      x1, 8(sp)
    .irp    n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(sp)
    .endr
    addi    t0, sp, {size}
    csrrw   t0, mscratch, t0
    csrr    t1, mepc
    csrr    t2, mstatus
    sd      t0, 16(sp)
    sd      t1, 256(sp)
    sd      t2, 264(sp)
    mv      a0, sp
    call    {handle}
    ld      t0, 256(sp)
    ld      t1, 264(sp)
    csrw    mepc, t0
    csrw    mstatus, t1
    .irp    n, 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(sp)
    .endr
    ld      sp, 16(sp)
    mret

    # Kept by the clearing of .bss.
    .section .data.machine, "aw"
    .balign 4
__machine_first:
    .word   0
__machine_cleared:
    .word   0

    .section .stacks, "aw", @nobits
    .balign 4096
__machine_stacks:
    .space  {harts} << 14
    .section .text
    "#,
    harts = const MAX_HARTS,
    // MIE and MDT.
    quiet = const 1 << 3 | super::csr::MDT,
    // MPP, MPIE, MPV, MPRV, and what keeps HS from translation, `wfi` and `sret`.
    down = const super::csr::MPP | 1 << 7 | 1 << 17 | 7 << 20 | 1 << 39,
    supervisor = const super::csr::MPP_SUPERVISOR,
    size = const core::mem::size_of::<Frame>(),
    main = sym set_up::machine_main,
    wait = sym set_up::wait,
    handle = sym service::handle,
);
