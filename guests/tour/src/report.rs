//! Says what each step showed, and at the end how many were wrong.

use core::fmt;

use guest_kit::machine::Machine;
use guest_kit::println;

/// Chapters at most.
const CHAPTERS: usize = 12;

#[derive(Clone, Copy, Default)]
struct Chapter {
    title: &'static str,
    right: u32,
    wrong: u32,
    skipped: u32,
}

/// The running account.
pub struct Report<'a> {
    /// The machine that the tour is on.
    pub machine: &'a Machine,
    chapters: [Chapter; CHAPTERS],
    len: usize,
}

impl<'a> Report<'a> {
    /// Nothing seen yet.
    pub fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            chapters: [Chapter::default(); CHAPTERS],
            len: 0,
        }
    }

    /// Begins a chapter.
    pub fn chapter(&mut self, title: &'static str) {
        println!();
        println!("{title}");
        self.chapters[self.len].title = title;
        self.len += 1;
    }

    /// A step: what was to be seen, whether it was, and the facts.
    pub fn step(&mut self, claim: &str, right: bool, facts: fmt::Arguments<'_>) {
        let chapter = &mut self.chapters[self.len - 1];
        let mark = if right {
            chapter.right += 1;
            "  ok   "
        } else {
            chapter.wrong += 1;
            "  WRONG"
        };
        println!("{mark} {claim}: {facts}");
    }

    /// A step that cannot be made on this machine, and why.
    pub fn skip(&mut self, claim: &str, reason: &str) {
        self.chapters[self.len - 1].skipped += 1;
        println!("  -     {claim}: not here, {reason}");
    }

    /// Prints the table of chapters and the closing line; gives the number of wrong steps.
    pub fn print_table(&self) -> u32 {
        println!();
        println!("  {:<52} right wrong  not here", "what was shown");
        let mut total = Chapter::default();
        for chapter in &self.chapters[..self.len] {
            let Chapter {
                title,
                right,
                wrong,
                skipped,
            } = *chapter;
            println!("  {title:<52} {right:>5} {wrong:>5} {skipped:>9}");
            total.right += right;
            total.wrong += wrong;
            total.skipped += skipped;
        }
        println!();
        println!(
            "tour: {} steps, {} wrong",
            total.right + total.wrong,
            total.wrong
        );
        total.wrong
    }
}
