//! Control and status registers, by name.
//!
//! The one idea: a register is named once, where it is used, as the specification writes it; the `riscv` crate has no
//! registers of the H extension.

/// Reads a CSR.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register has no side effect.
        unsafe {
            core::arch::asm!(concat!("csrr {}, ", $name), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a CSR. To be used in an `unsafe` block that says why what the register changes is what the host relies on.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("csrw ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags))
    }};
}

/// Sets bits of a CSR; as [`write`].
macro_rules! set {
    ($name:literal, $bits:expr) => {{
        let bits: u64 = $bits;
        core::arch::asm!(concat!("csrs ", $name, ", {}"), in(reg) bits, options(nostack, preserves_flags))
    }};
}

/// Clears bits of a CSR; as [`write`].
macro_rules! clear {
    ($name:literal, $bits:expr) => {{
        let bits: u64 = $bits;
        core::arch::asm!(concat!("csrc ", $name, ", {}"), in(reg) bits, options(nostack, preserves_flags))
    }};
}

pub(crate) use {clear, read, set, write};

/// `sstatus.SPIE`.
pub const SSTATUS_SPIE: u64 = 1 << 5;
/// `sstatus.SPP`.
pub const SSTATUS_SPP: u64 = 1 << 8;
/// `sstatus.VS`: the state of the vector registers.
pub const SSTATUS_VS: u64 = 3 << 9;
/// `sstatus.FS`: the state of the floating-point registers.
pub const SSTATUS_FS: u64 = 3 << 13;
/// `sstatus.SUM`.
pub const SSTATUS_SUM: u64 = 1 << 18;
/// `sstatus.MXR`.
pub const SSTATUS_MXR: u64 = 1 << 19;
/// `sstatus.SDT` (Ssdbltrp).
pub const SSTATUS_SDT: u64 = 1 << 24;

/// `hstatus.SPV`.
pub const HSTATUS_SPV: u64 = 1 << 7;
/// `hstatus.VTW`: `wfi` of the guest's supervisor traps.
pub const HSTATUS_VTW: u64 = 1 << 21;
/// `hstatus.VSXL` for a 64-bit guest.
pub const HSTATUS_VSXL_64: u64 = 2 << 32;

/// Supervisor software interrupt, in `sie` and `sip`.
pub const SSI: u64 = 1 << 1;
/// Supervisor timer interrupt, in `sie` and `sip`.
pub const STI: u64 = 1 << 5;
/// Virtual supervisor software interrupt, in `hvip`.
pub const VSSI: u64 = 1 << 2;
/// Virtual supervisor timer interrupt, in `hvip`.
pub const VSTI: u64 = 1 << 6;
/// Virtual supervisor external interrupt, in `hvip`.
pub const VSEI: u64 = 1 << 10;
/// The interrupts of a guest.
pub const VS_INTERRUPTS: u64 = VSSI | VSTI | VSEI;
