//! One instruction at a time: M-mode follows HS-mode through a piece of code, and stops it at a chosen instruction.
//!
//! The one idea: a breakpoint that is not delegated traps to M-mode and leaves no trace in HS-mode, whatever HS-mode is in the
//! middle of: its trap handler, a fixup, an access window. So each instruction there can be seen, and an interrupt can be made
//! to pend exactly before it. A step goes to the next instruction that is not simply followed by the one after it, or that
//! accesses a CSR; a second breakpoint waits in the trap vector, since any instruction on the way may trap.
//!
//! Nothing here may share code with what is followed while breakpoints are set: they are lifted first thing.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};

use guest_mem::csr::STATUS_SIE;

use super::csr;
use super::entry::Frame;

/// `c.ebreak`: fits where any instruction begins.
const BREAK: u16 = 0x9002;
/// The cause of a breakpoint.
pub const CAUSE: u64 = 3;

/// Different instructions that are remembered.
const TRACED: usize = 2048;
/// Where the program's code begins, and how much of it can be followed.
const CODE: u64 = 0x8020_0000;
const CODE_LEN: u64 = 0x10_0000;

/// What a breakpoint is for.
mod mode {
    /// There is none.
    pub const OFF: usize = 0;
    /// To follow.
    pub const FOLLOW: usize = 1;
    /// To interrupt once.
    pub const INTERRUPT: usize = 2;
}

static MODE: AtomicUsize = AtomicUsize::new(mode::OFF);

/// Where a breakpoint is, 0 for nowhere, and what was there.
struct Patch {
    address: AtomicU64,
    original: AtomicU16,
}

static PATCHES: [Patch; 2] = [const {
    Patch {
        address: AtomicU64::new(0),
        original: AtomicU16::new(0),
    }
}; 2];

/// Where the step began that is under way, whether interrupts were enabled there.
static STEP_START: AtomicU64 = AtomicU64::new(0);
static STEP_ENABLED: AtomicBool = AtomicBool::new(false);
/// The step is one instruction, wherever that leads.
static STEP_IS_ONE: AtomicBool = AtomicBool::new(false);

/// The different instructions that were followed, in order; the lowest bit says whether interrupts were enabled there.
static TRACE: [AtomicU64; TRACED] = [const { AtomicU64::new(0) }; TRACED];
static TRACE_LEN: AtomicUsize = AtomicUsize::new(0);
/// A bit for each 2 bytes of code.
static VISITED: [AtomicU64; (CODE_LEN / 128) as usize] =
    [const { AtomicU64::new(0) }; (CODE_LEN / 128) as usize];
/// Instructions since interrupts were last enabled, and the most there were.
static DISABLED: AtomicU64 = AtomicU64::new(0);
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Makes every instruction one that was not followed yet.
pub fn forget() {
    for word in &VISITED {
        word.store(0, Relaxed);
    }
}

/// The instructions that the last `follow` met first since [`forget`], and whether interrupts were enabled at the first visit.
pub fn trace() -> impl Iterator<Item = (u64, bool)> {
    TRACE[..TRACE_LEN.load(Relaxed)]
        .iter()
        .map(|entry| entry.load(Relaxed))
        .map(|entry| (entry & !1, entry & 1 != 0))
}

/// Begins to follow HS-mode from `pc` on.
///
/// # Safety
///
/// In M-mode, for the hart's own HS-mode, which runs this program's code until [`stop`].
pub unsafe fn follow(pc: u64) {
    TRACE_LEN.store(0, Relaxed);
    DISABLED.store(0, Relaxed);
    LONGEST.store(0, Relaxed);
    STEP_START.store(0, Relaxed);
    MODE.store(mode::FOLLOW, Relaxed);
    // SAFETY: the caller's.
    unsafe { set(&[pc]) };
}

/// Makes an interrupt pend just before HS-mode next executes the instruction at `pc`.
///
/// # Safety
///
/// As [`follow`]; an instruction begins at `pc`.
pub unsafe fn interrupt_at(pc: u64) {
    MODE.store(mode::INTERRUPT, Relaxed);
    // SAFETY: the caller's.
    unsafe { set(&[pc]) };
}

/// Ends either. Answers the longest row of instructions with interrupts disabled, or whether the interrupt's instruction came.
///
/// # Safety
///
/// As [`follow`].
pub unsafe fn stop() -> u64 {
    // SAFETY: the caller's.
    let lifted = unsafe { lift() };
    match MODE.swap(mode::OFF, Relaxed) {
        mode::FOLLOW => LONGEST.load(Relaxed),
        mode::INTERRUPT => u64::from(lifted == 0),
        _ => 0,
    }
}

/// Takes HS-mode's breakpoint, if it is one of these.
///
/// # Safety
///
/// In M-mode, from its trap handler.
pub unsafe fn take(frame: &Frame) -> bool {
    let pc = frame.mepc;
    if !PATCHES
        .iter()
        .any(|patch| patch.address.load(Relaxed) == pc)
    {
        return false;
    }
    // SAFETY: the breakpoints are those that `follow` and `interrupt_at` set.
    unsafe {
        lift();
        if MODE.load(Relaxed) == mode::INTERRUPT {
            csr::mip::set(csr::SUPERVISOR_SOFTWARE);
        } else {
            end_step(pc);
            set(&begin_step(frame));
        }
    }
    true
}

/// Notes the instructions of the step that ended at `pc`: before that one, or up to the one that trapped.
fn end_step(pc: u64) {
    let start = STEP_START.load(Relaxed);
    let trapped = pc == vector();
    let mut at = start;
    while at != 0 && at != pc {
        note(at);
        if STEP_IS_ONE.load(Relaxed) || trapped && at == crate::csr::sepc::read() {
            return;
        }
        at += length(at);
    }
}

/// Begins a step at the frame's `mepc`. Answers where it may end: in the trap vector, and else where.
fn begin_step(frame: &Frame) -> [u64; 2] {
    let pc = frame.mepc;
    let enabled = crate::csr::sstatus::read() & STATUS_SIE != 0;
    STEP_START.store(pc, Relaxed);
    STEP_ENABLED.store(enabled, Relaxed);
    // No breakpoint can be where the step begins: the first instruction of the trap vector is a step of its own.
    if pc == vector() {
        STEP_IS_ONE.store(true, Relaxed);
        return [pc + length(pc), 0];
    }
    let successor = successor(pc, frame);
    STEP_IS_ONE.store(successor.is_some(), Relaxed);
    let end = successor.unwrap_or_else(|| {
        let mut at = pc + length(pc);
        while self::successor(at, frame).is_none() {
            at += length(at);
        }
        at
    });
    [end, vector()]
}

/// Where a trap of HS-mode leads.
fn vector() -> u64 {
    crate::csr::stvec::read() & !3
}

/// Notes an instruction that was executed.
fn note(pc: u64) {
    let enabled = STEP_ENABLED.load(Relaxed);
    let disabled = if enabled {
        0
    } else {
        DISABLED.load(Relaxed) + 1
    };
    DISABLED.store(disabled, Relaxed);
    LONGEST.fetch_max(disabled, Relaxed);
    let offset = pc.wrapping_sub(CODE);
    assert!(offset < CODE_LEN, "code at {pc:#x} is followed");
    let (word, bit) = (&VISITED[(offset / 128) as usize], 1 << (offset / 2 % 64));
    if word.fetch_or(bit, Relaxed) & bit == 0 {
        let index = TRACE_LEN.fetch_add(1, Relaxed);
        TRACE[index].store(pc | u64::from(enabled), Relaxed);
    }
}

/// Sets breakpoints; 0 is none.
///
/// # Safety
///
/// Instructions of this program begin there.
unsafe fn set(pcs: &[u64]) {
    for (index, (&pc, patch)) in pcs.iter().zip(&PATCHES).enumerate() {
        if pc == 0 || pcs[..index].contains(&pc) {
            continue;
        }
        let instruction = pc as *mut u16;
        // SAFETY: the caller's; M-mode may write code, and nobody executes it meanwhile.
        unsafe {
            patch.original.store(instruction.read_volatile(), Relaxed);
            instruction.write_volatile(BREAK);
        }
        patch.address.store(pc, Relaxed);
    }
    fence_i();
}

/// Lifts all breakpoints; answers how many there were.
///
/// # Safety
///
/// They are where `set` put them.
unsafe fn lift() -> usize {
    let mut lifted = 0;
    for patch in &PATCHES {
        let pc = patch.address.swap(0, Relaxed);
        if pc != 0 {
            // SAFETY: as it was.
            unsafe { (pc as *mut u16).write_volatile(patch.original.load(Relaxed)) };
            lifted += 1;
        }
    }
    fence_i();
    lifted
}

fn fence_i() {
    // SAFETY: a fence only forgets fetched instructions.
    unsafe { asm!("fence.i") };
}

/// 16 bits of code.
fn parcel(at: u64) -> u64 {
    // SAFETY: an instruction of this program, which begins at a multiple of 2.
    u64::from(unsafe { (at as *const u16).read_volatile() })
}

/// Bytes of an instruction.
fn length(pc: u64) -> u64 {
    if parcel(pc) & 3 == 3 { 4 } else { 2 }
}

/// Moves `count` bits of `from` from `position` to `to`.
const fn bits(from: u64, position: u32, count: u32, to: u32) -> u64 {
    (from >> position & ((1 << count) - 1)) << to
}

/// Where the instruction at `pc` leads with the registers of the frame, if it is one to stop at: a branch, a jump, or an access
/// of a CSR. `None` for every other, which leads to the next.
fn successor(pc: u64, frame: &Frame) -> Option<u64> {
    let low = parcel(pc);
    if low & 3 == 3 {
        successor_of_long(pc, low | parcel(pc + 2) << 16, frame)
    } else {
        successor_of_compressed(pc, low, frame)
    }
}

/// `pc` plus an offset whose highest bit is its sign.
const fn target(pc: u64, offset: u64, sign: u32) -> u64 {
    let shift = 63 - sign;
    pc.wrapping_add(((offset << shift) as i64 >> shift) as u64)
}

fn successor_of_long(pc: u64, word: u64, frame: &Frame) -> Option<u64> {
    let x = |position| match bits(word, position, 5, 0) {
        0 => 0,
        register => frame.x[register as usize],
    };
    let next = match word & 0x7f {
        // jal
        0x6f => {
            let offset = bits(word, 31, 1, 20)
                | bits(word, 12, 8, 12)
                | bits(word, 20, 1, 11)
                | bits(word, 21, 10, 1);
            target(pc, offset, 20)
        }
        // jalr
        0x67 => target(x(15), bits(word, 20, 12, 0), 11) & !1,
        // Branches.
        0x63 => {
            let (one, other) = (x(15), x(20));
            let taken = match bits(word, 12, 3, 0) {
                0 => one == other,
                1 => one != other,
                4 => (one as i64) < other as i64,
                5 => one as i64 >= other as i64,
                6 => one < other,
                _ => one >= other,
            };
            let offset = bits(word, 31, 1, 12)
                | bits(word, 7, 1, 11)
                | bits(word, 25, 6, 5)
                | bits(word, 8, 4, 1);
            if taken {
                target(pc, offset, 12)
            } else {
                pc + 4
            }
        }
        // sret
        0x73 if word == 0x1020_0073 => crate::csr::sepc::read(),
        // Guest accesses and fences of the hypervisor are no CSR accesses.
        0x73 if bits(word, 12, 3, 0) == 4 => return None,
        0x73 => pc + 4,
        _ => return None,
    };
    Some(next)
}

fn successor_of_compressed(pc: u64, word: u64, frame: &Frame) -> Option<u64> {
    let register = bits(word, 7, 5, 0) as usize;
    match (word & 3, word >> 13) {
        // c.j
        (1, 5) => {
            let offset = bits(word, 12, 1, 11)
                | bits(word, 11, 1, 4)
                | bits(word, 9, 2, 8)
                | bits(word, 8, 1, 10)
                | bits(word, 7, 1, 6)
                | bits(word, 6, 1, 7)
                | bits(word, 3, 3, 1)
                | bits(word, 2, 1, 5);
            Some(target(pc, offset, 11))
        }
        // c.beqz, c.bnez
        (1, function @ (6 | 7)) => {
            let offset = bits(word, 12, 1, 8)
                | bits(word, 10, 2, 3)
                | bits(word, 5, 2, 6)
                | bits(word, 3, 2, 1)
                | bits(word, 2, 1, 5);
            let is_zero = frame.x[8 + bits(word, 7, 3, 0) as usize] == 0;
            let taken = is_zero == (function == 6);
            Some(if taken { target(pc, offset, 8) } else { pc + 2 })
        }
        // c.jr, c.jalr
        (2, 4) if bits(word, 2, 5, 0) == 0 && register != 0 => Some(frame.x[register]),
        _ => None,
    }
}
