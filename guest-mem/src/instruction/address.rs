//! Where a load or a store goes: its base register and its immediate.
//!
//! The one idea: the trap reports the address of the part that faulted, which is not where an access across two pages begins.
//! Only the instruction's own operands tell that, if `htinst` does not (R75).
//!
//! Source: unprivileged specification, "Load and Store Instructions", "C Extension for Compressed Instructions", "Zcb".

use super::{GuestRegisters, Instruction, Register};

/// The operands that make up the address of a load or a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressOperands {
    /// The base register.
    pub base: Register,
    /// What is added to it.
    pub offset: i64,
}

/// The stack pointer, which is the base of `c.lwsp` and its like.
const SP: Register = Register::field(2, 0);

/// `width` bits of `bits` from bit `from` on, moved to bit `to`.
const fn moved(bits: u32, from: u32, width: u32, to: u32) -> i64 {
    ((bits >> from & ((1 << width) - 1)) << to) as i64
}

impl AddressOperands {
    /// Those of an instruction that [`decode`](super::decode()) finds to be a load or a store. Of another one they say
    /// nothing.
    ///
    /// ```
    /// use guest_mem::instruction::{AddressOperands, Instruction, Register};
    ///
    /// let lb = Instruction::from_bits(0xffb5_8503); // lb a0, -5(a1)
    /// let operands = AddressOperands::of(lb);
    /// assert_eq!((operands.base, operands.offset), (Register::new(11).unwrap(), -5));
    /// ```
    pub const fn of(instruction: Instruction) -> Self {
        let bits = instruction.bits();
        if instruction.length() == 2 {
            return Self::of_compressed(bits);
        }
        let is_store = bits & 0x20 != 0;
        let immediate = bits.cast_signed() >> 20;
        let offset = if is_store {
            immediate & !0x1f | (bits >> 7 & 0x1f).cast_signed()
        } else {
            immediate
        };
        Self {
            base: Register::field(bits, 15),
            offset: offset as i64,
        }
    }

    const fn of_compressed(bits: u32) -> Self {
        let (quadrant, funct3) = (bits & 0b11, bits >> 13 & 0b111);
        let offset = match (quadrant, funct3) {
            // c.lw, c.sw
            (0, 0b010 | 0b110) => {
                moved(bits, 10, 3, 3) | moved(bits, 6, 1, 2) | moved(bits, 5, 1, 6)
            }
            // c.ld, c.sd
            (0, 0b011 | 0b111) => moved(bits, 10, 3, 3) | moved(bits, 5, 2, 6),
            // Zcb: bits 12:10 tell bytes (000, 010) from halfwords (001, 011).
            (0, 0b100) if bits >> 10 & 1 == 0 => moved(bits, 6, 1, 0) | moved(bits, 5, 1, 1),
            (0, 0b100) => moved(bits, 5, 1, 1),
            // c.lwsp
            (2, 0b010) => moved(bits, 12, 1, 5) | moved(bits, 4, 3, 2) | moved(bits, 2, 2, 6),
            // c.ldsp
            (2, 0b011) => moved(bits, 12, 1, 5) | moved(bits, 5, 2, 3) | moved(bits, 2, 3, 6),
            // c.swsp
            (2, 0b110) => moved(bits, 9, 4, 2) | moved(bits, 7, 2, 6),
            // c.sdsp
            (2, 0b111) => moved(bits, 10, 3, 3) | moved(bits, 7, 3, 6),
            _ => 0,
        };
        let base = match quadrant {
            2 => SP,
            _ => Register::compressed_field(bits, 7),
        };
        Self { base, offset }
    }

    /// The address, before pointer masking (R14).
    pub fn address(self, registers: &impl GuestRegisters) -> u64 {
        let base = if self.base == Register::ZERO {
            0
        } else {
            registers.read(self.base)
        };
        base.wrapping_add_signed(self.offset)
    }
}
