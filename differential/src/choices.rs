//! In what a case departs from the ordinary.
//!
//! The one idea: every choice is drawn, whether it is taken or not and kept or not, and none is drawn from another; so a
//! choice means the same in every subset of its case. What a number means for the tables at hand is `world`'s to say.

use crate::bits::{A, D, R, U, V, W, X};
use crate::case::Case;
use crate::random::Random;

/// Edits that a case has at most.
const EDITS: usize = 6;

/// A translation mode of either stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None. At the VS-stage only: nothing is run under a Bare G-stage (R12).
    Bare,
    /// Sv39, Sv39x4.
    Sv39,
    /// Sv48, Sv48x4.
    Sv48,
    /// Sv57, Sv57x4.
    Sv57,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Sv39, Self::Sv48, Self::Sv57];

    /// What `vsatp.MODE` and `hgatp.MODE` call it.
    pub const fn number(self) -> u64 {
        match self {
            Self::Bare => 0,
            Self::Sv39 => 8,
            Self::Sv48 => 9,
            Self::Sv57 => 10,
        }
    }

    /// Levels of its tables.
    pub const fn levels(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Sv39 => 3,
            Self::Sv48 => 4,
            Self::Sv57 => 5,
        }
    }
}

/// What a machine takes. Choices outside of it are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The modes of `vsatp`, in the order of [`Mode::ALL`].
    pub vs_modes: [bool; 4],
    /// The modes of `hgatp`.
    pub g_modes: [bool; 4],
    /// `menvcfg`, `henvcfg` and `senvcfg` are the case's.
    pub environment: bool,
}

impl Offer {
    /// Everything.
    pub const ALL: Self = Self {
        vs_modes: [true; 4],
        g_modes: [false, true, true, true],
        environment: true,
    };
}

macro_rules! instructions {
    ($($name:ident $text:literal $bytes:literal $store:literal $execute:literal $signed:literal;)*) => {
        /// An access of the H extension.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are the instructions'")]
        pub enum Instruction { $($name,)* }

        impl Instruction {
            /// All of them.
            pub const ALL: [Self; 13] = [$(Self::$name),*];

            /// As in assembly.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Bytes that it moves.
            pub const fn bytes(self) -> u64 {
                match self { $(Self::$name => $bytes,)* }
            }

            /// Whether it stores.
            pub const fn stores(self) -> bool {
                match self { $(Self::$name => $store,)* }
            }

            /// Whether it needs X in place of R.
            pub const fn executes(self) -> bool {
                match self { $(Self::$name => $execute,)* }
            }

            /// Whether it extends what it loads by the sign.
            pub const fn extends_sign(self) -> bool {
                match self { $(Self::$name => $signed,)* }
            }
        }
    };
}

instructions! {
    HlvB "hlv.b" 1 false false true;
    HlvBu "hlv.bu" 1 false false false;
    HlvH "hlv.h" 2 false false true;
    HlvHu "hlv.hu" 2 false false false;
    HlvW "hlv.w" 4 false false true;
    HlvWu "hlv.wu" 4 false false false;
    HlvD "hlv.d" 8 false false false;
    HlvxHu "hlvx.hu" 2 false true false;
    HlvxWu "hlvx.wu" 4 false true false;
    HsvB "hsv.b" 1 true false false;
    HsvH "hsv.h" 2 true false false;
    HsvW "hsv.w" 4 true false false;
    HsvD "hsv.d" 8 true false false;
}

/// An entry of a case's tables, by its part in the walk. The numbers choose among what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName {
    /// The VS-stage's, of a level.
    Vs(u64),
    /// The G-stage's, of a level, on the way to a table of the VS-stage.
    GOfTable(u64, u64),
    /// The G-stage's, of a level, on the way to the page.
    GOfPage(u64),
}

/// What is done to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// All bits are cleared.
    Clear,
    /// One bit outside of the page number is flipped.
    Flip(u32),
    /// R, W and X are these.
    Rights(u64),
    /// One of the low bits of the page number is flipped: a superpage is misaligned then, and a table is another.
    FlipPage(u32),
    /// It leads elsewhere: another table, a loop, the page, memory that nobody maps, an address the machine refuses.
    Lead(u64),
}

/// An entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub entry: EntryName,
    /// How.
    pub operation: Operation,
}

/// In what a case departs from the ordinary; `None` is the ordinary. Numbers without a unit choose among what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// The choices that were drawn and kept, as [`Case::kept`].
    pub taken: u32,
    /// `vsatp.MODE`.
    pub vs_mode: Option<Mode>,
    /// `hgatp.MODE`.
    pub g_mode: Option<Mode>,
    /// The level of the page's entry at the VS-stage.
    pub vs_level: Option<u64>,
    /// The page is one of 64 KiB at the VS-stage.
    pub vs_napot: Option<()>,
    /// Where guest-physical memory has the VS-stage's tables.
    pub tables_at: Option<u64>,
    /// The level of their entries at the G-stage.
    pub tables_level: Option<u64>,
    /// Where guest-physical memory has the page, apart from the tables.
    pub page_at: Option<u64>,
    /// The level of its entry at the G-stage.
    pub page_level: Option<u64>,
    /// The page is one of 64 KiB at the G-stage.
    pub g_napot: Option<()>,
    /// The guest-virtual address.
    pub address: Option<u64>,
    /// Its offset in the page.
    pub offset: Option<u64>,
    /// A high bit of the address that is flipped.
    pub stray: Option<u64>,
    /// The access.
    pub instruction: Option<Instruction>,
    /// It is VU-mode's.
    pub user: Option<()>,
    /// `vsstatus.SUM`.
    pub vs_sum: Option<()>,
    /// `vsstatus.MXR`.
    pub vs_mxr: Option<()>,
    /// `sstatus.SUM`, which has no say.
    pub host_sum: Option<()>,
    /// `sstatus.MXR`.
    pub host_mxr: Option<()>,
    /// Bits of `menvcfg`, `henvcfg` and `senvcfg`, six each.
    pub environment: Option<u64>,
    /// The low byte of the page's entry at the VS-stage.
    pub vs_flags: Option<u64>,
    /// The low byte of the page's entry at the G-stage.
    pub g_flags: Option<u64>,
    /// The low byte of the tables' entries at the G-stage.
    pub tables_flags: Option<u64>,
    /// The low bits of the page's guest-physical frame.
    pub frame: Option<u64>,
    /// Changes to entries.
    pub edits: [Option<Edit>; EDITS],
}

struct Draw {
    random: Random,
    kept: u32,
    taken: u32,
    next: u32,
}

impl Draw {
    /// Draws a choice, to be taken in `percent` of the cases.
    fn choice<T>(&mut self, percent: u64, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
        let chosen = self.random.chance(percent);
        let value = value(&mut self.random);
        let bit = 1 << self.next;
        self.next += 1;
        if !chosen || self.kept & bit == 0 {
            return None;
        }
        self.taken |= bit;
        Some(value)
    }

    fn flag(&mut self, percent: u64) -> Option<()> {
        self.choice(percent, |_| ())
    }

    fn number(&mut self, percent: u64) -> Option<u64> {
        self.choice(percent, Random::next)
    }
}

/// One of the modes that are offered.
fn mode(random: &mut Random, offered: &[bool; 4]) -> Mode {
    let number = random.next();
    let count = offered.iter().filter(|&&offered| offered).count().max(1) as u64;
    let mut among = Mode::ALL
        .into_iter()
        .zip(offered)
        .filter_map(|(mode, &offered)| offered.then_some(mode));
    among.nth((number % count) as usize).unwrap_or(Mode::Sv39)
}

/// A guest-virtual or guest-physical address: any, one with the same index at each level, or one near an end.
fn address(random: &mut Random) -> u64 {
    let any = random.next();
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX >> 26,
        3 => u64::MAX << 38,
        4 | 5 => {
            let index = any & 0x1ff;
            (0..5).fold(0, |address, level| address | index << (12 + 9 * level))
        }
        _ => any,
    }
}

/// The low byte of a leaf: each bit more often set than not, V nearly always.
fn flags(random: &mut Random) -> u64 {
    [R, W, X, U, A, D]
        .into_iter()
        .fold(if random.chance(95) { V } else { 0 }, |flags, bit| {
            flags | if random.chance(78) { bit } else { 0 }
        })
}

/// The low byte of the G-stage's leaf over a table: mostly one that can be read, and whose A and D bits are trouble.
fn tables_flags(random: &mut Random) -> u64 {
    let any = flags(random);
    match random.below(4) {
        0 => any,
        1 | 2 => V | R | U | A,
        _ => any | V | R | U,
    }
}

fn edit(random: &mut Random) -> Edit {
    let (one, other) = (random.next(), random.next());
    let entry = match random.below(10) {
        0..5 => EntryName::Vs(one),
        5..7 => EntryName::GOfTable(one, other),
        _ => EntryName::GOfPage(one),
    };
    let number = random.next();
    let operation = match random.below(20) {
        0 => Operation::Clear,
        1..8 => Operation::Flip(number as u32 % 10),
        8..12 => Operation::Flip(54 + number as u32 % 10),
        12..14 => Operation::Rights(number & 7),
        14..16 => Operation::FlipPage(number as u32 % 9),
        _ => Operation::Lead(number),
    };
    Edit { entry, operation }
}

impl Choices {
    pub(crate) fn draw(case: &Case, offer: &Offer) -> Self {
        let mut draw = Draw {
            random: Random::new(case.seed, case.number),
            kept: case.kept,
            taken: 0,
            next: 0,
        };
        // Most cases are about rights and registers more than about broken tables.
        let broken = [35, 15, 8, 5, 3, 3];
        Self {
            vs_mode: draw.choice(60, |random| mode(random, &offer.vs_modes)),
            g_mode: draw.choice(60, |random| mode(random, &offer.g_modes)),
            vs_level: draw.number(35),
            vs_napot: draw.flag(10),
            tables_at: draw.choice(40, address),
            tables_level: draw.number(30),
            page_at: draw.choice(50, address),
            page_level: draw.number(40),
            g_napot: draw.flag(10),
            address: draw.choice(70, address),
            offset: draw.number(80),
            stray: draw.number(7),
            instruction: draw.choice(85, |random| {
                Instruction::ALL[random.below(Instruction::ALL.len() as u64) as usize]
            }),
            user: draw.flag(40),
            vs_sum: draw.flag(40),
            vs_mxr: draw.flag(30),
            host_sum: draw.flag(20),
            host_mxr: draw.flag(20),
            environment: draw.number(60).filter(|_| offer.environment),
            vs_flags: draw.choice(35, flags),
            g_flags: draw.choice(25, flags),
            tables_flags: draw.choice(14, tables_flags),
            frame: draw.number(30),
            edits: broken.map(|percent| draw.choice(percent, edit)),
            taken: draw.taken,
        }
    }
}
