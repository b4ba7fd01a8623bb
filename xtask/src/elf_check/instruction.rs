//! Tells the instructions that access guest memory (hypervisor extension, chapter "Hypervisor Virtual-Machine Load and
//! Store Instructions") from all others.

use std::fmt;

/// What kind of guest access an instruction is, as the exception table numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `hlv`.
    Load = 0,
    /// `hlvx`.
    Fetch = 1,
    /// `hsv`.
    Store = 2,
}

impl Kind {
    /// The kind with this number in the table.
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::Load, Self::Fetch, Self::Store]
            .into_iter()
            .find(|&kind| kind as u16 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "hlv",
            Self::Fetch => "hlvx",
            Self::Store => "hsv",
        })
    }
}

/// The kind of guest access that the 32-bit instruction `word` is, if it is one.
pub fn decode(word: u32) -> Option<Kind> {
    const SYSTEM: u32 = 0x73;
    const GUEST_ACCESS: u32 = 0b100;
    if word & 0x7f != SYSTEM || word >> 12 & 7 != GUEST_ACCESS {
        return None;
    }
    let (rd, rs2, funct7) = (word >> 7 & 0x1f, word >> 20 & 0x1f, word >> 25);
    // funct7 is 0110, two bits of width and one that tells stores; rs2 tells the loads apart.
    let (width, is_store) = (funct7 >> 1 & 3, funct7 & 1 == 1);
    const DOUBLE: u32 = 3;
    match (funct7 >> 3, is_store, rs2) {
        (0b0110, true, _) if rd == 0 => Some(Kind::Store),
        (0b0110, false, 0b00000) => Some(Kind::Load),
        // hlv.bu, hlv.hu, hlv.wu
        (0b0110, false, 0b00001) if width != DOUBLE => Some(Kind::Load),
        // hlvx.hu, hlvx.wu
        (0b0110, false, 0b00011) if width == 1 || width == 2 => Some(Kind::Fetch),
        _ => None,
    }
}

/// The guest accesses in a run of instructions, with their offsets.
pub fn guest_accesses(code: &[u8]) -> Vec<(usize, Kind)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let &[low, _, ..] = rest {
        // The two lowest bits tell the length: 11 is a 32-bit instruction, all else a compressed one.
        let length = if low & 3 == 3 { 4 } else { 2 };
        if let Some(&word) = rest.first_chunk()
            && length == 4
            && let Some(kind) = decode(u32::from_le_bytes(word))
        {
            found.push((code.len() - rest.len(), kind));
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an assembler encodes them, with `rd` (or `rs2`) a0 and address a1.
    const ENCODINGS: [(u32, Kind); 13] = [
        (0x6005_c573, Kind::Load),  // hlv.b
        (0x6015_c573, Kind::Load),  // hlv.bu
        (0x6405_c573, Kind::Load),  // hlv.h
        (0x6415_c573, Kind::Load),  // hlv.hu
        (0x6435_c573, Kind::Fetch), // hlvx.hu
        (0x6805_c573, Kind::Load),  // hlv.w
        (0x6815_c573, Kind::Load),  // hlv.wu
        (0x6835_c573, Kind::Fetch), // hlvx.wu
        (0x6c05_c573, Kind::Load),  // hlv.d
        (0x62a5_c073, Kind::Store), // hsv.b
        (0x66a5_c073, Kind::Store), // hsv.h
        (0x6aa5_c073, Kind::Store), // hsv.w
        (0x6ea5_c073, Kind::Store), // hsv.d
    ];

    #[test]
    fn every_guest_access_is_known() {
        for (word, kind) in ENCODINGS {
            assert_eq!(decode(word), Some(kind), "{word:#x}");
        }
    }

    #[test]
    fn neighbours_in_the_encoding_are_no_guest_access() {
        for word in [
            0x0000_0073, // ecall
            0x1050_0073, // wfi
            0x6205_8073, // hfence.gvma a1, zero
            0x1005_a573, // csrrs a0, sstatus, a1
            0x6035_c573, // would be hlvx.bu
            0x6c15_c573, // would be hlv.du
            0x6c35_c573, // would be hlvx.du
            0x62a5_c573, // would be hsv.b with a destination register
            0x6005_c503, // a load's opcode
        ] {
            assert_eq!(decode(word), None, "{word:#x}");
        }
    }

    #[test]
    fn compressed_instructions_are_stepped_over_by_their_length() {
        let mut code = vec![0x01, 0x00]; // c.nop
        code.extend_from_slice(&0x6c05_c573_u32.to_le_bytes());
        code.extend_from_slice(&[0x01, 0x00]);
        // `lui` whose upper half, read as a start, would begin a guest access.
        code.extend_from_slice(&0xc573_0537_u32.to_le_bytes());
        code.extend_from_slice(&[0x05, 0x6c]);
        assert_eq!(guest_accesses(&code), [(2, Kind::Load)]);
    }

    #[test]
    fn a_cut_off_instruction_ends_the_run() {
        assert_eq!(guest_accesses(&[0x73, 0xc5]), []);
        assert_eq!(guest_accesses(&[0x73]), []);
    }
}
