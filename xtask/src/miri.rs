//! `cargo xtask miri`: the library's tests in an interpreter that knows what Rust allows: each pointer, each alignment, each
//! data race.
//!
//! The one idea: the tests are the same; those that only count through numbers, and take hours there, are left out.

use std::process::ExitCode;

use crate::{cli, nightly, process, progress, workspace};

/// Miri's emulation of weak memory does not know atomics of several sizes at one place, of which guest memory is full.
const FLAGS: &str = "-Zmiri-disable-weak-memory-emulation";

/// Tests that go through very many numbers and hold no pointer.
const LEFT_OUT: [&str; 2] = ["instruction::tests", "translate::tests"];

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
    for left_out in LEFT_OUT {
        cargo.args(["--skip", left_out]);
    }
    cargo
        .env("MIRIFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("miri"));
    process::run(&mut cargo)?;
    Ok(ExitCode::SUCCESS)
}
