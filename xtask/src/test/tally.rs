//! The count of tests: what passed and failed, and in words what failed, deviated or was skipped.

use serde::{Deserialize, Serialize};

use crate::evidence::Group;
use crate::screen::show;

/// Results of tests.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Tests that passed, those with a deviation included.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// What is to be repeated at the end, in order.
    pub notes: Vec<String>,
    /// What the tests went through, as they counted it: cases, rounds, guests.
    pub counted: Vec<(String, u64)>,
    /// The groups that were added.
    pub groups: Vec<Group>,
}

/// The beginnings of notes.
const DEVIATION: &str = "deviation: ";
const SKIPPED: &str = "skipped: ";

/// The test and the texts of a note on deviations.
fn deviations(note: &str) -> Option<(&str, &str)> {
    note.strip_prefix(DEVIATION)?.split_once(": ")
}

impl Tally {
    /// Counts a test that passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts a test that passed and says so.
    pub fn pass_aloud(&mut self, name: &str) {
        show!("test {name} ... ok");
        self.pass();
    }

    /// Counts a test that failed.
    pub fn fail(&mut self, name: &str, reason: &str) {
        self.failed += 1;
        self.notes.push(format!("FAILED: {name}: {reason}"));
    }

    /// Counts a test that passed in a way that the machine at hand, and not the specification, asks for.
    pub fn deviate(&mut self, name: &str, text: &str) {
        self.passed += 1;
        self.notes.push(format!("{DEVIATION}{name}: {text}"));
    }

    /// Notes a test that could not be run here; it counts neither way.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.notes.push(format!("{SKIPPED}{name}: {reason}"));
    }

    /// Takes a line `counted: N WHAT`, by which a test says what it went through; whether the line was one.
    pub fn count(&mut self, line: &str) -> bool {
        let counted = line
            .split_once("counted: ")
            .and_then(|(_, rest)| rest.trim_end().split_once(' '))
            .and_then(|(number, what)| Some((what.to_owned(), number.parse().ok()?)));
        let is_count = counted.is_some();
        self.counted.extend(counted);
        is_count
    }

    /// Adds a further piece of the same run: its counts, and what its notes say beyond those that are there.
    pub fn go_on(&mut self, piece: Self) {
        self.passed += piece.passed;
        self.failed += piece.failed;
        for (what, number) in piece.counted {
            match self.counted.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += number,
                None => self.counted.push((what, number)),
            }
        }
        for note in piece.notes {
            self.merge_note(note);
        }
    }

    /// The deviations of one test are one note.
    fn merge_note(&mut self, note: String) {
        if let Some((test, texts)) = deviations(&note) {
            let is_known =
                |known: &&mut String| deviations(known).is_some_and(|(name, _)| name == test);
            if let Some(known) = self.notes.iter_mut().find(is_known) {
                for text in texts.split("; ") {
                    let there = deviations(known).map_or("", |(_, texts)| texts);
                    if there.split("; ").all(|old| old != text) {
                        known.push_str(&format!("; {text}"));
                    }
                }
                return;
            }
        }
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds the results of the group called `name`.
    pub fn add(&mut self, name: &str, group: Self) {
        show!("{name}: {} passed, {} failed", group.passed, group.failed);
        self.passed += group.passed;
        self.failed += group.failed;
        let notes_of = |kind: &str| {
            let notes = group.notes.iter();
            notes
                .filter_map(|note| note.strip_prefix(kind))
                .map(String::from)
                .collect()
        };
        self.groups.push(Group {
            name: name.to_owned(),
            passed: group.passed,
            failed: group.failed,
            deviations: notes_of(DEVIATION),
            skipped: notes_of(SKIPPED),
            counted: group.counted,
        });
        self.notes.extend(
            group
                .notes
                .into_iter()
                .map(|note| format!("[{name}] {note}")),
        );
    }

    /// Adds another total, whose groups have been shown.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.notes.extend(other.notes);
        self.counted.extend(other.counted);
        self.groups.extend(other.groups);
    }

    /// Adds a group of which nothing could be run.
    pub fn add_skipped(&mut self, name: &str, reason: &str) {
        let mut group = Self::default();
        group.skip(name, reason);
        self.add(name, group);
    }

    /// Prints the notes and, as the last line, the total.
    pub fn print(&self) {
        show!();
        for note in &self.notes {
            show!("{note}");
        }
        show!("{} passed, {} failed", self.passed, self.failed);
    }
}
