//! The choices of a case, as its numbers say.
//!
//! The one idea: every choice is drawn, whether it is taken or not and kept or not, and none is drawn from another; so a
//! choice means the same in every subset of its case.

use crate::bits::{A, D, R, U, V, W, X};
use crate::case::Case;
use crate::choices::{Choices, Edit, EntryName, Instruction, Mode, Offer, Operation};
use crate::random::Random;

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

impl Case {
    /// What the case departs from the ordinary in, on a machine that takes `offer`.
    pub fn choices(&self, offer: &Offer) -> Choices {
        let mut draw = Draw {
            random: Random::new(self.seed, self.number),
            kept: self.kept,
            taken: 0,
            next: 0,
        };
        // Most cases are about rights and registers more than about broken tables.
        let broken = [35, 15, 8, 5, 3, 3];
        Choices {
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
            environment: draw.number(60),
            vs_flags: draw.choice(35, flags),
            g_flags: draw.choice(25, flags),
            tables_flags: draw.choice(14, tables_flags),
            frame: draw.number(30),
            edits: broken.map(|percent| draw.choice(percent, edit)),
            taken: draw.taken,
        }
    }
}
