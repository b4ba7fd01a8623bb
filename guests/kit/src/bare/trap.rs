//! Traps: interrupts are counted; an exception that was expected is recorded and stepped over; any
//! other ends the guest.
//!
//! The one idea: [`catch`] arms the handler for one exception, runs code that may trap, and gives
//! back what was seen.

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::sbi;
use crate::{csr_clear, csr_read, csr_write, println};

// On entry: sscratch = top of this hart's trap stack. All registers but x0 are saved in a `Frame`
// there and restored from it; while the handler runs sscratch holds the interrupted sp. Nothing
// here may fault.
global_asm!(
    r#"
    .section .text.trap, "ax", @progbits
    .balign 4
    .globl guest_trap_vector
guest_trap_vector:
    csrrw   sp, sscratch, sp
    addi    sp, sp, -256
    sd      x1, 8(sp)
    .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(sp)
    .endr
    mv      a0, sp
    call    {handler}
    ld      x1, 8(sp)
    .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(sp)
    .endr
    addi    sp, sp, 256
    csrrw   sp, sscratch, sp
    sret
    "#,
    handler = sym on_trap,
);

/// The interrupted registers; number 2 (sp) is in `sscratch` instead.
#[repr(C)]
struct Frame {
    x: [u64; 32],
}

/// An exception, as the handler saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// `scause`.
    pub cause: u64,
    /// `stval`.
    pub value: u64,
    /// `sepc`.
    pub pc: u64,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.cause {
            cause::FETCH_ACCESS => "instruction access fault",
            cause::ILLEGAL => "illegal instruction",
            cause::LOAD_ACCESS => "load access fault",
            cause::STORE_ACCESS => "store access fault",
            cause::FETCH_PAGE => "instruction page fault",
            cause::LOAD_PAGE => "load page fault",
            cause::STORE_PAGE => "store page fault",
            _ => "exception",
        };
        let Self { cause, value, pc } = self;
        write!(f, "{name} ({cause}), stval {value:#x}, pc {pc:#x}")
    }
}

/// Exception causes.
pub mod cause {
    /// Instruction access fault.
    pub const FETCH_ACCESS: u64 = 1;
    /// Illegal instruction.
    pub const ILLEGAL: u64 = 2;
    /// Load access fault.
    pub const LOAD_ACCESS: u64 = 5;
    /// Store/AMO access fault.
    pub const STORE_ACCESS: u64 = 7;
    /// Instruction page fault.
    pub const FETCH_PAGE: u64 = 12;
    /// Load page fault.
    pub const LOAD_PAGE: u64 = 13;
    /// Store/AMO page fault.
    pub const STORE_PAGE: u64 = 15;
}

/// Interrupt numbers; their bits in `sie` and `sip` have the same numbers.
pub mod interrupt {
    /// Supervisor software interrupt.
    pub const SOFTWARE: u64 = 1;
    /// Supervisor timer interrupt.
    pub const TIMER: u64 = 5;
    /// Supervisor external interrupt.
    pub const EXTERNAL: u64 = 9;
}

const INTERRUPT: u64 = 1 << 63;

/// Interrupts taken, by number, on all harts.
static TAKEN: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Whether one exception is expected. Only the boot hart expects any.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Whether more of them are.
static STAYS_ARMED: AtomicBool = AtomicBool::new(false);
static CAUSE: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static PC: AtomicU64 = AtomicU64::new(0);

/// How many interrupts with this number were taken so far.
pub fn taken(number: u64) -> u64 {
    TAKEN[number as usize].load(Ordering::SeqCst)
}

/// Runs `code` and gives back its result and the exception it met, if any. The instruction that
/// trapped has been stepped over; if it could not be fetched, execution went on at `ra`.
pub fn catch<R>(code: impl FnOnce() -> R) -> (R, Option<Trap>) {
    ARMED.store(true, Ordering::SeqCst);
    let result = code();
    let trap = (!ARMED.swap(false, Ordering::SeqCst)).then(|| Trap {
        cause: CAUSE.load(Ordering::SeqCst),
        value: VALUE.load(Ordering::SeqCst),
        pc: PC.load(Ordering::SeqCst),
    });
    (result, trap)
}

/// As [`catch`], but every exception that the code meets is stepped over; gives the first.
pub fn catch_first<R>(code: impl FnOnce() -> R) -> (R, Option<Trap>) {
    STAYS_ARMED.store(true, Ordering::SeqCst);
    let answer = catch(code);
    STAYS_ARMED.store(false, Ordering::SeqCst);
    answer
}

extern "C" fn on_trap(frame: &mut Frame) {
    let trap = Trap {
        cause: csr_read!("scause"),
        value: csr_read!("stval"),
        pc: csr_read!("sepc"),
    };
    if trap.cause & INTERRUPT != 0 {
        return on_interrupt(trap.cause & !INTERRUPT);
    }
    if ARMED.swap(false, Ordering::SeqCst) {
        CAUSE.store(trap.cause, Ordering::SeqCst);
        VALUE.store(trap.value, Ordering::SeqCst);
        PC.store(trap.pc, Ordering::SeqCst);
    } else if !STAYS_ARMED.load(Ordering::SeqCst) {
        println!("guest: unexpected {trap}");
        sbi::shutdown(true);
    }
    let next = match trap.cause {
        0 | cause::FETCH_ACCESS | cause::FETCH_PAGE => frame.x[1],
        _ => trap.pc + instruction_len(trap.pc),
    };
    // SAFETY: the handler returns behind the instruction that trapped, or to who called it.
    unsafe { csr_write!("sepc", next) };
}

/// The length of the instruction at `pc`, which was fetched a moment ago.
fn instruction_len(pc: u64) -> u64 {
    // SAFETY: guests here map what they execute readable, too.
    let parcel = unsafe { (pc as *const u16).read() };
    if parcel & 3 == 3 { 4 } else { 2 }
}

fn on_interrupt(number: u64) {
    // SAFETY: the interrupt is acknowledged (software) or switched off (the others) until somebody
    // wants it again.
    unsafe {
        match number {
            interrupt::SOFTWARE => csr_clear!("sip", 1u64 << number),
            _ => csr_clear!("sie", 1u64 << number),
        }
    }
    if let Some(count) = TAKEN.get(number as usize) {
        count.fetch_add(1, Ordering::SeqCst);
    }
}
