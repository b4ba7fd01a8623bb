//! `cargo xtask miri`: the library's tests in an interpreter that knows what Rust allows: each pointer, each alignment, each
//! data race.
//!
//! The one idea: the tests are the same. Those that walk tables or go through very many numbers hold no pointer of their own,
//! take half an hour there and more, and are left out unless they are asked for by name.

use std::process::ExitCode;

use crate::evidence::{Group, Record};
use crate::test::host;
use crate::{cli, nightly, progress, workspace};

/// Miri's emulation of weak memory does not know atomics of several sizes at one place, of which guest memory is full.
const FLAGS: &str = "-Zmiri-disable-weak-memory-emulation";

/// Modules whose tests run by name only.
const BY_NAME_ONLY: [&str; 5] = [
    "guest_virtual::tests",
    "hart::model::tests",
    "instruction::tests",
    "probe::tests",
    "translate::tests",
];

/// The command.
pub fn run(options: &cli::Miri) -> anyhow::Result<ExitCode> {
    if let Err(error) = nightly::ensure(&["miri", "rust-src"]) {
        println!("skipped: Miri: {error:#}");
        return Ok(ExitCode::SUCCESS);
    }
    progress::say("running the library's tests in Miri");
    let mut cargo = nightly::command("cargo");
    cargo
        .args(["miri", "test", "--package", "guest-mem", "--lib", "--"])
        .args(&options.name);
    if options.name.is_none() {
        for module in BY_NAME_ONLY {
            cargo.args(["--skip", module]);
        }
    }
    cargo
        .env("MIRIFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("miri"));
    let tally = host::tests_of(&mut cargo)?;
    if options.name.is_none() {
        let group = Group {
            name: "the library's tests".into(),
            passed: tally.passed,
            failed: tally.failed,
            counted: vec![("tests passed".into(), tally.passed)],
            ..Group::default()
        };
        Record::leave("miri", vec![group])?;
    }
    println!("Miri: {} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
