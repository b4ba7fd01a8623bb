//! `cargo xtask miri`: the library's tests in an interpreter that knows what Rust allows: each pointer, each alignment, each
//! data race.
//!
//! The one idea: the tests are the same. Those that walk tables or go through very many numbers take half an hour there and
//! more: of them a sample runs, and the others if they are asked for by name.

use std::process::ExitCode;

use crate::evidence::{Group, Record};
use crate::screen::show;
use crate::test::{host, tally::Tally};
use crate::{cli, nightly, progress, workspace};

/// Miri's emulation of weak memory does not know atomics of several sizes at one place, of which guest memory is full.
const FLAGS: &str = "-Zmiri-disable-weak-memory-emulation";

/// Modules of which only [`SAMPLE`] runs, unless by name.
const SLOW: [&str; 5] = [
    "guest_virtual::tests",
    "hart::model::tests",
    "instruction::tests",
    "probe::tests",
    "translate::tests",
];

/// Some of these, each of which reaches memory in its own way.
const SAMPLE: [&str; 7] = [
    "guest_virtual::tests::backed::r17_compare_exchange_goes_through_the_hosts_mapping",
    "guest_virtual::tests::by_walk::what_the_host_does_not_map_as_memory_is_the_hardwares",
    "hart::model::tests::copies::a_fault_on_the_second_page_reports_the_first_page_copied",
    "hart::model::tests::copies::a_hook_sees_each_access_and_can_race_with_it",
    "hart::model::tests::kept::r40_a_fence_of_one_address_after_a_non_leaf_edit_leaves_the_old_table_in_use",
    "instruction::tests::htinst::measured_values_decode",
    "instruction::tests::trapped::r58_an_access_has_to_fit_the_cause_else_the_guest_is_retried",
];

/// The command.
pub fn run(options: &cli::Miri) -> anyhow::Result<ExitCode> {
    if let Err(error) = nightly::ensure(&["miri", "rust-src"]) {
        show!("skipped: Miri: {error:#}");
        return Ok(ExitCode::SUCCESS);
    }
    progress::say("running the library's tests in Miri");
    let tally = match &options.name {
        Some(name) => run_tests(&[name])?,
        None => {
            let skipped = SLOW.iter().flat_map(|module| ["--skip", module]);
            let mut tally = run_tests(&skipped.collect::<Vec<_>>())?;
            let sample = run_tests(&[&["--exact"], &SAMPLE[..]].concat())?;
            anyhow::ensure!(
                sample.passed + sample.failed == SAMPLE.len() as u64,
                "a test of the sample is not there"
            );
            tally.passed += sample.passed;
            tally.failed += sample.failed;
            tally
        }
    };
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
    show!("Miri: {} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs those of the library's tests that the arguments of its test program say.
fn run_tests(arguments: &[&str]) -> anyhow::Result<Tally> {
    let mut cargo = nightly::command("cargo");
    cargo
        .args(["miri", "test", "--package", "guest-mem", "--lib", "--"])
        .args(arguments)
        .env("MIRIFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("miri"));
    host::tests_of(&mut cargo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_of_what_is_left_out() {
        for test in SAMPLE {
            assert!(SLOW.iter().any(|module| test.starts_with(module)), "{test}");
        }
    }
}
