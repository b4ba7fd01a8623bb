//! What a right exception table is: not empty, and one entry for each guest access of the unit, no more.
//!
//! It is a 16-bit little-endian number for each 4 bytes of the unit, and for what the unit may grow by: 0 where nothing may
//! fault, else the offset of the fixup from the unit's start plus the kind of access.

use std::fmt;

use super::instruction::{self, Kind};

/// Bytes of one entry.
pub const ENTRY_SIZE: usize = 2;

/// Bytes of code that an entry stands for.
pub const INSTRUCTION_SIZE: usize = 4;

/// What is wrong with a table. Offsets count from the start of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has no entry.
    Empty,
    /// Its size is no multiple of an entry's.
    Torn { size: usize },
    /// It ends before the unit does.
    Short { size: usize },
    /// An entry names an offset outside the unit.
    Outside { instruction: usize },
    /// An entry has a kind that does not exist.
    NoSuchKind { instruction: usize, number: u16 },
    /// An entry names an instruction that is not of its kind.
    WrongInstruction {
        instruction: usize,
        expected: Kind,
        found: Option<Kind>,
    },
    /// A fixup is outside the unit.
    BadFixup { instruction: usize, fixup: usize },
    /// A guest access of the unit has no entry.
    Missing { instruction: usize, kind: Kind },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => write!(f, "the exception table is empty"),
            Self::Torn { size } => {
                write!(f, "the exception table has {size} bytes, not whole entries")
            }
            Self::Short { size } => {
                write!(
                    f,
                    "the exception table has {size} bytes, less than its unit needs"
                )
            }
            Self::Outside { instruction } => write!(
                f,
                "the entry for +{instruction:#x} points outside the access unit"
            ),
            Self::NoSuchKind {
                instruction,
                number,
            } => write!(f, "the entry for +{instruction:#x} has kind {number}"),
            Self::WrongInstruction {
                instruction,
                expected,
                found,
            } => match found {
                Some(found) => write!(
                    f,
                    "at +{instruction:#x} the table says {expected}, the code is {found}"
                ),
                None => write!(
                    f,
                    "at +{instruction:#x} the table says {expected}, the code is no guest access"
                ),
            },
            Self::BadFixup { instruction, fixup } => {
                write!(
                    f,
                    "the entry for +{instruction:#x} has the fixup +{fixup:#x}, outside the unit"
                )
            }
            Self::Missing { instruction, kind } => {
                write!(f, "the {kind} at +{instruction:#x} is not in the table")
            }
        }
    }
}

/// The offsets of the instructions that a table names, and their entries.
pub fn entries(table: &[u8]) -> impl Iterator<Item = (usize, u16)> {
    let (entries, _) = table.as_chunks::<ENTRY_SIZE>();
    let numbers = entries.iter().map(|&entry| u16::from_le_bytes(entry));
    numbers
        .enumerate()
        .map(|(index, entry)| (index * INSTRUCTION_SIZE, entry))
        .filter(|&(_, entry)| entry != 0)
}

/// Checks a table against the code of its unit.
pub fn check(unit: &[u8], table: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let size = table.len();
    if entries(table).next().is_none() {
        findings.push(Finding::Empty);
    }
    if !size.is_multiple_of(ENTRY_SIZE) {
        findings.push(Finding::Torn { size });
    }
    if size / ENTRY_SIZE < unit.len() / INSTRUCTION_SIZE {
        findings.push(Finding::Short { size });
    }
    let accesses = instruction::guest_accesses(unit);
    let mut named = Vec::new();
    for (instruction, entry) in entries(table) {
        let (number, fixup) = (entry & 3, usize::from(entry & !3));
        named.push(instruction);
        let found = accesses
            .iter()
            .find(|&&(offset, _)| offset == instruction)
            .map(|&(_, kind)| kind);
        if instruction >= unit.len() {
            findings.push(Finding::Outside { instruction });
        } else {
            match Kind::from_number(number) {
                None => findings.push(Finding::NoSuchKind {
                    instruction,
                    number,
                }),
                Some(expected) if found == Some(expected) => {}
                Some(expected) => findings.push(Finding::WrongInstruction {
                    instruction,
                    expected,
                    found,
                }),
            }
        }
        if fixup == 0 || fixup >= unit.len() {
            findings.push(Finding::BadFixup { instruction, fixup });
        }
    }
    let missing = accesses
        .into_iter()
        .filter(|(offset, _)| !named.contains(offset));
    findings.extend(missing.map(|(instruction, kind)| Finding::Missing { instruction, kind }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0x0000_0013;
    const HLV_D: u32 = 0x6c05_c573;
    const HLVX_HU: u32 = 0x6435_c573;
    const HSV_B: u32 = 0x62a5_c073;

    /// For five instructions and one that the unit does not have.
    type Table = [u16; 6];
    const RIGHT: Table = [0, 16, 16 + 1, 16 + 2, 0, 0];

    fn check_table(table: &[u16]) -> Vec<Finding> {
        let unit: Vec<u8> = [NOP, HLV_D, HLVX_HU, HSV_B, NOP]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        check(&unit, &table)
    }

    fn with(index: usize, entry: u16) -> Vec<Finding> {
        let mut table = RIGHT;
        table[index] = entry;
        check_table(&table)
    }

    #[test]
    fn a_right_table_has_no_findings() {
        assert_eq!(check_table(&RIGHT), []);
        assert_eq!(check_table(&RIGHT[..5]), []);
    }

    #[test]
    fn an_entry_that_is_wrong_in_any_way_is_refused() {
        let wrong = |instruction, expected, found| Finding::WrongInstruction {
            instruction,
            expected,
            found,
        };
        for (index, entry, finding) in [
            (1, 16 + 1, wrong(4, Kind::Fetch, Some(Kind::Load))),
            (1, 16 + 2, wrong(4, Kind::Store, Some(Kind::Load))),
            (0, 16, wrong(0, Kind::Load, None)),
            (4, 16 + 2, wrong(16, Kind::Store, None)),
            (5, 16 + 2, Finding::Outside { instruction: 20 }),
            (
                1,
                16 + 3,
                Finding::NoSuchKind {
                    instruction: 4,
                    number: 3,
                },
            ),
            (
                1,
                20,
                Finding::BadFixup {
                    instruction: 4,
                    fixup: 20,
                },
            ),
            (
                2,
                1,
                Finding::BadFixup {
                    instruction: 8,
                    fixup: 0,
                },
            ),
        ] {
            assert_eq!(with(index, entry), [finding]);
        }
    }

    #[test]
    fn a_guest_access_without_entry_is_refused() {
        let missing = Finding::Missing {
            instruction: 12,
            kind: Kind::Store,
        };
        assert_eq!(with(3, 0), [missing]);
        assert_eq!(check_table(&[0; 6]).first(), Some(&Finding::Empty));
    }

    #[test]
    fn a_table_that_ends_too_early_is_refused() {
        assert_eq!(check_table(&RIGHT[..4]), [Finding::Short { size: 8 }]);
        let torn = check(&NOP.to_le_bytes(), &[0; 3]);
        assert_eq!(torn, [Finding::Empty, Finding::Torn { size: 3 }]);
    }
}
