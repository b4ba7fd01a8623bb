//! Any 32 bits as an instruction: the library's decoder answers as the listing of the specification's encodings that the
//! unit tests keep, and says a length that the low bits have.
#![no_main]

use guest_mem::instruction::{Instruction, decode};
use libfuzzer_sys::fuzz_target;

mod by_listing;

mod access {
    pub use guest_mem::Width;
}

use by_listing::{expected, length};

fuzz_target!(|bits: u32| {
    // The upper half of a 2-byte instruction belongs to the next one.
    let bits = if length(bits) == 2 {
        bits & 0xffff
    } else {
        bits
    };
    let instruction = Instruction::from_bits(bits);
    assert_eq!(instruction.length(), length(bits), "{bits:#x}");
    let decoded = decode(instruction);
    assert_eq!(decoded.length(), length(bits), "{bits:#x}");
    assert_eq!(decoded, expected(bits), "{bits:#x}");
});
