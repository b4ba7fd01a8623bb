//! The differential test: random two-stage page tables and accesses, the library against this machine's walker of the
//! specification (`cargo test --package differential`) and against the hardware at hand.
//!
//! The one idea: seeds are fixed, so that every run of the tests runs the same cases; another seed, or more cases, are one
//! option away, and a disagreement prints the options that repeat it.

use super::host;
use super::simulator::{self, Cases};
use super::tally::Tally;
use super::target::{self, Target};
use crate::qemu::resolve::Candidate;
use crate::qemu::{Board, Qemu};
use crate::screen::{Screen, show};
use crate::{artifacts, cli, workspace};

/// Seeds and their numbers of cases, for the common processor under firmware. A few in ten thousand are left out on a machine.
const CASES: [(u64, u64); 1] = [(1, 101_000)];

/// The same for each further target.
const FURTHER_CASES: [(u64, u64); 1] = [(3, 40_000)];

/// The same for a QEMU on which a third of the cases come out as its deviations have it, and not as specified.
const DEVIATING_CASES: [(u64, u64); 1] = [(1, 20_000)];

/// A seed and its number of cases, for a QEMU on which the tests run in their short form.
const SHORT_CASES: (u64, u64) = (1, 5_000);

/// The cases of an unattended run of the tests, on all targets together, that agree or come out as a listed deviation has it.
const ENOUGH: u64 = 200_000;

/// The beginning of the name of each group of cases.
const GROUP: &str = "differential, ";

/// The seed where the user names none.
pub const USUAL_SEED: u64 = 1;

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
        show!(
            "differential: fewer cases on QEMU {}: a third of them come out as its deviations have it",
            qemu.version
        );
        &DEVIATING_CASES
    } else if target.is_first && (target.board == Board::Virt || !target::has_all_features(qemu)) {
        // Without a second processor the second board has to make up for it.
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

/// The short form: the first cases of the fixed seed.
pub fn run_short(
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let (seed, cases) = SHORT_CASES;
    let arguments = format!("cases={cases} seed={seed}");
    let tally = boot(qemu, target, options, cases, &arguments)?;
    total.add(&name(qemu, target, seed, cases), tally);
    Ok(())
}

/// Whether the tests, which ran on all targets that they could, were [`ENOUGH`]; if not, an unattended run has failed.
pub fn were_enough(total: &mut Tally) {
    judge_number(total, workspace::is_ci());
}

fn judge_number(total: &mut Tally, unattended: bool) {
    let groups = total.groups.iter();
    let cases: u64 = groups
        .filter(|group| group.name.starts_with(GROUP))
        .flat_map(|group| &group.counted)
        .map(|(_, number)| number)
        .sum();
    if cases >= ENOUGH {
        return;
    }
    let reason = format!(
        "{cases} cases in all, which is less than {ENOUGH}: is there a QEMU from {FAITHFUL} on?"
    );
    let mut group = Tally::default();
    if unattended {
        group.fail("differential", &reason);
    } else {
        group.skip("differential", &reason);
    }
    total.add("number of differential cases", group);
}

/// Runs `cases` cases as the options say, on this machine and on every QEMU.
pub fn run_alone(
    options: &cli::Test,
    cases: u64,
    candidates: Vec<Candidate>,
    total: &mut Tally,
) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or(USUAL_SEED);
    let mut variables = vec![("", cases), ("_SEED", seed)];
    let mut more = String::new();
    if let Some(case) = options.case {
        variables.push(("_CASE", case));
        more += &format!(" case={case}");
    }
    if let Some(keep) = options.keep {
        variables.push(("_KEEP", keep));
        more += &format!(" keep={keep:#x}");
    }
    let arguments = format!("cases={cases} seed={seed}{more}");
    total.add("host", host::run_differential(&variables)?);
    if options.has_simulator() {
        let cases = Cases {
            number: cases,
            seed,
            more: more.clone(),
        };
        simulator::run_differential(&cases, &options.machine, total)?;
    }
    for candidate in candidates {
        match candidate {
            Ok((qemu, _)) => {
                for target in target::targets(&qemu, options) {
                    let tally = boot(&qemu, &target, &options.machine, cases, &arguments)?;
                    total.add(&name(&qemu, &target, seed, cases), tally);
                }
            }
            Err(reason) => total.add_skipped("target", &reason),
        }
    }
    Ok(())
}

fn name(qemu: &Qemu, target: &Target, seed: u64, cases: u64) -> String {
    let version = &qemu.version;
    format!("{GROUP}{cases} cases of seed {seed}, QEMU {version} {target}")
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
        &mut Screen,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(counted: &[(&str, u64)], unattended: bool) -> Tally {
        let mut total = Tally::default();
        for &(name, number) in counted {
            let group = Tally {
                counted: vec![("cases".into(), number)],
                ..Tally::default()
            };
            total.add(name, group);
        }
        judge_number(&mut total, unattended);
        total
    }

    #[test]
    fn an_unattended_run_with_too_few_cases_fails_and_another_one_says_so() {
        let enough = [(GROUP, 120_000), (GROUP, 80_000)];
        assert_eq!(judged(&enough, true), judged(&enough, false));
        assert_eq!(judged(&enough, true).failed, 0);
        // The cases on this machine are others.
        let few = [(GROUP, 120_000), (GROUP, 79_999), ("host", 1_000_000)];
        assert_eq!(judged(&few, true).failed, 1);
        assert_eq!(judged(&few, false).failed, 0);
        assert_eq!(judged(&few, false).notes.len(), 1);
    }

    #[test]
    fn the_fixed_cases_on_one_qemu_are_enough() {
        // A few in ten thousand are left out.
        let enough = |cases: u64| assert!(cases * 999 / 1000 >= ENOUGH);
        let first: u64 = CASES.iter().map(|(_, cases)| cases).sum();
        let further: u64 = FURTHER_CASES.iter().map(|(_, cases)| cases).sum();
        // Two processors on each of two boards, and one.
        enough(first + 3 * further);
        enough(2 * first);
    }
}
