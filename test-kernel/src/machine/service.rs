//! M-mode's trap handler: the SBI calls of the program, the timer and the doorbell, and traps that are not delegated.
//!
//! The one idea: a test that asked for it sees what M-mode took. Any other trap goes on to the mode that should have had it, so
//! that a machine that does not delegate every cause runs the program like every other.

use super::entry::Frame;
use super::set_up::NotStarted;
use super::{
    DELEGATE, ENVIRONMENT, EXTENSION, FOLLOW, INTERRUPT_AT, MAX_HARTS, PROTECT, STOP, Taken, WATCH,
    Watch, board, csr, set_up, stepping,
};
use crate::shim::redirect::{Found, STATUS_GVA, Taker, redirect};

/// `mcause`: an interrupt.
const INTERRUPT: u64 = 1 << 63;
/// `mcause`: a call from HS-mode.
const CALL: u64 = 9;

// SBI extensions and functions, by the numbers of the SBI specification.
const LEGACY_PUTCHAR: usize = 0x01;
const TIMER: usize = 0x5449_4d45;
const SOFTWARE: usize = 0x0073_5049;
const HARTS: usize = 0x0048_534d;
const RESET: usize = 0x5352_5354;
const HART_START: usize = 0;
const HART_STOP: usize = 1;
const RESET_REASON_FAILURE: u64 = 1;

const NOT_SUPPORTED: i64 = -2;
const INVALID_PARAMETER: i64 = -3;
const ALREADY_AVAILABLE: i64 = -6;

/// The exit code of a program that M-mode had to end.
const LOST: u8 = 2;

unsafe extern "C" {
    /// Waits in M-mode, from anywhere. In `entry`.
    fn __machine_park();
}

/// Decides what becomes of a trap that M-mode took; the entry resumes at what the frame says then.
pub extern "C" fn handle(frame: &mut Frame) {
    let hart = csr::mhartid::read() as usize;
    match csr::mcause::read() {
        // SAFETY: M-mode; HS has an interrupt in place of M, which it asked for.
        cause if cause == INTERRUPT | 7 => unsafe {
            csr::mie::clear(csr::MACHINE_TIMER);
            csr::mip::set(csr::SUPERVISOR_TIMER);
        },
        cause if cause == INTERRUPT | 3 => {
            board::ring(hart, false);
            // SAFETY: as above.
            unsafe { csr::mip::set(csr::SUPERVISOR_SOFTWARE) };
        }
        CALL => {
            frame.mepc += 4;
            call(frame, hart);
        }
        // SAFETY: M-mode's trap handler.
        stepping::CAUSE if unsafe { stepping::take(frame) } => {}
        cause => undelegated(frame, cause),
    }
}

/// A trap that is not delegated: one that the program waits for, or another mode's, or the end.
fn undelegated(frame: &mut Frame, mcause: u64) {
    let taken = Taken {
        mcause,
        mepc: frame.mepc,
        mtval: csr::mtval::read(),
        mtval2: csr::mtval2::read(),
        gva: frame.mstatus & STATUS_GVA != 0,
    };
    let from_supervisor = frame.mstatus & csr::MPP == csr::MPP_SUPERVISOR;
    if from_supervisor && !matches!(WATCH.get(), Watch::Off) {
        WATCH.set(Watch::Saw(taken));
        frame.mepc += 4;
        return;
    }
    // Those that are never delegated have nobody else.
    let is_lost = mcause & INTERRUPT != 0 || set_up::DELEGATED >> (mcause & 63) & 1 == 0;
    if is_lost || !pass_on(frame, &taken) {
        crate::console::write_to(board::print, format_args!("\nM-mode: {taken:x?}\n"));
        board::exit(LOST);
    }
}

/// Makes the trap one of the mode that would have taken it, had it been delegated. Answers whether there is one.
fn pass_on(frame: &mut Frame, taken: &Taken) -> bool {
    use crate::csr as lower;
    let Some(left) = redirect(Found {
        cause: taken.mcause,
        mstatus: frame.mstatus,
        hstatus: lower::hstatus::read(),
        hedeleg: lower::hedeleg::read(),
        vsstatus: lower::vsstatus::read(),
        stvec: lower::stvec::read(),
        vstvec: lower::vstvec::read(),
    }) else {
        return false;
    };
    // SAFETY: M-mode; the taker expects these to change at any trap.
    unsafe {
        match left.taker {
            Taker::Hypervisor { hstatus } => {
                lower::hstatus::write(hstatus);
                lower::sepc::write(taken.mepc);
                lower::scause::write(taken.mcause);
                lower::stval::write(taken.mtval);
                lower::htval::write(taken.mtval2);
                lower::htinst::write(csr::mtinst::read());
            }
            Taker::Guest { vsstatus } => {
                lower::vsstatus::write(vsstatus);
                lower::vsepc::write(taken.mepc);
                lower::vscause::write(taken.mcause);
                lower::vstval::write(taken.mtval);
            }
        }
    }
    frame.mepc = left.pc;
    frame.mstatus = left.mstatus;
    true
}

/// Serves a call.
fn call(frame: &mut Frame, hart: usize) {
    let [a0, a1, a2] = [frame.x[10], frame.x[11], frame.x[12]];
    let function = frame.x[16] as usize;
    // SAFETY: M-mode with interrupts off; the program asks for what it survives.
    let own = |function| unsafe {
        match function {
            DELEGATE => {
                let before = csr::medeleg::read();
                csr::medeleg::write(a0);
                Ok(before)
            }
            ENVIRONMENT => Ok(set_up::environment(a0)),
            PROTECT => Ok(u64::from(set_up::protect(a0, a1))),
            FOLLOW => {
                csr::medeleg::clear(1 << stepping::CAUSE);
                stepping::follow(frame.mepc);
                Ok(0)
            }
            INTERRUPT_AT => {
                csr::medeleg::clear(1 << stepping::CAUSE);
                stepping::interrupt_at(a0);
                Ok(0)
            }
            STOP => {
                csr::medeleg::set(1 << stepping::CAUSE);
                Ok(stepping::stop())
            }
            _ => Err(NOT_SUPPORTED),
        }
    };
    let result = match (frame.x[17] as usize, function) {
        (LEGACY_PUTCHAR, _) => {
            board::print(a0 as u8);
            Ok(0)
        }
        (TIMER, 0) => {
            set_timer(hart, a0);
            Ok(0)
        }
        (SOFTWARE, 0) => {
            ring(a0, a1);
            Ok(0)
        }
        (HARTS, HART_START) => match set_up::start(a0 as usize, a1 as usize, a2 as usize) {
            Ok(()) => Ok(0),
            Err(NotStarted::Absent) => Err(INVALID_PARAMETER),
            Err(NotStarted::Running) => Err(ALREADY_AVAILABLE),
        },
        (HARTS, HART_STOP) => {
            // Back to M-mode, where the hart waits.
            frame.mepc = __machine_park as *const () as u64;
            frame.mstatus |= csr::MPP;
            return;
        }
        (RESET, 0) => board::exit(u8::from(a1 == RESET_REASON_FAILURE)),
        (EXTENSION, function) => own(function),
        _ => Err(NOT_SUPPORTED),
    };
    let (error, value) = match result {
        Ok(value) => (0, value),
        Err(error) => (error, 0),
    };
    frame.x[10] = error as u64;
    // A legacy call leaves a1 alone.
    if frame.x[17] as usize != LEGACY_PUTCHAR {
        frame.x[11] = value;
    }
}

/// Arms the timer of this hart.
fn set_timer(hart: usize, time: u64) {
    board::set_timer(hart, time);
    // SAFETY: M-mode; the interrupt that HS saw is over, and the next one comes through M.
    unsafe {
        csr::mip::clear(csr::SUPERVISOR_TIMER);
        csr::mie::set(csr::MACHINE_TIMER);
    }
}

/// Rings the doorbells of the harts `base` + n for each bit n of `mask`; of all, if `base` is all ones.
fn ring(mask: u64, base: u64) {
    for hart in 0..MAX_HARTS {
        let asked = base == u64::MAX
            || (hart as u64)
                .checked_sub(base)
                .is_some_and(|bit| bit < 64 && mask >> bit & 1 != 0);
        if asked {
            board::ring(hart, true);
        }
    }
}
