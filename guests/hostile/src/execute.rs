//! Executes foreign code, and comes back from most of it.
//!
//! The one idea: whatever trap comes, the vector throws all state away and returns to Rust. It is only lost if the code took
//! away the vector itself, or the translation under it; then the guest is, too.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use guest_kit::machine::Machine;
use guest_kit::trap::interrupt;
use guest_kit::{csr_set, csr_write, now, sbi};

use crate::layout::Layout;

/// What `satp` is to be, and where code is under it.
pub struct Paging {
    /// `satp`.
    pub satp: u64,
    /// Where the first code page is.
    pub code: u64,
    /// Whether the code runs in U-mode.
    pub user: bool,
}

impl Paging {
    /// None.
    pub const BARE: Self = Self {
        satp: 0,
        code: 0,
        user: false,
    };

    /// Switches to it.
    pub fn switch_on(&self) {
        // SAFETY: who calls has tables that map the image one to one, or takes the risk.
        unsafe {
            csr_write!("satp", self.satp);
            asm!("sfence.vma");
        }
    }
}

/// Registers kept over a run: ra, sp, gp, tp, s0 to s11, sscratch.
#[repr(transparent)]
struct Kept(UnsafeCell<[u64; 17]>);

// SAFETY: only the boot hart runs code.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new([0; 17]));

// hostile_run(a0 = code, a1 = the 31 registers x1..x31 that it starts with, a2 = satp, a3 = sstatus.SPP and SPIE)
//   -> scause of the trap that ended it
// Keeps what the C convention wants kept in KEPT; enters the code by sret; any trap goes to `hostile_run_trap`, which returns
// to the caller with translation and interrupts off. Clobbers everything else, sepc and sstatus.
global_asm!(
    r#"
    .section .text.hostile_run, "ax", @progbits
    .balign 4
    .globl hostile_run
hostile_run:
    la      t0, {kept}
    sd      ra, 0(t0)
    sd      sp, 8(t0)
    sd      gp, 16(t0)
    sd      tp, 24(t0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd      s\n, 32 + 8*\n(t0)
    .endr
    csrr    t1, sscratch
    sd      t1, 128(t0)
    la      t0, hostile_run_trap
    csrw    stvec, t0
    csrw    sepc, a0
    li      t0, 0x120
    csrc    sstatus, t0
    csrs    sstatus, a3
    csrw    satp, a2
    sfence.vma
    mv      x31, a1
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    ld      x\n, 8*(\n - 1)(x31)
    .endr
    ld      x31, 240(x31)
    sret

    .balign 4
hostile_run_trap:
    csrw    satp, zero
    sfence.vma
    csrw    sie, zero
    la      t0, {kept}
    ld      ra, 0(t0)
    ld      sp, 8(t0)
    ld      gp, 16(t0)
    ld      tp, 24(t0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld      s\n, 32 + 8*\n(t0)
    .endr
    ld      t1, 128(t0)
    csrw    sscratch, t1
    la      t0, guest_trap_vector
    csrw    stvec, t0
    csrr    a0, scause
    ret
    "#,
    kept = sym KEPT,
);

unsafe extern "C" {
    fn hostile_run(code: u64, registers: *const [u64; 31], satp: u64, status: u64) -> u64;
}

/// Microseconds after which code that goes in circles is ended.
const PATIENCE: u64 = 100;

/// What ends code that goes in circles.
pub const TIMER: u64 = 1 << interrupt::TIMER;

/// Writes `words` at an offset into the two code pages and runs them, with `interrupts` in `sie`.
pub fn run(
    machine: &Machine,
    layout: &Layout,
    words: &[u32],
    at: u64,
    registers: &[u64; 31],
    paging: &Paging,
    interrupts: u64,
) {
    const SPIE: u64 = 1 << 5;
    const SPP: u64 = 1 << 8;
    /// Floating point on, and vectors, if there are any.
    const UNITS_ON: u64 = 1 << 13 | 1 << 9;
    let code = if paging.satp == 0 {
        layout.code
    } else {
        paging.code
    };
    let status = if paging.user { SPIE } else { SPIE | SPP };
    sbi::set_timer(now() + machine.timebase_frequency * PATIENCE / 1_000_000);
    // SAFETY: the two code pages are for this; what the code does to other state is undone by the trap vector, means nothing
    // to this program, or is its end.
    unsafe {
        for (offset, &word) in (at..).step_by(4).zip(words) {
            // Half by half: the words may stand across the end of the page.
            let target = (layout.code + offset) as *mut u16;
            target.write_volatile(word as u16);
            target.add(1).write_volatile((word >> 16) as u16);
        }
        asm!("fence.i");
        csr_write!("sie", interrupts);
        csr_set!("sstatus", UNITS_ON);
        hostile_run(code + at, registers, paging.satp, status);
    }
}
