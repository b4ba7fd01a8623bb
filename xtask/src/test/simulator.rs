//! The bare-metal programs on Spike, the reference simulator, over ISA strings that promise different things.
//!
//! The one idea: there is no firmware, and the simulator enters each program as it is. A test that needs what an ISA string does
//! not promise fails here.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::differential::Wanted;
use super::parts::Part;
use super::tally::Tally;
use super::target;
use crate::qemu::Board;
use crate::screen::Screen;
use crate::setup::spike::Spike;
use crate::{artifacts, bench, cli};

/// The ISA strings. V stands before H.
const ISAS: [&str; 7] = [
    "rv64gch_zicntr_zihpm",
    "rv64gch_zicntr_zihpm_zicclsm",
    "rv64gch_zicntr_zihpm_zicclsm_sstc_svinval_svnapot_svpbmt_svadu",
    "rv64gch_zicntr_zihpm_zicclsm_ssdbltrp_smdbltrp",
    "rv64gch_zicntr_zihpm_zicclsm_smnpm_ssnpm",
    "rv64gch_zicntr_zihpm_zicclsm_zicfiss_zicfilp",
    "rv64gcvh_zicntr_zihpm",
];

/// Harts that the test kernel runs on: alone, and with the tests that race.
const HARTS: [u32; 2] = [1, 4];

/// The places in [`ISAS`] of those on which the races run, too, where the simulator is not asked for by name: the fewest promises,
/// and the most for translation.
const RACES: [u64; 2] = [1, 3];

/// Cases of the differential test for each ISA string; each has the seed of its place in the list, from 1 on.
const CASES: u64 = 4_000;

/// Seconds that a run may take, and more of them for each thousand cases.
const LIMIT: (u64, u64) = (300, 5);

/// A part for each ISA string. With `all`, each runs the races.
pub fn parts(options: &cli::Machine, all: bool) -> impl Iterator<Item = Part<'_>> {
    let seeds = ISAS.into_iter().zip(1..);
    seeds.map(move |(isa, seed)| {
        Part::new(name(isa), move |total| match spike(total) {
            Some(spike) => {
                let harts = match all || RACES.contains(&seed) {
                    true => &HARTS[..],
                    false => &HARTS[..1],
                };
                run(&spike, (isa, seed), harts, options, total)
            }
            None => Ok(()),
        })
    })
}

/// Runs the test kernel, the differential test and the bench with an ISA string.
fn run(
    spike: &Spike,
    (isa, seed): (&str, u64),
    harts: &[u32],
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let kernel = artifacts::build_test_kernel()?;
    for &harts in harts {
        let command = spike.command(isa, harts, None, &kernel)?;
        let tally = watch(command, LIMIT.0, options, &mut Screen)?;
        let plural = if harts == 1 { "" } else { "s" };
        total.add(
            &format!("target, {}, {harts} hart{plural}", name(isa)),
            tally,
        );
    }
    let arguments = format!("cases={CASES} seed={seed}");
    let tally = differential(spike, isa, CASES, &arguments, options)?;
    total.add(&cases_name(isa, CASES, seed), tally);
    let bench = artifacts::build_bench()?;
    total.add(
        &format!("bench, {}", name(isa)),
        measured(spike, isa, &bench)?,
    );
    Ok(())
}

/// Runs cases of the differential test, shared out among the ISA strings, each with a seed of its own; a replay runs on each.
pub fn run_differential(
    wanted: &Wanted,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let Some(spike) = spike(total) else {
        return Ok(());
    };
    for (isa, index) in ISAS.into_iter().zip(0..) {
        let mut wanted = wanted.clone();
        if !wanted.is_replay() {
            wanted.cases = wanted.cases.div_ceil(ISAS.len() as u64);
            wanted.seed += index;
        }
        let tally = wanted.run(&name(isa), |slice| {
            differential(&spike, isa, slice.cases, &slice.arguments(), options)
        })?;
        total.add(&cases_name(isa, wanted.cases, wanted.seed), tally);
    }
    Ok(())
}

/// The simulator; where it cannot be had, `total` says why.
fn spike(total: &mut Tally) -> Option<Spike> {
    Spike::get()
        .map_err(|error| total.add_skipped(&Spike::name(), &format!("{error:#}")))
        .ok()
}

fn name(isa: &str) -> String {
    format!("{} --isa={isa}", Spike::name())
}

fn cases_name(isa: &str, cases: u64, seed: u64) -> String {
    format!("differential, {cases} cases of seed {seed}, {}", name(isa))
}

fn differential(
    spike: &Spike,
    isa: &str,
    cases: u64,
    arguments: &str,
    options: &cli::Machine,
) -> anyhow::Result<Tally> {
    let program = artifacts::build_differential()?;
    let command = spike.command(isa, 1, Some(&format!("full {arguments}")), &program)?;
    let (start, thousand) = LIMIT;
    let limit = start + cases.div_ceil(1000) * thousand;
    watch(command, limit, options, &mut Screen)
}

fn watch(
    command: Command,
    limit: u64,
    options: &cli::Machine,
    output: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let limit = Duration::from_secs(options.timeout.unwrap_or(limit));
    // As on the board of that name there is no firmware, so that the exit code counts.
    target::watch(command, limit, Board::Spike, output)
}

/// The bench as a test: it ends well, having measured something.
fn measured(spike: &Spike, isa: &str, program: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let command = spike.command(isa, 1, None, program)?;
    match bench::run_standalone(command) {
        Ok(lines) => {
            tally.pass_aloud("bench");
            tally.counted.push(("measurements".into(), lines));
        }
        Err(error) => tally.fail("bench", &format!("{error:#}")),
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_isa_string_promises_no_misaligned_accesses() {
        // Where a misaligned access must work, no test can be seen to need it.
        assert!(ISAS.iter().any(|isa| !isa.contains("zicclsm")));
        for isa in ISAS {
            let letters = isa.split('_').next().unwrap();
            assert!(letters.ends_with('h'), "{isa}");
        }
    }
}
