//! The end: turning the machine off, with an exit code where the machine has one.
//!
//! QEMU's `virt` has a test finisher: a store there ends QEMU with a code that nothing else in the machine can give, since no
//! guest is ever shown the finisher. Without one, or where the firmware does not let the hypervisor reach it, the SBI turns
//! the machine off, and whoever judges the run has the hypervisor's marked lines alone (I18).

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use sbi_rt::{NoReason, Shutdown, SystemFailure};

use crate::console;
use crate::memory::frames::{FRAME, Range};

/// How a run of the hypervisor ended; the numbers are the machine's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest shut down, or nothing was wrong with a series of guests.
    Good = 0,
    /// The guest ended in another way, or something was wrong with a series.
    GuestFailed = 3,
    /// The hypervisor could not go on.
    GaveUp = 4,
    /// The hypervisor panicked.
    Panicked = 5,
}

/// Where the finisher is; 0 for none.
static FINISHER: AtomicU64 = AtomicU64::new(0);

/// How often a hart looks whether the machine has ended, before it tries another way.
const PATIENCE: u64 = 50_000_000;

// Contract of `finisher_store(a0 = address, a1 = value)`:
//   out:      `value` was stored at `address` if that is possible
//   clobbers: t0, and stvec: a trap of the store goes on behind it, as every later trap of this hart
//   faults:   the store, which lands at the return
global_asm!(
    ".pushsection .text.finisher_store, \"ax\", @progbits",
    ".balign 4",
    ".globl finisher_store",
    ".type finisher_store, @function",
    "finisher_store:",
    "la t0, 1f",
    "csrw stvec, t0",
    "sw a1, 0(a0)",
    ".balign 4",
    "1: ret",
    ".size finisher_store, . - finisher_store",
    ".popsection",
);

unsafe extern "C" {
    fn finisher_store(address: u64, value: u32);
}

/// Takes note of the machine's finisher.
pub fn initialize(finisher: Option<u64>) {
    // Another address would be misaligned for the store.
    let finisher = finisher.filter(|address| address.is_multiple_of(4));
    FINISHER.store(finisher.unwrap_or(0), Ordering::Relaxed);
}

/// The frame with the finisher's register, for the hypervisor's own page table.
pub fn finisher() -> Option<Range> {
    let address = FINISHER.load(Ordering::Relaxed);
    (address != 0)
        .then(|| Range::from_len(address & !(FRAME - 1), FRAME))
        .flatten()
}

/// Turns the machine off after a run.
pub fn off(outcome: Outcome) -> ! {
    finish(outcome);
    match outcome {
        Outcome::Good | Outcome::GuestFailed => sbi_rt::system_reset(Shutdown, NoReason),
        Outcome::GaveUp | Outcome::Panicked => sbi_rt::system_reset(Shutdown, SystemFailure),
    };
    stop()
}

/// Says why the hypervisor cannot go on, and turns the machine off.
pub fn give_up(why: fmt::Arguments<'_>) -> ! {
    console::last_words(format_args!("cannot go on: {why}"));
    off(Outcome::GaveUp)
}

/// Ends the machine with the outcome as its exit code, if it has a finisher that the firmware lets this hart reach.
fn finish(outcome: Outcome) {
    const PASS: u32 = 0x5555;
    const FAIL: u32 = 0x3333;
    let finisher = FINISHER.load(Ordering::Relaxed);
    if finisher == 0 {
        return;
    }
    let value = match outcome {
        Outcome::Good => PASS,
        _ => (outcome as u32) << 16 | FAIL,
    };
    // SAFETY: the device tree says that a finisher is there, and the register has 32 bits. The machine ends here: nobody needs
    // this hart's `stvec` any more.
    unsafe { finisher_store(finisher, value) };
    for _ in 0..PATIENCE {
        core::hint::spin_loop();
    }
}

/// For firmware that cannot reset the system.
fn stop() -> ! {
    #[expect(
        deprecated,
        reason = "what is left when the reset extension has failed"
    )]
    sbi_rt::legacy::shutdown()
}
