//! `cargo xtask bench`: what guest accesses cost, beside the byte loop that the library replaces and the machine's own copy.
//!
//! The idea to hold: one program (`bench`, of the test kernel's package) is run twice. Under `-icount` it counts
//! instructions, the same in every run; without, it takes times, of which only ratios within the run mean anything.

mod budgets;
mod chart;
mod lines;
mod linux;
mod report;
mod standalone;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};

pub use budgets::check as check_budgets;
pub use lines::Measurements;

use crate::qemu::session::{self, Console, Ended};
use crate::qemu::{Board, CPU, Machine, Qemu, resolve};
use crate::size::ByteSize;
use crate::test::tally::Tally;
use crate::test::{self, paces};
use crate::{artifacts, cli, progress, workspace};

/// Time limit of one run, in seconds.
const TIMEOUT: u64 = 240;

/// What the program counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Instructions, by QEMU's deterministic clock.
    Instructions,
    /// Ticks of `time`.
    Ticks,
    /// Cycles, of a small run without firmware.
    Cycles,
}

/// The command.
pub fn run(options: &cli::Bench) -> anyhow::Result<ExitCode> {
    match options.subject {
        cli::Subject::Accesses => accesses(options),
        cli::Subject::Standalone => standalone::run(options),
        cli::Subject::Guests => guests(options),
        cli::Subject::Linux => {
            linux::run(options)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What `cargo xtask test` checks of guests beside the bare machine.
fn guests(options: &cli::Bench) -> anyhow::Result<ExitCode> {
    let qemu = resolve::for_running(options.machine.qemu.as_deref())?;
    let mut tally = Tally::default();
    paces::run(&qemu, &options.machine, &mut tally)?;
    Ok(test::end(&tally))
}

/// Guest accesses: tables, budgets, report and chart.
fn accesses(options: &cli::Bench) -> anyhow::Result<ExitCode> {
    let program = artifacts::build_bench()?;
    let qemu = resolve::for_running(options.machine.qemu.as_deref())?;
    let of = |measure| {
        let message = format!("bench, {measure:?}, on QEMU {}", qemu.version);
        progress::step(&message, || {
            measure_on(&qemu, &program, measure, &options.machine)
        })
    };
    let instructions = of(Measure::Instructions)?;
    let ticks = of(Measure::Ticks)?;
    report::print(&instructions, &ticks);
    let results = budgets::check(&instructions);
    report::print_budgets(&results);

    let folder = workspace::target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let json = report::json(&qemu.version, &instructions, &ticks, &results);
    let svg = chart::svg(&qemu.version, &instructions, &ticks);
    for (name, text) in [("report.json", json), ("chart.svg", svg)] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        progress::say(&format!("wrote {}", path.display()));
    }
    let broken = results.iter().any(|result| result.failure().is_some());
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One run of the program under firmware.
pub fn measure_on(
    qemu: &Qemu,
    program: &Path,
    measure: Measure,
    options: &cli::Machine,
) -> anyhow::Result<Measurements> {
    let append = (measure == Measure::Ticks).then(|| "time".into());
    let (measurements, _) = one_run(qemu, program, Board::Virt, measure, append, options)?;
    Ok(measurements)
}

/// A run without firmware by a command of another simulator; gives how many measurements there were.
pub fn run_standalone(command: Command) -> anyhow::Result<u64> {
    let limit = Duration::from_secs(TIMEOUT);
    let (measurements, _) = watched(command, Measure::Cycles, limit)?;
    Ok(measurements.0.len() as u64)
}

/// One run of the program: what it measured, and all it printed.
fn one_run(
    qemu: &Qemu,
    program: &Path,
    board: Board,
    measure: Measure,
    append: Option<String>,
    options: &cli::Machine,
) -> anyhow::Result<(Measurements, String)> {
    let machine = Machine {
        board,
        cpu: options.cpu.clone().unwrap_or(CPU.into()),
        // Times of several harts at once come from the same run; but for these rows, the others sleep.
        harts: if measure == Measure::Ticks { 4 } else { 1 },
        memory: ByteSize::mebibytes(256),
        kernel: program.to_owned(),
        initrd: None,
        append,
        bios: options.bios.clone(),
    };
    let mut command = machine.command(qemu);
    if measure != Measure::Ticks {
        command.args(["-icount", "shift=0"]);
    }
    let limit = Duration::from_secs(options.timeout.unwrap_or(TIMEOUT));
    watched(command, measure, limit)
}

/// What a command's run measured, and all it printed.
fn watched(
    command: Command,
    measure: Measure,
    limit: Duration,
) -> anyhow::Result<(Measurements, String)> {
    let mut reader = lines::Reader::new(measure);
    let mut screen = Vec::new();
    let ended = session::run(
        command,
        Console::Unattended,
        Some(limit),
        &mut screen,
        |line| reader.line(line),
    )?;
    let screen = String::from_utf8_lossy(&screen).into_owned();
    match reader.finish() {
        Some(measurements) if ended == Ended::ByItself => Ok((measurements, screen)),
        _ => {
            eprintln!("{screen}");
            bail!("the bench did not end well: {ended:?}")
        }
    }
}
