//! What a test is, what it may answer, and the lines that are printed for it.
//!
//! The one idea: a test can only pass by what the specification says, or by a *named* deviation that this machine showed when
//! it was probed. Any other difference, and any trap that nobody asked for, fails it; the run goes on with the next.

use core::fmt;

use guest_mem::csr::HSTATUS_SPVP;

use crate::console::{print, println};
use crate::deviation::{Deviation, Machine};
use crate::global::Global;
use crate::text::Text;
use crate::trap::{self, Trap};
use crate::{arena, boot, breakpoints, csr, machine};

/// Why a test did not pass. The words are kept aside, so that results stay small.
#[derive(Clone, Copy)]
pub enum Stop {
    /// It failed.
    Failed,
    /// This machine cannot show it.
    Skipped,
}

/// The words for the last [`Stop`].
static REASON: Global<Text> = Global::new(Text::new());

impl Stop {
    /// The test failed, for this reason.
    pub fn failed(reason: fmt::Arguments<'_>) -> Self {
        REASON.set(Text::format(reason));
        Self::Failed
    }

    /// This machine cannot show what the test asks, for this reason.
    pub fn skipped(reason: fmt::Arguments<'_>) -> Self {
        REASON.set(Text::format(reason));
        Self::Skipped
    }
}

/// The words for the last [`Stop`].
pub fn reason() -> Text {
    REASON.get()
}

/// What a test answers.
pub type Outcome = Result<(), Stop>;

/// One test: its name, which begins with its rule, and its body.
#[derive(Clone, Copy)]
pub struct Case {
    /// The function's name.
    pub name: &'static str,
    /// The function.
    pub run: fn(&mut Test) -> Outcome,
}

/// The tests of a section, by the names of their functions.
macro_rules! cases {
    ($($function:ident),* $(,)?) => {
        /// The tests of this file.
        pub const CASES: &[$crate::harness::Case] =
            &[$($crate::harness::Case { name: stringify!($function), run: $function }),*];
    };
}

/// Ends the test as failed.
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => {
        return Err($crate::harness::Stop::failed(format_args!($($text)*)))
    };
}

/// Ends the test as one that this machine cannot show.
macro_rules! skip {
    ($($text:tt)*) => {
        return Err($crate::harness::Stop::skipped(format_args!($($text)*)))
    };
}

/// Skips the test in a small run.
macro_rules! not_in_small {
    ($what:literal) => {
        if $crate::boot::is_small() {
            $crate::harness::skip!(concat!("a small run does not ", $what));
        }
    };
}

/// Fails the test unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            $crate::harness::fail!($($text)*);
        }
    };
}

pub use crate::fail;
pub(crate) use {cases, check, not_in_small, skip};

/// What a single access is expected to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It reads this value (a store reads what it was given).
    Value(u64),
    /// It goes through.
    Works,
    /// It traps with this cause.
    Cause(u64),
}

impl Expect {
    fn fits(self, result: &Result<u64, Trap>) -> bool {
        match (self, result) {
            (Self::Value(expected), Ok(value)) => expected == *value,
            (Self::Works, Ok(_)) => true,
            (Self::Cause(cause), Err(trap)) => trap.info.scause == cause,
            _ => false,
        }
    }
}

/// A running test.
pub struct Test<'a> {
    /// What is known of the machine.
    pub machine: &'a Machine,
    seen: [bool; Deviation::COUNT],
}

impl Test<'_> {
    /// Fails unless the two are equal.
    pub fn equal<T: PartialEq + fmt::Debug>(
        &self,
        what: impl fmt::Display,
        observed: T,
        expected: T,
    ) -> Outcome {
        if observed != expected {
            fail!("{what}: saw {observed:#x?}, expected {expected:#x?}");
        }
        Ok(())
    }

    /// Fails unless the access does what is expected.
    pub fn access(
        &self,
        what: impl fmt::Display,
        result: Result<u64, Trap>,
        expected: Expect,
    ) -> Outcome {
        if !expected.fits(&result) {
            fail!("{what}: saw {result:#x?}, expected {expected:?}");
        }
        Ok(())
    }

    /// Fails unless the access does what the specification says, or what a deviation *that this machine has* makes of it.
    pub fn access_or(
        &mut self,
        what: impl fmt::Display,
        result: Result<u64, Trap>,
        expected: Expect,
        deviations: &[(Deviation, Expect)],
    ) -> Outcome {
        if expected.fits(&result) {
            return Ok(());
        }
        for &(deviation, instead) in deviations {
            if self.machine.has(deviation) && instead.fits(&result) {
                self.deviates(deviation);
                return Ok(());
            }
        }
        fail!("{what}: saw {result:#x?}, expected {expected:?}")
    }

    /// Fails unless the condition holds, or the machine has the deviation that breaks it.
    pub fn holds_or(
        &mut self,
        what: impl fmt::Display,
        condition: bool,
        deviation: Deviation,
    ) -> Outcome {
        if condition {
            return Ok(());
        }
        if self.machine.has(deviation) {
            self.deviates(deviation);
            return Ok(());
        }
        fail!("{what}")
    }

    /// Notes that the test met a deviation.
    pub fn deviates(&mut self, deviation: Deviation) {
        self.seen[deviation as usize] = true;
    }
}

/// The counts of the closing line.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    passed: usize,
    failed: usize,
    deviations: usize,
    skipped: usize,
}

/// A number that a run found out, and of what: printed at its end.
#[derive(Clone, Copy)]
struct Figure {
    value: u64,
    what: &'static str,
}

/// The figures of this run; those of nothing are free.
static FIGURES: Global<[Figure; 32]> = Global::new([Figure { value: 0, what: "" }; 32]);

/// Changes a figure, which is printed at the end as `counted: VALUE WHAT`; from 0, if there is none of this yet.
fn change_figure(what: &'static str, change: impl FnOnce(u64) -> u64) {
    let mut figures = FIGURES.get();
    let place = figures
        .iter_mut()
        .find(|figure| figure.what == what || figure.what.is_empty());
    if let Some(place) = place {
        *place = Figure {
            value: change(place.value),
            what,
        };
    }
    FIGURES.set(figures);
}

/// The step by which a loop of a test goes through its cases: one, or in a small run so many.
pub fn one_in(many: usize) -> usize {
    if boot::is_small() { many } else { 1 }
}

/// The cycle counter, if this machine lets HS-mode read it.
pub fn cycle() -> Option<u64> {
    trap::catch(csr::cycle::read).ok()
}

/// Prints what a small run took since the counter was `begun`: how long it is where each cycle is simulated.
pub fn print_cycles(begun: Option<u64>) {
    if boot::is_small()
        && let (Some(begun), Some(end)) = (begun, cycle())
    {
        println!("test-kernel: {} cycles", end - begun);
    }
}

/// Adds to what the tests of this run went through.
pub fn count(number: u64, what: &'static str) {
    change_figure(what, |value| value + number);
}

/// Notes a measurement, of which the greatest counts.
pub fn measured(number: u64, what: &'static str) {
    change_figure(what, |greatest| greatest.max(number));
}

/// Runs the tests and counts.
pub struct Runner<'a> {
    machine: &'a Machine,
    satp: u64,
    counts: Counts,
}

impl<'a> Runner<'a> {
    /// For a machine, with the host's `satp`.
    pub fn new(machine: &'a Machine, satp: u64) -> Self {
        Self {
            machine,
            satp,
            counts: Counts::default(),
        }
    }

    /// Runs the tests of a section; of those, only what the boot argument `only=` is part of the name of.
    pub fn run(&mut self, cases: &[Case]) {
        let only = boot::argument("only=");
        for case in cases {
            if only.is_none_or(|only| case.name.contains(only.as_str())) {
                self.one(case);
            }
        }
    }

    fn one(&mut self, case: &Case) {
        print!("test {} ... ", case.name);
        let mut test = Test {
            machine: self.machine,
            seen: [false; Deviation::COUNT],
        };
        let outcome = trap::catch(|| (case.run)(&mut test));
        breakpoints::lift();
        boot::reset_csrs(self.satp);
        if machine::is_standalone() {
            machine::protect(0..0);
        }
        arena::release_all();
        match outcome {
            Ok(Ok(())) if test.seen.contains(&true) => {
                self.counts.deviations += 1;
                print!("deviation: ");
                let mut separator = "";
                for deviation in Deviation::ALL {
                    if test.seen[deviation as usize] {
                        print!("{separator}{deviation}");
                        separator = "; ";
                    }
                }
                println!(" (ok)");
            }
            Ok(Ok(())) => {
                self.counts.passed += 1;
                println!("ok");
            }
            Ok(Err(Stop::Failed)) => {
                self.counts.failed += 1;
                println!("FAILED: {}", OneLine(REASON.get().as_str()));
            }
            Ok(Err(Stop::Skipped)) => {
                self.counts.skipped += 1;
                println!("skipped: {}", OneLine(REASON.get().as_str()));
            }
            Err(trap) => {
                self.counts.failed += 1;
                let panic = crate::panic::take();
                if panic.is_empty() {
                    println!("FAILED: unexpected trap: {trap:?}{}", Registers);
                } else {
                    println!("FAILED: {}", OneLine(panic.as_str()));
                }
            }
        }
    }

    /// Prints the figures and the closing line, and answers whether no test failed.
    pub fn close(&self) -> bool {
        let Counts {
            passed,
            failed,
            deviations,
            skipped,
        } = self.counts;
        for Figure { value, what } in FIGURES.get() {
            if !what.is_empty() {
                println!("counted: {value} {what}");
            }
        }
        println!(
            "test-kernel: {passed} passed, {failed} failed, {deviations} deviations, {skipped} skipped"
        );
        failed == 0
    }
}

/// The general registers at the trap that ended the test, by number.
struct Registers;

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (x, value) in trap::caught_registers().into_iter().enumerate().skip(1) {
            write!(f, " x{x} {value:#x}")?;
        }
        Ok(())
    }
}

/// Text with its line breaks and runs of spaces as single spaces.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for word in self.0.split_whitespace() {
            write!(f, "{separator}{word}")?;
            separator = " ";
        }
        Ok(())
    }
}

/// Makes the next guest accesses act as VS-mode, or as VU-mode (R2).
pub fn act_as_supervisor(supervisor: bool) {
    // SAFETY: SPVP is read by guest accesses only.
    unsafe {
        if supervisor {
            csr::hstatus::set(HSTATUS_SPVP);
        } else {
            csr::hstatus::clear(HSTATUS_SPVP);
        }
    }
}
