//! The tests that run on the RISC-V machine: the test kernel, booted on QEMU, under firmware and without.
//!
//! Its protocol, one line each: `test NAME ... ok`, `test NAME ... FAILED: REASON`, `test NAME ... deviation: TEXT (ok)`,
//! `test NAME ... skipped: REASON`, `counted: N WHAT` for what a test went through, and last `test-kernel: N passed, N failed, N deviations, N skipped`, where `passed`
//! counts no deviation.

use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::tally::Tally;
use crate::qemu::session::{self, Console, Ended};
use crate::qemu::{Board, CPU, Machine, Qemu};
use crate::screen::Screen;
use crate::size::ByteSize;
use crate::{artifacts, cli};

/// Time limit of the test kernel, in seconds.
const TIMEOUT: u64 = 600;

/// What QEMU can do beside its default, and the kernel has tests for.
const FEATURES: &str = "svinval=true,svnapot=true,svpbmt=true";

/// Every feature that QEMU knows: the model of that name has them from this major version on.
pub const ALL_FEATURES: (&str, u32) = ("max", 9);

/// A machine to run the kernel on.
pub struct Target {
    /// The board.
    pub board: Board,
    /// The processor.
    pub cpu: String,
    /// Whether the processor is the first of those that the board is tested with.
    pub is_first: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -cpu {}", self.board.name(), self.cpu)
    }
}

/// The machines to run the kernel on: each board with each processor.
pub fn targets(qemu: &Qemu, options: &cli::Test) -> Vec<Target> {
    let processors = processors(qemu, &options.machine);
    let boards = options.boards();
    let each = |&board: &Board| {
        processors
            .iter()
            .enumerate()
            .map(move |(index, cpu)| Target {
                board,
                cpu: cpu.clone(),
                is_first: index == 0,
            })
    };
    boards.iter().flat_map(each).collect()
}

/// Of these, the first processor on the first board, the second one on the second, and so on: each board and each processor at
/// least once.
pub fn each_once(targets: Vec<Target>) -> Vec<Target> {
    let boards = targets.iter().filter(|target| target.is_first).count();
    let processors = targets.len() / boards.max(1);
    let is_wanted = |index: usize| {
        let (board, processor) = (index / processors, index % processors);
        boards < processors || processor == board % processors
    };
    let numbered = targets.into_iter().enumerate();
    numbered
        .filter_map(|(index, target)| is_wanted(index).then_some(target))
        .collect()
}

/// The processors to run the kernel on: the one that the user names, else the common one and the one with all features.
fn processors(qemu: &Qemu, options: &cli::Machine) -> Vec<String> {
    if let Some(named) = &options.cpu {
        return vec![named.clone()];
    }
    let mut processors = vec![format!("{CPU},{FEATURES}")];
    if has_all_features(qemu) {
        processors.push(ALL_FEATURES.0.to_owned());
    }
    processors
}

/// Whether there is a model of the processor with every feature.
pub fn has_all_features(qemu: &Qemu) -> bool {
    let (_, since) = ALL_FEATURES;
    qemu.major_version().is_some_and(|major| major >= since)
}

/// The boot arguments by which the kernel is asked for a test that fails and for no other, and that test.
const FAIL_ON_PURPOSE: (&str, &str) = (
    "self-test-fail only=self_test_fails",
    "self_test_fails_as_asked",
);

/// The boot argument by which the kernel is asked for a small run, which under firmware is not the usual one.
const SMALL: &str = "small";

/// The boot arguments by which the kernel is asked for all of fault injection and for nothing else.
const EXHAUSTIVE: &str = "exhaustive only=injected";
/// Time limit of that, in seconds.
const EXHAUSTIVE_TIMEOUT: u64 = 2 * 60 * 60;

/// Boots `kernel` on the target and counts its tests; then once more with only a test that has to fail, which counts as one
/// that passed if it was reported as failed; and without firmware as it boots on a simulator, that is, without boot arguments.
pub fn run(
    qemu: &Qemu,
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
) -> anyhow::Result<Tally> {
    let mut tally = boot(qemu, target, kernel, options, None, &mut Screen)?;
    let (argument, name) = FAIL_ON_PURPOSE;
    let quietly = &mut std::io::sink();
    let failing = if target.board.is_without_firmware() {
        let image = artifacts::image_of(kernel, false, Some(argument))?;
        start(qemu, target, &image, options, None, quietly)?
    } else {
        boot(qemu, target, kernel, options, Some(argument), quietly)?
    };
    let expected = format!("FAILED: {name}: ");
    let seen = failing.notes.iter().any(|note| note.starts_with(&expected));
    if seen && (failing.passed, failing.failed) == (0, 1) {
        tally.pass_aloud("a failing test of the kernel is reported as failed");
    } else {
        tally.fail(
            "test-kernel",
            "its test that fails on purpose was not reported",
        );
    }
    if target.board.is_without_firmware() {
        let small = start(qemu, target, kernel, options, None, quietly)?;
        if small.passed > 0 && small.failed == 0 {
            tally.pass_aloud(
                "the kernel runs without boot arguments, and all that it then tests passes",
            );
        } else {
            let failed = small.notes.iter().find(|note| note.starts_with("FAILED"));
            let reason = failed.map_or("no test passed", String::as_str);
            tally.fail("test-kernel without boot arguments", reason);
        }
    }
    Ok(tally)
}

/// Boots `kernel` on the target for the small run that simulators get.
pub fn run_short(
    qemu: &Qemu,
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
) -> anyhow::Result<Tally> {
    let output = &mut Screen;
    start(qemu, target, kernel, options, Some(SMALL), output)
}

/// Boots `kernel` under firmware with the common processor, on one hart, for that run.
pub fn run_alone(
    qemu: &Qemu,
    kernel: &Path,
    options: &cli::Machine,
    output: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let target = Target {
        board: Board::Virt,
        cpu: processors(qemu, options).swap_remove(0),
        is_first: true,
    };
    let alone = Machine {
        harts: 1,
        ..machine(&target, kernel, options, Some(SMALL))
    };
    watch(alone.command(qemu), limit(options), target.board, output)
}

/// Boots `kernel` on the target for all of fault injection, which takes long, and for nothing else.
pub fn run_exhaustive(
    qemu: &Qemu,
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
) -> anyhow::Result<Tally> {
    let options = cli::Machine {
        timeout: options.timeout.or(Some(EXHAUSTIVE_TIMEOUT)),
        ..options.clone()
    };
    let output = &mut Screen;
    boot(qemu, target, kernel, &options, Some(EXHAUSTIVE), output)
}

/// Boots `kernel` on a board with the common processor, quietly, up to the first test that fails; gives its name.
pub fn first_failure(
    qemu: &Qemu,
    board: Board,
    kernel: &Path,
    options: &cli::Machine,
) -> anyhow::Result<Option<String>> {
    let target = Target {
        board,
        cpu: processors(qemu, options).swap_remove(0),
        is_first: true,
    };
    let append = arguments_of_full(board, None);
    let mut report = Report::default();
    let ended = session::run_until(
        machine(&target, kernel, options, append.as_deref()).command(qemu),
        Console::Unattended,
        Some(limit(options)),
        &mut std::io::sink(),
        |line| {
            report.line(line);
            match report.tally.failed {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        },
    )?;
    let tally = match ended {
        Some(ended) => report.finish(ended, board),
        None => report.tally,
    };
    let name = |note: &String| {
        let (name, _) = note.strip_prefix("FAILED: ")?.split_once(": ")?;
        Some(name.to_owned())
    };
    Ok(tally.notes.iter().find_map(name))
}

/// Harts of the machine: four, for the tests that race.
const HARTS: u32 = 4;

/// Boots `kernel`, which speaks the protocol, for a run that leaves nothing out, and counts its tests.
pub fn boot(
    qemu: &Qemu,
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
    append: Option<&str>,
    output: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let append = arguments_of_full(target.board, append);
    start(qemu, target, kernel, options, append.as_deref(), output)
}

/// The boot arguments of a run that leaves nothing out: without firmware it would be a small one.
fn arguments_of_full(board: Board, append: Option<&str>) -> Option<String> {
    let full = board.is_without_firmware().then_some("full");
    let words: Vec<_> = full.into_iter().chain(append).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Boots `kernel` with these boot arguments or with none, and counts its tests.
fn start(
    qemu: &Qemu,
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
    append: Option<&str>,
    output: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let command = machine(target, kernel, options, append).command(qemu);
    watch(command, limit(options), target.board, output)
}

/// Runs a command whose console speaks the protocol, and counts its tests.
pub fn watch(
    command: Command,
    limit: Duration,
    board: Board,
    output: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let mut report = Report::default();
    let ended = session::run(command, Console::Unattended, Some(limit), output, |line| {
        report.line(line);
    })?;
    Ok(report.finish(ended, board))
}

fn machine(
    target: &Target,
    kernel: &Path,
    options: &cli::Machine,
    append: Option<&str>,
) -> Machine {
    Machine {
        board: target.board,
        cpu: target.cpu.clone(),
        harts: HARTS,
        memory: ByteSize::mebibytes(512),
        kernel: kernel.to_path_buf(),
        initrd: None,
        append: append.map(str::to_owned),
        bios: options.bios.clone(),
    }
}

fn limit(options: &cli::Machine) -> Duration {
    Duration::from_secs(options.timeout.unwrap_or(TIMEOUT))
}

/// What the test kernel has said so far.
#[derive(Default)]
struct Report {
    tally: Tally,
    counts: Counts,
    closing: Option<Counts>,
}

/// The four numbers of the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    deviations: u64,
    skipped: u64,
}

impl Report {
    fn line(&mut self, line: &str) {
        if self.tally.count(line) {
        } else if let Some(counts) = line.strip_prefix("test-kernel: ").and_then(Counts::parse) {
            self.closing = Some(counts);
        } else if let Some((name, result)) = test_line(line) {
            self.test(name, result);
        }
    }

    fn test(&mut self, name: &str, result: &str) {
        if result == "ok" {
            self.counts.passed += 1;
            self.tally.pass();
        } else if let Some(text) = result
            .strip_prefix("deviation: ")
            .and_then(|rest| rest.strip_suffix(" (ok)"))
        {
            self.counts.deviations += 1;
            self.tally.deviate(name, text);
        } else if let Some(reason) = result.strip_prefix("skipped: ") {
            self.counts.skipped += 1;
            self.tally.skip(name, reason);
        } else {
            self.counts.failed += 1;
            self.tally
                .fail(name, result.strip_prefix("FAILED: ").unwrap_or(result));
        }
    }

    /// Without firmware the exit code has to say the same as the lines.
    fn finish(mut self, ended: Ended, board: Board) -> Tally {
        const NAME: &str = "test-kernel";
        match (self.closing, ended) {
            (Some(closing), _) if closing != self.counts => {
                let reason = format!(
                    "its closing line says {closing:?}, its lines {:?}",
                    self.counts
                );
                self.tally.fail(NAME, &reason);
            }
            (Some(closing), Ended::Failed) if board.is_without_firmware() && closing.failed > 0 => {
            }
            (Some(closing), Ended::ByItself)
                if board.is_without_firmware() && closing.failed > 0 =>
            {
                self.tally
                    .fail(NAME, "tests failed and its exit code says nothing of it");
            }
            (Some(_), Ended::ByItself) => {}
            (_, Ended::TimedOut) => self.tally.fail(NAME, "did not end in time, QEMU was ended"),
            (_, Ended::Failed) => self.tally.fail(NAME, "QEMU failed"),
            (None, Ended::ByItself) => self.tally.fail(NAME, "ended without its closing line"),
        }
        self.tally
    }
}

impl Counts {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim_end().split(", ");
        let mut next = |word: &str| numbers.next()?.strip_suffix(word)?.trim_end().parse().ok();
        let counts = Self {
            passed: next("passed")?,
            failed: next("failed")?,
            deviations: next("deviations")?,
            skipped: next("skipped")?,
        };
        numbers.next().is_none().then_some(counts)
    }
}

/// The name and the result of a test's line. Firmware since OpenSBI 1.6 complains on the console, without ending its line, of
/// each illegal instruction that it redirects: such words may come before the name and before the result. The counts of
/// the closing line see to it that nothing is made up.
fn test_line(line: &str) -> Option<(&str, &str)> {
    const RESULTS: [&str; 3] = ["FAILED: ", "deviation: ", "skipped: "];
    let (_, rest) = line.split_once("test ")?;
    let (name, noisy) = rest.trim_end().split_once(" ... ")?;
    if name.contains(' ') {
        return None;
    }
    let start = RESULTS.iter().filter_map(|result| noisy.find(result)).min();
    match start {
        Some(start) => Some((name, &noisy[start..])),
        None if noisy.ends_with("ok") => Some((name, "ok")),
        None => Some((name, noisy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_firmware_says_in_the_middle_of_a_line_is_not_the_tests_result() {
        const NOISE: &str = "system_opcode_insn: Invalid opcode for CSR read/write instruction";
        for result in [
            "ok",
            "FAILED: saw 1",
            "deviation: R1 text (ok)",
            "skipped: no Sstc",
        ] {
            let clean = format!("test r1_x ... {result}");
            let noisy = format!("{NOISE}test r1_x ... {NOISE}{NOISE}{result}");
            assert_eq!(test_line(&clean), Some(("r1_x", result)));
            assert_eq!(test_line(&noisy), Some(("r1_x", result)));
        }
        assert_eq!(test_line("a test of nothing ... ok"), None);
        assert_eq!(test_line("test r1_x"), None);
    }

    #[test]
    fn each_board_and_each_processor_is_tested_again_once() {
        let of = |boards: &[Board], processors: &[&str]| {
            let each = boards.iter().flat_map(|&board| {
                let all = processors.iter().enumerate();
                all.map(move |(index, cpu)| Target {
                    board,
                    cpu: (*cpu).to_owned(),
                    is_first: index == 0,
                })
            });
            let kept = each_once(each.collect());
            kept.iter().map(Target::to_string).collect::<Vec<_>>()
        };
        let both = [Board::Virt, Board::VirtM];
        assert_eq!(of(&both, &["a", "b"]), ["virt -cpu a", "virt-m -cpu b"]);
        assert_eq!(of(&both, &["a"]), ["virt -cpu a", "virt-m -cpu a"]);
        let alone = ["virt-m -cpu a", "virt-m -cpu b"];
        assert_eq!(of(&[Board::VirtM], &["a", "b"]), alone);
        assert!(of(&[], &["a"]).is_empty());
    }

    const GOOD: &str = "OpenSBI v1.5\n\
        test R1_one ... ok\n\
        test R6_hlvx ... deviation: cause 12 (ok)\n\
        test R9_csr ... skipped: no Sstc\n\
        test-kernel: 1 passed, 0 failed, 1 deviations, 1 skipped\n";

    fn tally(text: &str, ended: Ended) -> Tally {
        let mut report = Report::default();
        text.lines().for_each(|line| report.line(line));
        report.finish(ended, Board::Virt)
    }

    #[test]
    fn a_run_without_firmware_is_asked_to_leave_nothing_out() {
        let arguments = |board, append| arguments_of_full(board, append);
        assert_eq!(arguments(Board::Virt, None), None);
        assert_eq!(arguments(Board::Virt, Some("a=1")), Some("a=1".into()));
        for board in [Board::VirtM, Board::Spike] {
            assert_eq!(arguments(board, None), Some("full".into()));
            assert_eq!(arguments(board, Some("a=1")), Some("full a=1".into()));
        }
    }

    #[test]
    fn a_deviation_passes_and_is_listed_and_a_skipped_test_counts_neither_way() {
        let tally = tally(GOOD, Ended::ByItself);
        assert_eq!((tally.passed, tally.failed), (2, 0));
        assert_eq!(
            tally.notes,
            ["deviation: R6_hlvx: cause 12", "skipped: R9_csr: no Sstc"]
        );
    }

    #[test]
    fn a_kernel_that_ends_early_or_late_or_miscounts_has_failed() {
        let unfinished = GOOD.split("test-kernel").next().unwrap();
        let miscounted = GOOD.replace("1 passed, 0 failed", "2 passed, 0 failed");
        for (text, ended) in [
            (unfinished, Ended::ByItself),
            (unfinished, Ended::TimedOut),
            (GOOD, Ended::TimedOut),
            (GOOD, Ended::Failed),
            ("", Ended::ByItself),
            (&miscounted, Ended::ByItself),
        ] {
            assert_eq!(tally(text, ended).failed, 1, "{text} {ended:?}");
        }
    }

    #[test]
    fn without_firmware_the_exit_code_tells_of_failed_tests() {
        let bad =
            "test R2 ... FAILED: why\ntest-kernel: 0 passed, 1 failed, 0 deviations, 0 skipped";
        let failed = |text: &str, ended| {
            let mut report = Report::default();
            text.lines().for_each(|line| report.line(line));
            report.finish(ended, Board::VirtM).failed
        };
        assert_eq!(failed(bad, Ended::Failed), 1);
        assert_eq!(failed(bad, Ended::ByItself), 2);
        assert_eq!(failed(GOOD, Ended::ByItself), 0);
        assert_eq!(failed(GOOD, Ended::Failed), 1);
    }

    #[test]
    fn any_result_that_is_not_known_is_a_failure() {
        let mut report = Report::default();
        report.line("test R2 ... FAILED: read 3, expected 4");
        report.line("test R3 ... okay");
        assert_eq!(report.tally.failed, 2);
        assert_eq!(
            report.tally.notes,
            ["FAILED: R2: read 3, expected 4", "FAILED: R3: okay"]
        );
    }
}
