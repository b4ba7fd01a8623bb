//! Every register around one call of assembly.
//!
//! The one idea: the caller says what each register holds before the call and sees what each holds after it. No compiled code
//! lies between, which could save a register and put it back by itself.

use core::arch::global_asm;

/// x10 and x11.
pub const A0: usize = 10;
/// The second argument.
pub const A1: usize = 11;
/// x1: where a C function returns to.
pub const RA: usize = 1;
/// x2: the stack pointer.
pub const SP: usize = 2;
/// x5: where a routine that leaves `ra` alone returns to.
pub const T0: usize = 5;
/// x6: through which the routine is reached.
const T1: usize = 6;

/// What a register holds that nobody gave a value.
const fn poison(x: usize) -> u64 {
    0x5ca1_ab1e_0dd5_e700 + x as u64
}

/// The registers before and after a call.
#[repr(C)]
struct Block {
    before: [u64; 32],
    after: [u64; 32],
    host_sp: u64,
}

global_asm!(
    r#"
    .section .text
    .balign 4
    .globl __registers_call
__registers_call:
    # extern "C" fn(a0: *mut Block): jumps to where t1 leads, with every register but sp as the block has it before; comes back
    # at __registers_returned. Uses sscratch.
    addi    sp, sp, -128
    sd      ra, 0(sp)
    sd      gp, 8(sp)
    sd      tp, 16(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd      s\n, 24+8*\n(sp)
    .endr
    sd      sp, 16(a0)
    sd      sp, 512(a0)
    csrw    sscratch, a0
    .irp    n, 1,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(a0)
    .endr
    ld      a0, 80(a0)
    jr      t1

    .balign 4
    .globl __registers_returned
__registers_returned:
    csrrw   a0, sscratch, a0
    .irp    n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 256+8*\n(a0)
    .endr
    csrr    t0, sscratch
    sd      t0, 336(a0)
    ld      sp, 512(a0)
    ld      ra, 0(sp)
    ld      gp, 8(sp)
    ld      tp, 16(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld      s\n, 24+8*\n(sp)
    .endr
    addi    sp, sp, 128
    ret
    "#
);

unsafe extern "C" {
    fn __registers_call(block: *mut Block);
    static __registers_returned: [u8; 0];
}

/// How a call came back.
pub struct Returned {
    block: Block,
}

impl Returned {
    /// What a register holds now.
    pub fn register(&self, x: usize) -> u64 {
        self.block.after[x]
    }

    /// What a register held before.
    pub fn given(&self, x: usize) -> u64 {
        self.block.before[x]
    }

    /// The registers that are not as they were before.
    pub fn changed(&self) -> impl Iterator<Item = usize> {
        (1..32).filter(|&x| self.block.after[x] != self.block.before[x])
    }
}

/// Calls `routine`, which returns through register `link`, with these registers given, and a poison of its own in each other.
/// It is reached through t1.
///
/// # Safety
///
/// The routine is code that returns to what `link` holds, whatever else it does to registers; the given ones are what it wants.
/// It needs little of the stack.
pub unsafe fn call(routine: usize, link: usize, given: &[(usize, u64)]) -> Returned {
    let mut block = Block {
        before: core::array::from_fn(poison),
        after: [0; 32],
        host_sp: 0,
    };
    for &(x, value) in given {
        block.before[x] = value;
    }
    block.before[link] = (&raw const __registers_returned) as u64;
    block.before[T1] = routine as u64;
    // SAFETY: the caller's; what this function's own caller relies on is put back from the stack, whose address is in the block.
    unsafe { __registers_call(&raw mut block) };
    Returned { block }
}
