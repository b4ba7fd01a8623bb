//! In what a case departs from the ordinary.
//!
//! The one idea: each choice is taken or not by itself. What a number means for the tables at hand is `world`'s to say.

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
    /// Bits of the registers that are the case's.
    pub environment: Environment,
}

/// `menvcfg`, `henvcfg` and `senvcfg`: values, or which bits of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `menvcfg`.
    pub menvcfg: u64,
    /// `henvcfg`.
    pub henvcfg: u64,
    /// `senvcfg`.
    pub senvcfg: u64,
}

impl Offer {
    /// Everything.
    pub const ALL: Self = Self {
        vs_modes: [true; 4],
        g_modes: [false, true, true, true],
        environment: Environment {
            menvcfg: u64::MAX,
            henvcfg: u64::MAX,
            senvcfg: u64::MAX,
        },
    };
}

macro_rules! instructions {
    ($($name:ident $text:literal $bytes:literal $store:literal $execute:literal $signed:literal;)*) => {
        /// An access of the H extension.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Instruction { $(#[doc = concat!("`", $text, "`.")] $name,)* }

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
    /// The choices that were drawn and kept, as [`Case::kept`](crate::Case::kept).
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
    /// Bits of `menvcfg`, `henvcfg` and `senvcfg`.
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
