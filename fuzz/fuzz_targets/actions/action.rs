//! What may happen, as the fuzzer chooses it.

use arbitrary::Arbitrary;

use crate::oracle::{DATA_PAGES, LARGE, Operation, PAGE, Space};

/// Which kind of machine it is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Kind {
    pub lazy: bool,
    pub keeps_refusals: bool,
    /// Of the three modes of either stage.
    pub modes: [u8; 2],
    pub misaligned_works: bool,
    pub scoped: bool,
    pub hlvx_faults_as_fetch: bool,
}

/// Where an access begins.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum At {
    /// In the pages that there are, or a page or two beside them.
    Near { page: u8, offset: u16 },
    /// In the large page, or a page or two beside it.
    Large { page: u16, offset: u16 },
    /// Just below the end of the address space, or of what an address may have.
    Below { shift: u8, bytes: u16 },
    /// Anywhere.
    Any(u64),
}

/// Something that happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Action {
    Access {
        space: Space,
        at: At,
        operation: Operation,
    },
    Fetch {
        at: At,
        user: bool,
    },
    /// The guest edits its tables, and executes the fence that it owes.
    /// Of the bits of an ordinary entry those are flipped that all three have: few at a time.
    Edit {
        page: u8,
        frame: u8,
        flips: [u8; 3],
    },
    /// The same with the entry of the large page; the fence names one of its addresses.
    EditLarge {
        page: u16,
        flips: [u8; 3],
    },
    Sum(bool),
    Mxr(bool),
    /// The hypervisor fills or empties the G-stage, as far as the slots allow.
    Back {
        page: u8,
        rights: u8,
    },
    AddSlot {
        slot: u8,
        read_only: bool,
    },
    RemoveSlot {
        slot: u8,
    },
    ReadOnly {
        slot: u8,
        read_only: bool,
    },
    StartLogging {
        slot: u8,
    },
    StopLogging {
        slot: u8,
    },
    Harvest {
        slot: u8,
    },
}

impl At {
    pub fn address(self, base: u64) -> u64 {
        match self {
            Self::Near { page, offset } => {
                let page = u64::from(page) % (DATA_PAGES as u64 + 4);
                base - 2 * PAGE + page * PAGE + u64::from(offset) % PAGE
            }
            Self::Large { page, offset } => {
                // Mostly the pages of it that there are.
                let page = if page % 4 == 0 { page / 4 } else { page % 32 };
                let page = u64::from(page) % (LARGE / PAGE + 4);
                base + LARGE - 2 * PAGE + page * PAGE + u64::from(offset) % PAGE
            }
            Self::Below { shift, bytes } => {
                let end = if shift % 65 == 64 {
                    0
                } else {
                    1u64 << (shift % 65)
                };
                end.wrapping_sub(bytes.into())
            }
            Self::Any(address) => address,
        }
    }
}
