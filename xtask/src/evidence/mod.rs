//! `cargo xtask evidence`: writes docs/evidence.md, every figure of which a command printed.
//!
//! The one idea: a command that proves something leaves a [`Record`] of what it saw under `target/evidence`, and the document
//! is nothing but those records. A record that is missing is an error that names its command, so that no figure is older than
//! the others by accident.

mod document;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{process, rules, workspace};

/// The document, from the repository's root.
const DOCUMENT: &str = "docs/evidence.md";

/// What a command saw, part by part, in order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<Part> {
    /// The commit of the working tree, with `-dirty` if it had changes.
    pub commit: String,
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

/// A broken copy of the library, and the tests that failed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    /// What is wrong with it.
    pub name: String,
    /// The tests that failed.
    pub caught_by: Vec<String>,
}

/// Every record of which the document is made.
struct Records {
    test: Record<Group>,
    mutants: Record<Mutant>,
    fuzz: Record<Group>,
    miri: Record<Group>,
}

impl<Part: Serialize + DeserializeOwned> Record<Part> {
    /// Leaves what the command `cargo xtask NAME` saw for the document.
    pub fn leave(name: &str, parts: Vec<Part>) -> anyhow::Result<()> {
        let record = Self {
            commit: commit(),
            parts,
        };
        let path = path(name);
        fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
        fs::write(&path, serde_json::to_string_pretty(&record)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn of(name: &str) -> anyhow::Result<Self> {
        let missing = || format!("nothing is on record: run `cargo xtask {name}` first");
        let text = fs::read_to_string(path(name)).with_context(missing)?;
        serde_json::from_str(&text).with_context(missing)
    }
}

/// The command.
pub fn run() -> anyhow::Result<ExitCode> {
    let records = Records {
        test: Record::of("test")?,
        mutants: Record::of("mutants")?,
        fuzz: Record::of("fuzz")?,
        miri: Record::of("miri")?,
    };
    let text = document::write(&records, &rules::count()?);
    fs::write(workspace::root().join(DOCUMENT), text)?;
    println!("{DOCUMENT} is written");
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> PathBuf {
    let folder = workspace::target_dir().join("evidence");
    folder.join(name).with_extension("json")
}

/// What git calls the working tree; a copy without git has no name.
fn commit() -> String {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    process::output(git.current_dir(workspace::root()))
        .map_or_else(|_| "unknown".into(), |name| name.trim().into())
}
