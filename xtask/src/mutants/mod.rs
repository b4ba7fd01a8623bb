//! `cargo xtask mutants`: breaks copies of the library and of the hypervisor on purpose, and shows which tests notice.
//!
//! The one idea: a test that has never failed proves little. Each mutant of [`library`] and [`hypervisor`] must make at least one test fail; one
//! that survives is a test that is missing.

mod copy;
mod hypervisor;
mod library;
mod mutant;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use copy::Copy;
use hypervisor::OF_HYPERVISOR;
use library::OF_LIBRARY;
use mutant::{Caught, Mutant};

use crate::elf_check::{self, Elsewhere};
use crate::evidence::{self, Record};
use crate::qemu::session::{self, Console, Ended};
use crate::qemu::{self, Qemu};
use crate::test::{end_to_end, target};
use crate::{cli, loom, progress};

/// A library test that takes longer than this hangs: a broken library may loop without end.
const HOST_LIMIT: Duration = Duration::from_secs(100);

/// What the tests said of one copy.
enum Verdict {
    /// These failed.
    Caught(Vec<String>),
    /// None did.
    Survived,
}

/// The mutants of both.
fn all() -> impl Iterator<Item = &'static Mutant> {
    OF_LIBRARY.iter().chain(OF_HYPERVISOR)
}

/// The command.
pub fn run(options: &cli::Mutants) -> anyhow::Result<ExitCode> {
    let wanted: Vec<_> = all()
        .filter(|mutant| {
            options
                .name
                .as_ref()
                .is_none_or(|part| mutant.name.contains(part))
        })
        .collect();
    if wanted.is_empty() {
        bail!("no mutant has such a name");
    }
    let machine = Machine::find(&wanted, options)?;
    progress::say("copying the workspace and testing the copy as it is");
    let copy = Copy::make()?;
    for caught in [
        Caught::OnHost,
        Caught::InEveryOrder,
        Caught::OnTarget,
        Caught::ByGuests,
    ] {
        if wanted.iter().any(|mutant| mutant.caught == caught)
            && let Verdict::Caught(tests) = judge(&copy, caught, &machine)?
        {
            bail!("tests fail without any mutant: {}", tests.join(", "));
        }
    }
    let mut survivors = 0;
    let mut results = Vec::new();
    for mutant in &wanted {
        let start = Instant::now();
        let verdict = copy
            .with(mutant, |copy| judge(copy, mutant.caught, &machine))
            .with_context(|| format!("mutant `{}`", mutant.name))?;
        let seconds = start.elapsed().as_secs();
        let tests = match verdict {
            Verdict::Caught(tests) => tests,
            Verdict::Survived => Vec::new(),
        };
        match tests.split_first() {
            Some((first, more)) => {
                let more = match more.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                println!(
                    "mutant {} ... caught by {first}{more} ({seconds} s)",
                    mutant.name
                );
            }
            None => {
                survivors += 1;
                println!("mutant {} ... SURVIVED ({seconds} s)", mutant.name);
            }
        }
        results.push(evidence::Mutant {
            name: mutant.name.into(),
            caught_by: tests,
        });
    }
    if options.name.is_none() {
        Record::leave("mutants", results)?;
    }
    println!("{} caught, {survivors} survived", wanted.len() - survivors);
    Ok(if survivors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the test kernel and the hypervisor run on; nothing if no mutant needs it.
struct Machine {
    qemu: Option<Qemu>,
    options: cli::Machine,
}

impl Machine {
    fn find(mutants: &[&Mutant], options: &cli::Mutants) -> anyhow::Result<Self> {
        let options = options.machine.clone();
        let needed = mutants
            .iter()
            .any(|mutant| matches!(mutant.caught, Caught::OnTarget | Caught::ByGuests));
        let qemu = match needed {
            true => Some(qemu::resolve::for_running(options.qemu.as_deref())?),
            false => None,
        };
        Ok(Self { qemu, options })
    }
}

fn judge(copy: &Copy, caught: Caught, machine: &Machine) -> anyhow::Result<Verdict> {
    let failed = match caught {
        Caught::OnHost => on_host(copy, Command::new(copy.build_library_tests()?))?,
        Caught::InEveryOrder => {
            let mut tests = Command::new(copy.build_tests_in_every_order()?);
            tests.arg(loom::TESTS);
            on_host(copy, tests)?
        }
        Caught::OnTarget => on_target(copy, machine)?,
        Caught::ByGuests => by_guests(copy, machine)?,
    };
    Ok(if failed.is_empty() {
        Verdict::Survived
    } else {
        Verdict::Caught(failed)
    })
}

/// Runs a program with tests of the library; gives those that failed.
fn on_host(copy: &Copy, mut tests: Command) -> anyhow::Result<Vec<String>> {
    // What failed is all that is wanted: its reasons are those of a broken library.
    tests
        .current_dir(copy.root())
        .stderr(std::process::Stdio::null());
    let (mut failed, mut long) = (Vec::new(), Vec::new());
    let ended = session::run(
        tests,
        Console::Unattended,
        Some(HOST_LIMIT),
        &mut std::io::sink(),
        |line| {
            if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                failed.push(name.to_owned());
            } else if let Some(name) = hanging(line) {
                long.push(format!("{name}, which does not end,"));
            }
        },
    )?;
    match ended {
        Ended::TimedOut => {
            failed.append(&mut long);
            failed.push("the time limit".to_owned());
        }
        Ended::Failed if failed.is_empty() => failed.push("the end of the test program".to_owned()),
        Ended::Failed | Ended::ByItself => {}
    }
    Ok(failed)
}

/// The test that the harness says has taken a minute.
fn hanging(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?
        .strip_suffix(" has been running for over 60 seconds")
}

/// Checks the linked test kernel, and if there is nothing wrong with it, runs it; gives what failed.
fn on_target(copy: &Copy, machine: &Machine) -> anyhow::Result<Vec<String>> {
    let qemu = machine.qemu.as_ref().context("no QEMU was looked for")?;
    let kernel = copy.build("test-kernel")?;
    if elf_check::check(&std::fs::read(&kernel)?, Elsewhere::Allowed).is_err() {
        return Ok(vec!["the check of the linked test kernel".to_owned()]);
    }
    target::failures(qemu, &kernel, &machine.options)
}

/// Runs guests in the hypervisor; gives those whose run fails.
fn by_guests(copy: &Copy, machine: &Machine) -> anyhow::Result<Vec<String>> {
    let qemu = machine.qemu.as_ref().context("no QEMU was looked for")?;
    let hypervisor = copy.build("hypervisor")?;
    let mut failed = Vec::new();
    for (name, plan) in end_to_end::short_runs(qemu, &machine.options)? {
        let plan = plan.in_hypervisor(hypervisor.clone());
        if plan.carry_out(qemu, &mut std::io::sink()).is_err() {
            failed.push(name);
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::copy::mutated;
    use super::*;
    use crate::workspace;

    #[test]
    fn each_edit_finds_its_place_once_and_changes_it() {
        for mutant in all() {
            let file = workspace::root().join(mutant.folder()).join(mutant.file);
            let text = std::fs::read_to_string(file).unwrap();
            let mutated = mutated(&text, mutant).unwrap();
            assert_ne!(mutated, text, "{}", mutant.name);
        }
    }

    #[test]
    fn each_mutant_has_its_own_name() {
        let names: HashSet<_> = all().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
