//! The memory instructions of the specification's listings, bit by bit, as the tests' own reference.
//!
//! A pattern is read from bit 31 (or 15) down: `0` and `1` are fixed, `.` is free, `r` is the register that an access reads
//! or writes (three letters: `x8` to `x15`), `R` the same where `x0` is reserved. Blanks only separate fields.

use super::super::{NotEmulatableKind, Register};
use crate::access::Width;

/// What an entry of the listing does.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// A load of a width, sign-extended or not.
    Load(Width, bool),
    /// A store of a width.
    Store(Width),
    /// An access that is not emulated.
    Refused(NotEmulatableKind),
}

/// One instruction.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub meaning: Meaning,
    pattern: &'static str,
    /// Which bits are fixed.
    mask: u32,
    /// What they are fixed to.
    value: u32,
}

/// The entry that `bits` encode, if there is one.
pub fn find(listing: &'static [Entry], bits: u32) -> Option<&'static Entry> {
    listing.iter().find(|entry| entry.fits(bits))
}

impl Entry {
    /// The pattern from bit 0 up, as (bit number, letter).
    fn letters(&self) -> impl Iterator<Item = (u32, u8)> {
        let letters = self.pattern.bytes().rev().filter(|letter| *letter != b' ');
        (0..).zip(letters)
    }

    /// Whether `bits` encode this instruction.
    pub fn fits(&self, bits: u32) -> bool {
        let reserved = || self.pattern.contains('R') && self.register(bits) == Register::ZERO;
        bits & self.mask == self.value && !reserved()
    }

    /// Whether some bits encode both.
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.value ^ other.value) & self.mask & other.mask == 0
    }

    /// The instruction with its free bits (and register) taken from `bits`.
    pub fn with_free_bits(&self, bits: u32) -> u32 {
        bits & !self.mask | self.value
    }

    /// The lowest bit of the register field, if the pattern has one.
    pub fn register_shift(&self) -> Option<u32> {
        let register = |letter| letter == b'r' || letter == b'R';
        self.letters()
            .find(|(_, letter)| register(*letter))
            .map(|(bit, _)| bit)
    }

    /// The register that `bits` name.
    pub fn register(&self, bits: u32) -> Register {
        let field = |letter: &u8| *letter == b'r' || *letter == b'R';
        let shift = self.register_shift().expect("a pattern with a register");
        let number = match self.letters().filter(|(_, letter)| field(letter)).count() {
            3 => bits >> shift & 7 | 8,
            5 => bits >> shift & 31,
            other => panic!("{} has a register field of {other} bits", self.name),
        };
        Register::new(number as u8).expect("at most five bits")
    }
}

const fn entry(name: &'static str, pattern: &'static str, meaning: Meaning) -> Entry {
    let letters = pattern.as_bytes();
    let (mut mask, mut value, mut index) = (0, 0, 0);
    while index < letters.len() {
        if letters[index] != b' ' {
            mask = mask << 1 | matches!(letters[index], b'0' | b'1') as u32;
            value = value << 1 | (letters[index] == b'1') as u32;
        }
        index += 1;
    }
    Entry {
        name,
        meaning,
        pattern,
        mask,
        value,
    }
}

const fn load(name: &'static str, pattern: &'static str, width: Width) -> Entry {
    entry(name, pattern, Meaning::Load(width, true))
}

const fn load_unsigned(name: &'static str, pattern: &'static str, width: Width) -> Entry {
    entry(name, pattern, Meaning::Load(width, false))
}

const fn store(name: &'static str, pattern: &'static str, width: Width) -> Entry {
    entry(name, pattern, Meaning::Store(width))
}

const fn refused(name: &'static str, pattern: &'static str, kind: NotEmulatableKind) -> Entry {
    entry(name, pattern, Meaning::Refused(kind))
}

use NotEmulatableKind::*;
use Width::*;

/// The 16-bit listing of RV64: C, Zcb, and what Zicfiss takes of Zcmop.
#[rustfmt::skip] // one instruction a line
pub const RVC: &[Entry] = &[
    refused("c.fld", "001 ... ... .. ... 00", FloatingPointLoad),
    load("c.lw", "010 ... ... .. rrr 00", Word),
    load("c.ld", "011 ... ... .. rrr 00", Double),
    load_unsigned("c.lbu", "100 000 ... .. rrr 00", Byte),
    load_unsigned("c.lhu", "100 001 ... 0. rrr 00", Half),
    load("c.lh", "100 001 ... 1. rrr 00", Half),
    store("c.sb", "100 010 ... .. rrr 00", Byte),
    store("c.sh", "100 011 ... 0. rrr 00", Half),
    refused("c.fsd", "101 ... ... .. ... 00", FloatingPointStore),
    store("c.sw", "110 ... ... .. rrr 00", Word),
    store("c.sd", "111 ... ... .. rrr 00", Double),
    refused("c.sspush", "011 00 0001 00000 01", ShadowStack),
    refused("c.sspopchk", "011 00 0101 00000 01", ShadowStack),
    refused("c.fldsp", "001 . ..... ..... 10", FloatingPointLoad),
    load("c.lwsp", "010 . RRRRR ..... 10", Word),
    load("c.ldsp", "011 . RRRRR ..... 10", Double),
    refused("c.fsdsp", "101 ...... ..... 10", FloatingPointStore),
    store("c.swsp", "110 ...... rrrrr 10", Word),
    store("c.sdsp", "111 ...... rrrrr 10", Double),
];

/// The 32-bit listing of RV64, as far as it touches memory: I, A with Zabha, Zacas and Zalasr, FP, V by its widths, the
/// cache-block operations, H and Zicfiss; and the opcodes for custom use.
#[rustfmt::skip] // one instruction a line
pub const RV64: &[Entry] = &[
    load("lb", "............ ..... 000 rrrrr 0000011", Byte),
    load("lh", "............ ..... 001 rrrrr 0000011", Half),
    load("lw", "............ ..... 010 rrrrr 0000011", Word),
    load("ld", "............ ..... 011 rrrrr 0000011", Double),
    load_unsigned("lbu", "............ ..... 100 rrrrr 0000011", Byte),
    load_unsigned("lhu", "............ ..... 101 rrrrr 0000011", Half),
    load_unsigned("lwu", "............ ..... 110 rrrrr 0000011", Word),
    store("sb", "....... rrrrr ..... 000 ..... 0100011", Byte),
    store("sh", "....... rrrrr ..... 001 ..... 0100011", Half),
    store("sw", "....... rrrrr ..... 010 ..... 0100011", Word),
    store("sd", "....... rrrrr ..... 011 ..... 0100011", Double),
    refused("vle8", "............ ..... 000 ..... 0000111", VectorLoad),
    refused("flh", "............ ..... 001 ..... 0000111", FloatingPointLoad),
    refused("flw", "............ ..... 010 ..... 0000111", FloatingPointLoad),
    refused("fld", "............ ..... 011 ..... 0000111", FloatingPointLoad),
    refused("flq", "............ ..... 100 ..... 0000111", FloatingPointLoad),
    refused("vle16", "............ ..... 101 ..... 0000111", VectorLoad),
    refused("vle32", "............ ..... 110 ..... 0000111", VectorLoad),
    refused("vle64", "............ ..... 111 ..... 0000111", VectorLoad),
    refused("vse8", "............ ..... 000 ..... 0100111", VectorStore),
    refused("fsh", "............ ..... 001 ..... 0100111", FloatingPointStore),
    refused("fsw", "............ ..... 010 ..... 0100111", FloatingPointStore),
    refused("fsd", "............ ..... 011 ..... 0100111", FloatingPointStore),
    refused("fsq", "............ ..... 100 ..... 0100111", FloatingPointStore),
    refused("vse16", "............ ..... 101 ..... 0100111", VectorStore),
    refused("vse32", "............ ..... 110 ..... 0100111", VectorStore),
    refused("vse64", "............ ..... 111 ..... 0100111", VectorStore),
    refused("lr.w", "00010 .. 00000 ..... 010 ..... 0101111", LoadReserved),
    refused("lr.d", "00010 .. 00000 ..... 011 ..... 0101111", LoadReserved),
    refused("sc.w", "00011 .. ..... ..... 010 ..... 0101111", StoreConditional),
    refused("sc.d", "00011 .. ..... ..... 011 ..... 0101111", StoreConditional),
    refused("amoadd.{b,h,w,d}", "00000 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amoswap.{b,h,w,d}", "00001 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amoxor.{b,h,w,d}", "00100 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amoor.{b,h,w,d}", "01000 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amoand.{b,h,w,d}", "01100 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amomin.{b,h,w,d}", "10000 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amomax.{b,h,w,d}", "10100 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amominu.{b,h,w,d}", "11000 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amomaxu.{b,h,w,d}", "11100 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amocas.{b,h,w,d}", "00101 .. ..... ..... 0.. ..... 0101111", Amo),
    refused("amocas.q", "00101 .. ..... ..... 100 ..... 0101111", Amo),
    refused("l{b,h,w,d}.aq", "00110 1. 00000 ..... 0.. ..... 0101111", LoadAcquire),
    refused("s{b,h,w,d}.rl", "00111 .1 ..... ..... 0.. 00000 0101111", StoreRelease),
    refused("ssamoswap.{w,d}", "01001 .. ..... ..... 01. ..... 0101111", ShadowStack),
    refused("cbo.inval", "000000000000 ..... 010 00000 0001111", CacheBlock),
    refused("cbo.clean", "000000000001 ..... 010 00000 0001111", CacheBlock),
    refused("cbo.flush", "000000000010 ..... 010 00000 0001111", CacheBlock),
    refused("cbo.zero", "000000000100 ..... 010 00000 0001111", CacheBlock),
    refused("prefetch.i", "....... 00000 ..... 110 00000 0010011", Prefetch),
    refused("prefetch.r", "....... 00001 ..... 110 00000 0010011", Prefetch),
    refused("prefetch.w", "....... 00011 ..... 110 00000 0010011", Prefetch),
    refused("hlv.b", "0110000 00000 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.bu", "0110000 00001 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.h", "0110010 00000 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.hu", "0110010 00001 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlvx.hu", "0110010 00011 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.w", "0110100 00000 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.wu", "0110100 00001 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlvx.wu", "0110100 00011 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hlv.d", "0110110 00000 ..... 100 ..... 1110011", HypervisorLoad),
    refused("hsv.b", "0110001 ..... ..... 100 00000 1110011", HypervisorStore),
    refused("hsv.h", "0110011 ..... ..... 100 00000 1110011", HypervisorStore),
    refused("hsv.w", "0110101 ..... ..... 100 00000 1110011", HypervisorStore),
    refused("hsv.d", "0110111 ..... ..... 100 00000 1110011", HypervisorStore),
    refused("sspush x1", "1100111 00001 00000 100 00000 1110011", ShadowStack),
    refused("sspush x5", "1100111 00101 00000 100 00000 1110011", ShadowStack),
    refused("sspopchk x1", "1100110 11100 00001 100 00000 1110011", ShadowStack),
    refused("sspopchk x5", "1100110 11100 00101 100 00000 1110011", ShadowStack),
    refused("custom-0", "............ ..... ... ..... 0001011", Custom),
    refused("custom-1", "............ ..... ... ..... 0101011", Custom),
    refused("custom-2", "............ ..... ... ..... 1011011", Custom),
    refused("custom-3", "............ ..... ... ..... 1111011", Custom),
];
