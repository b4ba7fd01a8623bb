//! The differential test: random two-stage page tables and accesses, the library against this machine's walker of the
//! specification (`cargo test --package differential`) and against the hardware at hand.
//!
//! The one idea: seeds are fixed, so that every run of the tests runs the same cases; another seed, or more cases, are one
//! option away, and a disagreement prints the options that repeat it.

use std::io;

use super::tally::Tally;
use super::{host, target};
use crate::qemu::Qemu;
use crate::qemu::resolve::Candidate;
use crate::{artifacts, cli};

/// Seeds and their numbers of cases, for the common processor.
const CASES: [(u64, u64); 2] = [(1, 100_000), (2, 100_000)];

/// The same for each further processor.
const FURTHER_CASES: [(u64, u64); 1] = [(3, 100_000)];

/// The same for a QEMU on which a third of the cases come out as its deviations have it, and not as specified.
const DEVIATING_CASES: [(u64, u64); 1] = [(1, 50_000)];

/// The major version of QEMU from which on nearly all cases agree as they are.
const FAITHFUL: u32 = 8;

/// Seconds that a run may take: to boot, and for each thousand cases.
const LIMIT: (u64, u64) = (120, 2);

/// Runs the fixed seeds on `qemu` with the processor `cpu`, the first of its processors or a further one, and adds what
/// became of them to `total`.
pub fn run(
    qemu: &Qemu,
    cpu: &str,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let is_first = target::processors(qemu, options)
        .first()
        .is_some_and(|first| first == cpu);
    let seeds: &[(u64, u64)] = if qemu.major_version().is_none_or(|major| major < FAITHFUL) {
        println!(
            "differential: fewer cases on QEMU {}: a third of them come out as its deviations have it",
            qemu.version
        );
        &DEVIATING_CASES
    } else if is_first {
        &CASES
    } else {
        &FURTHER_CASES
    };
    for &(seed, cases) in seeds {
        let arguments = format!("cases={cases} seed={seed}");
        let tally = boot(qemu, cpu, options, cases, &arguments)?;
        total.add(&name(qemu, cpu, seed, cases), tally);
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
                for cpu in target::processors(&qemu, &options.machine) {
                    let tally = boot(&qemu, &cpu, &options.machine, cases, &arguments)?;
                    total.add(&name(&qemu, &cpu, seed, cases), tally);
                }
            }
            Err(reason) => total.skip("target", &reason),
        }
    }
    Ok(())
}

fn name(qemu: &Qemu, cpu: &str, seed: u64, cases: u64) -> String {
    let version = &qemu.version;
    format!("differential, {cases} cases of seed {seed}, QEMU {version} -cpu {cpu}")
}

fn boot(
    qemu: &Qemu,
    cpu: &str,
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
        cpu,
        &program,
        &options,
        Some(arguments),
        &mut io::stdout(),
    )
}
