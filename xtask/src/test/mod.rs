//! `cargo xtask test`: every test, on this machine and on the target, and one total.
//!
//! Nothing counts as passed that was not seen to pass: a test binary that dies, a test kernel whose closing line never
//! comes or disagrees with its lines, each count as a failure.

mod budgets;
mod differential;
mod elf;
pub mod end_to_end;
pub mod host;
pub mod paces;
mod parts;
mod simulator;
pub mod tally;
pub mod target;

use std::path::Path;
use std::process::ExitCode;

use parts::Part;
use tally::Tally;

use crate::cli::Boards;
use crate::elf_check::Elsewhere;
use crate::evidence::{Long, Record};
use crate::qemu::resolve::{self, Candidate, Extent};
use crate::{artifacts, cli, loom};

/// The command.
pub fn run(options: &cli::Test) -> anyhow::Result<ExitCode> {
    // First what may fail for want of a network: nobody waits minutes to hear of it.
    let candidates = match options.boards() {
        [] => Vec::new(),
        _ => resolve::for_testing(options.machine.qemu.as_deref())?,
    };
    let mut total = Tally::default();
    if let Some(cases) = options.differential {
        differential::run_alone(options, cases, candidates, &mut total)?;
        return end_of_long_run(options, total);
    }
    if options.exhaustive {
        run_exhaustive(options, candidates, &mut total)?;
        return end_of_long_run(options, total);
    }
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
    parts::run(parts_of(options, &candidates, &kernel), &mut total)?;
    if options.machine.is_usual() && matches!(options.boards, None | Some(Boards::All)) {
        differential::were_enough(&mut total);
    }
    leave_record(options, &total)?;
    Ok(end(&total))
}

/// What runs side by side, the longest first.
fn parts_of<'a>(
    options: &'a cli::Test,
    candidates: &'a [Candidate],
    kernel: &'a Path,
) -> Vec<Part<'a>> {
    let machine = &options.machine;
    let qemus = || {
        candidates
            .iter()
            .filter_map(|candidate| candidate.as_ref().ok())
    };
    let mut parts = Vec::new();
    // Runs write the same files for their guests: one after the other.
    if qemus().count() > 0 {
        parts.push(Part::new("runs", move |total| {
            for (qemu, extent) in qemus() {
                let tally = match extent {
                    Extent::Full => end_to_end::run(qemu, machine)?,
                    Extent::Again => end_to_end::run_again(qemu, machine)?,
                    Extent::Short => end_to_end::run_short(qemu, machine)?,
                };
                total.add(&format!("runs, QEMU {}{extent}", qemu.version), tally);
            }
            Ok(())
        }));
    }
    for (qemu, extent) in qemus() {
        let targets = target::targets(qemu, options);
        let targets = match extent {
            Extent::Again => target::each_once(targets),
            Extent::Full | Extent::Short => targets,
        };
        for target in targets {
            if *extent == Extent::Short && !target.is_first {
                continue;
            }
            let name = format!("target, QEMU {} {target}{extent}", qemu.version);
            parts.push(Part::new(name.clone(), move |total| match extent {
                Extent::Full => {
                    total.add(&name, target::run(qemu, &target, kernel, machine)?);
                    differential::run(qemu, &target, machine, total)
                }
                Extent::Again => {
                    total.add(&name, target::run(qemu, &target, kernel, machine)?);
                    differential::run_again(qemu, &target, machine, total)
                }
                Extent::Short => {
                    total.add(&name, target::run_short(qemu, &target, kernel, machine)?);
                    differential::run_short(qemu, &target, machine, total)
                }
            }));
        }
    }
    if options.has_simulator() {
        parts.extend(simulator::parts(machine, options.boards.is_some()));
    }
    parts.push(Part::new("host", |total| {
        total.add("host", host::run()?);
        Ok(())
    }));
    parts.push(Part::new("loom", |total| {
        total.add("loom", loom::tests()?);
        Ok(())
    }));
    if !options.boards().is_empty() {
        parts.push(Part::new("budgets", |total| {
            total.add("budgets", budgets::run(machine)?);
            Ok(())
        }));
    }
    for reason in candidates
        .iter()
        .filter_map(|candidate| candidate.as_ref().err())
    {
        parts.push(Part::new("what cannot be run", |total| {
            total.add_skipped("target", reason);
            Ok(())
        }));
    }
    parts
}

/// Leaves what the tests saw for the evidence, if they ran on everything that they are meant for.
fn leave_record(options: &cli::Test, total: &Tally) -> anyhow::Result<()> {
    if options.machine.has_every_qemu() && options.boards.is_none() {
        return Long::Qemus.leave("test --qemu all", 0, total.groups.clone());
    }
    if !options.machine.is_usual() {
        return Ok(());
    }
    let groups = total.groups.clone();
    let command = format!("test{}", options.machine_option());
    match options.boards {
        None => Record::leave("test", groups),
        Some(Boards::Spike | Boards::All) => Long::Machines.leave(&command, 0, groups),
        Some(Boards::SpikeIsa) => Long::Simulator.leave(&command, 0, groups),
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
            Ok((qemu, _)) => {
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
