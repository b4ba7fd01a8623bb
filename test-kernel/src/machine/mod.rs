//! The program on a machine without firmware: it is its own, from M-mode.
//!
//! The one idea: the entry notices the mode that it was started in. In M-mode the shim in this folder opens what firmware
//! would have opened (delegation, PMP, counters), drops to HS-mode, and from then on answers the few SBI calls that the
//! program makes. The rest of the program knows no difference, but it can ask for M-mode's services by the functions here.
//!
//! All that is assumed: RAM at 0x80000000, a CLINT at 0x02000000, and for console and exit either a 16550 with the test
//! finisher or HTIF. Whatever a hart lacks (PMP, `menvcfg`, `mstateen0`) is skipped: see `attempt`; a cause that it does not
//! delegate is redirected: see `service`.

mod attempt;
mod board;
mod csr;
mod entry;
mod service;
mod set_up;
mod stepping;
mod words;

use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::global::Global;

use set_up::DELEGATED;
pub use set_up::harts;
pub use stepping::{forget, trace};

/// Harts that the shim has a stack for; others sleep for ever.
pub const MAX_HARTS: usize = 8;

/// `menvcfg.DTE`: Ssdbltrp is on.
pub const DOUBLE_TRAPS: u64 = 1 << 59;

/// The memory that PMP refuses HS-mode, as firmware's own is refused: RAM below the program.
pub const HOLE: Range<u64> = 0x8000_0000..0x8020_0000;

/// Whether the shim runs below the program.
static STANDALONE: AtomicBool = AtomicBool::new(false);

/// Whether the program has M-mode's services: no firmware runs below it.
pub fn is_standalone() -> bool {
    STANDALONE.load(Ordering::Relaxed)
}

/// The time in the machine's own ticks: of the CSR, which firmware provides on every machine, or of the CLINT.
pub fn time() -> u64 {
    if is_standalone() {
        board::time()
    } else {
        crate::csr::time::read()
    }
}

/// The shim's own SBI extension, of the range for experiments.
const EXTENSION: usize = 0x0867_6d00;
/// Writes `medeleg`.
const DELEGATE: usize = 0;
/// Writes `menvcfg`.
const ENVIRONMENT: usize = 1;
/// Refuses a range by PMP.
const PROTECT: usize = 2;
/// Begins to follow the caller, instruction by instruction.
const FOLLOW: usize = 3;
/// Makes an interrupt pend before an instruction.
const INTERRUPT_AT: usize = 4;
/// Ends either.
const STOP: usize = 5;

/// A trap that M-mode took in place of HS-mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// `mcause`.
    pub mcause: u64,
    /// `mepc`.
    pub mepc: u64,
    /// `mtval`.
    pub mtval: u64,
    /// `mtval2`.
    pub mtval2: u64,
    /// `mstatus.GVA`.
    pub gva: bool,
}

/// Whether the next trap that M-mode takes is expected, and if it came, what it was.
#[derive(Clone, Copy)]
enum Watch {
    Off,
    Expecting,
    Saw(Taken),
}

static WATCH: Global<Watch> = Global::new(Watch::Off);

/// Runs `body`; answers the last trap that M-mode took meanwhile, each of which is answered by going on 4 bytes later.
pub fn watched<R>(body: impl FnOnce() -> R) -> (R, Option<Taken>) {
    WATCH.set(Watch::Expecting);
    let result = body();
    match WATCH.replace(Watch::Off) {
        Watch::Saw(taken) => (result, Some(taken)),
        Watch::Off | Watch::Expecting => (result, None),
    }
}

/// Writes `medeleg` and answers what it was. Standalone only.
fn delegate(causes: u64) -> u64 {
    call(DELEGATE, causes, 0)
}

/// Runs `body` with this cause left to M-mode, which redirects it as firmware does. Standalone only.
pub fn undelegated<R>(cause: u64, body: impl FnOnce() -> R) -> R {
    let delegated = delegate(DELEGATED & !(1 << cause));
    let result = body();
    delegate(delegated);
    result
}

/// Runs `body` with these bits of `menvcfg` set, too, where the hart has them. Standalone only.
pub fn in_environment<R>(bits: u64, body: impl FnOnce() -> R) -> R {
    let before = call(ENVIRONMENT, set_up::ENVIRONMENT | bits, 0);
    let result = body();
    call(ENVIRONMENT, before, 0);
    result
}

/// Runs `body` with the bits of `menvcfg` in `of` as in `value`, where the hart has them. Standalone only.
pub fn with_environment<R>(of: u64, value: u64, body: impl FnOnce() -> R) -> R {
    let before = call(ENVIRONMENT, set_up::ENVIRONMENT & !of | value & of, 0);
    let result = body();
    call(ENVIRONMENT, before, 0);
    result
}

/// Of `bits`, those that `menvcfg` holds both set and clear. Standalone only.
pub fn environment_held(bits: u64) -> u64 {
    let before = call(ENVIRONMENT, set_up::ENVIRONMENT | bits, 0);
    let set = call(ENVIRONMENT, set_up::ENVIRONMENT & !bits, 0);
    let clear = call(ENVIRONMENT, before, 0);
    bits & set & !clear
}

/// Makes PMP refuse HS-mode and its guests all access to the range (multiples of 4; none if empty) in place of the last one,
/// and fences. Answers whether PMP took it, which coarse granules may not. Standalone only.
pub fn protect(range: Range<u64>) -> bool {
    call(PROTECT, range.start, range.end) == 1
}

/// What M-mode does from [`step`] to [`stop`].
#[derive(Clone, Copy)]
pub enum Stepping {
    /// It follows this hart through every instruction of HS-mode, its trap handler's too. Interrupts must not come meanwhile.
    Follow,
    /// It makes a software interrupt pend just before this hart next executes the instruction here.
    InterruptAt(u64),
}

/// Begins to step. Standalone only.
// Never inlined: what comes after the call has to be the same instructions for both.
#[inline(never)]
pub fn step(stepping: Stepping) {
    let (function, pc) = match stepping {
        Stepping::Follow => (FOLLOW, 0),
        Stepping::InterruptAt(pc) => (INTERRUPT_AT, pc),
    };
    call(core::hint::black_box(function), pc, 0);
}

/// Ends [`step`]. Answers the longest row of instructions with interrupts disabled that was followed, or 1 if the instruction of
/// the interrupt came. Standalone only.
pub fn stop() -> u64 {
    call(STOP, 0, 0)
}

/// A call of the shim's own extension; its one answer.
fn call(function: usize, first: u64, second: u64) -> u64 {
    assert!(is_standalone(), "no shim to call");
    let answer;
    // SAFETY: the shim changes nothing but what its services say.
    unsafe {
        asm!(
            "ecall",
            inout("a0") first => _,
            inout("a1") second => answer,
            in("a6") function,
            in("a7") EXTENSION,
        );
    }
    answer
}
