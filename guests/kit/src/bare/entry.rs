//! The way in, for the boot hart and for harts that it starts.
//!
//! The one idea: a hart needs a stack, a second stack for traps (in `sscratch`, so that a guest may
//! use `sp` for anything), and a trap vector; then it is in Rust.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of each stack.
const STACK: usize = 16 << 10;

/// Stacks of one hart.
#[repr(C, align(16))]
struct Stacks {
    normal: [u8; STACK],
    trap: [u8; STACK],
}

/// Stacks of the boot hart and of one more.
#[repr(transparent)]
struct AllStacks(UnsafeCell<[Stacks; 2]>);

// SAFETY: each hart uses only its own stacks, by its stack pointers.
unsafe impl Sync for AllStacks {}

static STACKS: AllStacks = AllStacks(UnsafeCell::new(
    [const {
        Stacks {
            normal: [0; STACK],
            trap: [0; STACK],
        }
    }; 2],
));

// `_start`: a0 = hart id, a1 = device tree, as the SBI specification hands over. Clears .bss, goes
// to `guest_main(a0, a1)`, which does not return.
//
// `guest_second_hart`: a0 = hart id, a1 = what was passed to hart_start; goes to the function that
// `second_hart_entry` was given. Not to a weak symbol: with fat LTO that and its definition are two
// of one name in one module.
global_asm!(
    r#"
    .section .text.entry, "ax", @progbits
    .globl _start
_start:
    csrw    sie, zero
    la      t0, __bss_start
    la      t1, __bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  la      sp, {stacks}
    li      t0, {stack}
    add     sp, sp, t0
    add     t0, sp, t0
    csrw    sscratch, t0
    la      t0, guest_trap_vector
    csrw    stvec, t0
    call    guest_main
3:  wfi
    j       3b

    .globl guest_second_hart
guest_second_hart:
    csrw    sie, zero
    la      sp, {stacks}
    li      t0, {stack} * 3
    add     sp, sp, t0
    li      t0, {stack}
    add     t0, sp, t0
    csrw    sscratch, t0
    la      t0, guest_trap_vector
    csrw    stvec, t0
    la      t0, {second_main}
    ld      t0, 0(t0)
    jr      t0
    "#,
    stacks = sym STACKS,
    stack = const STACK,
    second_main = sym SECOND_MAIN,
);

/// Where a second hart goes on in Rust.
static SECOND_MAIN: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn guest_second_hart();
}

/// Where a second hart is to be started, for SBI's `hart_start`. It goes on at `main(hart id,
/// opaque)`.
pub fn second_hart_entry(main: extern "C" fn(u64, u64) -> !) -> u64 {
    // Release: SBI's `hart_start` orders it before the hart's start.
    SECOND_MAIN.store(main as *const () as usize, Ordering::Release);
    guest_second_hart as *const () as u64
}
