//! `htinst` says the same as the instruction in memory, or nothing.

use super::listing::{Meaning, RV64, RVC};
use super::*;
use crate::AccessKind;

/// What hardware writes to `htinst` for a standard memory access, by the rules of the hypervisor chapter: a compressed
/// instruction is expanded first and has bit 1 cleared last; the base register becomes the address offset; loads and stores
/// lose their immediate. `None` for instructions that have no transformation.
fn transform(bits: u32, address_offset: u32) -> Option<u64> {
    const RD: u32 = 0x1f << 7;
    const FUNCT3: u32 = 7 << 12;
    const RS1: u32 = 0x1f << 15;
    const RS2: u32 = 0x1f << 20;
    const OPCODE: u32 = 0x7f;
    let instruction = Instruction::from_bits(bits);
    let (expanded, clear) = match instruction.length() {
        2 => (expand(bits)?, 0b10),
        _ => (bits, 0),
    };
    let kept = match (expanded & OPCODE, expanded >> 12 & 7) {
        (0x03, _) | (0x07, 1..=4) => RD | FUNCT3 | OPCODE,
        (0x23, _) | (0x27, 1..=4) => RS2 | FUNCT3 | OPCODE,
        (0x2f, _) => !RS1,
        (0x73, 4) if expanded >> 28 == 0b0110 => !RS1, // the hypervisor's, not the may-be-operations
        _ => return None,
    };
    Some(u64::from((expanded & kept | address_offset << 15) & !clear))
}

/// The 32-bit form of a compressed load or store, its address left out.
fn expand(bits: u32) -> Option<u32> {
    let entry = find(RVC, bits)?;
    let number = || entry.register(bits).index() as u32;
    Some(match (entry.name, entry.meaning) {
        (_, Meaning::Load(width, sign_extend)) => {
            let unsigned = if sign_extend { 0 } else { 4 };
            0x03 | (width.bytes().ilog2() | unsigned) << 12 | number() << 7
        }
        (_, Meaning::Store(width)) => 0x23 | width.bytes().ilog2() << 12 | number() << 20,
        ("c.fld", _) => 0x07 | 3 << 12 | (bits >> 2 & 7 | 8) << 7,
        ("c.fldsp", _) => 0x07 | 3 << 12 | (bits >> 7 & 31) << 7,
        ("c.fsd", _) => 0x27 | 3 << 12 | (bits >> 2 & 7 | 8) << 20,
        ("c.fsdsp", _) => 0x27 | 3 << 12 | (bits >> 2 & 31) << 20,
        _ => return None,
    })
}

/// [`decode_htinst`] of the transformed instruction answers as [`decode`] of the instruction.
fn assert_agrees(bits: u32, address_offset: u32) {
    let Some(htinst) = transform(bits, address_offset) else {
        return;
    };
    let agreed = match decode(Instruction::from_bits(bits)) {
        Decoded::Access(access) => Htinst::Access {
            access,
            offset: address_offset.into(),
        },
        Decoded::NotEmulatable(refused) => Htinst::NotEmulatable(refused),
        Decoded::NoMemoryAccess { .. } => Htinst::Unusable,
    };
    assert_eq!(decode_htinst(htinst), agreed, "{bits:x} as {htinst:#x}");
}

#[test]
fn r58_transformed_compressed_accesses_decode_as_the_fetched_ones() {
    for bits in (0..=0xffff).filter(|bits| bits & 0b11 != 0b11) {
        for address_offset in [0, 1, 7] {
            assert_agrees(bits, address_offset);
        }
    }
}

#[test]
fn r58_transformed_accesses_decode_as_the_fetched_ones() {
    let mut random = Random(0x5eed_0004);
    for entry in RV64 {
        for _ in 0..2000 {
            let bits = entry.with_free_bits(random.next() as u32);
            assert_agrees(bits, random.next() as u32 & 7);
        }
    }
}

#[test]
fn r58_the_page_table_pseudo_instructions_are_no_accesses() {
    for (htinst, access) in [
        (0x3000, AccessKind::Load),
        (0x3020, AccessKind::Store),
        (0x2000, AccessKind::Load),
        (0x2020, AccessKind::Store),
    ] {
        assert_eq!(decode_htinst(htinst), Htinst::PageTable(access));
    }
}

#[test]
fn r58_anything_outside_the_standard_counts_as_zero() {
    let lw = 0x0000_2503;
    assert!(matches!(decode_htinst(lw), Htinst::Access { .. }));
    for (htinst, why) in [
        (0, "zero"),
        (lw | 1 << 33, "bits above 31"),
        (0x3000 | 1 << 32, "bits above 31"),
        (lw & !0b11 | 0b10, "bits 1:0 are 10"),
        (lw & !0b11, "an unknown pseudo-instruction"),
        (0x3010, "an unknown pseudo-instruction"),
        (0x0000_0013, "not a memory access"),
        (0x0000_7003, "a reserved load"),
        (0x0005_6013, "a prefetch, which never traps"),
        (0x0000_000b, "a custom opcode"),
        (0xffff_ffff, "a long encoding"),
        (u64::MAX, "all ones"),
    ] {
        assert_eq!(
            decode_htinst(htinst),
            Htinst::Unusable,
            "{why}: {htinst:#x}"
        );
    }
}

#[test]
fn r58_no_value_of_htinst_panics() {
    let mut random = Random(0x5eed_0005);
    for _ in 0..100_000 {
        let value = random.next();
        for htinst in [value, value & 0xffff_ffff, value & 0xffff] {
            let _ = decode_htinst(htinst);
        }
    }
}

/// Values of `htinst` that QEMU 10.0 was seen to write for faulting guest accesses.
#[test]
fn measured_values_decode() {
    for (htinst, kind) in [
        (0x6c00_4573, NotEmulatableKind::HypervisorLoad), // hlv.d a0
        (0x6ea0_4073, NotEmulatableKind::HypervisorStore), // hsv.d a0
    ] {
        let refused = NotEmulatable { kind, len: 4 };
        assert_eq!(decode_htinst(htinst), Htinst::NotEmulatable(refused));
    }
}
