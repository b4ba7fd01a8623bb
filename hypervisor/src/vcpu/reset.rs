//! The state in which a vCPU starts: what SBI firmware hands over (R71), and zero in every other
//! register, so that nothing of the host, of the firmware or of an earlier life of this vCPU shows.

use core::arch::asm;

use guest_mem::hart::Hart;

use super::context::Context;
use super::firmware_features::FirmwareFeatures;
use super::grant::Grant;
use crate::csr;
use crate::vm::hart_state::Start;

/// `vsstatus.UXL` for 64-bit VU-mode.
const UXL_64: u64 = 2 << 32;

/// `scounteren` with CY, TM and IR, which kernels leave to the firmware (R71).
const USER_COUNTERS: u64 = 0b111;

/// The interrupts of a guest that are pending, and its timer.
pub struct Pending {
    hvip: u64,
    timer: u64,
}

impl Pending {
    /// Reads them.
    pub fn save(grant: &Grant) -> Self {
        Self {
            hvip: csr::read!("hvip"),
            timer: if grant.own_timer() {
                csr::read!("vstimecmp")
            } else {
                0
            },
        }
    }

    /// Writes them back.
    pub fn restore(&self, grant: &Grant) {
        // SAFETY: the registers are the guest's.
        unsafe {
            csr::write!("hvip", self.hvip);
            if grant.own_timer() {
                csr::write!("vstimecmp", self.timer);
            }
        }
    }
}

/// Lets no interrupt of the guest end a `wfi` of this hart: the guest does not run here until a
/// reset.
pub fn mask_interrupts() {
    // SAFETY: the register is the guest's, which starts anew with a reset.
    unsafe { csr::write!("vsie", 0) };
}

/// Takes the guest's memory out of this hart: from here on no access and no walk of the hart leads
/// there.
pub fn unload(hart: &impl Hart) {
    mask_interrupts();
    // SAFETY: the guest does not run. R32: vsatp is Bare before hgatp changes. After both, nothing
    // remembers translations (R41, R45).
    unsafe {
        csr::write!("vsatp", 0);
        csr::write!("hgatp", 0);
    }
    hart.hfence_gvma(None);
    hart.hfence_vvma(None);
}

/// Brings this hart's guest state to that of a start (R71) and answers the context that starts at
/// `start` on guest hart `index`.
pub fn reset(
    hart: &impl Hart,
    grant: &Grant,
    chosen: &FirmwareFeatures,
    hgatp: u64,
    index: usize,
    start: Start,
) -> Context {
    // SAFETY: the registers are the guest's, which does not run; the host has no floating-point
    // state, and turns the unit off again. R32: vsatp is Bare before hgatp changes. After both,
    // nothing remembers older translations (R41, R45).
    unsafe {
        csr::write!("vsatp", 0);
        csr::write!("hgatp", hgatp);
        hart.hfence_gvma(None);
        hart.hfence_vvma(None);
        grant.apply(chosen);
        csr::write!("vsstatus", UXL_64 | grant.units());
        csr::write!("vsie", 0);
        csr::write!("vstvec", 0);
        csr::write!("vsscratch", 0);
        csr::write!("vsepc", 0);
        csr::write!("vscause", 0);
        csr::write!("vstval", 0);
        csr::write!("hvip", 0);
        csr::write!("hgeie", 0);
        csr::write!("htimedelta", 0);
        csr::write!("senvcfg", 0);
        csr::write!("scounteren", USER_COUNTERS);
        if grant.own_timer() {
            // The reset value is unspecified; this one never comes.
            csr::write!("vstimecmp", u64::MAX);
        }
        if grant.interrupt_registers {
            // vsiselect, hvien, hvictl, hviprio1, hviprio2, which the assembler does not know by
            // name.
            csr::write!("0x250", 0);
            csr::write!("0x608", 0);
            csr::write!("0x609", 0);
            csr::write!("0x646", 0);
            csr::write!("0x647", 0);
        }
        csr::set!("sstatus", csr::SSTATUS_FS);
        asm!(
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            r"fmv.d.x f\n, zero",
            ".endr",
            "fscsr zero",
            options(nomem, nostack)
        );
        if grant.granted.vectors {
            clear_vectors();
        }
        // Firmware leaves the units on.
        csr::clear!("sstatus", csr::SSTATUS_FS | csr::SSTATUS_VS);
    }
    let mut context = Context {
        pc: start.address,
        sstatus: csr::read!("sstatus") | csr::SSTATUS_SPP,
        hstatus: csr::HSTATUS_SPV | csr::HSTATUS_VTW | csr::HSTATUS_VSXL_64,
        units: grant.units(),
        ..Context::default()
    };
    context.x[10] = index as u64;
    context.x[11] = start.opaque;
    context
}

/// Brings the vector unit to its reset: every register zero, `vtype` invalid with `vl` 0, `vstart`
/// and `vcsr` 0.
///
/// # Safety
///
/// The machine has the unit, and its registers are the guest's, which does not run.
unsafe fn clear_vectors() {
    // SAFETY: the registers are the guest's: caller. The machine has the instructions, the unit is
    // turned on first, and `e8, m8` is valid for every size of vector registers. A `vtype` of all
    // ones is invalid: it sets `vill` and clears `vl`.
    unsafe {
        csr::set!("sstatus", csr::SSTATUS_VS);
        asm!(
            ".option push",
            ".option arch, +zve32x",
            "csrw vstart, zero",
            "vsetvli {scratch}, zero, e8, m8, ta, ma",
            ".irp n, 0,8,16,24",
            r"vmv.v.i v\n, 0",
            ".endr",
            "li {scratch}, -1",
            "vsetvl zero, {scratch}, {scratch}",
            "csrw vcsr, zero",
            ".option pop",
            scratch = out(reg) _,
            options(nomem, nostack)
        );
    }
}
