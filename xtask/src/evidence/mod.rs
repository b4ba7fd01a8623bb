//! `cargo xtask evidence`: writes docs/evidence.md, of which a command printed every figure.
//!
//! A command that proves something leaves a [`Record`] of what it saw under `target/evidence`. The page is made of those records
//! and of nothing else. A record that is missing is an error that names its command. The long runs ([`Long`]) may be missing:
//! the page then lists them as not run. A restricted run of the tests leaves no record, and a shorter run does not replace the
//! record of a longer one.

mod document;
mod machines;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::screen::show;
use crate::{process, progress, rules, workspace};

/// The document, from the repository's root.
const DOCUMENT: &str = "docs/evidence.md";

/// The long form, from the repository's root: too long to read, so it is not checked in.
const LONG_FORM: &str = "target/evidence/evidence.md";

/// What a command saw, part by part, in order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<Part> {
    /// The command that repeats it, after `cargo xtask`.
    pub command: String,
    /// The commit of the working tree, with `-dirty` if it had changes.
    pub commit: String,
    /// How much was asked for, where the user can say: seconds, cases, guests, machines.
    pub effort: u64,
    /// The parts.
    pub parts: Vec<Part>,
}

/// A part of what a command saw: tests of one kind on one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What was run, and where.
    pub name: String,
    /// How many passed, those with a deviation included.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// What came out as the machine's deviation has it: name and text of each test.
    pub deviations: Vec<String>,
    /// What could not be run: name and reason of each test.
    pub skipped: Vec<String>,
    /// What it went through: of what, how many.
    pub counted: Vec<(String, u64)>,
}

/// A broken copy of the library, and the first test that failed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    /// What is wrong with it.
    pub name: String,
    /// The test, if one did.
    pub caught_by: Option<String>,
}

/// The runs that take long and that nobody has to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Long {
    /// The tests on every board, `spike` included.
    Machines,
    /// The tests on every QEMU that Debian has, each in full.
    Qemus,
    /// The tests on the reference simulator alone.
    Simulator,
    /// Fault injection with every case.
    Exhaustive,
    /// The differential test with more cases.
    Differential,
    /// More hostile guests.
    Hostile,
    /// Every order of what harts share, alone.
    Loom,
}

impl Long {
    const ALL: [Self; 7] = [
        Self::Machines,
        Self::Qemus,
        Self::Simulator,
        Self::Exhaustive,
        Self::Differential,
        Self::Hostile,
        Self::Loom,
    ];

    /// Its record's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Machines => "machines",
            Self::Qemus => "qemus",
            Self::Simulator => "simulator",
            Self::Exhaustive => "exhaustive",
            Self::Differential => "differential",
            Self::Hostile => "hostile",
            Self::Loom => "loom",
        }
    }

    /// The command that makes the run, after `cargo xtask`.
    const fn usual_command(self) -> &'static str {
        match self {
            Self::Machines => "test --machine all",
            Self::Qemus => "test --qemu all",
            Self::Simulator => "test --machine spike-isa",
            Self::Exhaustive => "test --exhaustive",
            Self::Differential => "test --differential N",
            Self::Hostile => "run hostile --count N",
            Self::Loom => "loom",
        }
    }

    /// Leaves what the command saw, unless a longer run of it is on record.
    pub fn leave(self, command: &str, effort: u64, groups: Vec<Group>) -> anyhow::Result<()> {
        Record::leave_longest(self.name(), command, effort, groups)
    }
}

/// Every record of which the document is made.
struct Records {
    test: Record<Group>,
    long: Vec<(Long, Option<Record<Group>>)>,
    mutants: Record<Mutant>,
    fuzz: Record<Group>,
    miri: Record<Group>,
}

impl<Part: Serialize + DeserializeOwned> Record<Part> {
    /// Leaves what `cargo xtask NAME` saw for the document.
    pub fn leave(name: &str, parts: Vec<Part>) -> anyhow::Result<()> {
        Self::leave_longest(name, name, 0, parts)
    }

    /// Leaves what `cargo xtask COMMAND` saw, unless what is on record was asked for more.
    pub fn leave_longest(
        name: &str,
        command: &str,
        effort: u64,
        parts: Vec<Part>,
    ) -> anyhow::Result<()> {
        let record = Self {
            command: command.to_owned(),
            commit: commit(),
            effort,
            parts,
        };
        record.write(&path(name))
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Ok(old) = Self::read(path)
            && old.effort > self.effort
        {
            progress::say(&format!(
                "the record of a longer run stays: `cargo xtask {}`; remove {} to begin anew",
                old.command,
                path.display()
            ));
            return Ok(());
        }
        fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
        fs::write(path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }

    fn of(name: &str) -> anyhow::Result<Self> {
        Self::read(&path(name))
            .with_context(|| format!("nothing is on record: run `cargo xtask {name}` first"))
    }

    /// The same of a run that need not have been made.
    fn of_any(name: &str) -> anyhow::Result<Option<Self>> {
        let path = path(name);
        if !path.exists() {
            return Ok(None);
        }
        Self::read(&path)
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display()))
    }
}

/// The command.
pub fn run() -> anyhow::Result<ExitCode> {
    let records = Records {
        test: Record::of("test")?,
        long: Long::ALL
            .into_iter()
            .map(|long| Ok((long, Record::of_any(long.name())?)))
            .collect::<anyhow::Result<_>>()?,
        mutants: Record::of("mutants")?,
        fuzz: Record::of("fuzz")?,
        miri: Record::of("miri")?,
    };
    let rules = rules::count()?;
    let long_form = path("evidence").with_extension("md");
    fs::write(&long_form, document::write(&records, &rules))?;
    let page = summary::write(&records, &rules, commits_since);
    fs::write(workspace::root().join(DOCUMENT), page)?;
    show!(
        "{DOCUMENT} is written; the long form is {}",
        long_form.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> PathBuf {
    let folder = workspace::target_dir().join("evidence");
    folder.join(name).with_extension("json")
}

/// How many commits were made after `commit` of a record; `None` if git does not know it.
fn commits_since(commit: &str) -> Option<u64> {
    let commit = commit.trim_end_matches("-dirty");
    let mut git = std::process::Command::new("git");
    git.args(["rev-list", "--count", &format!("{commit}..HEAD")]);
    let count = process::output(git.current_dir(workspace::root())).ok()?;
    count.trim().parse().ok()
}

/// What git calls the working tree; a copy without git has no name.
pub fn commit() -> String {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    process::output(git.current_dir(workspace::root()))
        .map_or_else(|_| "unknown".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(effort: u64) -> Record<Group> {
        Record {
            command: format!("fuzz --seconds {effort}"),
            effort,
            ..Record::default()
        }
    }

    #[test]
    fn a_short_run_leaves_the_record_of_a_longer_one_alone() {
        let name = format!("guest-mem-xtask-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        for (effort, stays) in [(60, 60), (5, 60), (60, 60), (600, 600)] {
            run_of(effort).write(&path).unwrap();
            assert_eq!(Record::<Group>::read(&path).unwrap(), run_of(stays));
        }
        fs::remove_file(path).unwrap();
    }
}
