//! The vector registers, for guests that look for what another one left in them.
//!
//! Guests are compiled without vector instructions, so the registers hold what the hart started
//! with until one is written here.

use core::arch::asm;

use super::machine::Machine;

/// `sstatus.VS`: Dirty.
const VS: u64 = 3 << 9;

/// The longest vector register that is looked at whole, in bytes.
const LONGEST: usize = 256;

/// Whether the device tree lists vector instructions.
pub fn has_vectors(machine: &Machine) -> bool {
    machine
        .extensions()
        .any(|name| name == "v" || name.starts_with("zve"))
}

/// What one hart has in its vector unit.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// `vl`.
    pub vl: u64,
    /// `vtype`.
    pub vtype: u64,
    /// `vstart`.
    pub vstart: u64,
    /// `vcsr`.
    pub vcsr: u64,
    /// The first 64 bits of the registers that are not zero, or 0.
    pub register: u64,
}

/// The registers' bytes, one after another.
#[repr(C, align(16))]
struct Bytes([u64; 32 * LONGEST / 8]);

impl Vectors {
    /// `vtype` after a reset: `vill` alone.
    pub const INVALID_TYPE: u64 = 1 << 63;

    /// Reads the unit of this hart, and leaves it as it is but for `sstatus.VS` and `vstart`.
    ///
    /// # Safety
    ///
    /// The hart has the instructions ([`has_vectors`]).
    pub unsafe fn read() -> Self {
        let mut bytes = Bytes([0; 32 * LONGEST / 8]);
        let (vl, vtype, vstart, vcsr, vlenb): (u64, u64, u64, u64, usize);
        // SAFETY: the hart has the instructions: caller. The registers are read only. They are
        // stored if they fit.
        unsafe {
            asm!(
                ".option push",
                ".option arch, +zve32x",
                "csrs sstatus, {vs}",
                "csrr {vl}, vl",
                "csrr {vtype}, vtype",
                "csrr {vstart}, vstart",
                "csrr {vcsr}, vcsr",
                "csrr {vlenb}, vlenb",
                // A whole-register store begins at vstart.
                "csrw vstart, zero",
                "bgtu {vlenb}, {longest}, 2f",
                "slli {step}, {vlenb}, 3",
                ".irp n, 0,8,16,24",
                r"vs8r.v v\n, ({at})",
                "add {at}, {at}, {step}",
                ".endr",
                "2:",
                ".option pop",
                vs = in(reg) VS,
                longest = in(reg) LONGEST,
                vl = out(reg) vl,
                vtype = out(reg) vtype,
                vstart = out(reg) vstart,
                vcsr = out(reg) vcsr,
                vlenb = out(reg) vlenb,
                step = out(reg) _,
                at = inout(reg) bytes.0.as_mut_ptr() => _,
            );
        }
        let register = match vlenb {
            ..=LONGEST => bytes.0.into_iter().find(|&word| word != 0),
            _ => None,
        };
        Self {
            vl,
            vtype,
            vstart,
            vcsr,
            register: register.unwrap_or(0),
        }
    }
}

/// Puts `value` into every vector register of this hart, and what is not zero into the unit's CSRs.
///
/// # Safety
///
/// The hart has the instructions ([`has_vectors`]), with elements of 64 bits.
pub unsafe fn fill(value: u64) {
    // SAFETY: the hart has the instructions: caller. This program has nothing in the registers.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +zve64x",
            "csrs sstatus, {vs}",
            "csrw vstart, zero",
            "vsetvli {scratch}, zero, e64, m8, ta, ma",
            ".irp n, 0,8,16,24",
            r"vmv.v.x v\n, {value}",
            ".endr",
            "csrwi vcsr, 7",
            "csrwi vstart, 1",
            ".option pop",
            vs = in(reg) VS,
            value = in(reg) value,
            scratch = out(reg) _,
        );
    }
}
