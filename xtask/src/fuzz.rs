//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` for a while, from their seeds on.
//!
//! The one idea: what is found new goes under `target/`, the seeds in the repository stay as they are. An input that fails is
//! kept in `fuzz/artifacts` and named, with the command that repeats it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::evidence::{Group, Record};
use crate::screen::show;
use crate::{cli, nightly, process, progress, setup, workspace};

/// The cargo-fuzz that is installed where it is not there yet.
const CARGO_FUZZ: &str = "cargo-fuzz@^0.13";

/// The targets: the files, or folders, of `fuzz/fuzz_targets`.
const TARGETS: [&str; 4] = ["actions", "decode", "htinst", "image"];

/// The longest input, in bytes: some hundred actions.
const LONGEST: u32 = 4096;

/// The command.
pub fn run(options: &cli::Fuzz) -> anyhow::Result<ExitCode> {
    let targets: Vec<&str> = match &options.target {
        Some(target) => vec![target],
        None => TARGETS.into(),
    };
    if let Some(unknown) = targets.iter().find(|target| !TARGETS.contains(target)) {
        bail!(
            "no fuzz target `{unknown}`; there are {}",
            TARGETS.join(", ")
        );
    }
    let cargo_fuzz = match tools() {
        Ok(cargo_fuzz) => cargo_fuzz,
        Err(error) => {
            show!("skipped: fuzz: {error:#}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut groups = Vec::new();
    for target in targets {
        let inputs = fuzz(&cargo_fuzz, target, options.seconds)
            .with_context(|| format!("fuzz target {target}"))?;
        show!(
            "fuzz {target} ... ok ({inputs} inputs in {} s)",
            options.seconds
        );
        groups.push(Group {
            name: target.into(),
            passed: 1,
            counted: vec![
                ("inputs".into(), inputs),
                ("seconds".into(), options.seconds.into()),
            ],
            ..Group::default()
        });
    }
    if options.target.is_none() {
        let seconds = options.seconds;
        let command = format!("fuzz --seconds {seconds}");
        Record::leave_longest("fuzz", &command, seconds.into(), groups)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Nightly Rust, a C++ compiler, and cargo-fuzz, whose program is given.
fn tools() -> anyhow::Result<PathBuf> {
    process::output(Command::new("c++").arg("--version"))
        .context("the fuzzer's engine is C++, and there is no compiler for that")?;
    nightly::ensure(&[])?;
    let folder = setup::once(
        "cargo-fuzz",
        "building cargo-fuzz under target/ (a minute or two)",
        |folder| {
            let mut cargo = workspace::cargo();
            cargo.args(["install", "--quiet", "--locked", CARGO_FUZZ, "--root"]);
            process::output(cargo.arg(folder))
                .map(drop)
                .context("cargo-fuzz cannot be had")
        },
    )?;
    Ok(folder.join("bin/cargo-fuzz"))
}

/// Runs a target; gives how many inputs it was tried with.
fn fuzz(cargo_fuzz: &PathBuf, target: &str, seconds: u32) -> anyhow::Result<u64> {
    let work = workspace::target_dir().join("fuzz");
    let corpus = work.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    progress::say(&format!("fuzz target {target}: building, then {seconds} s"));
    let mut command = nightly::command(cargo_fuzz);
    command
        .args(["run", "--fuzz-dir", "fuzz", "--target-dir"])
        .arg(&work)
        .arg(target)
        // What is new goes to the first folder.
        .arg(&corpus)
        .arg(workspace::root().join("fuzz/seeds").join(target))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .args(["-len_control=0", "-verbosity=0", "-timeout=20"])
        .arg(STATISTICS)
        .stderr(Stdio::piped());
    process::end_with_xtask(&mut command, Signal::KILL);
    let mut child = command.spawn().context("cannot start cargo-fuzz")?;
    let mut words = child.stderr.take().expect("standard error is a pipe");
    // It says much that matters only if it fails.
    let mut said = String::new();
    words.read_to_string(&mut said)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{said}cargo-fuzz failed: {status}");
    }
    said.lines()
        .find_map(inputs_of)
        .context("the fuzzer did not say how many inputs it tried")
}

/// What makes the fuzzer print lines of statistics at its end.
const STATISTICS: &str = "-print_final_stats=1";

/// The number of inputs in the line that has it.
fn inputs_of(line: &str) -> Option<u64> {
    let number = line.strip_prefix("stat::number_of_executed_units:")?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_inputs_is_found_among_the_statistics() {
        assert_eq!(
            inputs_of("stat::number_of_executed_units: 4711"),
            Some(4711)
        );
        assert_eq!(inputs_of("stat::average_exec_per_sec:     471"), None);
    }

    #[test]
    fn each_target_has_its_program_and_its_seeds() {
        let fuzz = workspace::root().join("fuzz");
        for target in TARGETS {
            let program = fuzz.join("fuzz_targets").join(target);
            assert!(program.is_dir() || program.with_extension("rs").is_file());
            let seeds = fs::read_dir(fuzz.join("seeds").join(target)).unwrap();
            assert!(seeds.count() > 0, "{target}");
        }
    }
}
