//! One page-table entry: its bits, and what they say at a given level (R51 to R53).
//!
//! The one idea: an entry is read from memory once and becomes either the next table or a [`Leaf`]; nothing later looks
//! at memory again (R47).

use core::fmt;

use super::regime::StageRules;
use crate::address::PAGE_SHIFT;

/// Entry bit V: valid.
pub const V: u64 = 1 << 0;
/// Entry bit R: readable.
pub const R: u64 = 1 << 1;
/// Entry bit W: writable.
pub const W: u64 = 1 << 2;
/// Entry bit X: executable.
pub const X: u64 = 1 << 3;
/// Entry bit U: for user mode; must be set in every G-stage leaf (R54).
pub const U: u64 = 1 << 4;
/// Entry bit G: global. Ignored by the G-stage.
pub const G: u64 = 1 << 5;
/// Entry bit A: accessed.
pub const A: u64 = 1 << 6;
/// Entry bit D: dirty.
pub const D: u64 = 1 << 7;
/// Entry bit N: part of a naturally aligned 64 KiB page (Svnapot).
pub const N: u64 = 1 << 63;
/// Where the two bits of the memory type begin (Svpbmt).
pub const PBMT_SHIFT: u32 = 61;

const PBMT: u64 = 0b11 << PBMT_SHIFT;
const PPN_SHIFT: u32 = 10;
const PPN: u64 = (1 << 44) - 1;
/// Bits 60:54, reserved for standard use.
const RESERVED: u64 = 0x7f << 54;
/// Bits 60:59, free for software with Svrsw60t59b.
const SOFTWARE_60_59: u64 = 0b11 << 59;
/// Index bits of a level below the root.
pub(super) const INDEX_BITS: u32 = 9;
const NAPOT_SHIFT: u32 = 16;

/// An entry that leads to `address` (of a table, or of a page) with the given bits and V.
///
/// ```
/// use guest_mem::translate::entry;
///
/// assert_eq!(entry::pack(0x8000_1000, entry::R | entry::U), 0x2000_0413);
/// ```
pub const fn pack(address: u64, bits: u64) -> u64 {
    ((address >> PAGE_SHIFT) & PPN) << PPN_SHIFT | bits | V
}

/// The address that the page-number field of an entry names.
pub const fn address(entry: u64) -> u64 {
    ((entry >> PPN_SHIFT) & PPN) << PAGE_SHIFT
}

/// The memory type that an entry asks for (Svpbmt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MemoryType {
    /// What the machine says for the address.
    #[default]
    Pma,
    /// Non-cacheable, idempotent, weakly ordered main memory.
    NonCacheable,
    /// Non-cacheable, not idempotent, strongly ordered.
    Io,
}

impl MemoryType {
    /// The type of an access through both stages: the VS-stage's unless it leaves the choice to the G-stage (R53).
    pub const fn combine(vs: Self, g: Self) -> Self {
        match vs {
            Self::Pma => g,
            _ => vs,
        }
    }
}

/// A page: what a leaf entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The first byte of the page, in the space that the stage leads to.
    pub base: u64,
    /// `log2` of the page's size in bytes: 12, 16 (Svnapot), 21, 30, 39 or 48.
    pub page_shift: u32,
    /// R. Also set for a shadow-stack page, which loads may read.
    pub read: bool,
    /// W. Clear for a shadow-stack page.
    pub write: bool,
    /// X.
    pub execute: bool,
    /// U.
    pub user: bool,
    /// G.
    pub global: bool,
    /// D, as the entry holds it after the walk.
    pub dirty: bool,
    /// A shadow-stack page (R16).
    pub shadow_stack: bool,
    /// The memory type of this stage.
    pub memory_type: MemoryType,
}

impl Leaf {
    /// Where an input address of this stage leads.
    pub const fn output(&self, input: u64) -> u64 {
        self.base | input & ((1 << self.page_shift) - 1)
    }
}

/// Why a stage refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A guest-virtual address whose high bits are not copies of its top bit (R49).
    NotCanonical,
    /// A guest-physical address wider than the mode (R13).
    TooWide,
    /// V is clear.
    NotValid,
    /// A reserved bit is set, or a combination is reserved (R51, R52).
    Reserved,
    /// A 64 KiB page encoding that Svnapot does not define (R53).
    BadNapot,
    /// The last level holds a pointer to yet another table.
    NoLeaf,
    /// The page number of a superpage is not a multiple of its size.
    MisalignedSuperpage,
    /// U is clear: for VU-mode, or in a G-stage leaf.
    NotUser,
    /// U is set and the access is VS-mode's without SUM, or a fetch (R3, R7).
    User,
    /// The page cannot be read.
    NotReadable,
    /// The page cannot be written.
    NotWritable,
    /// The page cannot be executed.
    NotExecutable,
    /// An ordinary store to a shadow-stack page, or a fetch from one (R16).
    ShadowStack,
    /// A is clear, and the hardware does not set it (R55).
    NotAccessed,
    /// D is clear, the access is a store, and the hardware does not set it (R55).
    NotDirty,
    /// The entry itself could not be reached: the stage below, or the machine, refused.
    Unreachable,
    /// Other harts kept changing the entry.
    Contended,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotCanonical => "address is not canonical",
            Self::TooWide => "address is wider than the mode",
            Self::NotValid => "not valid",
            Self::Reserved => "reserved bits or combination",
            Self::BadNapot => "reserved 64 KiB page encoding",
            Self::NoLeaf => "no page at the last level",
            Self::MisalignedSuperpage => "misaligned superpage",
            Self::NotUser => "U is clear",
            Self::User => "U is set",
            Self::NotReadable => "not readable",
            Self::NotWritable => "not writable",
            Self::NotExecutable => "not executable",
            Self::ShadowStack => "store to a shadow-stack page, or fetch from it",
            Self::NotAccessed => "A is clear",
            Self::NotDirty => "D is clear",
            Self::Unreachable => "entry out of reach",
            Self::Contended => "entry kept changing",
        })
    }
}

/// What a valid entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The next table's address.
    Table(u64),
    /// A page.
    Leaf(Leaf),
}

/// Steps 2 to 4 of the specification's walk: is the entry valid, is it a leaf, is it well-formed at `level` (R51)?
pub(super) fn decode(
    entry: u64,
    level: usize,
    rules: &StageRules,
    shadow_stack_enabled: bool,
) -> Result<Decoded, Reason> {
    if entry & V == 0 {
        return Err(Reason::NotValid);
    }
    let ignored = if rules.svrsw60t59b { SOFTWARE_60_59 } else { 0 };
    if entry & RESERVED & !ignored != 0 || entry & N != 0 && !rules.svnapot {
        return Err(Reason::Reserved);
    }
    let shadow_stack = entry & (R | W | X) == W && shadow_stack_enabled;
    if entry & (R | W) == W && !shadow_stack {
        return Err(Reason::Reserved);
    }
    let memory_type = match (entry & PBMT) >> PBMT_SHIFT {
        0 => MemoryType::Pma,
        1 if rules.pbmt => MemoryType::NonCacheable,
        2 if rules.pbmt => MemoryType::Io,
        _ => return Err(Reason::Reserved),
    };
    if entry & (R | W | X) == 0 {
        if entry & (A | D | U | N | PBMT) != 0 {
            return Err(Reason::Reserved);
        }
        return if level == 0 {
            Err(Reason::NoLeaf)
        } else {
            Ok(Decoded::Table(address(entry)))
        };
    }
    let target = address(entry);
    let (base, page_shift) = if entry & N != 0 {
        if level != 0 || target >> PAGE_SHIFT & 0xf != 0b1000 {
            return Err(Reason::BadNapot);
        }
        (target & !((1 << NAPOT_SHIFT) - 1), NAPOT_SHIFT)
    } else {
        (target, level_shift(level))
    };
    if base & ((1 << page_shift) - 1) != 0 {
        return Err(Reason::MisalignedSuperpage);
    }
    Ok(Decoded::Leaf(Leaf {
        base,
        page_shift,
        read: entry & R != 0 || shadow_stack,
        write: entry & W != 0 && !shadow_stack,
        execute: entry & X != 0,
        user: entry & U != 0,
        global: entry & G != 0,
        dirty: entry & D != 0,
        shadow_stack,
        memory_type,
    }))
}

/// `log2` of the bytes that one entry at `level` covers.
pub(crate) const fn level_shift(level: usize) -> u32 {
    PAGE_SHIFT + INDEX_BITS * level as u32
}
