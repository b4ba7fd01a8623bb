//! `cargo xtask loom`: the library's tests of what harts share, in every order that the memory model allows.
//!
//! The one idea: the library is built with loom's atomics (`guest-mem/src/atomic.rs`), in a target folder of its own, since the
//! flag would make cargo build everything else anew each time.

use std::process::{Command, ExitCode};

use crate::evidence::Long;
use crate::test::{self, host, tally::Tally};
use crate::{progress, workspace};

/// The module whose tests these are; loom's atomics exist in no other.
pub const TESTS: &str = "tests_in_every_order";

/// Makes `cargo` build for loom, for which tests without optimization are slow.
pub fn build_for_loom(cargo: &mut Command) {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    cargo
        .arg("--release")
        .env("RUSTFLAGS", format!("{flags} --cfg loom"));
}

/// The command.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut total = Tally::default();
    total.add("loom", tests()?);
    Long::Loom.leave("loom", 0, total.groups.clone())?;
    Ok(test::end(&total))
}

/// Runs the tests and counts them.
pub fn tests() -> anyhow::Result<Tally> {
    progress::say("trying every order of what harts share, with loom");
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "guest-mem", "--lib"]);
    build_for_loom(&mut cargo);
    cargo
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("loom"))
        // Each test says how many orders there were.
        .args([TESTS, "--", "--nocapture"]);
    host::tests_of(&mut cargo)
}
