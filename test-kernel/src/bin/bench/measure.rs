//! One measurement: a call through a function pointer, less the same call of a function that does nothing.
//!
//! The one idea: everything that is measured has one signature, so that the call around it always costs the same.

use core::arch::asm;
use core::cell::Cell;
use core::fmt;
use core::hint::black_box;

use test_kernel::{machine, println};

/// What is measured: `(environment, guest address, host buffer, length)`. The answer keeps the work from being optimized away.
pub type Operation<E> = fn(&E, u64, *mut u8, usize) -> u64;

/// In what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// `instret`: exact under `-icount shift=0` with one hart.
    Instructions,
    /// `cycle`: of a simulator or a real core.
    Cycles,
    /// `time`.
    Time,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "instructions",
            Self::Cycles => "cycles",
            Self::Time => "ticks",
        })
    }
}

/// What a line is called.
#[derive(Clone, Copy)]
pub struct Name {
    /// What is done.
    pub operation: &'static str,
    /// By which way.
    pub path: &'static str,
    /// To how many bytes, or among how many slots.
    pub size: usize,
    /// How the addresses lie.
    pub shape: &'static str,
}

impl Name {
    /// An operation that has no shapes.
    pub const fn plain(operation: &'static str, path: &'static str, size: usize) -> Self {
        Self {
            operation,
            path,
            size,
            shape: "aligned",
        }
    }
}

/// Calls before the one that counts: caches, TLBs and lazily made translations are warm. One has to do where each cycle is
/// simulated.
const WARM: usize = 3;
const WARM_IN_SMALL: usize = 1;

/// Ticks that a timed run takes at least: 2 ms at QEMU's 10 MHz.
const ENOUGH_TICKS: u64 = 20_000;

/// Timed runs, of which the shortest counts.
const RUNS: usize = 3;

/// Measures and prints.
pub struct Bench {
    measure: Measure,
    small: bool,
    lines: Cell<usize>,
}

impl Bench {
    /// For a measure; a small run is one of few rows and few cycles.
    pub fn new(measure: Measure, small: bool) -> Self {
        Self {
            measure,
            small,
            lines: Cell::new(0),
        }
    }

    /// Whether the run is a small one.
    pub fn is_small(&self) -> bool {
        self.small
    }

    /// Lines printed.
    pub fn lines(&self) -> usize {
        self.lines.get()
    }

    /// Measures one operation at one address.
    pub fn row<E>(
        &self,
        name: Name,
        operation: Operation<E>,
        environment: &E,
        address: u64,
        buffer: *mut u8,
        len: usize,
    ) {
        self.average(name, operation, environment, &[address], buffer, len);
    }

    /// Measures one call that does `shares` operations, as one of them.
    #[expect(clippy::too_many_arguments, reason = "those of a row, and the shares")]
    pub fn shared<E>(
        &self,
        name: Name,
        shares: usize,
        operation: Operation<E>,
        environment: &E,
        address: u64,
        buffer: *mut u8,
        len: usize,
    ) {
        self.measure(
            name,
            shares,
            operation,
            environment,
            &[address],
            buffer,
            len,
        );
    }

    /// Measures one operation at each of the addresses in turn.
    pub fn average<E>(
        &self,
        name: Name,
        operation: Operation<E>,
        environment: &E,
        addresses: &[u64],
        buffer: *mut u8,
        len: usize,
    ) {
        self.measure(name, 1, operation, environment, addresses, buffer, len);
    }

    #[expect(clippy::too_many_arguments, reason = "those of a row, and the shares")]
    fn measure<E>(
        &self,
        name: Name,
        shares: usize,
        operation: Operation<E>,
        environment: &E,
        addresses: &[u64],
        buffer: *mut u8,
        len: usize,
    ) {
        let counter = match self.measure {
            Measure::Cycles => cycle,
            Measure::Instructions | Measure::Time => instret,
        };
        let one = |address| counted(counter, operation, environment, address, buffer, len);
        let nothing = |address| counted(counter, empty, environment, address, buffer, len);
        let warm = if self.small { WARM_IN_SMALL } else { WARM };
        for _ in 0..warm {
            for &address in addresses {
                one(address);
                nothing(address);
            }
        }
        let (value, calls) = match self.measure {
            Measure::Instructions | Measure::Cycles => {
                let net = |&at| one(at).saturating_sub(nothing(at));
                (addresses.iter().map(net).sum(), addresses.len())
            }
            Measure::Time => {
                let all = |operation: Operation<E>, rounds: usize| {
                    ticks(operation, environment, addresses, rounds, buffer, len)
                };
                let mut rounds = 1;
                while all(operation, rounds) < ENOUGH_TICKS {
                    rounds *= 2;
                }
                let best = |operation| (0..RUNS).map(|_| all(operation, rounds)).min();
                let value = best(operation).unwrap_or(0);
                let nothing = best(empty).unwrap_or(0);
                (value.saturating_sub(nothing), rounds * addresses.len())
            }
        };
        self.print(name, value, calls * shares);
    }

    /// Prints a line.
    pub fn print(&self, name: Name, value: u64, calls: usize) {
        let Name {
            operation,
            path,
            size,
            shape,
        } = name;
        println!("bench {operation} {path} {size} {shape} {value} {calls}");
        self.lines.set(self.lines.get() + 1);
    }
}

fn empty<E>(_: &E, _: u64, _: *mut u8, _: usize) -> u64 {
    0
}

/// What a counter counts during one call.
#[inline(never)]
fn counted<E>(
    counter: fn() -> u64,
    operation: Operation<E>,
    environment: &E,
    address: u64,
    buffer: *mut u8,
    len: usize,
) -> u64 {
    let operation = black_box(operation);
    let before = counter();
    let answer = operation(environment, address, buffer, len);
    let after = counter();
    black_box(answer);
    after - before
}

/// Ticks of `rounds` calls at each address.
#[inline(never)]
fn ticks<E>(
    operation: Operation<E>,
    environment: &E,
    addresses: &[u64],
    rounds: usize,
    buffer: *mut u8,
    len: usize,
) -> u64 {
    let operation = black_box(operation);
    let before = machine::time();
    for _ in 0..rounds {
        for &address in addresses {
            black_box(operation(environment, address, buffer, len));
        }
    }
    machine::time() - before
}

/// Cycles of this hart until now.
pub fn cycle() -> u64 {
    let value: u64;
    // SAFETY: reading a counter changes nothing. Not `nomem`: memory accesses stay on their side of it.
    unsafe { asm!("rdcycle {}", out(reg) value, options(nostack, preserves_flags)) };
    value
}

fn instret() -> u64 {
    let value: u64;
    // SAFETY: reading a counter changes nothing. Not `nomem`: memory accesses stay on their side of it.
    unsafe { asm!("rdinstret {}", out(reg) value, options(nostack, preserves_flags)) };
    value
}
