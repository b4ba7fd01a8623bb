//! Which cases to run, from the boot arguments: `cases=N seed=S case=N keep=K`, numbers as in Rust.

use dtoolkit::fdt::Fdt;

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
}

impl Options {
    /// What the firmware's device tree says, or the machine's; it may be null.
    pub fn of(device_tree: *const u8) -> Self {
        let mut options = Self {
            cases: 1000,
            seed: 1,
            first: 0,
            kept: u32::MAX,
        };
        if device_tree.is_null() {
            return options;
        }
        // SAFETY: what is passed is a device tree, which nothing changes or moves.
        if let Ok(tree) = unsafe { Fdt::from_raw(device_tree) }
            && let Some(chosen) = tree.chosen()
            && let Ok(Some(text)) = chosen.bootargs()
        {
            for word in text.split_whitespace() {
                options.take(word);
            }
        }
        options
    }

    fn take(&mut self, word: &str) {
        let Some((name, number)) = word.split_once('=') else {
            return;
        };
        let number = match number.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => number.parse(),
        };
        let Ok(number) = number else { return };
        match name {
            "cases" => self.cases = number.max(1),
            "seed" => self.seed = number,
            "case" => self.first = number,
            "keep" => self.kept = number as u32,
            _ => {}
        }
    }
}
