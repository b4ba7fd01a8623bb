//! `cargo xtask test`: every test, on this machine and on the target, and one total.
//!
//! Nothing counts as passed that was not seen to pass: a test binary that dies, a test kernel whose closing line never
//! comes or disagrees with its lines, each count as a failure.

mod budgets;
mod differential;
mod elf;
pub mod end_to_end;
pub mod host;
pub mod tally;
pub mod target;

use std::process::ExitCode;

use tally::Tally;

use crate::cli::Boards;
use crate::elf_check::Elsewhere;
use crate::evidence::{Long, Record};
use crate::qemu::resolve::Candidate;
use crate::{artifacts, cli, loom, qemu};

/// The command.
pub fn run(options: &cli::Test) -> anyhow::Result<ExitCode> {
    // First what may fail for want of a network: nobody waits minutes to hear of it.
    let candidates = qemu::resolve::for_testing(options.machine.qemu.as_deref())?;
    let mut total = Tally::default();
    if let Some(cases) = options.differential {
        differential::run_alone(options, cases, candidates, &mut total)?;
        return end_of_long_run(options, total);
    }
    if options.exhaustive {
        run_exhaustive(options, candidates, &mut total)?;
        return end_of_long_run(options, total);
    }
    total.add("host", host::run()?);
    total.add("loom", loom::tests()?);
    let kernel = artifacts::build_test_kernel()?;
    let hypervisor = artifacts::build_hypervisor()?;
    total.add(
        "linked test kernel",
        elf::run("test-kernel", &kernel, Elsewhere::Allowed)?,
    );
    total.add(
        "linked hypervisor",
        elf::run("hypervisor", &hypervisor, Elsewhere::Forbidden)?,
    );
    for candidate in candidates {
        match candidate {
            Ok(qemu) => {
                for target in target::targets(&qemu, options) {
                    let name = format!("target, QEMU {} {target}", qemu.version);
                    total.add(
                        &name,
                        target::run(&qemu, &target, &kernel, &options.machine)?,
                    );
                    differential::run(&qemu, &target, &options.machine, &mut total)?;
                }
                let name = format!("runs, QEMU {}", qemu.version);
                total.add(&name, end_to_end::run(&qemu, &options.machine)?);
            }
            Err(reason) => total.add_skipped("target", &reason),
        }
    }
    total.add("budgets", budgets::run(&options.machine)?);
    if options.machine.is_usual() && matches!(options.boards, None | Some(Boards::All)) {
        differential::were_enough(&mut total);
    }
    leave_record(options, &total)?;
    Ok(end(&total))
}

/// Leaves what the tests saw for the evidence, if they ran on everything that they are meant for.
fn leave_record(options: &cli::Test, total: &Tally) -> anyhow::Result<()> {
    if !options.machine.is_usual() {
        return Ok(());
    }
    let groups = total.groups.clone();
    let command = format!("test{}", options.machine_option());
    match options.boards {
        None => Record::leave("test", groups),
        Some(Boards::Spike | Boards::All) => Long::Machines.leave(&command, 0, groups),
        Some(Boards::Virt | Boards::VirtM) => Ok(()),
    }
}

/// Leaves what the differential test or fault injection saw alone for the evidence, with the machines that it was restricted to;
/// one case is no evidence.
fn end_of_long_run(options: &cli::Test, total: Tally) -> anyhow::Result<ExitCode> {
    let code = end(&total);
    let is_one_case = options.case.is_some() || options.keep.is_some();
    if !options.machine.has_usual_programs() || is_one_case {
        return Ok(code);
    }
    let machines = options.machine_option() + &options.machine.cpu_option();
    let groups = total.groups.len() as u64;
    match options.differential {
        Some(cases) => {
            let seed = options.seed.unwrap_or(differential::USUAL_SEED);
            let command = format!("test --differential {cases} --seed {seed}{machines}");
            let effort = cases.saturating_mul(groups);
            Long::Differential.leave(&command, effort, total.groups)?;
        }
        None => {
            let command = format!("test --exhaustive{machines}");
            Long::Exhaustive.leave(&command, groups, total.groups)?;
        }
    }
    Ok(code)
}

/// Runs all of fault injection on every target.
fn run_exhaustive(
    options: &cli::Test,
    candidates: Vec<Candidate>,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let kernel = artifacts::build_test_kernel()?;
    for candidate in candidates {
        match candidate {
            Ok(qemu) => {
                for target in target::targets(&qemu, options) {
                    let name = format!("fault injection, QEMU {} {target}", qemu.version);
                    let tally = target::run_exhaustive(&qemu, &target, &kernel, &options.machine)?;
                    total.add(&name, tally);
                }
            }
            Err(reason) => total.add_skipped("target", &reason),
        }
    }
    Ok(())
}

/// Prints the total; fails if any test failed.
pub fn end(total: &Tally) -> ExitCode {
    total.print();
    if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
