//! Which cases to run, from the boot arguments: `cases=N seed=S case=N keep=K`, numbers as in Rust.

use differential::{Case, FOUND};
use test_kernel::boot;

/// Cases of a run that is not told how many, and of a small one.
const CASES: u64 = 1000;
const SMALL: u64 = 100;

/// Which cases.
pub struct Options {
    /// How many.
    pub cases: u64,
    /// Of which seed.
    pub seed: u64,
    /// From which on.
    pub first: u64,
    /// The choices of each that are kept.
    pub kept: u32,
    /// What comes before them: the cases that once disagreed, unless the user says where to begin.
    pub found: &'static [Case],
}

impl Options {
    /// What the boot arguments say.
    pub fn of_boot() -> Self {
        let cases = if boot::is_small() { SMALL } else { CASES };
        let first = number("case=");
        Self {
            cases: number("cases=").unwrap_or(cases).max(1),
            seed: number("seed=").unwrap_or(1),
            first: first.unwrap_or(0),
            kept: number("keep=").map_or(u32::MAX, |number| number as u32),
            found: match first {
                Some(_) => &[],
                None => &FOUND,
            },
        }
    }
}

/// The number that follows `key`.
fn number(key: &str) -> Option<u64> {
    let text = boot::argument(key)?;
    match text.as_str().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.as_str().parse().ok(),
    }
}
