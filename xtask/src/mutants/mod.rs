//! `cargo xtask mutants`: breaks copies of the library and of the hypervisor on purpose, and shows which tests notice.
//!
//! The one idea: a test that has never failed proves little. Each mutant of [`library`] and [`hypervisor`] must make at least
//! one test fail, and the first that does is enough; one that survives is a test that is missing.

mod copy;
mod hypervisor;
mod library;
mod mutant;

use std::ops::ControlFlow;
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
use crate::qemu::{self, Board, Qemu};
use crate::screen::show;
use crate::test::{end_to_end, target};
use crate::{cli, loom, progress};

/// A library test that takes longer than this hangs: a broken library may loop without end.
const HOST_LIMIT: Duration = Duration::from_secs(100);

/// The mutants of both.
fn all() -> impl Iterator<Item = &'static Mutant> {
    OF_LIBRARY.iter().chain(OF_HYPERVISOR)
}

/// The command.
pub fn run(options: &cli::Mutants) -> anyhow::Result<ExitCode> {
    let wanted: Vec<_> = all()
        .filter(|mutant| {
            let mut names = options.names.iter();
            options.names.is_empty() || names.any(|part| mutant.name.contains(part))
        })
        .collect();
    if wanted.is_empty() {
        bail!("no mutant has such a name");
    }
    let machine = Machine::find(&wanted, options)?;
    progress::say("copying the workspace and testing the copy as it is");
    let copy = Copy::make()?;
    for caught in Caught::ALL {
        if wanted.iter().any(|mutant| mutant.caught == caught)
            && let Some(test) = judge(&copy, caught, &machine)?
        {
            bail!("a test fails without any mutant: {test}");
        }
    }
    let mut survivors = 0;
    let mut results = Vec::new();
    for mutant in &wanted {
        let start = Instant::now();
        let judged = copy.with(mutant, |copy| judge(copy, mutant.caught, &machine));
        let seconds = start.elapsed().as_secs();
        let name = mutant.name;
        match &judged {
            Ok(Some(test)) => show!("mutant {name} ... caught by {test} ({seconds} s)"),
            Ok(None) => show!("mutant {name} ... SURVIVED ({seconds} s)"),
            // The others are worth their time all the same.
            Err(error) => show!("mutant {name} ... NOT JUDGED: {error:#}"),
        }
        let caught_by = judged.ok().flatten();
        survivors += usize::from(caught_by.is_none());
        results.push(evidence::Mutant {
            name: name.into(),
            caught_by,
        });
    }
    if options.names.is_empty() && options.machine.is_usual() {
        Record::leave("mutants", results)?;
    }
    show!("{} caught, {survivors} survived", wanted.len() - survivors);
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
        let needed = mutants.iter().any(|mutant| mutant.caught.needs_machine());
        let qemu = match needed {
            true => Some(qemu::resolve::for_running(options.qemu.as_deref())?),
            false => None,
        };
        Ok(Self { qemu, options })
    }
}

/// The first test that fails.
fn judge(copy: &Copy, caught: Caught, machine: &Machine) -> anyhow::Result<Option<String>> {
    match caught {
        Caught::OnHost => on_host(copy, Command::new(copy.build_library_tests()?)),
        Caught::InEveryOrder => {
            let mut tests = Command::new(copy.build_tests_in_every_order()?);
            tests.arg(loom::TESTS);
            on_host(copy, tests)
        }
        Caught::OnTarget => on_target(copy, Board::Virt, machine),
        Caught::Standalone => on_target(copy, Board::VirtM, machine),
        Caught::ByGuests => by_guests(copy, machine),
    }
}

/// Runs a program with tests of the library, up to the first that fails.
fn on_host(copy: &Copy, mut tests: Command) -> anyhow::Result<Option<String>> {
    // What failed is all that is wanted: its reasons are those of a broken library.
    tests
        .current_dir(copy.root())
        .stderr(std::process::Stdio::null());
    let (mut failed, mut long) = (None, None);
    let ended = session::run_until(
        tests,
        Console::Unattended,
        Some(HOST_LIMIT),
        &mut std::io::sink(),
        |line| {
            if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                failed = Some(name.to_owned());
                return ControlFlow::Break(());
            }
            if let Some(name) = hanging(line) {
                long = Some(format!("{name}, which does not end"));
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(match ended {
        Some(Ended::TimedOut) => long.or(Some("the time limit".to_owned())),
        Some(Ended::Failed) if failed.is_none() => Some("the end of the test program".to_owned()),
        Some(Ended::Failed | Ended::ByItself) | None => failed,
    })
}

/// The test that the harness says has taken a minute.
fn hanging(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?
        .strip_suffix(" has been running for over 60 seconds")
}

/// Checks the linked test kernel, and if there is nothing wrong with it, runs it up to the first test that fails.
fn on_target(copy: &Copy, board: Board, machine: &Machine) -> anyhow::Result<Option<String>> {
    let qemu = machine.qemu.as_ref().context("no QEMU was looked for")?;
    let kernel = copy.build("test-kernel")?;
    if elf_check::check(&std::fs::read(&kernel)?, Elsewhere::Allowed).is_err() {
        return Ok(Some("the check of the linked test kernel".to_owned()));
    }
    target::first_failure(qemu, board, &kernel, &machine.options)
}

/// Runs guests in the hypervisor, up to the first run that fails.
fn by_guests(copy: &Copy, machine: &Machine) -> anyhow::Result<Option<String>> {
    let qemu = machine.qemu.as_ref().context("no QEMU was looked for")?;
    let hypervisor = copy.build("hypervisor")?;
    for (name, plan) in end_to_end::short_runs(qemu, &machine.options)? {
        let plan = plan.in_hypervisor(hypervisor.clone());
        if plan.carry_out(qemu, &mut std::io::sink()).is_err() {
            return Ok(Some(name));
        }
    }
    Ok(None)
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
