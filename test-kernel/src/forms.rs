//! Every load and store form, as bytes to run in a guest, with what each is known to be.
//!
//! The one idea: the table is written by hand from the instruction listings and assembled by the compiler's assembler, so that
//! it owes nothing to the library's decoder.

use core::arch::global_asm;

use guest_mem::Width;
use guest_mem::instruction::NotEmulatableKind;

/// What a form does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Loads to a register, extended by its sign or by zeros.
    Load {
        /// The register.
        rd: u8,
        /// How much.
        width: Width,
        /// Whether by its sign.
        signed: bool,
    },
    /// Stores a register.
    Store {
        /// The register.
        rs2: u8,
        /// How much.
        width: Width,
    },
    /// Something else with memory, which raises the guest-page fault of a load or of a store.
    Other {
        /// What the library calls it.
        kind: NotEmulatableKind,
        /// Whether it raises the fault of a store.
        store: bool,
    },
}

/// One form.
#[derive(Clone, Copy)]
pub struct Form {
    /// Its assembly.
    pub text: &'static str,
    /// What it does.
    pub does: Does,
    /// The offset that it adds to its base register, `a1` or `sp`.
    pub offset: i64,
    /// Its length in bytes.
    pub len: u64,
}

/// Bytes from one form to the next; an `ecall` follows each.
pub const STRIDE: usize = 16;

macro_rules! forms {
    ($($text:tt $len:tt $offset:literal $does:expr;)*) => {
        /// All forms, in the order of their code.
        pub const FORMS: &[Form] = &[
            $(Form { text: $text, does: $does, offset: $offset, len: $len }),*
        ];
        global_asm!(
            ".section .rodata.guest_forms, \"a\"",
            ".option push",
            ".balign 16",
            ".globl __guest_forms_start",
            "__guest_forms_start:",
            $(
                ".balign 16",
                forms!(@ $len $text),
                ".option norvc",
                "ecall",
            )*
            ".balign 16",
            ".globl __guest_forms_end",
            "__guest_forms_end:",
            ".option pop",
        );
    };
    (@ 2 $text:tt) => {
        concat!(".option push\n.option rvc\n.option arch, +d, +zcb\n", $text, "\n.option pop")
    };
    (@ 4 $text:tt) => {
        concat!(".option push\n.option norvc\n.option arch, +d, +a\n", $text, "\n.option pop")
    };
}

const fn load(rd: u8, width: Width, signed: bool) -> Does {
    Does::Load { rd, width, signed }
}

const fn store(rs2: u8, width: Width) -> Does {
    Does::Store { rs2, width }
}

const fn other(kind: NotEmulatableKind, store: bool) -> Does {
    Does::Other { kind, store }
}

use NotEmulatableKind::{Amo, FloatingPointLoad, FloatingPointStore, LoadReserved};
use Width::{Byte, Double, Half, Word};

forms! {
    "lb a0, 5(a1)" 4 5 load(10, Byte, true);
    "lbu a0, -1(a1)" 4 -1 load(10, Byte, false);
    "lh a0, 6(a1)" 4 6 load(10, Half, true);
    "lhu a0, 2(a1)" 4 2 load(10, Half, false);
    "lw a0, 4(a1)" 4 4 load(10, Word, true);
    "lwu a0, 12(a1)" 4 12 load(10, Word, false);
    "ld a0, 16(a1)" 4 16 load(10, Double, true);
    "lb t6, 0(a1)" 4 0 load(31, Byte, true);
    "lwu s11, 2044(a1)" 4 2044 load(27, Word, false);
    "ld sp, -2048(a1)" 4 -2048 load(2, Double, true);
    "lw zero, 0(a1)" 4 0 load(0, Word, true);
    "lh a1, 2(a1)" 4 2 load(11, Half, true);
    "sb a0, 7(a1)" 4 7 store(10, Byte);
    "sh a0, -2(a1)" 4 -2 store(10, Half);
    "sw a0, 8(a1)" 4 8 store(10, Word);
    "sd a0, 24(a1)" 4 24 store(10, Double);
    "sd t6, -2048(a1)" 4 -2048 store(31, Double);
    "sw zero, 0(a1)" 4 0 store(0, Word);
    "sd a1, 8(a1)" 4 8 store(11, Double);
    "c.lw a0, 4(a1)" 2 4 load(10, Word, true);
    "c.lw a5, 124(a1)" 2 124 load(15, Word, true);
    "c.ld s0, 8(a1)" 2 8 load(8, Double, true);
    "c.sw a0, 64(a1)" 2 64 store(10, Word);
    "c.sd s1, 248(a1)" 2 248 store(9, Double);
    "c.lwsp t6, 12(sp)" 2 12 load(31, Word, true);
    "c.ldsp ra, 504(sp)" 2 504 load(1, Double, true);
    "c.swsp t5, 252(sp)" 2 252 store(30, Word);
    "c.sdsp zero, 8(sp)" 2 8 store(0, Double);
    "c.lbu a0, 3(a1)" 2 3 load(10, Byte, false);
    "c.lhu a0, 2(a1)" 2 2 load(10, Half, false);
    "c.lh a3, 2(a1)" 2 2 load(13, Half, true);
    "c.sb a0, 1(a1)" 2 1 store(10, Byte);
    "c.sh a4, 2(a1)" 2 2 store(14, Half);
    "flw fa0, 4(a1)" 4 4 other(FloatingPointLoad, false);
    "fld fa0, 8(a1)" 4 8 other(FloatingPointLoad, false);
    "fsw fa0, 4(a1)" 4 4 other(FloatingPointStore, true);
    "fsd fa0, 8(a1)" 4 8 other(FloatingPointStore, true);
    "c.fld fa0, 8(a1)" 2 8 other(FloatingPointLoad, false);
    "c.fsd fa0, 8(a1)" 2 8 other(FloatingPointStore, true);
    "c.fldsp fa0, 16(sp)" 2 16 other(FloatingPointLoad, false);
    "c.fsdsp fa0, 16(sp)" 2 16 other(FloatingPointStore, true);
    "lr.w a0, (a1)" 4 0 other(LoadReserved, false);
    "lr.d a0, (a1)" 4 0 other(LoadReserved, false);
    "amoadd.w a0, a2, (a1)" 4 0 other(Amo, true);
    "amoswap.d a0, a2, (a1)" 4 0 other(Amo, true);
    "amomaxu.w zero, a2, (a1)" 4 0 other(Amo, true);
}

unsafe extern "C" {
    static __guest_forms_start: u8;
    static __guest_forms_end: u8;
}

/// The code of all forms.
pub fn code() -> &'static [u8] {
    let start = &raw const __guest_forms_start;
    let end = &raw const __guest_forms_end;
    // SAFETY: the assembler's read-only block between its two labels.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The bits of the form of this index.
pub fn bits(index: usize) -> u32 {
    let at = index * STRIDE;
    let word = u32::from_le_bytes(core::array::from_fn(|byte| code()[at + byte]));
    if FORMS[index].len == 2 {
        word & 0xffff
    } else {
        word
    }
}

/// What the specification lets `htinst` be for a form, beside 0: the instruction, expanded if it is compressed, without its
/// base register and immediate (R58).
pub fn transformed(index: usize) -> u64 {
    let form = &FORMS[index];
    let funct3 = |width: Width, unsigned: bool| {
        u64::from(width.bytes().trailing_zeros()) | u64::from(unsigned) << 2
    };
    let long = match form.does {
        Does::Load { rd, width, signed } => {
            0x03 | u64::from(rd) << 7 | funct3(width, !signed) << 12
        }
        Does::Store { rs2, width } => 0x23 | funct3(width, false) << 12 | u64::from(rs2) << 20,
        // fa0 and a doubleword in the compressed forms.
        Does::Other { kind, .. } if form.len == 2 => match kind {
            FloatingPointLoad => 0x07 | 10 << 7 | 3 << 12,
            _ => 0x27 | 3 << 12 | 10 << 20,
        },
        Does::Other { kind, .. } => {
            let bits = u64::from(bits(index));
            match kind {
                FloatingPointLoad => bits & 0x7fff & !(0x1f << 15),
                FloatingPointStore => bits & (0x1f << 20 | 0x707f),
                _ => bits & !(0x1f << 15),
            }
        }
    };
    if form.len == 2 { long & !2 } else { long }
}
