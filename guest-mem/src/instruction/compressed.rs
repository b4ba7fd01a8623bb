//! The 2-byte loads and stores of RV64: extension C, Zcb, and the compressed shadow-stack operations.
//!
//! The one idea: quadrant and funct3 pick the instruction; registers of three bits name `x8` to `x15`, those of five bits any.
//! On RV64 with D the encodings that Zcmp and Zcmt would take are `c.fsdsp`.
//!
//! Source: unprivileged specification, "C Extension for Compressed Instructions" (RVC listings), "Zcb", "Zcmop".

use super::Register;
use super::decoded::{AccessForm, Decoded, DecodedAccess, NotEmulatable, NotEmulatableKind};
use crate::access::Width;

/// `c.mop.1`, which Zicfiss makes `c.sspush x1`.
const C_SSPUSH_X1: u32 = 0x6081;
/// `c.mop.5`, which Zicfiss makes `c.sspopchk x5`.
const C_SSPOPCHK_X5: u32 = 0x6281;

/// The answer of [`decode`](super::decode()) for an instruction whose low two bits are not both set.
pub(super) const fn decode_compressed(bits: u32) -> Decoded {
    let (quadrant, funct3) = (bits & 0b11, bits >> 13 & 0b111);
    match (quadrant, funct3) {
        (0, 0b001) => refused(NotEmulatableKind::FloatingPointLoad), // c.fld
        (0, 0b010) => load(rd_rs2_short(bits), Width::Word, true),   // c.lw
        (0, 0b011) => load(rd_rs2_short(bits), Width::Double, true), // c.ld
        (0, 0b100) => decode_zcb(bits),
        (0, 0b101) => refused(NotEmulatableKind::FloatingPointStore), // c.fsd
        (0, 0b110) => store(rd_rs2_short(bits), Width::Word),         // c.sw
        (0, 0b111) => store(rd_rs2_short(bits), Width::Double),       // c.sd
        (1, _) if bits == C_SSPUSH_X1 || bits == C_SSPOPCHK_X5 => {
            refused(NotEmulatableKind::ShadowStack)
        }
        (2, 0b001) => refused(NotEmulatableKind::FloatingPointLoad), // c.fldsp
        (2, 0b010) => load_stack(bits, Width::Word),                 // c.lwsp
        (2, 0b011) => load_stack(bits, Width::Double),               // c.ldsp
        (2, 0b101) => refused(NotEmulatableKind::FloatingPointStore), // c.fsdsp
        (2, 0b110) => store(Register::field(bits, 2), Width::Word),  // c.swsp
        (2, 0b111) => store(Register::field(bits, 2), Width::Double), // c.sdsp
        _ => NO_ACCESS,
    }
}

/// Zcb: bits 12:10 pick the instruction; for halfwords bit 6 tells `c.lh` from `c.lhu`, and has to be clear for `c.sh`.
const fn decode_zcb(bits: u32) -> Decoded {
    let register = rd_rs2_short(bits);
    match (bits >> 10 & 0b111, bits >> 6 & 1) {
        (0b000, _) => load(register, Width::Byte, false), // c.lbu
        (0b001, 0) => load(register, Width::Half, false), // c.lhu
        (0b001, _) => load(register, Width::Half, true),  // c.lh
        (0b010, _) => store(register, Width::Byte),       // c.sb
        (0b011, 0) => store(register, Width::Half),       // c.sh
        _ => NO_ACCESS,
    }
}

const NO_ACCESS: Decoded = Decoded::NoMemoryAccess { len: 2 };

const fn refused(kind: NotEmulatableKind) -> Decoded {
    Decoded::NotEmulatable(NotEmulatable { kind, len: 2 })
}

const fn rd_rs2_short(bits: u32) -> Register {
    Register::compressed_field(bits, 2)
}

/// `c.lwsp` and `c.ldsp`: reserved with `rd` = `x0`.
const fn load_stack(bits: u32, width: Width) -> Decoded {
    match Register::field(bits, 7) {
        rd if rd.index() == 0 => NO_ACCESS,
        rd => load(rd, width, true),
    }
}

const fn load(rd: Register, width: Width, sign_extend: bool) -> Decoded {
    Decoded::Access(DecodedAccess {
        form: AccessForm::Load { rd, sign_extend },
        width,
        len: 2,
    })
}

const fn store(rs2: Register, width: Width) -> Decoded {
    Decoded::Access(DecodedAccess {
        form: AccessForm::Store { rs2 },
        width,
        len: 2,
    })
}
