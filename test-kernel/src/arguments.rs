//! Boot arguments: words, and how much of a run they ask for.
//!
//! The one idea: a simulator passes no arguments, or such as it has for a Linux, and is slow. So without firmware a run is small
//! unless a word asks for the full one; under firmware it is full.

/// What there is of arguments, in the order in which the first one counts.
#[derive(Clone, Copy)]
pub struct Arguments<'a>(pub [&'a str; 2]);

impl<'a> Arguments<'a> {
    fn words(self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flat_map(str::split_whitespace)
    }

    /// Whether they hold the word.
    pub fn hold(self, word: &str) -> bool {
        self.words().any(|it| it == word)
    }

    /// What follows `key` in the first word that begins with it.
    pub fn value(self, key: &str) -> Option<&'a str> {
        self.words().find_map(|word| word.strip_prefix(key))
    }

    /// Whether the run is to be short enough for a simulator of circuits.
    pub fn ask_for_small(self, without_firmware: bool) -> bool {
        let full = self.hold("full") || self.hold("exhaustive");
        self.hold("small") || without_firmware && !full
    }
}

/// The text up to the first byte that is 0; none if it is not UTF-8.
pub fn text_of(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0);
    str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Spike passes without `--bootargs`.
    const FOR_LINUX: &str = "console=ttyS0 earlycon";

    #[test]
    fn a_run_without_firmware_is_small_unless_it_is_asked_to_be_full() {
        for (patched, passed, without_firmware, small) in [
            ("", "", true, true),
            ("", FOR_LINUX, true, true),
            ("", "only=r20", true, true),
            ("", "full", true, false),
            ("full", FOR_LINUX, true, false),
            ("", "exhaustive only=injected", true, false),
            ("", "", false, false),
            ("", "small", false, true),
            ("small", "", false, true),
        ] {
            let arguments = Arguments([patched, passed]);
            assert_eq!(
                arguments.ask_for_small(without_firmware),
                small,
                "{patched:?} {passed:?} {without_firmware}"
            );
        }
    }

    #[test]
    fn the_first_word_counts_and_a_part_of_a_word_does_not() {
        let arguments = Arguments(["only=r20  seed=3", "seed=4 fuller cases=7"]);
        assert_eq!(arguments.value("seed="), Some("3"));
        assert_eq!(arguments.value("cases="), Some("7"));
        assert_eq!(arguments.value("keep="), None);
        assert!(arguments.hold("fuller") && !arguments.hold("full"));
    }

    #[test]
    fn text_ends_at_the_first_zero_or_with_its_bytes() {
        assert_eq!(text_of(b"small\0rest"), "small");
        assert_eq!(text_of(b"full"), "full");
        assert_eq!(text_of(b"\xff\0"), "");
    }
}
