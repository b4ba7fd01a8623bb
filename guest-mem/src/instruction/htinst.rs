//! What `htinst` says of the instruction that trapped.
//!
//! The one idea: `htinst` is a hint that hardware may withhold. Whatever is not surely a transformed standard memory access,
//! or surely a page-table access, counts as zero, and the instruction is fetched instead (R58).
//!
//! Source: privileged specification, hypervisor chapter, "Transformed Instruction or Pseudoinstruction for `mtinst` or
//! `htinst`", `norm:H_trap_xtinst_guestpage`.

use super::Instruction;
use super::decode::decode;
use super::decoded::{Decoded, DecodedAccess, NotEmulatable, NotEmulatableKind};
use crate::access::AccessKind;
use crate::fault::{HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE};

/// The page-table pseudo-instructions of a VS-stage with 32-bit entries.
const HTINST_PAGE_TABLE_READ_32: u64 = 0x2000;
const HTINST_PAGE_TABLE_WRITE_32: u64 = 0x2020;

/// The meaning of a value of `htinst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Htinst {
    /// Nothing that can be relied on: zero, or a value outside the standard.
    Unusable,
    /// The fault was in an implicit access to a VS-stage page table: a [`Load`](AccessKind::Load) of an entry, or a
    /// [`Store`](AccessKind::Store) that updates its A or D bit.
    PageTable(AccessKind),
    /// A load or a store of a general register.
    Access {
        /// What it is.
        access: DecodedAccess,
        /// How far behind its begin `stval` is: not 0 only for a misaligned access of which a later part faulted (R75).
        offset: u64,
    },
    /// A memory access that is not emulated.
    NotEmulatable(NotEmulatable),
}

/// Decodes a value of `htinst`.
///
/// In a transformed instruction bit 0 is set and bit 1 is clear if the instruction in memory had 2 bytes; the immediate is
/// gone, and in place of the base register there is the offset of the part that faulted.
///
/// ```
/// use guest_mem::AccessKind;
/// use guest_mem::instruction::{Decoded, Htinst, Instruction, decode, decode_htinst};
///
/// // `lw a0, 0(a1)` and `c.lw a0, 0(a1)`, transformed
/// for (htinst, original) in [(0x0000_2503, 0x0005_a503), (0x0000_2501, 0x4188)] {
///     let Decoded::Access(access) = decode(Instruction::from_bits(original)) else { panic!() };
///     assert_eq!(decode_htinst(htinst), Htinst::Access { access, offset: 0 });
/// }
/// assert_eq!(decode_htinst(0x3000), Htinst::PageTable(AccessKind::Load));
/// assert_eq!(decode_htinst(0), Htinst::Unusable);
/// ```
pub const fn decode_htinst(htinst: u64) -> Htinst {
    match htinst {
        HTINST_PAGE_TABLE_READ | HTINST_PAGE_TABLE_READ_32 => {
            return Htinst::PageTable(AccessKind::Load);
        }
        HTINST_PAGE_TABLE_WRITE | HTINST_PAGE_TABLE_WRITE_32 => {
            return Htinst::PageTable(AccessKind::Store);
        }
        _ => {}
    }
    // A custom value may have any bits above bit 31; one with bit 0 clear is no instruction.
    if htinst >> 32 != 0 || htinst & 1 == 0 {
        return Htinst::Unusable;
    }
    let len = if htinst & 0b10 != 0 { 4 } else { 2 };
    match decode(Instruction::from_bits(htinst as u32 | 0b10)) {
        Decoded::Access(access) => Htinst::Access {
            access: DecodedAccess { len, ..access },
            offset: htinst >> 15 & 0x1f,
        },
        // A custom opcode here is a custom meaning, which need not be that of the opcode; a hint never traps.
        Decoded::NotEmulatable(NotEmulatable {
            kind: NotEmulatableKind::Custom | NotEmulatableKind::Prefetch,
            ..
        })
        | Decoded::NoMemoryAccess { .. } => Htinst::Unusable,
        Decoded::NotEmulatable(NotEmulatable { kind, .. }) => {
            Htinst::NotEmulatable(NotEmulatable { kind, len })
        }
    }
}
