//! The devices of a machine without firmware: console, exit, timer, and the other harts' doorbells.
//!
//! The one idea: a 16550 is used where the device tree names one, or, without a device tree, where one answers. Everything
//! else talks HTIF (`words`). Nothing here waits for ever for a device that may not be there.

use dtoolkit::fdt::Fdt;

use super::{attempt, words};
use crate::global::Global;
use crate::shim::uart::{Uart, Width, is_idle};
use crate::shim::waiting::Waiting;

/// The test finisher, and what it is told: all well, or a code in the upper half.
const FINISHER: usize = 0x10_0000;
const FINISHER_PASS: u32 = 0x5555;
const FINISHER_FAIL: u32 = 0x3333;
/// The CLINT: a doorbell for each hart, a timer for each, and the time.
const CLINT: usize = 0x0200_0000;
const CLINT_TIMERS: usize = CLINT + 0x4000;
const CLINT_TIME: usize = CLINT + 0xbff8;

/// The console, if it is a 16550. Written once, before the program runs.
static UART: Global<Option<Uart>> = Global::new(None);
/// For its transmitter.
static TRANSMITTER: Waiting = Waiting::new();

/// Decides what the console is.
///
/// # Safety
///
/// In M-mode, before any console output.
pub unsafe fn choose(tree: Option<Fdt<'_>>) {
    let uart = match tree {
        Some(tree) => Uart::of(tree),
        None => Uart::GUESSES.into_iter().find(|guess| {
            // SAFETY: at the worst nothing is there, and the load is skipped.
            unsafe { attempt::load(guess.line_status(), guess.width) }.is_some_and(is_idle)
        }),
    };
    UART.set(uart);
}

/// Prints a byte, if there is anybody to take it.
pub fn print(byte: u8) {
    match UART.get() {
        // SAFETY: the console was chosen, so the 16550 is there.
        Some(uart) => unsafe {
            if TRANSMITTER.until(|| is_idle(load(uart.line_status(), uart.width))) {
                store(uart.transmit(), uart.width, byte);
            }
        },
        None => words::print(byte),
    }
}

/// Reads a device's register.
///
/// # Safety
///
/// It is there.
unsafe fn load(address: usize, width: Width) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        match width {
            Width::Byte => u32::from((address as *const u8).read_volatile()),
            Width::Word => (address as *const u32).read_volatile(),
        }
    }
}

/// Writes a device's register.
///
/// # Safety
///
/// It is there.
unsafe fn store(address: usize, width: Width, value: u8) {
    // SAFETY: the caller's.
    unsafe {
        match width {
            Width::Byte => (address as *mut u8).write_volatile(value),
            Width::Word => (address as *mut u32).write_volatile(u32::from(value)),
        }
    }
}

/// Ends the run with an exit code.
pub fn exit(code: u8) -> ! {
    let word = match code {
        0 => FINISHER_PASS,
        _ => u32::from(code) << 16 | FINISHER_FAIL,
    };
    if UART.get().is_some() {
        // SAFETY: a machine with a 16550 has the finisher here, or nothing, or does not outlive this anyway.
        unsafe { attempt::store(FINISHER, word) };
    }
    words::end(code)
}

/// Makes the timer interrupt of a hart pend from this time on.
pub fn set_timer(hart: usize, time: u64) {
    // SAFETY: the CLINT is where every machine of this kind has it.
    unsafe { ((CLINT_TIMERS + 8 * hart) as *mut u64).write_volatile(time) };
}

/// The time, in any mode: not every hart has it in a CSR.
pub fn time() -> u64 {
    // SAFETY: as above; HS-mode maps devices where they are.
    unsafe { (CLINT_TIME as *const u64).read_volatile() }
}

/// Rings, or silences, a hart's doorbell: its machine software interrupt.
pub fn ring(hart: usize, on: bool) {
    // SAFETY: as above.
    unsafe { ((CLINT + 4 * hart) as *mut u32).write_volatile(u32::from(on)) };
}
