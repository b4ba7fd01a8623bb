//! Running a few instructions in VS-mode, VU-mode or U-mode, up to their first trap.
//!
//! The one idea: [`Guest::run`] is the whole life of a vCPU between two exits: registers in, `sret`, trap, registers out. The
//! exit record is read at once, before anything can overwrite it (R20).

use core::arch::global_asm;

use guest_mem::TrapInfo;
use guest_mem::csr::{HSTATUS_SPV, HSTATUS_SPVP, STATUS_SPP};

use crate::tables::bits::USER;
use crate::tables::{Page, World};
use crate::trap::{self, Trap};
use crate::{boot, csr};

/// `sstatus.FS` = Initial: floating point may be used.
const FS_INITIAL: u64 = 1 << 13;

/// Where code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The guest's kernel.
    Vs,
    /// The guest's user.
    Vu,
    /// The host's user.
    U,
}

/// The registers of the code that runs, and how it came back.
#[repr(C)]
pub struct Guest {
    /// The general registers; `x[0]` is unused.
    pub x: [u64; 32],
    /// Where it goes on.
    pub pc: u64,
    sstatus: u64,
    hstatus: u64,
    info: TrapInfo,
    host_sp: u64,
}

global_asm!(
    r#"
    .section .text
    .balign 4
    .globl __guest_run
__guest_run:
    # extern "C" fn(a0: *mut Guest): runs it up to its next trap. Uses sscratch and stvec; the caller puts stvec back.
    addi    sp, sp, -112
    sd      ra, 0(sp)
    sd      s0, 8(sp)
    sd      s1, 16(sp)
    sd      s2, 24(sp)
    sd      s3, 32(sp)
    sd      s4, 40(sp)
    sd      s5, 48(sp)
    sd      s6, 56(sp)
    sd      s7, 64(sp)
    sd      s8, 72(sp)
    sd      s9, 80(sp)
    sd      s10, 88(sp)
    sd      s11, 96(sp)
    sd      sp, 312(a0)
    csrw    sscratch, a0
    lla     t0, __guest_exit
    csrw    stvec, t0
    ld      t0, 256(a0)
    ld      t1, 264(a0)
    ld      t2, 272(a0)
    csrw    sepc, t0
    csrw    sstatus, t1
    csrw    0x600, t2
    .irp    n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(a0)
    .endr
    ld      a0, 80(a0)
    sret

    .balign 4
    .globl  __guest_exit
__guest_exit:
    csrrw   a0, sscratch, a0
    .irp    n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(a0)
    .endr
    csrr    t0, sscratch
    csrr    t1, sepc
    csrr    t2, sstatus
    csrr    t3, 0x600
    sd      t0, 80(a0)
    sd      t1, 256(a0)
    sd      t2, 264(a0)
    sd      t3, 272(a0)
    csrr    t0, scause
    csrr    t1, stval
    csrr    t2, 0x643
    csrr    t3, 0x64a
    sd      t0, 280(a0)
    sd      t1, 288(a0)
    sd      t2, 296(a0)
    sd      t3, 304(a0)
    ld      sp, 312(a0)
    ld      ra, 0(sp)
    ld      s0, 8(sp)
    ld      s1, 16(sp)
    ld      s2, 24(sp)
    ld      s3, 32(sp)
    ld      s4, 40(sp)
    ld      s5, 48(sp)
    ld      s6, 56(sp)
    ld      s7, 64(sp)
    ld      s8, 72(sp)
    ld      s9, 80(sp)
    ld      s10, 88(sp)
    ld      s11, 96(sp)
    addi    sp, sp, 112
    ret
    "#
);

unsafe extern "C" {
    static __guest_exit: [u8; 0];
    fn __guest_run(guest: *mut Guest);
}

/// `ecall`: back to the host.
pub const ECALL: u32 = 0x0000_0073;

/// Where the host's `stvec` points while code runs.
pub fn exit_address() -> u64 {
    (&raw const __guest_exit) as u64
}

impl Guest {
    /// Code that starts at `pc` with all registers 0.
    pub const fn at(pc: u64) -> Self {
        Self {
            x: [0; 32],
            pc,
            sstatus: 0,
            hstatus: 0,
            info: TrapInfo {
                scause: 0,
                stval: 0,
                htval: 0,
                htinst: 0,
            },
            host_sp: 0,
        }
    }

    /// Runs up to the next trap, whatever it is. The guest's two stages are in this hart's CSRs already.
    ///
    /// `sepc`, `sstatus` and `hstatus` are written anew each time, since a guest access in between has destroyed them (R20).
    pub fn run(&mut self, mode: Mode) -> Trap {
        let spp = if mode == Mode::Vs { STATUS_SPP } else { 0 };
        self.sstatus = spp | FS_INITIAL;
        self.hstatus = csr::hstatus::read() & !(HSTATUS_SPV | HSTATUS_SPVP)
            | match mode {
                Mode::Vs => HSTATUS_SPV | HSTATUS_SPVP,
                Mode::Vu => HSTATUS_SPV,
                Mode::U => 0,
            };
        // SAFETY: the tables in the CSRs let the guest reach arena pages only; it comes back by `__guest_exit`, which
        // restores all that Rust relies on. Interrupts are off and stay so. The host uses no floating point.
        unsafe {
            csr::vsstatus::set(FS_INITIAL);
            __guest_run(self);
            csr::sstatus::write(0);
        }
        trap::install();
        Trap {
            info: self.info,
            sepc: self.pc,
            sstatus: self.sstatus,
            hstatus: self.hstatus,
        }
    }
}

/// Writes instructions to guest memory at the start of `page`.
pub fn write_code(page: Page, code: &[u32]) {
    for (index, &word) in code.iter().enumerate() {
        // SAFETY: the page is the arena's, and `code` is shorter than a page.
        unsafe { (page.spa as *mut u32).add(index).write_volatile(word) };
    }
    fence_i();
}

/// Later fetches see earlier stores.
pub fn fence_i() {
    // SAFETY: `fence.i` changes no state that a program sees.
    unsafe { core::arch::asm!("fence.i") };
}

/// A loaded guest with `code` at `pc`, for `mode`. Its tables are answered too.
pub fn with_code(pc: u64, code: &[u32], mode: Mode) -> (World, Guest) {
    let mut world = World::sv39();
    let flags = match mode {
        Mode::Vs => USER & !crate::tables::bits::U,
        Mode::Vu | Mode::U => USER,
    };
    let page = world.page_at(pc, flags);
    write_code(page, code);
    if mode == Mode::U {
        boot::map_user_code(page.spa);
    }
    world.load();
    let start = if mode == Mode::U { boot::USER_CODE } else { pc };
    (world, Guest::at(start))
}
