//! What 32 bits are, by the listing of the specification's encodings that the unit tests keep.

use guest_mem::instruction::{
    AccessForm, Decoded, DecodedAccess, NotEmulatable, NotEmulatableKind, Register,
};

// The listing finds what it names where it lies in the library: `crate::access`, and its parent's parent.
#[path = "."]
mod tests {
    #[allow(dead_code, reason = "the unit tests also make instructions by it")]
    #[path = "../../../guest-mem/src/instruction/tests/listing.rs"]
    pub mod listing;
}

use tests::listing::{Meaning, RV64, RVC, find};

/// The low bits say the length: two set bits make 4 bytes, and a trap reports no longer ones.
pub fn length(bits: u32) -> usize {
    if bits & 0b11 == 0b11 { 4 } else { 2 }
}

/// What the library's decoder has to answer.
pub fn expected(bits: u32) -> Decoded {
    let len = length(bits);
    let Some(entry) = find(if len == 2 { RVC } else { RV64 }, bits) else {
        return Decoded::NoMemoryAccess { len };
    };
    let access = |form, width| Decoded::Access(DecodedAccess { form, width, len });
    match entry.meaning {
        Meaning::Load(width, sign_extend) => {
            let rd = entry.register(bits);
            access(AccessForm::Load { rd, sign_extend }, width)
        }
        Meaning::Store(width) => {
            let rs2 = entry.register(bits);
            access(AccessForm::Store { rs2 }, width)
        }
        Meaning::Refused(kind) => Decoded::NotEmulatable(NotEmulatable { kind, len }),
    }
}
