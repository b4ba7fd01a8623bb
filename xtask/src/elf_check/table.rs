//! What a right exception table is: sorted, not empty, and one entry for each guest access of the unit, no more.
//!
//! An entry is four 16-bit little-endian numbers: the offset of the instruction and of its fixup from the unit's start,
//! the kind of access, and zero.

use std::fmt;

use super::instruction::{self, Kind};

/// Bytes of one entry.
pub const ENTRY_SIZE: usize = 8;

/// What is wrong with a table. Offsets count from the start of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has no entry.
    Empty,
    /// Its size is no multiple of an entry's.
    Torn { size: usize },
    /// An entry does not come after the one before.
    NotSorted { instruction: usize },
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
    /// A fixup is outside the unit, or not aligned.
    BadFixup { instruction: usize, fixup: usize },
    /// The last field is not zero.
    NotReserved { instruction: usize },
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
            Self::NotSorted { instruction } => {
                write!(f, "the entry for +{instruction:#x} is out of order")
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
                    "the entry for +{instruction:#x} has the fixup +{fixup:#x}, outside the unit or not aligned"
                )
            }
            Self::NotReserved { instruction } => write!(
                f,
                "the entry for +{instruction:#x} has a last field that is not 0"
            ),
            Self::Missing { instruction, kind } => {
                write!(f, "the {kind} at +{instruction:#x} is not in the table")
            }
        }
    }
}

/// Checks a table against the code of its unit.
pub fn check(unit: &[u8], table: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (entries, torn) = table.as_chunks::<ENTRY_SIZE>();
    if table.is_empty() {
        findings.push(Finding::Empty);
    }
    if !torn.is_empty() {
        findings.push(Finding::Torn { size: table.len() });
    }
    let accesses = instruction::guest_accesses(unit);
    let mut named = Vec::new();
    for entry in entries {
        let field = |index: usize| u16::from_le_bytes([entry[index], entry[index + 1]]);
        let (instruction, fixup, number, reserved) = (
            usize::from(field(0)),
            usize::from(field(2)),
            field(4),
            field(6),
        );
        if named.last().is_some_and(|&last| instruction <= last) {
            findings.push(Finding::NotSorted { instruction });
        }
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
        if fixup >= unit.len() || !fixup.is_multiple_of(4) {
            findings.push(Finding::BadFixup { instruction, fixup });
        }
        if reserved != 0 {
            findings.push(Finding::NotReserved { instruction });
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

    type Entry = [u16; 4];
    const RIGHT: [Entry; 3] = [[4, 16, 0, 0], [8, 16, 1, 0], [12, 16, 2, 0]];

    fn check_entries(entries: &[Entry]) -> Vec<Finding> {
        let unit: Vec<u8> = [NOP, HLV_D, HLVX_HU, HSV_B, NOP]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let table: Vec<u8> = entries
            .iter()
            .flatten()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        check(&unit, &table)
    }

    fn with(index: usize, entry: Entry) -> Vec<Finding> {
        let mut entries = RIGHT;
        entries[index] = entry;
        check_entries(&entries)
    }

    #[test]
    fn a_right_table_has_no_findings() {
        assert_eq!(check_entries(&RIGHT), []);
    }

    #[test]
    fn a_table_that_is_wrong_in_any_way_is_refused() {
        let wrong = |expected, found| Finding::WrongInstruction {
            instruction: 4,
            expected,
            found,
        };
        assert_eq!(
            with(0, [4, 16, 1, 0]),
            [wrong(Kind::Fetch, Some(Kind::Load))]
        );
        assert_eq!(
            with(0, [4, 16, 2, 0]),
            [wrong(Kind::Store, Some(Kind::Load))]
        );
        assert_eq!(
            with(0, [4, 16, 3, 0]),
            [Finding::NoSuchKind {
                instruction: 4,
                number: 3
            }]
        );
        assert_eq!(
            with(0, [4, 20, 0, 0]),
            [Finding::BadFixup {
                instruction: 4,
                fixup: 20
            }]
        );
        assert_eq!(
            with(0, [4, 18, 0, 0]),
            [Finding::BadFixup {
                instruction: 4,
                fixup: 18
            }]
        );
        assert_eq!(
            with(0, [4, 16, 0, 1]),
            [Finding::NotReserved { instruction: 4 }]
        );
        let none = Finding::WrongInstruction {
            instruction: 0,
            expected: Kind::Load,
            found: None,
        };
        assert_eq!(
            with(0, [0, 16, 0, 0]),
            [
                none,
                Finding::Missing {
                    instruction: 4,
                    kind: Kind::Load
                }
            ]
        );
        let outside = Finding::Outside { instruction: 20 };
        assert_eq!(
            with(2, [20, 16, 2, 0]),
            [
                outside,
                Finding::Missing {
                    instruction: 12,
                    kind: Kind::Store
                }
            ]
        );
    }

    #[test]
    fn entries_out_of_order_or_twice_are_refused() {
        let [first, second, third] = RIGHT;
        assert_eq!(
            check_entries(&[second, first, third]),
            [Finding::NotSorted { instruction: 4 }]
        );
        assert_eq!(
            check_entries(&[first, first, second, third]),
            [Finding::NotSorted { instruction: 4 }]
        );
    }

    #[test]
    fn a_guest_access_without_entry_is_refused() {
        assert_eq!(
            check_entries(&RIGHT[..2]),
            [Finding::Missing {
                instruction: 12,
                kind: Kind::Store
            }]
        );
        assert_eq!(check_entries(&[]).first(), Some(&Finding::Empty));
    }

    #[test]
    fn a_torn_table_is_refused() {
        assert_eq!(
            check(&[0x13, 0, 0, 0], &[0; 4]),
            [Finding::Torn { size: 4 }]
        );
    }
}
