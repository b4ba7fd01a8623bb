//! The world switch: into the guest and back, as one function call.
//!
//! The one idea: a guest's exit is `enter` returning. What the trap wrote (R20: `sepc`, `scause`, `stval`, `htval`, `htinst`,
//! SPP, SPV, GVA) is in the context before any other code runs, so nothing that faults later can destroy it.
//!
//! Floating-point and vector registers are not switched: the hypervisor has none in use (`sstatus.FS` and `VS` are Off
//! outside the guest), and a hart runs one vCPU for good. The same holds for the vs* CSRs.

use core::arch::global_asm;
use core::mem::offset_of;

use guest_mem::TrapInfo;
use guest_mem::instruction::{GuestRegisters, Register};

use crate::csr;

/// The guest's registers while it does not run, and the record of its last exit. Its layout is known to `vcpu_enter`.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// `x1` to `x31` by number; `x[0]` stays 0.
    pub x: [u64; 32],
    /// Where the guest is, and goes on.
    pub pc: u64,
    /// `sstatus`: SPP is the guest's privilege.
    pub sstatus: u64,
    /// `hstatus`, with SPV set.
    pub hstatus: u64,
    /// The units that the guest may use: `sstatus.FS` and `VS`, as fields of that register.
    pub units: u64,
    /// The trap CSRs of the exit.
    pub trap: TrapInfo,
    pub(super) host_sp: u64,
    pub(super) host_tp: u64,
    pub(super) host_sscratch: u64,
}

unsafe extern "C" {
    fn vcpu_enter(context: *mut Context);
}

// Contract of `vcpu_enter(a0 = Context)`:
//   in:       HS-mode with SIE clear; the context's sstatus and hstatus say V=1 after `sret`; hgatp is the guest's
//   out:      returns at the guest's next trap into HS-mode with the context filled; stvec and sscratch are the host's again,
//             sstatus has FS and VS Off and SDT clear (R24)
//   clobbers: caller-saved integer registers
//   faults:   only the guest's, at `guest_exit`
global_asm!(
    ".pushsection .text.vcpu_enter, \"ax\", @progbits",
    ".globl vcpu_enter",
    ".type vcpu_enter, @function",
    "vcpu_enter:",
    "addi sp, sp, -112",
    "sd ra, 0(sp)",
    "sd s0, 8(sp)",
    "sd s1, 16(sp)",
    ".irp n, 2,3,4,5,6,7,8,9,10,11",
    r"sd s\n, 8+8*\n(sp)",
    ".endr",
    "sd sp, {host_sp}(a0)",
    "sd tp, {host_tp}(a0)",
    "csrr t0, sscratch",
    "sd t0, {host_sscratch}(a0)",
    "la t0, guest_exit",
    "csrw stvec, t0",
    "csrw sscratch, a0",
    "ld t0, {pc}(a0)",
    "csrw sepc, t0",
    "ld t0, {hstatus}(a0)",
    "csrw hstatus, t0",
    "ld t0, {sstatus}(a0)",
    "csrw sstatus, t0",
    "ld x1, 8(a0)",
    "ld x2, 16(a0)",
    ".irp n, 3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"ld x\n, 8*\n(a0)",
    ".endr",
    "ld x10, 80(a0)",
    "sret",
    ".size vcpu_enter, . - vcpu_enter",
    "",
    ".balign 4",
    ".type guest_exit, @function",
    "guest_exit:",
    "csrrw a0, sscratch, a0",
    "sd x1, 8(a0)",
    "sd x2, 16(a0)",
    ".irp n, 3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"sd x\n, 8*\n(a0)",
    ".endr",
    "csrr t0, sscratch",
    "sd t0, 80(a0)",
    "csrr t0, sepc",
    "sd t0, {pc}(a0)",
    "csrr t0, sstatus",
    "sd t0, {sstatus}(a0)",
    "csrr t0, hstatus",
    "sd t0, {hstatus}(a0)",
    "csrr t0, scause",
    "sd t0, {scause}(a0)",
    "csrr t0, stval",
    "sd t0, {stval}(a0)",
    "csrr t0, htval",
    "sd t0, {htval}(a0)",
    "csrr t0, htinst",
    "sd t0, {htinst}(a0)",
    "la t0, host_trap",
    "csrw stvec, t0",
    "ld t0, {host_sscratch}(a0)",
    "csrw sscratch, t0",
    "li t0, {off_in_host}",
    "csrc sstatus, t0",
    "ld sp, {host_sp}(a0)",
    "ld tp, {host_tp}(a0)",
    "ld ra, 0(sp)",
    "ld s0, 8(sp)",
    "ld s1, 16(sp)",
    ".irp n, 2,3,4,5,6,7,8,9,10,11",
    r"ld s\n, 8+8*\n(sp)",
    ".endr",
    "addi sp, sp, 112",
    "ret",
    ".size guest_exit, . - guest_exit",
    ".popsection",
    pc = const offset_of!(Context, pc),
    sstatus = const offset_of!(Context, sstatus),
    hstatus = const offset_of!(Context, hstatus),
    scause = const offset_of!(Context, trap) + offset_of!(TrapInfo, scause),
    stval = const offset_of!(Context, trap) + offset_of!(TrapInfo, stval),
    htval = const offset_of!(Context, trap) + offset_of!(TrapInfo, htval),
    htinst = const offset_of!(Context, trap) + offset_of!(TrapInfo, htinst),
    host_sp = const offset_of!(Context, host_sp),
    host_tp = const offset_of!(Context, host_tp),
    host_sscratch = const offset_of!(Context, host_sscratch),
    off_in_host = const csr::SSTATUS_FS | csr::SSTATUS_VS | csr::SSTATUS_SDT,
);

impl Context {
    /// Runs the guest until its next exit.
    ///
    /// # Safety
    ///
    /// `hgatp` of this hart is the guest's, and translates to nothing but the guest's memory.
    pub unsafe fn enter(&mut self) {
        // Whatever happened to the context: V=1 after sret, MXR and SUM of the host clear (R4), and no unit whose registers the
        // reset did not clear.
        self.hstatus |= csr::HSTATUS_SPV;
        self.sstatus &= !(csr::SSTATUS_SPIE
            | csr::SSTATUS_MXR
            | csr::SSTATUS_SUM
            | csr::SSTATUS_SDT
            | csr::SSTATUS_FS
            | csr::SSTATUS_VS);
        self.sstatus |= self.units;
        // SAFETY: the context leads to V=1, where the G-stage bounds what the guest reaches; HS-mode never enables
        // interrupts.
        unsafe { vcpu_enter(self) }
    }
}

impl GuestRegisters for Context {
    fn read(&self, register: Register) -> u64 {
        self.x[register.index()]
    }

    fn write(&mut self, register: Register, value: u64) {
        self.x[register.index()] = value;
    }

    fn pc(&self) -> u64 {
        self.pc
    }

    fn set_pc(&mut self, pc: u64) {
        self.pc = pc;
    }
}
