//! The decoder against tables written from the specification's instruction listings, and the ways from a trap to an access.

extern crate std;

mod htinst;
mod listing;
mod trapped;

use self::listing::{Meaning, RV64, RVC, find};
use super::*;
use crate::access::Width;

/// A small deterministic generator (xorshift64), so that every failure can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What [`decode`] has to answer for an instruction that the listing has, or has not.
fn expected(bits: u32) -> Decoded {
    let len = Instruction::from_bits(bits).length();
    let listing = if len == 2 { RVC } else { RV64 };
    let Some(entry) = find(listing, bits) else {
        return Decoded::NoMemoryAccess { len };
    };
    match entry.meaning {
        Meaning::Load(width, sign_extend) => Decoded::Access(DecodedAccess {
            form: AccessForm::Load {
                rd: entry.register(bits),
                sign_extend,
            },
            width,
            len,
        }),
        Meaning::Store(width) => Decoded::Access(DecodedAccess {
            form: AccessForm::Store {
                rs2: entry.register(bits),
            },
            width,
            len,
        }),
        Meaning::Refused(kind) => Decoded::NotEmulatable(NotEmulatable { kind, len }),
    }
}

#[test]
fn every_compressed_encoding_decodes_as_the_listing_says() {
    let mut accesses = 0;
    for bits in (0..=0xffffu32).filter(|bits| bits & 0b11 != 0b11) {
        let decoded = decode(Instruction::from_bits(bits));
        assert_eq!(decoded, expected(bits), "{bits:04x}");
        accesses += u32::from(matches!(decoded, Decoded::Access(_)));
    }
    // 4 forms with 3-bit registers and 11 free bits, 2 stack loads with one register less, 2 stack stores,
    // and of Zcb 2 byte forms of 8 free bits, 3 halfword forms of 7.
    let zcb = 2 * 256 + 3 * 128;
    assert_eq!(accesses, 4 * 2048 + 2 * (2048 - 64) + 2 * 2048 + zcb);
}

#[test]
fn every_load_and_store_decodes_with_every_register_and_any_address() {
    let mut random = Random(0x5eed_0001);
    for entry in RV64 {
        let fields = entry.register_shift();
        for number in 0..32u8 {
            for _ in 0..16 {
                let mut bits = entry.with_free_bits(random.next() as u32);
                if let Some(shift) = fields {
                    bits = bits & !(0x1f << shift) | u32::from(number) << shift;
                    assert_eq!(entry.register(bits), Register::new(number).unwrap());
                }
                let decoded = decode(Instruction::from_bits(bits));
                assert!(
                    !matches!(decoded, Decoded::NoMemoryAccess { .. }),
                    "{} {bits:08x}",
                    entry.name
                );
                assert_eq!(decoded, expected(bits), "{} {bits:08x}", entry.name);
            }
        }
    }
}

#[test]
fn one_wrong_bit_decodes_as_what_it_makes() {
    let mut random = Random(0x5eed_0002);
    for entry in RV64 {
        for _ in 0..16 {
            let bits = entry.with_free_bits(random.next() as u32);
            for bit in 2..32 {
                let flipped = bits ^ 1 << bit;
                let decoded = decode(Instruction::from_bits(flipped));
                assert_eq!(decoded, expected(flipped), "{} {flipped:08x}", entry.name);
            }
        }
    }
}

#[test]
fn any_word_decodes_to_what_the_listing_has_for_it() {
    let mut random = Random(0x5eed_0003);
    for _ in 0..100_000 {
        let bits = random.next() as u32;
        let instruction = Instruction::from_bits(bits);
        let decoded = decode(instruction);
        assert_eq!(decoded, expected(instruction.bits()), "{bits:08x}");
        assert_eq!(decoded.length(), instruction.length());
    }
}

#[test]
fn no_two_entries_of_the_listing_overlap() {
    for bits in (0..=0xffffu32).filter(|bits| bits & 0b11 != 0b11) {
        assert!(RVC.iter().filter(|entry| entry.fits(bits)).count() <= 1);
    }
    for one in RV64 {
        for other in RV64.iter().filter(|other| other.name != one.name) {
            assert!(!one.overlaps(other), "{} {}", one.name, other.name);
        }
    }
}

#[test]
fn stack_loads_to_x0_are_reserved_but_loads_to_x0_are_loads() {
    assert_eq!(
        decode(Instruction::from_bits(0x4002)), // c.lwsp x0
        Decoded::NoMemoryAccess { len: 2 }
    );
    assert_eq!(
        decode(Instruction::from_bits(0x6002)), // c.ldsp x0
        Decoded::NoMemoryAccess { len: 2 }
    );
    let lw_x0 = decode(Instruction::from_bits(0x0000_2003));
    assert!(matches!(
        lw_x0,
        Decoded::Access(DecodedAccess {
            form: AccessForm::Load {
                rd: Register::ZERO,
                ..
            },
            ..
        })
    ));
}

#[test]
fn the_length_is_that_of_the_first_parcel() {
    for first in 0..=u16::MAX {
        let instruction = Instruction::from_parcels(first, 0xa5a5);
        let compressed = first % 4 != 3;
        assert_eq!(instruction.length(), if compressed { 2 } else { 4 });
        assert_eq!(Instruction::length_of(first), instruction.length());
        assert_eq!(
            instruction.bits() >> 16,
            if compressed { 0 } else { 0xa5a5 }
        );
    }
}

#[test]
fn an_instruction_prints_as_wide_as_it_is() {
    use std::string::ToString;
    assert_eq!(Instruction::from_bits(0x0001).to_string(), "0001");
    assert_eq!(Instruction::from_bits(0x13).to_string(), "00000013");
}

/// Assembled by LLVM: the listing itself is checked by something that is not ours.
#[test]
fn assembled_loads_and_stores_decode_as_written() {
    use Width::*;
    let (signed, unsigned) = (true, false);
    for (bits, rd, width, sign_extend) in [
        (0xfff5_8503, 10, Byte, signed),   // lb a0, -1(a1)
        (0x7ff1_1f83, 31, Half, signed),   // lh t6, 2047(sp)
        (0x004f_a083, 1, Word, signed),    // lw ra, 4(t6)
        (0x800f_bd83, 27, Double, signed), // ld s11, -2048(t6)
        (0x0000_4283, 5, Byte, unsigned),  // lbu t0, 0(zero)
        (0x0068_d883, 17, Half, unsigned), // lhu a7, 6(a7)
        (0x00c1_e003, 0, Word, unsigned),  // lwu zero, 12(gp)
        (0x5fe8, 10, Word, signed),        // c.lw a0, 124(a5)
        (0x6080, 8, Double, signed),       // c.ld s0, 0(s1)
        (0x5ffe, 31, Word, signed),        // c.lwsp t6, 252(sp)
        (0x70fe, 1, Double, signed),       // c.ldsp ra, 504(sp)
        (0x816c, 11, Byte, unsigned),      // c.lbu a1, 3(a0)
        (0x86b0, 12, Half, unsigned),      // c.lhu a2, 2(a3)
        (0x8744, 9, Half, signed),         // c.lh s1, 0(a4)
    ] {
        let instruction = Instruction::from_bits(bits);
        let expected = DecodedAccess {
            form: AccessForm::Load {
                rd: Register::new(rd).unwrap(),
                sign_extend,
            },
            width,
            len: instruction.length(),
        };
        assert_eq!(decode(instruction), Decoded::Access(expected), "{bits:x}");
    }
    for (bits, rs2, width) in [
        (0x0005_0023, 0, Byte),   // sb zero, 0(a0)
        (0xfff4_1f23, 31, Half),  // sh t6, -2(s0)
        (0x7e92_3fa3, 9, Double), // sd s1, 2047(tp)
        (0xc22e, 11, Word),       // c.swsp a1, 4(sp)
        (0xc05c, 15, Word),       // c.sw a5, 4(s0)
        (0xfe74, 13, Double),     // c.sd a3, 248(a2)
        (0xc002, 0, Word),        // c.swsp zero, 0(sp)
        (0xffee, 27, Double),     // c.sdsp s11, 504(sp)
        (0x885c, 15, Byte),       // c.sb a5, 1(s0)
        (0x8fa0, 8, Half),        // c.sh s0, 2(a5)
    ] {
        let instruction = Instruction::from_bits(bits);
        let expected = DecodedAccess {
            form: AccessForm::Store {
                rs2: Register::new(rs2).unwrap(),
            },
            width,
            len: instruction.length(),
        };
        assert_eq!(decode(instruction), Decoded::Access(expected), "{bits:x}");
    }
}

#[test]
fn assembled_accesses_without_emulation_decode_to_their_kind() {
    use NotEmulatableKind::*;
    for (bits, kind) in [
        (0x2508, FloatingPointLoad),       // c.fld fa0, 8(a0)
        (0xa380, FloatingPointStore),      // c.fsd fs0, 0(a5)
        (0x2002, FloatingPointLoad),       // c.fldsp ft0, 0(sp)
        (0xbfee, FloatingPointStore),      // c.fsdsp fs11, 504(sp)
        (0x0005_1507, FloatingPointLoad),  // flh fa0, 0(a0)
        (0x01ff_b427, FloatingPointStore), // fsd ft11, 8(t6)
        (0x0205_0007, VectorLoad),         // vle8.v v0, (a0)
        (0x0ab5_7407, VectorLoad),         // vlse64.v v8, (a0), a1
        (0x0625_5407, VectorLoad),         // vluxei16.v v8, (a0), v2
        (0x0285_01a7, VectorStore),        // vs1r.v v3, (a0)
        (0x0005_e227, VectorStore),        // vse32.v v4, (a1), v0.t
        (0x1604_b42f, LoadReserved),       // lr.d.aqrl s0, (s1)
        (0x18c5_a52f, StoreConditional),   // sc.w a0, a2, (a1)
        (0xe0b6_352f, Amo),                // amomaxu.d a0, a1, (a2)
        (0x08b6_052f, Amo),                // amoswap.b a0, a1, (a2)
        (0x28c7_452f, Amo),                // amocas.q a0, a2, (a4)
        (0x28b6_152f, Amo),                // amocas.h a0, a1, (a2)
        (0x0015_200f, CacheBlock),         // cbo.clean (a0)
        (0x004f_a00f, CacheBlock),         // cbo.zero (t6)
        (0x0215_6013, Prefetch),           // prefetch.r 32(a0)
        (0x6435_c573, HypervisorLoad),     // hlvx.hu a0, (a1)
        (0x6c05_c573, HypervisorLoad),     // hlv.d a0, (a1)
        (0x6ff5_c073, HypervisorStore),    // hsv.d t6, (a1)
    ] {
        let instruction = Instruction::from_bits(bits);
        let len = instruction.length();
        let expected = Decoded::NotEmulatable(NotEmulatable { kind, len });
        assert_eq!(decode(instruction), expected, "{bits:x}");
    }
}

/// The address operands against the assembler's: each row is an instruction as it stands in memory, its base and offset.
#[test]
fn r75_the_address_is_base_and_immediate() {
    for (bits, base, offset) in [
        (0x0005_8503, 11, 0),     // lb a0, 0(a1)
        (0xffb5_8503, 11, -5),    // lb a0, -5(a1)
        (0x7ff5_b503, 11, 2047),  // ld a0, 2047(a1)
        (0x8005_b503, 11, -2048), // ld a0, -2048(a1)
        (0x00b5_3423, 10, 8),     // sd a1, 8(a0)
        (0xfeb5_3fa3, 10, -1),    // sd a1, -1(a0)
        (0x80b5_3023, 10, -2048), // sd a1, -2048(a0)
        (0x0000_3503, 0, 0),      // ld a0, 0(zero)
        (0x4188, 11, 0),          // c.lw a0, 0(a1)
        (0x5dec, 11, 124),        // c.lw a1, 124(a1)
        (0x41c8, 11, 4),          // c.lw a0, 4(a1)
        (0x61a8, 11, 64),         // c.ld a0, 64(a1)
        (0x7de8, 11, 248),        // c.ld a0, 248(a1)
        (0xc1c8, 11, 4),          // c.sw a0, 4(a1)
        (0xfde8, 11, 248),        // c.sd a0, 248(a1)
        (0x4512, 2, 4),           // c.lwsp a0, 4(sp)
        (0x557e, 2, 252),         // c.lwsp a0, 252(sp)
        (0x6522, 2, 8),           // c.ldsp a0, 8(sp)
        (0x757e, 2, 504),         // c.ldsp a0, 504(sp)
        (0xc22a, 2, 4),           // c.swsp a0, 4(sp)
        (0xdfaa, 2, 252),         // c.swsp a0, 252(sp)
        (0xe42a, 2, 8),           // c.sdsp a0, 8(sp)
        (0xffaa, 2, 504),         // c.sdsp a0, 504(sp)
        (0x81c8, 11, 1),          // c.lbu a0, 1(a1)
        (0x81a8, 11, 2),          // c.lbu a0, 2(a1)
        (0x81e8, 11, 3),          // c.lbu a0, 3(a1)
        (0x85a8, 11, 2),          // c.lhu a0, 2(a1)
        (0x85e8, 11, 2),          // c.lh a0, 2(a1)
        (0x89c8, 11, 1),          // c.sb a0, 1(a1)
        (0x8da8, 11, 2),          // c.sh a0, 2(a1)
    ] {
        let instruction = Instruction::from_bits(bits);
        assert!(
            matches!(decode(instruction), Decoded::Access(_)),
            "{bits:x}"
        );
        let found = AddressOperands::of(instruction);
        assert_eq!(
            (found.base.index(), found.offset),
            (base, offset),
            "{bits:x}"
        );
    }
}
