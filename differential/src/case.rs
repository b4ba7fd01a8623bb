//! A case by its numbers.

/// One case of a seed. `kept` says which of its choices count: bit by bit, in the order they are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// Which case of the seed.
    pub number: u64,
    /// The choices that count.
    pub kept: u32,
}

impl Case {
    /// A case with all its choices.
    pub const fn new(seed: u64, number: u64) -> Self {
        Self {
            seed,
            number,
            kept: u32::MAX,
        }
    }
}
