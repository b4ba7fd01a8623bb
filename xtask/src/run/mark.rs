//! The mark: which lines of a console are the hypervisor's own.
//!
//! A guest can print whatever the hypervisor prints. So each run has a random mark that the hypervisor gets on its command
//! line and no guest ever sees; the hypervisor writes it before each of its lines, behind an ASCII record separator (I18).
//! The screen shows none of it.

use std::io::{self, Write};

use anyhow::Context;

/// What comes before a mark.
const RECORD_SEPARATOR: u8 = 0x1e;

/// The mark of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// As it stands in a line: record separator and text.
    text: String,
}

impl Mark {
    /// A mark that nobody can guess.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        let count = rustix::rand::getrandom(&mut bytes, flags).context("no random number")?;
        anyhow::ensure!(count == bytes.len(), "too few random bytes");
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self::new(&digits))
    }

    /// This mark.
    pub fn new(digits: &str) -> Self {
        let text = format!("{}{digits}", char::from(RECORD_SEPARATOR));
        Self { text }
    }

    /// What tells the hypervisor.
    pub fn argument(&self) -> String {
        format!("mark={}", &self.text[1..])
    }

    /// What the hypervisor says in a line of the console; `None` if the line is not its own.
    pub fn hypervisor<'l>(&self, line: &'l str) -> Option<&'l str> {
        line.split_once(&self.text).map(|(_, said)| said)
    }
}

/// A screen that does not show a mark.
pub struct Unmarked<'s> {
    screen: &'s mut dyn Write,
    mark: Vec<u8>,
    /// How much of a mark the last bytes were.
    seen: usize,
}

impl<'s> Unmarked<'s> {
    /// Shows on `screen` what is written here, without the mark.
    pub fn new(screen: &'s mut dyn Write, mark: Option<&Mark>) -> Self {
        let mark = mark.map_or(Vec::new(), |mark| mark.text.clone().into_bytes());
        Self {
            screen,
            mark,
            seen: 0,
        }
    }

    /// Shows also what could have become a mark.
    pub fn finish(mut self) -> io::Result<()> {
        let seen = std::mem::take(&mut self.seen);
        self.screen.write_all(&self.mark[..seen])?;
        self.screen.flush()
    }
}

impl Write for Unmarked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shown = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            // The record separator is only at a mark's start: what did not become one can begin no other, but by this byte.
            if self.mark.get(self.seen) != Some(&byte) {
                shown.extend_from_slice(&self.mark[..self.seen]);
                self.seen = 0;
            }
            if self.mark.get(self.seen) == Some(&byte) {
                self.seen += 1;
            } else {
                shown.push(byte);
            }
            if self.seen == self.mark.len() {
                self.seen = 0;
            }
        }
        self.screen.write_all(&shown)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_the_mark_are_the_hypervisors() {
        let mark = Mark::new("0a1b");
        assert_eq!(mark.argument(), "mark=0a1b");
        for (line, said) in [
            ("\x1e0a1bhypervisor: hello", Some("hypervisor: hello")),
            ("x\r\x1e0a1bhypervisor: hello", Some("hypervisor: hello")),
            ("hypervisor: hello", None),
            ("0a1bhypervisor: hello", None),
            ("\x1e0a1chypervisor: hello", None),
        ] {
            assert_eq!(mark.hypervisor(line), said, "{line:?}");
        }
    }

    #[test]
    fn every_run_has_a_mark_of_its_own() {
        let [one, other] = [(); 2].map(|()| Mark::random().unwrap());
        assert_ne!(one, other);
        let digits = one.argument();
        let digits = digits.strip_prefix("mark=").unwrap();
        assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn the_screen_shows_no_mark_whatever_the_pieces() {
        let mark = Mark::new("0a1b");
        let text = b"one\n\x1e0a1btwo\n\x1e0a\x1e0a1b\x1e0a1bthree\n\x1e0a";
        for size in 1..text.len() {
            let mut screen = Vec::new();
            let mut unmarked = Unmarked::new(&mut screen, Some(&mark));
            for piece in text.chunks(size) {
                unmarked.write_all(piece).unwrap();
            }
            unmarked.finish().unwrap();
            let shown = String::from_utf8(screen).unwrap();
            assert_eq!(shown, "one\ntwo\n\x1e0athree\n\x1e0a", "pieces of {size}");
        }
    }

    #[test]
    fn without_a_mark_all_is_shown() {
        let mut screen = Vec::new();
        let mut unmarked = Unmarked::new(&mut screen, None);
        unmarked.write_all(b"\x1e0a1b\n").unwrap();
        unmarked.finish().unwrap();
        assert_eq!(screen, b"\x1e0a1b\n");
    }
}
