//! The differential test: random two-stage page tables and accesses, the library against this machine's walker of the
//! specification (`cargo test --package differential`) and against the hardware at hand.
//!
//! The one idea: seeds are fixed, so that every run of the tests runs the same cases; another seed, or more cases, are one
//! option away, and a disagreement prints the options that repeat it.

use std::io;

use super::host;
use super::tally::Tally;
use super::target::{self, Target};
use crate::qemu::resolve::Candidate;
use crate::qemu::{Board, Qemu};
use crate::{artifacts, cli};

/// Seeds and their numbers of cases, for the common processor under firmware. A few in ten thousand are left out on a machine.
const CASES: [(u64, u64); 1] = [(1, 101_000)];

/// The same for each further target.
const FURTHER_CASES: [(u64, u64); 1] = [(3, 40_000)];

/// The same for a QEMU on which a third of the cases come out as its deviations have it, and not as specified.
const DEVIATING_CASES: [(u64, u64); 1] = [(1, 20_000)];

/// The major version of QEMU from which on nearly all cases agree as they are.
const FAITHFUL: u32 = 8;

/// Seconds that a run may take: to boot, and for each thousand cases.
const LIMIT: (u64, u64) = (120, 2);

/// Runs the fixed seeds on the target and adds what became of them to `total`.
pub fn run(
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let seeds: &[(u64, u64)] = if qemu.major_version().is_none_or(|major| major < FAITHFUL) {
        println!(
            "differential: fewer cases on QEMU {}: a third of them come out as its deviations have it",
            qemu.version
        );
        &DEVIATING_CASES
    } else if target.is_first && target.board == Board::Virt {
        &CASES
    } else {
        &FURTHER_CASES
    };
    for &(seed, cases) in seeds {
        let arguments = format!("cases={cases} seed={seed}");
        let tally = boot(qemu, target, options, cases, &arguments)?;
        total.add(&name(qemu, target, seed, cases), tally);
    }
    Ok(())
}

/// Runs `cases` cases as the options say, on this machine and on every QEMU.
pub fn run_alone(
    options: &cli::Test,
    cases: u64,
    candidates: Vec<Candidate>,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or(1);
    let mut variables = vec![("", cases), ("_SEED", seed)];
    let mut arguments = format!("cases={cases} seed={seed}");
    if let Some(case) = options.case {
        variables.push(("_CASE", case));
        arguments += &format!(" case={case}");
    }
    if let Some(keep) = options.keep {
        variables.push(("_KEEP", keep));
        arguments += &format!(" keep={keep:#x}");
    }
    total.add("host", host::run_differential(&variables)?);
    for candidate in candidates {
        match candidate {
            Ok(qemu) => {
                for target in target::targets(&qemu, options) {
                    let tally = boot(&qemu, &target, &options.machine, cases, &arguments)?;
                    total.add(&name(&qemu, &target, seed, cases), tally);
                }
            }
            Err(reason) => total.skip("target", &reason),
        }
    }
    Ok(())
}

fn name(qemu: &Qemu, target: &Target, seed: u64, cases: u64) -> String {
    let version = &qemu.version;
    format!("differential, {cases} cases of seed {seed}, QEMU {version} {target}")
}

fn boot(
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    cases: u64,
    arguments: &str,
) -> anyhow::Result<Tally> {
    let (start, thousand) = LIMIT;
    let options = cli::Machine {
        timeout: options
            .timeout
            .or(Some(start + cases.div_ceil(1000) * thousand)),
        ..options.clone()
    };
    let program = artifacts::build_differential()?;
    target::boot(
        qemu,
        target,
        &program,
        &options,
        Some(arguments),
        &mut io::stdout(),
    )
}
