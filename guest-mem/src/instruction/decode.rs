//! From the bits of an instruction to what it wants of memory.
//!
//! The one idea: only the fields that matter for this are looked at: not the base register, nor the immediate, because the
//! trap has reported the address, and because `htinst` does not keep them (R58).
//!
//! Source: unprivileged specification, "RV32/64G Instruction Set Listings" and the chapters of the named extensions.

use super::compressed::decode_compressed;
use super::decoded::{AccessForm, Decoded, DecodedAccess, NotEmulatable, NotEmulatableKind};
use super::{Instruction, Register};
use crate::access::Width;

/// The major opcodes of 32-bit instructions that touch memory, bits 6:0.
pub(super) mod opcode {
    pub const LOAD: u32 = 0x03;
    pub const LOAD_FP: u32 = 0x07;
    pub const CUSTOM_0: u32 = 0x0b;
    pub const MISC_MEM: u32 = 0x0f;
    pub const OP_IMM: u32 = 0x13;
    pub const STORE: u32 = 0x23;
    pub const STORE_FP: u32 = 0x27;
    pub const CUSTOM_1: u32 = 0x2b;
    pub const AMO: u32 = 0x2f;
    pub const CUSTOM_2: u32 = 0x5b;
    pub const SYSTEM: u32 = 0x73;
    pub const CUSTOM_3: u32 = 0x7b;
}

/// Says what an instruction wants of memory. Total: every bit pattern has an answer.
///
/// ```
/// use guest_mem::Width;
/// use guest_mem::instruction::{AccessForm, Decoded, DecodedAccess, Instruction, NotEmulatableKind, Register, decode};
///
/// let sd = decode(Instruction::from_bits(0x00b5_3423)); // sd a1, 8(a0)
/// let a1 = Register::new(11).unwrap();
/// assert_eq!(sd, Decoded::Access(DecodedAccess { form: AccessForm::Store { rs2: a1 }, width: Width::Double, len: 4 }));
///
/// let fld = decode(Instruction::from_bits(0x2108)); // c.fld fa0, 0(a0)
/// assert!(matches!(fld, Decoded::NotEmulatable(refused) if refused.kind == NotEmulatableKind::FloatingPointLoad));
///
/// let nop = decode(Instruction::from_bits(0x0000_0013));
/// assert_eq!(nop, Decoded::NoMemoryAccess { len: 4 });
/// ```
pub const fn decode(instruction: Instruction) -> Decoded {
    let bits = instruction.bits();
    if instruction.length() == 2 {
        return decode_compressed(bits);
    }
    match bits & 0x7f {
        opcode::LOAD => decode_load(bits),
        opcode::STORE => decode_store(bits),
        opcode::LOAD_FP => match funct3(bits) {
            1..=4 => refused(NotEmulatableKind::FloatingPointLoad),
            _ => refused(NotEmulatableKind::VectorLoad),
        },
        opcode::STORE_FP => match funct3(bits) {
            1..=4 => refused(NotEmulatableKind::FloatingPointStore),
            _ => refused(NotEmulatableKind::VectorStore),
        },
        opcode::AMO => decode_amo(bits),
        opcode::MISC_MEM => decode_cache_block(bits),
        opcode::OP_IMM => decode_prefetch(bits),
        opcode::SYSTEM => decode_system(bits),
        opcode::CUSTOM_0 | opcode::CUSTOM_1 | opcode::CUSTOM_2 | opcode::CUSTOM_3 => {
            refused(NotEmulatableKind::Custom)
        }
        _ => NO_ACCESS,
    }
}

const NO_ACCESS: Decoded = Decoded::NoMemoryAccess { len: 4 };

const fn refused(kind: NotEmulatableKind) -> Decoded {
    Decoded::NotEmulatable(NotEmulatable { kind, len: 4 })
}

const fn funct3(bits: u32) -> u32 {
    bits >> 12 & 0b111
}

const fn funct7(bits: u32) -> u32 {
    bits >> 25
}

const fn rd(bits: u32) -> Register {
    Register::field(bits, 7)
}

const fn rs1(bits: u32) -> usize {
    Register::field(bits, 15).index()
}

const fn rs2(bits: u32) -> Register {
    Register::field(bits, 20)
}

const fn width_of(log2: u32) -> Width {
    Width::ALL[(log2 & 0b11) as usize]
}

/// LOAD: the low two bits of funct3 are the width's logarithm, the high one asks for zero-extension.
const fn decode_load(bits: u32) -> Decoded {
    match funct3(bits) {
        0b111 => NO_ACCESS,
        funct3 => Decoded::Access(DecodedAccess {
            form: AccessForm::Load {
                rd: rd(bits),
                sign_extend: funct3 & 0b100 == 0,
            },
            width: width_of(funct3),
            len: 4,
        }),
    }
}

const fn decode_store(bits: u32) -> Decoded {
    match funct3(bits) {
        funct3 @ 0..=3 => Decoded::Access(DecodedAccess {
            form: AccessForm::Store { rs2: rs2(bits) },
            width: width_of(funct3),
            len: 4,
        }),
        _ => NO_ACCESS,
    }
}

/// AMO: funct5 is the operation, funct3 the width's logarithm (Zabha: 0 and 1; Zacas: 4).
const fn decode_amo(bits: u32) -> Decoded {
    let kind = match (bits >> 27, funct3(bits)) {
        (0b00010, 2 | 3) if rs2(bits).index() == 0 => NotEmulatableKind::LoadReserved,
        (0b00011, 2 | 3) => NotEmulatableKind::StoreConditional,
        // Zalasr has no load without aq (bit 26) and no store without rl (bit 25).
        (0b00110, 0..=3) if rs2(bits).index() == 0 && bits >> 26 & 1 == 1 => {
            NotEmulatableKind::LoadAcquire
        }
        (0b00111, 0..=3) if rd(bits).index() == 0 && bits >> 25 & 1 == 1 => {
            NotEmulatableKind::StoreRelease
        }
        (0b01001, 2 | 3) => NotEmulatableKind::ShadowStack,
        // amocas, alone in having a 16-byte form
        (0b00101, 0..=4) => NotEmulatableKind::Amo,
        // amoadd, amoswap, amoxor, amoor, amoand, amomin, amomax, amominu, amomaxu
        (
            0b00000 | 0b00001 | 0b00100 | 0b01000 | 0b01100 | 0b10000 | 0b10100 | 0b11000 | 0b11100,
            0..=3,
        ) => NotEmulatableKind::Amo,
        _ => return NO_ACCESS,
    };
    refused(kind)
}

/// Zicbom and Zicboz: MISC-MEM with funct3 2, no destination, and the operation in place of the immediate.
const fn decode_cache_block(bits: u32) -> Decoded {
    match (funct3(bits), rd(bits).index(), bits >> 20) {
        (2, 0, 0 | 1 | 2 | 4) => refused(NotEmulatableKind::CacheBlock),
        _ => NO_ACCESS,
    }
}

/// Zicbop: `ori x0` with the kind of prefetch in the low bits of the immediate.
const fn decode_prefetch(bits: u32) -> Decoded {
    match (funct3(bits), rd(bits).index(), rs2(bits).index()) {
        (6, 0, 0 | 1 | 3) => refused(NotEmulatableKind::Prefetch),
        _ => NO_ACCESS,
    }
}

/// SYSTEM with funct3 4: the hypervisor's loads and stores, and among the may-be-operations those that Zicfiss took.
const fn decode_system(bits: u32) -> Decoded {
    if funct3(bits) != 4 {
        return NO_ACCESS;
    }
    let (rd, rs1, rs2) = (rd(bits).index(), rs1(bits), rs2(bits).index());
    match (funct7(bits), rs2) {
        // hlv.{b,bu}, hlv.{h,hu} and hlvx.hu, hlv.{w,wu} and hlvx.wu, hlv.d
        (0b0110000, 0 | 1) | (0b0110010 | 0b0110100, 0 | 1 | 3) | (0b0110110, 0) => {
            refused(NotEmulatableKind::HypervisorLoad)
        }
        // hsv.b, hsv.h, hsv.w, hsv.d
        (0b0110001 | 0b0110011 | 0b0110101 | 0b0110111, _) if rd == 0 => {
            refused(NotEmulatableKind::HypervisorStore)
        }
        // sspush is mop.rr.7, sspopchk is mop.r.28, both of x1 or x5 only.
        (0b1100111, 1 | 5) if rd == 0 && rs1 == 0 => refused(NotEmulatableKind::ShadowStack),
        (0b1100110, 0b11100) if rd == 0 && (rs1 == 1 || rs1 == 5) => {
            refused(NotEmulatableKind::ShadowStack)
        }
        _ => NO_ACCESS,
    }
}
