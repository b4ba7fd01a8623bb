//! A hypervisor with a trap handler of its own asks the library first.
//!
//! What is here stands for what such a hypervisor already has: a trap entry that saves the registers in a frame, and a
//! handler in Rust. Two pieces are new: `TrapContext` for the frame, and the `try_fixup` line.

use core::arch::naked_asm;

use guest_mem::hart::recovery::TrapContext;
use guest_mem::hart::riscv64::{HandlerHook, Riscv64};
use guest_mem::{AccessError, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, TrapInfo, try_fixup};

/// What the trap entry saved. `x[0]` is unused.
#[repr(C)]
pub struct TrapFrame {
    /// The general registers.
    pub x: [u64; 32],
    /// Where to return to.
    pub sepc: u64,
}

// SAFETY: `trap_entry` fills the frame from the registers and the CSRs of the trap, and returns with what the frame holds.
// Between the trap and `try_fixup` nothing traps, so that the CSRs still are this trap's.
unsafe impl TrapContext for TrapFrame {
    fn pc(&self) -> usize {
        self.sepc as usize
    }

    fn trap_info(&self) -> TrapInfo {
        TrapInfo::from_csrs()
    }

    fn hstatus(&self) -> u64 {
        let hstatus;
        // SAFETY: reading hstatus in HS-mode has no effect.
        unsafe { core::arch::asm!("csrr {}, 0x600", out(reg) hstatus, options(nomem, nostack)) };
        hstatus
    }

    fn set_pc(&mut self, pc: usize) {
        self.sepc = pc as u64;
    }

    fn set_register(&mut self, x: usize, value: u64) {
        self.x[x] = value;
    }
}

/// The handler for traps that HS-mode itself takes.
pub extern "C" fn handle_host_trap(frame: &mut TrapFrame) {
    // The new line. A fault of a guest access ends here.
    if try_fixup(frame) {
        return;
    }
    // What the hypervisor did before: interrupts, its own page faults, panics.
    panic!(
        "unexpected trap at {:#x}: {:x?}",
        frame.sepc,
        TrapInfo::from_csrs()
    );
}

/// The entry that `stvec` points to while the hypervisor itself runs: saves the frame on the stack it interrupted.
///
/// # Safety
///
/// Only for `stvec`. The stack has room for the frame.
#[unsafe(naked)]
pub unsafe extern "C" fn trap_entry() {
    naked_asm!(
        ".balign 4",
        "addi sp, sp, -272",
        "sd x1, 8(sp)",
        "sd x3, 24(sp)",
        "sd x4, 32(sp)",
        "sd x5, 40(sp)",
        "sd x6, 48(sp)",
        "sd x7, 56(sp)",
        "sd x8, 64(sp)",
        "sd x9, 72(sp)",
        "sd x10, 80(sp)",
        "sd x11, 88(sp)",
        "sd x12, 96(sp)",
        "sd x13, 104(sp)",
        "sd x14, 112(sp)",
        "sd x15, 120(sp)",
        "sd x16, 128(sp)",
        "sd x17, 136(sp)",
        "sd x18, 144(sp)",
        "sd x19, 152(sp)",
        "sd x20, 160(sp)",
        "sd x21, 168(sp)",
        "sd x22, 176(sp)",
        "sd x23, 184(sp)",
        "sd x24, 192(sp)",
        "sd x25, 200(sp)",
        "sd x26, 208(sp)",
        "sd x27, 216(sp)",
        "sd x28, 224(sp)",
        "sd x29, 232(sp)",
        "sd x30, 240(sp)",
        "sd x31, 248(sp)",
        "csrr t0, sepc",
        "sd t0, 256(sp)",
        "addi t0, sp, 272",
        "sd t0, 16(sp)",
        "mv a0, sp",
        "call {handle}",
        "ld t0, 256(sp)",
        "csrw sepc, t0",
        "ld x1, 8(sp)",
        "ld x3, 24(sp)",
        "ld x4, 32(sp)",
        "ld x5, 40(sp)",
        "ld x6, 48(sp)",
        "ld x7, 56(sp)",
        "ld x8, 64(sp)",
        "ld x9, 72(sp)",
        "ld x10, 80(sp)",
        "ld x11, 88(sp)",
        "ld x12, 96(sp)",
        "ld x13, 104(sp)",
        "ld x14, 112(sp)",
        "ld x15, 120(sp)",
        "ld x16, 128(sp)",
        "ld x17, 136(sp)",
        "ld x18, 144(sp)",
        "ld x19, 152(sp)",
        "ld x20, 160(sp)",
        "ld x21, 168(sp)",
        "ld x22, 176(sp)",
        "ld x23, 184(sp)",
        "ld x24, 192(sp)",
        "ld x25, 200(sp)",
        "ld x26, 208(sp)",
        "ld x27, 216(sp)",
        "ld x28, 224(sp)",
        "ld x29, 232(sp)",
        "ld x30, 240(sp)",
        "ld x31, 248(sp)",
        "addi sp, sp, 272",
        "sret",
        handle = sym handle_host_trap,
    )
}

/// Reads a buffer that the guest named by a guest-virtual address, after its exit was saved.
///
/// # Safety
///
/// `stvec` is [`trap_entry`]. As [`LoadedVcpu::new`]: the vCPU's `hgatp`, `vsatp` and `vsstatus` are in this hart's CSRs and
/// lead to nothing but the guest's memory, and what its exit left in `sepc`, `scause`, `stval`, `htval`, `htinst`, `sstatus`
/// and `hstatus` has been saved.
///
/// # Errors
///
/// The fault, and how many bytes came before it.
pub unsafe fn read_guest_buffer(
    hart: &Riscv64<HandlerHook>,
    privilege: GuestPrivilege,
    buffer: Gva,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    // SAFETY: the vCPU is loaded: caller. Its one token ends with this function.
    let vcpu = unsafe { LoadedVcpu::new(hart) };
    vcpu.guest_virtual(privilege).read(buffer, destination)
}
