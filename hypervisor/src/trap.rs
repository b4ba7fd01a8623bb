//! Traps that the hypervisor itself takes.
//!
//! The one idea: interrupts are never enabled in HS-mode, so a trap from here is either a guest access of the library that
//! faulted, and the library says where it goes on, or a bug of ours, and the machine stops with its registers shown.
//!
//! Traps are handled on a stack of their own: `sscratch` holds its top, so that also an overflow of the ordinary stack can be
//! reported. A trap inside the handler goes on below the frame of the first.

use core::arch::global_asm;
use core::fmt;

use guest_mem::TrapInfo;
use guest_mem::hart::recovery::TrapContext;
use guest_mem::hart::riscv64::try_fixup;

use crate::csr;

/// Everything that the interrupted code had.
#[repr(C)]
pub struct HostTrapFrame {
    /// `x1` to `x31` by number; `x[0]` is unused.
    pub x: [u64; 32],
    /// `sepc`: where the handler returns to.
    pub pc: u64,
    /// `sstatus` of the trap.
    pub sstatus: u64,
    /// `hstatus` of the trap.
    pub hstatus: u64,
    _aligns_the_stack: u64,
}

const FRAME_BYTES: usize = size_of::<HostTrapFrame>();
const PC: usize = core::mem::offset_of!(HostTrapFrame, pc);
const SSTATUS: usize = core::mem::offset_of!(HostTrapFrame, sstatus);
const HSTATUS: usize = core::mem::offset_of!(HostTrapFrame, hstatus);

// Contract of `host_trap`, the value of `stvec` whenever HS-mode code runs:
//   in:       `sscratch` is the top of free space on the trap stack, 16-byte aligned
//   out:      every register but `sepc` and what the handler changed in the frame is as it was; `sscratch` too
//   clobbers: nothing
//   faults:   none of its own unless the trap stack overflows into its guard page, which ends in the firmware
global_asm!(
    ".pushsection .text.host_trap, \"ax\", @progbits",
    ".balign 4",
    ".globl host_trap",
    ".type host_trap, @function",
    "host_trap:",
    "csrrw sp, sscratch, sp",
    "addi sp, sp, -{frame}",
    "sd x1, 8(sp)",
    ".irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"sd x\n, 8*\n(sp)",
    ".endr",
    "csrr t0, sscratch", // the interrupted sp
    "sd t0, 16(sp)",
    "csrw sscratch, sp", // a nested trap goes on below this frame
    "csrr t0, sepc",
    "sd t0, {pc}(sp)",
    "csrr t0, sstatus",
    "sd t0, {sstatus}(sp)",
    "csrr t0, hstatus",
    "sd t0, {hstatus}(sp)",
    "li t0, {sdt}", // R24: the record is saved, so another trap is no double trap
    "csrc sstatus, t0",
    "mv a0, sp",
    "call {handler}",
    "ld t0, {pc}(sp)",
    "csrw sepc, t0",
    "ld t0, {sstatus}(sp)", // SPP and SPIE as the trap left them, also after a nested one
    "csrw sstatus, t0",
    "ld t0, {hstatus}(sp)",
    "csrw hstatus, t0",
    "addi t0, sp, {frame}",
    "csrw sscratch, t0",
    "ld x1, 8(sp)",
    ".irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"ld x\n, 8*\n(sp)",
    ".endr",
    "ld sp, 16(sp)",
    "sret",
    ".size host_trap, . - host_trap",
    ".popsection",
    frame = const FRAME_BYTES,
    pc = const PC,
    sstatus = const SSTATUS,
    hstatus = const HSTATUS,
    sdt = const csr::SSTATUS_SDT,
    handler = sym handle,
);

// SAFETY: `host_trap` stores what the hardware wrote for this trap and restores registers and pc from the frame; the handler
// asks before anything else can trap, so the trap CSRs are still this trap's.
unsafe impl TrapContext for HostTrapFrame {
    fn pc(&self) -> usize {
        self.pc as usize
    }

    fn trap_info(&self) -> TrapInfo {
        TrapInfo::from_csrs()
    }

    fn hstatus(&self) -> u64 {
        self.hstatus
    }

    fn set_pc(&mut self, pc: usize) {
        self.pc = pc as u64;
    }

    fn set_register(&mut self, x: usize, value: u64) {
        self.x[x] = value;
    }
}

/// Called by `host_trap` only.
extern "C" fn handle(frame: &mut HostTrapFrame) {
    if try_fixup(frame) {
        return;
    }
    let scause = csr::read!("scause");
    panic!(
        "trap in the hypervisor: {}",
        Report {
            frame,
            scause,
            stval: csr::read!("stval"),
            htval: csr::read!("htval"),
        }
    );
}

/// What a person needs to find the bug.
struct Report<'a> {
    frame: &'a HostTrapFrame,
    scause: u64,
    stval: u64,
    htval: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.frame;
        write!(
            f,
            "cause {:#x} at pc {:#x}, stval {:#x}, htval {:#x}, sstatus {:#x}, hstatus {:#x}",
            self.scause, frame.pc, self.stval, self.htval, frame.sstatus, frame.hstatus
        )?;
        for (number, value) in frame.x.iter().enumerate().skip(1) {
            let separator = if number % 4 == 1 { '\n' } else { ' ' };
            write!(f, "{separator}  x{number:<2} {value:016x}")?;
        }
        Ok(())
    }
}
