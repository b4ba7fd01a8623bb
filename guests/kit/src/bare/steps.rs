//! Steps of a guest that judges what it sees.
//!
//! The one idea: the last line counts them, and `cargo xtask` reads it.

use core::fmt;

use super::sbi;
use crate::println;

/// The running account.
#[derive(Debug, Default)]
pub struct Steps {
    steps: u32,
    wrong: u32,
}

impl Steps {
    /// A step: whether what was to be seen was seen, what that is, and the facts.
    pub fn step(&mut self, right: bool, claim: &str, facts: fmt::Arguments<'_>) {
        self.steps += 1;
        self.wrong += u32::from(!right);
        let mark = if right { "  ok   " } else { "  WRONG" };
        println!("{mark} {claim}: {facts}");
    }

    /// Prints the last line of the guest `name`, and ends it.
    pub fn end(&self, name: &str) -> ! {
        println!("{name}: {} steps, {} wrong", self.steps, self.wrong);
        sbi::shutdown(self.wrong > 0);
    }
}
