//! A case as numbers: the words of its tables, the registers, the access.
//!
//! The one idea: all of a case lies in one block of 2 MiB, so that neither low bits of page numbers nor 2 MiB pages lead out
//! of it. Guest-physical memory is one or two windows onto that block, each as far from it as its largest page allows; the
//! VS-stage's tables are in the first window, the page in the second, or in the first too.

use crate::bits::{A, D, N, R, U, V, W, X};
use crate::case::Case;
use crate::choices::{Choices, Edit, EntryName, Instruction, Mode, Offer, Operation};
use crate::random::mix;

/// Bytes, and alignment, of the block that a case lies in. Zero but for [`marks`] when a case starts.
pub const BLOCK: u64 = 1 << 21;

const PAGE: u64 = 4096;
/// Frames of the block: the G-stage's root.
const G_ROOT: u64 = 0;
/// The G-stage's tables of levels 0 to 3, for each window.
const G_TABLES: u64 = 4;
/// The VS-stage's tables, by level.
const VS_TABLES: u64 = 12;
/// The pages: one is the case's, all of it is a 64 KiB page.
const PAGES: u64 = 32;
const PAGES_END: u64 = 48;

/// All rights, as the G-stage wants them, too.
const ALL: u64 = V | R | W | X | U | A | D;
const NAME: u64 = (1 << 44) - 1;

/// Where the machine has room for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block, at a multiple of its size, in the third gigabyte of the machine's addresses.
    pub block: u64,
    /// Addresses that the machine refuses, and for 192 KiB after each: where memory is protected, and where nothing is.
    pub refused: [u64; 2],
}

/// A word of the block that is not as it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its offset.
    pub offset: u64,
    /// What it holds.
    pub value: u64,
}

/// Words that a case has at most: five levels, at the G-stage for two windows and six frames of the guest's.
pub const WORDS: usize = 32;

/// A case, ready to be put into memory and registers.
#[derive(Clone, Debug)]
pub struct World {
    /// `vsatp`, with ASID 1 unless Bare.
    pub vsatp: u64,
    /// `hgatp`, with VMID 1.
    pub hgatp: u64,
    /// `vsstatus.SUM`.
    pub vs_sum: bool,
    /// `vsstatus.MXR`.
    pub vs_mxr: bool,
    /// `sstatus.SUM`.
    pub host_sum: bool,
    /// `sstatus.MXR`.
    pub host_mxr: bool,
    /// `hstatus.SPVP`.
    pub supervisor: bool,
    /// `menvcfg`: ADUE, PBMTE and SSE, as far as they are offered.
    pub menvcfg: u64,
    /// `henvcfg`: ADUE, PBMTE, PMM and SSE, likewise. What `menvcfg` does not grant may be set here.
    pub henvcfg: u64,
    /// `senvcfg`: PMM, likewise.
    pub senvcfg: u64,
    /// The access.
    pub instruction: Instruction,
    /// Its address.
    pub address: u64,
    /// What a store stores.
    pub value: u64,
    /// Where an access without a fault is meant to go, as an offset in the block.
    pub target: u64,
    words: [Word; WORDS],
    used: usize,
}

/// What a word of the block holds when a case starts: 0, or in the pages a number of its own. It is never a valid entry.
pub const fn mark(offset: u64) -> u64 {
    if offset >= PAGES * PAGE && offset < PAGES_END * PAGE {
        mix(offset) & !V
    } else {
        0
    }
}

/// The offsets of the words whose [`mark`] is not 0.
pub fn marks() -> impl Iterator<Item = u64> {
    (PAGES * PAGE..PAGES_END * PAGE).step_by(8)
}

/// `log2` of what an entry of `level` covers.
const fn shift(level: usize) -> u32 {
    12 + 9 * level as u32
}

const fn low(bits: u32) -> u64 {
    match bits {
        64.. => u64::MAX,
        _ => (1 << bits) - 1,
    }
}

/// One of `from..to`.
const fn among(number: u64, from: usize, to: usize) -> usize {
    from + (number % (to - from) as u64) as usize
}

const fn entry(address: u64, flags: u64) -> u64 {
    (address >> 12 & NAME) << 10 | flags
}

/// A window of guest-physical memory onto the block.
#[derive(Clone, Copy)]
struct Window {
    /// 0 or 1.
    index: u64,
    base: u64,
    /// The level of its entries at the G-stage.
    level: usize,
}

struct Builder<'a> {
    place: &'a Place,
    choices: &'a Choices,
    vs_mode: Mode,
    g_mode: Mode,
    vs_level: usize,
    tables: Window,
    page: Window,
    /// The frame of the page.
    frame: u64,
    world: World,
}

impl Case {
    /// Its tables, registers and access.
    pub fn world(&self, offer: &Offer, place: &Place) -> World {
        let mut world = World::new(&self.choices(offer), place);
        world.menvcfg &= offer.environment.menvcfg;
        world.henvcfg &= offer.environment.henvcfg;
        world.senvcfg &= offer.environment.senvcfg;
        world
    }
}

impl World {
    /// The words of the tables. All others are as [`mark`] says.
    pub fn words(&self) -> &[Word] {
        &self.words[..self.used]
    }

    pub(crate) fn new(choices: &Choices, place: &Place) -> Self {
        let vs_mode = choices.vs_mode.unwrap_or(Mode::Sv39);
        let g_mode = choices.g_mode.unwrap_or(Mode::Sv39);
        let vs_levels = vs_mode.levels();
        let vs_level = match (choices.vs_level, choices.vs_napot) {
            (Some(number), None) if vs_levels > 0 => among(number, 0, vs_levels),
            _ => 0,
        };
        let tables = Window::new(
            0,
            choices.tables_at.unwrap_or(1 << 30),
            choices.tables_level,
            vs_mode,
            g_mode,
            place,
        );
        let page = match choices.page_at {
            None => tables,
            Some(at) => {
                let level = match choices.g_napot {
                    None => choices.page_level,
                    Some(()) => None,
                };
                let mut page = Window::new(1, at, level, vs_mode, g_mode, place);
                // Entries of the root are never shared.
                let root = shift(g_mode.levels() - 1);
                if page.base >> root == tables.base >> root {
                    page.base ^= 1 << root;
                }
                page
            }
        };
        let mut builder = Builder {
            place,
            choices,
            vs_mode,
            g_mode,
            vs_level,
            tables,
            page,
            frame: PAGES + choices.frame.unwrap_or(5) % (PAGES_END - PAGES),
            world: Self::registers(choices, vs_mode, g_mode, tables, place),
        };
        builder.address();
        builder.vs_stage();
        builder.g_stage();
        for edit in choices.edits.iter().flatten() {
            builder.edit(edit);
        }
        builder.world
    }

    fn registers(
        choices: &Choices,
        vs_mode: Mode,
        g_mode: Mode,
        tables: Window,
        place: &Place,
    ) -> Self {
        let vsatp = match vs_mode.levels() {
            0 => 0,
            levels => {
                let root = tables.base + (VS_TABLES + levels as u64 - 1) * PAGE;
                vs_mode.number() << 60 | 1 << 44 | root >> 12
            }
        };
        // PBMTE, ADUE and SSE are where both registers have them; PMM begins at 32. What menvcfg grants is mostly there.
        let environment = choices.environment.unwrap_or(0);
        let both = |bits: u64| (bits & 0b11) << 61;
        let sse = |bits: u64| (bits & 1) << 3;
        let masked = |bits: u64| match bits & 0b1111 {
            2 => 2 << 32,
            3 => 3 << 32,
            _ => 0,
        };
        Self {
            vsatp,
            hgatp: g_mode.number() << 60 | 1 << 44 | (place.block + G_ROOT * PAGE) >> 12,
            vs_sum: choices.vs_sum.is_some(),
            vs_mxr: choices.vs_mxr.is_some(),
            host_sum: choices.host_sum.is_some(),
            host_mxr: choices.host_mxr.is_some(),
            supervisor: choices.user.is_none(),
            menvcfg: both(environment | environment >> 2)
                | sse(environment >> 15 | environment >> 16),
            henvcfg: both(environment >> 4) | masked(environment >> 6) | sse(environment >> 10),
            senvcfg: masked(environment >> 11),
            instruction: choices.instruction.unwrap_or(Instruction::HlvD),
            address: 0,
            value: 0x5a69_788b_9cad_be0f,
            target: 0,
            words: [Word::default(); WORDS],
            used: 0,
        }
    }

    fn set(&mut self, offset: u64, value: u64) {
        match self.words[..self.used]
            .iter_mut()
            .find(|word| word.offset == offset)
        {
            Some(word) => word.value = value,
            None => {
                self.words[self.used] = Word { offset, value };
                self.used += 1;
            }
        }
    }

    fn get(&self, offset: u64) -> Option<u64> {
        let word = self.words().iter().find(|word| word.offset == offset)?;
        Some(word.value)
    }
}

impl Window {
    fn new(
        index: u64,
        at: u64,
        level: Option<u64>,
        vs_mode: Mode,
        g_mode: Mode,
        place: &Place,
    ) -> Self {
        let level = level.map_or(0, |number| among(number, 0, g_mode.levels()));
        // An entry of the VS-stage names 56 bits.
        let bits = shift(g_mode.levels()) + 2;
        let bits = if vs_mode == Mode::Bare {
            bits
        } else {
            bits.min(56)
        };
        let same = low(shift(level.max(1)));
        Self {
            index,
            base: at & low(bits) & !same | place.block & same,
            level,
        }
    }
}

impl Builder<'_> {
    /// The offset of the G-stage's entry of `level` for a guest-physical address of `window`.
    fn g_entry(&self, window: Window, gpa: u64, level: usize) -> u64 {
        let top = self.g_mode.levels() - 1;
        let (frame, bits) = if level == top {
            (G_ROOT, 11)
        } else {
            (G_TABLES + 4 * window.index + level as u64, 9)
        };
        frame * PAGE + (gpa >> shift(level) & low(bits)) * 8
    }

    /// The offset of the VS-stage's entry of `level` for the address of the access.
    fn vs_entry(&self, level: usize) -> u64 {
        (VS_TABLES + level as u64) * PAGE + (self.address_translated() >> shift(level) & 0x1ff) * 8
    }

    /// The address of the access without its stray bit.
    fn address_translated(&self) -> u64 {
        self.world.address ^ self.stray()
    }

    fn stray(&self) -> u64 {
        let Some(number) = self.choices.stray else {
            return 0;
        };
        let from = match self.vs_mode {
            Mode::Bare => shift(self.g_mode.levels()) + 1,
            mode => shift(mode.levels()) - 1,
        };
        1 << (u64::from(from) + number % u64::from(64 - from))
    }

    fn address(&mut self) {
        let bytes = self.world.instruction.bytes();
        let offset = self.choices.offset.unwrap_or(0) & (PAGE - 1) & !(bytes - 1);
        self.world.target = self.frame * PAGE + offset;
        let gpa = self.page.base + self.world.target;
        let address = match self.vs_mode {
            Mode::Bare => gpa,
            mode => {
                let same = low(match self.choices.vs_napot {
                    Some(()) => 16,
                    None => shift(self.vs_level),
                });
                let any = self.choices.address.unwrap_or(0x12_3456_7000);
                let unused = 64 - shift(mode.levels());
                let address = any & !same | gpa & same;
                ((address << unused).cast_signed() >> unused).cast_unsigned()
            }
        };
        self.world.address = address ^ self.stray();
    }

    fn vs_stage(&mut self) {
        for level in (self.vs_level + 1..self.vs_mode.levels()).rev() {
            let next = self.tables.base + (VS_TABLES + level as u64 - 1) * PAGE;
            self.world.set(self.vs_entry(level), entry(next, V));
        }
        if self.vs_mode == Mode::Bare {
            return;
        }
        let user = if self.world.supervisor { 0 } else { U };
        let flags = self.choices.vs_flags.unwrap_or(ALL & !U | user);
        let gpa = self.page.base + self.world.target;
        let leaf = match self.choices.vs_napot {
            Some(()) => entry(gpa & !low(16) | 8 << 12, flags | N),
            None => entry(gpa & !low(shift(self.vs_level)), flags),
        };
        self.world.set(self.vs_entry(self.vs_level), leaf);
    }

    fn g_stage(&mut self) {
        let flags = self.choices.tables_flags.unwrap_or(ALL);
        for level in self.vs_level..self.vs_mode.levels() {
            self.g_map(self.tables, VS_TABLES + level as u64, flags, false);
        }
        let flags = self.choices.g_flags.unwrap_or(ALL);
        self.g_map(self.page, self.frame, flags, self.choices.g_napot.is_some());
    }

    /// Maps a frame of the block at the G-stage.
    fn g_map(&mut self, window: Window, frame: u64, flags: u64, napot: bool) {
        let gpa = window.base + frame * PAGE;
        for level in (window.level + 1..self.g_mode.levels()).rev() {
            let next = G_TABLES + 4 * window.index + level as u64 - 1;
            let next = entry(self.place.block + next * PAGE, V);
            self.world.set(self.g_entry(window, gpa, level), next);
        }
        let spa = self.place.block + frame * PAGE;
        let leaf = match napot && window.level == 0 {
            true => entry(spa & !low(16) | 8 << 12, flags | N),
            false => entry(spa & !low(shift(window.level)), flags),
        };
        self.world
            .set(self.g_entry(window, gpa, window.level), leaf);
    }

    fn edit(&mut self, edit: &Edit) {
        let vs = |number| among(number, self.vs_level, self.vs_mode.levels());
        let g = |window: Window, frame: u64, number| {
            let level = among(number, window.level, self.g_mode.levels());
            self.g_entry(window, window.base + frame * PAGE, level)
        };
        let offset = match edit.entry {
            EntryName::GOfPage(number) => g(self.page, self.frame, number),
            // Without a VS-stage there is only the page.
            EntryName::Vs(number) | EntryName::GOfTable(number, _)
                if self.vs_mode == Mode::Bare =>
            {
                g(self.page, self.frame, number)
            }
            EntryName::Vs(number) => self.vs_entry(vs(number)),
            EntryName::GOfTable(table, number) => {
                g(self.tables, VS_TABLES + vs(table) as u64, number)
            }
        };
        let of_vs = matches!(edit.entry, EntryName::Vs(_)) && self.vs_mode != Mode::Bare;
        let Some(old) = self.world.get(offset) else {
            return;
        };
        let value = match edit.operation {
            Operation::Clear => 0,
            Operation::Flip(bit) => old ^ 1 << bit,
            Operation::Rights(rights) => old & !(R | W | X) | rights << 1,
            Operation::FlipPage(bit) => old ^ 1 << (10 + bit),
            Operation::Lead(number) => old & !(NAME << 10) | entry(self.place_of(number, of_vs), 0),
        };
        self.world.set(offset, value);
    }

    /// An address for an entry to lead to.
    fn place_of(&self, number: u64, of_vs: bool) -> u64 {
        let frames = [
            VS_TABLES,
            VS_TABLES + 1,
            VS_TABLES + 2,
            VS_TABLES + 4,
            self.frame,
            PAGES,
            G_ROOT,
            G_TABLES,
            G_TABLES + 5,
            PAGES_END,
        ];
        let count = frames.len() as u64;
        match frames.get((number % (count + 2)) as usize) {
            Some(&frame) if of_vs && frame >= PAGES => self.page.base + frame * PAGE,
            Some(&frame) if of_vs => self.tables.base + frame * PAGE,
            Some(&frame) => self.place.block + frame * PAGE,
            // Guest-physical memory that is nowhere, and as wide as an entry can name.
            None if of_vs => (NAME - 7 * (number % 2)) << 12,
            None => self.place.refused[(number / (count + 2) % 2) as usize],
        }
    }
}
