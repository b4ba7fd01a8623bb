//! The tests that run on this machine: `cargo test` over the workspace, doctests included.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;
use rustix::process::Signal;

use super::tally::Tally;
use crate::screen::show;
use crate::setup::boards;
use crate::{process, workspace};

/// Runs all of them and counts.
pub fn run() -> anyhow::Result<Tally> {
    let boards = boards::device_trees();
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    if let Ok(folder) = &boards {
        cargo.env(boards::VARIABLE, folder);
    }
    let mut tally = tests_of(&mut cargo)?;
    if let Err(error) = boards {
        tally.skip("device trees of real boards", &format!("{error:#}"));
    }
    Ok(tally)
}

/// Runs the differential test alone. `wishes` are its environment variables, by what comes after the common beginning.
pub fn run_differential(wishes: &[(&str, u64)]) -> anyhow::Result<Tally> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "differential"]);
    for (name, number) in wishes {
        cargo.env(format!("GUEST_MEM_DIFFERENTIAL{name}"), number.to_string());
    }
    tests_of(&mut cargo)
}

/// Runs a `cargo test` and counts.
pub fn tests_of(cargo: &mut Command) -> anyhow::Result<Tally> {
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    process::end_with_xtask(cargo, Signal::KILL);
    let mut cargo = cargo.spawn().context("cannot start `cargo test`")?;
    let output = cargo.stdout.take().expect("standard output is a pipe");
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("what `cargo test` prints")?;
        show!("{line}");
        count(&line, &mut tally);
    }
    // A test binary that died printed no result; nor did one that did not compile.
    if !cargo.wait()?.success() && tally.failed == 0 {
        tally.fail("cargo test", "did not end well, see above");
    }
    Ok(tally)
}

/// Counts one line of `cargo test`: a failed test, or the result of one binary.
fn count(line: &str, tally: &mut Tally) {
    if tally.count(line) {
    } else if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.strip_suffix(" ... FAILED"))
    {
        tally.notes.push(format!("FAILED: {name}"));
    } else if let Some((passed, failed)) = binary_result(line) {
        tally.passed += passed;
        tally.failed += failed;
    }
}

/// The counts in `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
fn binary_result(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_binaries_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test size::tests::good ... ok",
            "test size::tests::bad ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 40 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.30s",
        ] {
            count(line, &mut tally);
        }
        assert_eq!((tally.passed, tally.failed), (42, 1));
        assert_eq!(tally.notes, ["FAILED: size::tests::bad"]);
    }

    #[test]
    fn what_a_test_prints_is_no_result() {
        for line in [
            "test result: great",
            "4 passed; 0 failed",
            "test result: ok. x passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(binary_result(line), None, "{line}");
        }
    }
}
