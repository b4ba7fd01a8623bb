//! The differential test: random two-stage page tables and accesses, the library against this machine's walker of the
//! specification (`cargo test --package differential`) and against the hardware at hand.
//!
//! The one idea: seeds are fixed, so that every run of the tests runs the same cases; another seed, or more cases, are one
//! option away, and a disagreement prints the options that repeat it.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::host;
use super::simulator;
use super::tally::Tally;
use super::target::{self, Target};
use crate::qemu::resolve::Candidate;
use crate::qemu::{Board, Qemu};
use crate::screen::{Screen, show};
use crate::{artifacts, cli, evidence, workspace};

/// Seeds and their numbers of cases, for the common processor under firmware. A few in ten thousand are left out on a machine.
const CASES: [(u64, u64); 1] = [(1, 101_000)];

/// The same for each further target.
const FURTHER_CASES: [(u64, u64); 1] = [(3, 40_000)];

/// The same for a QEMU on which a third of the cases come out as its deviations have it, and not as specified.
const DEVIATING_CASES: [(u64, u64); 1] = [(1, 20_000)];

/// The same for each target of a QEMU that is much like one with all of these.
const AGAIN_CASES: (u64, u64) = (4, 20_000);

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

/// Cases that are run at once where a run is long: what one that is ended has to run again.
const SLICE: u64 = 50_000;

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
    for &cases in seeds {
        run_cases(cases, qemu, target, options, total)?;
    }
    Ok(())
}

/// Runs what each target gets on a QEMU that is much like another one.
pub fn run_again(
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    run_cases(AGAIN_CASES, qemu, target, options, total)
}

/// The short form: the first cases of the fixed seed.
pub fn run_short(
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
    run_cases(SHORT_CASES, qemu, target, options, total)
}

fn run_cases(
    (seed, cases): (u64, u64),
    qemu: &Qemu,
    target: &Target,
    options: &cli::Machine,
    total: &mut Tally,
) -> anyhow::Result<()> {
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
    let wanted = Wanted {
        seed,
        cases,
        case: options.case,
        keep: options.keep,
        resume: options.resume,
    };
    let tally = wanted.run("host", |slice| host::run_differential(&slice.variables()))?;
    total.add("host", tally);
    if options.has_simulator() {
        simulator::run_differential(&wanted, &options.machine, total)?;
    }
    for candidate in candidates {
        match candidate {
            Ok((qemu, _)) => {
                for target in target::targets(&qemu, options) {
                    let machine = format!("QEMU {} {target}", qemu.version);
                    let tally = wanted.run(&machine, |slice| {
                        let arguments = slice.arguments();
                        boot(&qemu, &target, &options.machine, slice.cases, &arguments)
                    })?;
                    total.add(&name(&qemu, &target, seed, cases), tally);
                }
            }
            Err(reason) => total.add_skipped("target", &reason),
        }
    }
    Ok(())
}

/// What the user asks for.
#[derive(Clone)]
pub struct Wanted {
    /// The seed.
    pub seed: u64,
    /// Cases of it.
    pub cases: u64,
    case: Option<u64>,
    keep: Option<u64>,
    resume: bool,
}

/// A piece of that, which is run at once.
pub struct Slice {
    seed: u64,
    /// The first case, if it is not the first of the seed.
    first: Option<u64>,
    /// How many.
    pub cases: u64,
    keep: Option<u64>,
}

impl Slice {
    /// The environment of the test on this machine.
    fn variables(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("", Some(self.cases)),
            ("_SEED", Some(self.seed)),
            // One case of certain choices, or one that stands for itself, is a replay.
            (
                if self.is_replay() { "_CASE" } else { "_FIRST" },
                self.first,
            ),
            ("_KEEP", self.keep),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// The boot arguments of the test on a target.
    pub fn arguments(&self) -> String {
        let mut arguments = format!("cases={} seed={}", self.cases, self.seed);
        if let Some(first) = self.first {
            arguments += &format!(" case={first}");
        }
        if let Some(keep) = self.keep {
            arguments += &format!(" keep={keep:#x}");
        }
        arguments
    }

    const fn is_replay(&self) -> bool {
        self.keep.is_some() || self.cases == 1
    }
}

/// What is known of a run that goes on.
#[derive(Default, Serialize, Deserialize)]
struct Progress {
    /// The commit of the working tree.
    commit: String,
    /// Cases that are done, from the first one on.
    done: u64,
    /// What came of them.
    tally: Tally,
}

impl Progress {
    fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }

    /// Replaces the file as a whole, so that a run that is ended meanwhile loses nothing.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Wanted {
    /// Whether certain cases are wanted, and not as many as asked for.
    pub const fn is_replay(&self) -> bool {
        self.case.is_some() || self.keep.is_some()
    }

    /// Runs what is wanted on one machine, slice by slice, each of which is on record when it is done; what is on record already
    /// is not run again if the user wants to go on. A replay is one run of which nothing is kept.
    pub fn run(
        &self,
        machine: &str,
        run: impl FnMut(&Slice) -> anyhow::Result<Tally>,
    ) -> anyhow::Result<Tally> {
        let file: String = machine
            .chars()
            .map(|char| {
                if char.is_ascii_alphanumeric() {
                    char
                } else {
                    '-'
                }
            })
            .collect();
        let folder = workspace::target_dir().join("differential");
        let path = folder.join(format!("seed-{}-{file}.json", self.seed));
        self.run_from(&path, &evidence::commit(), machine, run)
    }

    fn run_from(
        &self,
        path: &Path,
        commit: &str,
        machine: &str,
        mut run: impl FnMut(&Slice) -> anyhow::Result<Tally>,
    ) -> anyhow::Result<Tally> {
        let slice = |first, cases| Slice {
            seed: self.seed,
            first,
            cases,
            keep: self.keep,
        };
        if self.is_replay() {
            return run(&slice(self.case, self.cases));
        }
        let mut progress = Progress {
            commit: commit.to_owned(),
            ..Progress::default()
        };
        if self.resume && path.exists() {
            progress =
                Progress::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(
                progress.commit == commit,
                "{} cases on {machine} are those of commit {}, and this is {commit}: run them anew, without --resume",
                progress.done,
                progress.commit
            );
            show!("differential: {machine}: {} cases are done", progress.done);
        }
        while progress.done < self.cases {
            let first = (progress.done > 0).then_some(progress.done);
            let cases = SLICE.min(self.cases - progress.done);
            progress.tally.go_on(run(&slice(first, cases))?);
            progress.done += cases;
            progress.write(path)?;
        }
        Ok(progress.tally)
    }
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

    /// A run that counts its cases, one of a kind for each, and fails to start in slice `ends_in`.
    fn run(wanted: &Wanted, path: &Path, commit: &str, ends_in: u64) -> anyhow::Result<Tally> {
        let mut slices = 0;
        wanted.run_from(path, commit, "machine", |slice| {
            slices += 1;
            ensure!(slices < ends_in, "ended");
            let first = slice.first.unwrap_or(0);
            let mut tally = Tally::default();
            let sum = (first..first + slice.cases).sum();
            tally.counted = vec![("cases".into(), slice.cases), ("sum".into(), sum)];
            tally.deviate("walk", if first == 0 { "A; B" } else { "B; C" });
            Ok(tally)
        })
    }

    #[test]
    fn a_run_that_is_ended_and_resumed_counts_each_case_once() {
        let name = format!("guest-mem-differential-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let cases = 4 * SLICE + 7;
        let mut wanted = Wanted {
            seed: 1,
            cases,
            case: None,
            keep: None,
            resume: false,
        };
        let at_once = run(&wanted, &path, "one", u64::MAX).unwrap();
        assert_eq!(at_once.counted[0].1, cases);
        assert_eq!(at_once.counted[1].1, cases * (cases - 1) / 2);
        assert_eq!(at_once.notes, ["deviation: walk: A; B; C"]);

        assert!(run(&wanted, &path, "one", 3).is_err());
        wanted.resume = true;
        assert!(run(&wanted, &path, "one", 2).is_err());
        assert_eq!(run(&wanted, &path, "one", 3).unwrap(), at_once);
        // Nothing is left to run, nor would other code go on.
        assert_eq!(run(&wanted, &path, "one", 1).unwrap(), at_once);
        assert!(run(&wanted, &path, "other", u64::MAX).is_err());
        wanted.resume = false;
        assert!(run(&wanted, &path, "other", u64::MAX).is_ok());
        fs::remove_file(path).unwrap();
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
