//! `cargo xtask bench standalone`: the bench without firmware, as it runs on instruction-set and RTL simulators.
//!
//! The idea to hold: such a machine has no boot arguments, so that what it runs is the small bench, in cycles, and nothing is
//! chosen here. What QEMU calls cycles are instructions; their sum says how long a simulator will take.

use std::process::ExitCode;

use anyhow::Context;

use super::{Measure, one_run};
use crate::qemu::{Board, resolve};
use crate::screen::show;
use crate::{artifacts, cli, progress};

/// What a small run may take, from reset to the end.
const CYCLES: u64 = 2_000_000;

/// Runs of which the shortest counts: the console may make the program wait.
const RUNS: usize = 3;

/// The command.
pub fn run(options: &cli::Bench) -> anyhow::Result<ExitCode> {
    let program = artifacts::build_bench()?;
    let image = artifacts::image_of(&program, true, None)?;
    let qemu = resolve::for_running(options.machine.qemu.as_deref())?;
    let mut within = true;
    for board in [Board::VirtM, Board::Spike] {
        let name = board.name();
        let message = format!("bench without firmware, {name}, on QEMU {}", qemu.version);
        let (mut shortest, mut lines) = (u64::MAX, Vec::new());
        for _ in 0..RUNS {
            let (measurements, screen) = progress::step(&message, || {
                one_run(
                    &qemu,
                    &program,
                    board,
                    Measure::Cycles,
                    None,
                    &options.machine,
                )
            })?;
            let cycles = cycles_of(&screen).context("the bench did not say how many cycles")?;
            (shortest, lines) = (shortest.min(cycles), measurements.0);
            if shortest < CYCLES {
                break;
            }
        }
        show!("\n{name}: cycles a call");
        for line in lines {
            let key = line.key;
            let name = format!("{} {} {} {}", key.operation, key.path, key.size, key.shape);
            show!("{name:44} {:>9.1}", line.value);
        }
        show!("{name}: {shortest} cycles in all, of {CYCLES} allowed");
        within &= shortest < CYCLES;
    }
    progress::say(&format!("to take elsewhere: {}", program.display()));
    progress::say(&format!(
        "the same, entered at the start of RAM: {}",
        image.display()
    ));
    Ok(if within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Of the line `bench: N cycles since reset`.
fn cycles_of(screen: &str) -> Option<u64> {
    let number = |line: &str| {
        let rest = line.trim().strip_prefix("bench: ")?;
        rest.strip_suffix(" cycles since reset")?.parse().ok()
    };
    screen.lines().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_run_is_found_among_its_lines() {
        let screen = "bench: cycles\r\nbench: 1234 cycles since reset\r\nbench: 0 lines";
        assert_eq!(cycles_of(screen), Some(1234));
        assert_eq!(cycles_of("bench: cycles"), None);
    }
}
