//! The devices of a machine without firmware: console, exit, timer, and the other harts' doorbells.
//!
//! The one idea: a 16550 is used where the device tree names it, or, without a device tree, where one answers. Everything
//! else talks HTIF: two words of this image that the machine finds by their symbols, `tohost` and `fromhost`.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::standard::NodeStandard;

use super::attempt;

// HTIF wants both symbols with the size 8. The page is theirs: a machine may put a device in its place.
global_asm!(
    r#"
    .section .htif, "aw", @progbits
    .balign 64
    .globl tohost
    .type tohost, @object
    .size tohost, 8
tohost:
    .dword 0
    .balign 64
    .globl fromhost
    .type fromhost, @object
    .size fromhost, 8
fromhost:
    .dword 0
    "#
);

unsafe extern "C" {
    static mut tohost: u64;
    static mut fromhost: u64;
}

/// The 16550: its transmit register, and its line status.
const UART: usize = 0x1000_0000;
const UART_STATUS: usize = UART + 5;
/// Line status: the transmitter is empty, and so is its queue.
const TRANSMITTER_IDLE: u8 = 0b0110_0000;
/// The test finisher, and what it is told: all well, or a code in the upper half.
const FINISHER: usize = 0x10_0000;
const FINISHER_PASS: u32 = 0x5555;
const FINISHER_FAIL: u32 = 0x3333;
/// The CLINT: a doorbell for each hart, a timer for each, and the time.
const CLINT: usize = 0x0200_0000;
const CLINT_TIMERS: usize = CLINT + 0x4000;
const CLINT_TIME: usize = CLINT + 0xbff8;
/// HTIF: the console's device with its command to print a byte.
const HTIF_PRINT: u64 = 0x0101 << 48;

static HAS_UART: AtomicBool = AtomicBool::new(false);

/// Decides what the console is.
///
/// # Safety
///
/// In M-mode, before any console output; `device_tree` is null or a device tree.
pub unsafe fn choose(device_tree: *const u8) {
    let tree = if device_tree.is_null() {
        None
    } else {
        // SAFETY: the caller's.
        unsafe { Fdt::from_raw(device_tree) }.ok()
    };
    let has_uart = match tree {
        Some(tree) => names_uart(tree),
        // SAFETY: at the worst nothing is there, and the load is skipped.
        None => unsafe { attempt::load(UART_STATUS) }
            .is_some_and(|status| status & TRANSMITTER_IDLE == TRANSMITTER_IDLE),
    };
    HAS_UART.store(has_uart, Ordering::Relaxed);
}

/// Whether the device tree has a 16550 at the place where one is looked for.
fn names_uart(tree: Fdt<'_>) -> bool {
    tree.find_node("/soc").is_some_and(|devices| {
        devices.children().any(|device| {
            device.name().ends_with("@10000000")
                && ["ns16550a", "ns16550"]
                    .into_iter()
                    .any(|model| device.is_compatible(model))
        })
    })
}

/// Prints a byte.
pub fn print(byte: u8) {
    if HAS_UART.load(Ordering::Relaxed) {
        // SAFETY: the console was chosen, so the 16550 is there.
        unsafe {
            while (UART_STATUS as *const u8).read_volatile() & TRANSMITTER_IDLE == 0 {}
            (UART as *mut u8).write_volatile(byte);
        }
    } else {
        send(HTIF_PRINT | u64::from(byte));
    }
}

/// Gives the host a word as soon as it has taken the last, and throws its answers away.
fn send(word: u64) {
    // SAFETY: the two words are HTIF's alone; volatile accesses, since the host reads and writes them, too.
    unsafe {
        while (&raw const tohost).read_volatile() != 0 {
            if (&raw const fromhost).read_volatile() != 0 {
                (&raw mut fromhost).write_volatile(0);
            }
        }
        (&raw mut tohost).write_volatile(word);
    }
}

/// Ends the run with an exit code.
pub fn exit(code: u8) -> ! {
    let word = match code {
        0 => FINISHER_PASS,
        _ => u32::from(code) << 16 | FINISHER_FAIL,
    };
    if HAS_UART.load(Ordering::Relaxed) {
        // SAFETY: a machine with a 16550 here has the finisher, or nothing, or does not outlive this anyway.
        unsafe { attempt::store(FINISHER, word) };
    }
    loop {
        send(u64::from(code) << 1 | 1);
    }
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
