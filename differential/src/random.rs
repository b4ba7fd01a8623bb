//! Numbers from a seed (SplitMix64): the same on every machine.

/// The generator.
pub struct Random(u64);

impl Random {
    /// The numbers of one case of one seed.
    pub fn new(seed: u64, case: u64) -> Self {
        let mut seeded = Self(seed);
        Self(seeded.next() ^ case.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `percent` of the cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Spreads the bits of a number.
pub const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
