//! Numbers that the seed gives, and the values that a hypervisor might trip over.

use crate::layout::{DEVICES, HOLE, Layout, PLIC, PLIC_END, UART};

/// Steele, Lea and Flood's SplitMix64: every seed is good, the next one also.
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Yes, once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number of a few bits, of which all lengths are as likely.
    pub fn short(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }

    /// A value for an argument or a register.
    pub fn value(&mut self, layout: &Layout) -> u64 {
        const PLAIN: [u64; 22] = [
            0,
            1,
            2,
            3,
            7,
            8,
            0xfff,
            0x1000,
            0x1001,
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            1 << 38,
            1 << 39,
            1 << 41,
            1 << 47,
            1 << 55,
            1 << 56,
            i64::MAX as u64,
            i64::MIN as u64,
            u64::MAX - 0xfff,
            u64::MAX,
        ];
        match self.below(8) {
            0 => self.one_of(&PLAIN),
            1 => self.short(),
            2 => self.next(),
            _ => self.address(layout),
        }
    }

    /// An address that means something, or one next to it.
    pub fn address(&mut self, layout: &Layout) -> u64 {
        let place = match self.below(8) {
            0 => self.one_of(&[layout.ram.end, layout.seam]),
            1 => self.one_of(&[0, HOLE, layout.ram.start, u64::MAX - 7]),
            2 => self.one_of(&DEVICES),
            3 => self.one_of(&[UART, UART + 8, PLIC, PLIC_END]),
            4 => {
                layout.tables.start + 8 * self.below((layout.tables.end - layout.tables.start) / 8)
            }
            5 => layout.code,
            _ => layout.free.start + self.below(layout.free.end - layout.free.start),
        };
        let near = self.one_of(&[0, 0, 0, 0, 1, 2, 3, 4, 6, 7, 8, 12, 0xffc, 0xfff, 0x1000]);
        if self.one_in(3) {
            place.wrapping_sub(near)
        } else {
            place.wrapping_add(near)
        }
    }
}
