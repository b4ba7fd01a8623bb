//! Accesses across the edge of a device: a page of memory, or of another device, is its neighbour in virtual memory.
//!
//! The one idea: such an access is either done whole (each part where it belongs, with its own bytes) or refused by one
//! exception with nothing done. What comes of it is compared with accesses of one page each.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::trap::{Trap, catch};

use crate::paging::{self, pte, window};
use crate::report::Report;

const UART: u64 = 0x1000_0000;
const LCR: u64 = 3;
const DLAB: u8 = 0x80;
/// The page of the interrupt controller that begins with the enable bits of context 0.
const PLIC_ENABLE: u64 = 0x0c00_2000;

/// Pages of the window.
const PAGES: u64 = 40;

#[repr(C, align(4096))]
struct Memory([AtomicU64; 512]);

static MEMORY: Memory = Memory([const { AtomicU64::new(0) }; 512]);

/// A page and what lies at the edge that an access crosses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Memory,
    Uart,
    Plic,
}

/// What a register holds that no access changed.
const UNTOUCHED: u64 = 0x7777_7777_7777_7777;
/// Bytes of memory at the edge.
const IN_MEMORY: u64 = 0x8182_8384_8586_8788;
/// What stores store: as registers of the serial port, divisor, FIFO on, latch open, in either half.
const STORED: u64 = 0x8301_5a3c_8301_a5c3;

fn get(register: u64) -> u8 {
    // SAFETY: a load from a device register.
    unsafe { ((UART + register) as *const u8).read_volatile() }
}

fn set(register: u64, value: u8) {
    // SAFETY: a store to a device register.
    unsafe { ((UART + register) as *mut u8).write_volatile(value) };
}

fn enabled() -> u32 {
    // SAFETY: a load from a device register.
    unsafe { (PLIC_ENABLE as *const u32).read_volatile() }
}

fn enable(bits: u32) {
    // SAFETY: a store to a device register.
    unsafe { (PLIC_ENABLE as *mut u32).write_volatile(bits) };
}

impl Side {
    fn physical(self) -> u64 {
        match self {
            Self::Memory => &raw const MEMORY as u64,
            Self::Uart => UART,
            Self::Plic => PLIC_ENABLE,
        }
    }

    /// Everything at both edges as it is to be before an access.
    fn prepare() {
        MEMORY.0[0].store(IN_MEMORY, Ordering::SeqCst);
        MEMORY.0[511].store(IN_MEMORY, Ordering::SeqCst);
        set(0, 0x11);
        set(1, 0x22);
        enable(0);
    }

    /// The four bytes at the end of the page, or at its begin, as accesses of one page see them.
    fn bytes(self, at_end: bool) -> u32 {
        match (self, at_end) {
            (Self::Memory, true) => (MEMORY.0[511].load(Ordering::SeqCst) >> 32) as u32,
            (Self::Memory, false) => MEMORY.0[0].load(Ordering::SeqCst) as u32,
            // Nothing is at the end of a device's page.
            (_, true) => 0,
            (Self::Uart, false) => u32::from_le_bytes([get(0), get(1), get(2), get(3)]),
            (Self::Plic, false) => enabled(),
        }
    }
}

/// Two neighbours, and how many bytes an access has in each of them.
struct Edge {
    claim: &'static str,
    sides: [Side; 2],
    half: u64,
}

/// What one access came to.
#[derive(Clone, Copy, Default)]
struct Outcome {
    right: bool,
    value: u64,
    trap: Option<Trap>,
}

fn load(address: u64, width: u64) -> (u64, Option<Trap>) {
    let mut value = UNTOUCHED;
    let at = &raw mut value;
    // SAFETY: loads from pages that are mapped, or that trap and are stepped over.
    let ((), trap) = catch(|| unsafe {
        let mut loaded = UNTOUCHED;
        match width {
            8 => asm!("ld {0}, 0({1})", inout(reg) loaded, in(reg) address),
            4 => asm!("lwu {0}, 0({1})", inout(reg) loaded, in(reg) address),
            _ => asm!("lhu {0}, 0({1})", inout(reg) loaded, in(reg) address),
        }
        at.write(loaded);
    });
    (value, trap)
}

fn store(address: u64, width: u64, value: u64) -> Option<Trap> {
    // SAFETY: stores to memory and to device registers that hold what is written, or that trap and are stepped over.
    let ((), trap) = catch(|| unsafe {
        match width {
            8 => asm!("sd {0}, 0({1})", in(reg) value, in(reg) address),
            4 => asm!("sw {0}, 0({1})", in(reg) value, in(reg) address),
            _ => asm!("sh {0}, 0({1})", in(reg) value, in(reg) address),
        }
    });
    trap
}

/// Whether the guest was refused as it has to be: a misaligned address or an access fault, which names this access.
fn is_refusal(trap: &Trap, causes: [u64; 2], address: u64, width: u64) -> bool {
    causes.contains(&trap.cause) && trap.value.wrapping_sub(address) < width
}

impl Edge {
    fn address(&self) -> u64 {
        window(PAGES + 1) - self.half
    }

    fn is_device(&self, side: usize) -> bool {
        self.sides[side] != Side::Memory
    }

    /// A load gives both parts, or an exception and nothing.
    fn load(&self) -> Outcome {
        Side::prepare();
        let width = 2 * self.half;
        let mask = (1u64 << (8 * self.half)) - 1;
        let [first, second] = self.sides;
        let low = u64::from(first.bytes(true)) >> (32 - 8 * self.half) & mask;
        let whole = low | (u64::from(second.bytes(false)) & mask) << (8 * self.half);
        let (value, trap) = load(self.address(), width);
        let right = match trap {
            Some(trap) => is_refusal(&trap, [4, 5], self.address(), width) && value == UNTOUCHED,
            None => value == whole && !self.is_device(0),
        };
        Outcome { right, value, trap }
    }

    /// A store stores both parts, or gives an exception and stores nothing.
    fn store(&self) -> Outcome {
        Side::prepare();
        let width = 2 * self.half;
        let mask = ((1u64 << (8 * self.half)) - 1) as u32;
        let shift = 32 - 8 * self.half as u32;
        let [first, second] = self.sides;
        let seen = || (first.bytes(true) >> shift, second.bytes(false) & mask);
        let before = seen();
        let trap = store(self.address(), width, STORED);
        let after = seen();
        let done = (
            STORED as u32 & mask,
            (STORED >> (8 * self.half)) as u32 & mask,
        );
        let right = match trap {
            Some(trap) => is_refusal(&trap, [6, 7], self.address(), width) && after == before,
            None => after == done && !self.is_device(0),
        };
        let value = u64::from(after.1) << 32 | u64::from(after.0);
        Outcome { right, value, trap }
    }
}

const EDGES: [Edge; 9] = {
    use Side::{Memory, Plic, Uart};
    const fn edge(claim: &'static str, sides: [Side; 2], half: u64) -> Edge {
        Edge { claim, sides, half }
    }
    [
        edge(
            "8 bytes from memory into the serial port",
            [Memory, Uart],
            4,
        ),
        edge(
            "4 bytes from memory into the serial port",
            [Memory, Uart],
            2,
        ),
        edge(
            "2 bytes from memory into the serial port",
            [Memory, Uart],
            1,
        ),
        edge(
            "8 bytes from the serial port into memory",
            [Uart, Memory],
            4,
        ),
        edge(
            "2 bytes from the serial port into memory",
            [Uart, Memory],
            1,
        ),
        edge(
            "8 bytes from memory into the interrupt controller",
            [Memory, Plic],
            4,
        ),
        edge(
            "8 bytes from the interrupt controller into memory",
            [Plic, Memory],
            4,
        ),
        edge("8 bytes from one device into another", [Plic, Uart], 4),
        edge("4 bytes from one device into another", [Uart, Plic], 2),
    ]
};

/// Accesses to a device's last register that go past its end, in the same page.
fn past_the_end() -> [Outcome; 2] {
    Side::prepare();
    paging::set(PAGES, UART, pte::DATA);
    paging::fence();
    let address = window(PAGES) + 4;
    let seen = || [get(0), get(1), get(4), get(7)];
    let before = seen();
    let (value, loaded) = load(address, 8);
    let refused =
        |trap: Option<Trap>, causes| trap.is_some_and(|trap| is_refusal(&trap, causes, address, 8));
    let load = Outcome {
        right: refused(loaded, [4, 5]) && value == UNTOUCHED,
        value,
        trap: loaded,
    };
    let stored = store(address, 8, STORED);
    let store = Outcome {
        right: refused(stored, [6, 7]) && seen() == before,
        value: 0,
        trap: stored,
    };
    [load, store]
}

/// The steps, in the chapter that is open.
pub fn visit(report: &mut Report<'_>) {
    if !report.machine.under_hypervisor {
        report.skip(
            "accesses across the edge of a device",
            "the bus does as it likes",
        );
        return;
    }
    // While the divisor latch is open nothing is printed.
    let line_control = get(LCR);
    set(LCR, DLAB | 3);
    let divisor = [get(0), get(1)];
    let enabled_before = enabled();
    let mut outcomes = [[Outcome::default(); 2]; EDGES.len()];
    for (edge, outcomes) in EDGES.iter().zip(&mut outcomes) {
        for (page, side) in (PAGES..).zip(edge.sides) {
            paging::set(page, side.physical(), pte::DATA);
        }
        paging::fence();
        *outcomes = [edge.load(), edge.store()];
    }
    let past = past_the_end();
    enable(enabled_before);
    set(LCR, DLAB | 3);
    set(0, divisor[0]);
    set(1, divisor[1]);
    set(LCR, line_control);

    let claims = EDGES.iter().map(|edge| edge.claim);
    let claims = claims.chain(["8 bytes past the end of a device, within a page"]);
    for (claim, outcomes) in claims.zip(outcomes.into_iter().chain([past])) {
        for (kind, Outcome { right, value, trap }) in ["load", "store"].into_iter().zip(outcomes) {
            match trap {
                Some(trap) => report.step(claim, right, format_args!("{kind}: {trap}")),
                None => report.step(claim, right, format_args!("{kind}: done, {value:#x}")),
            }
        }
    }
}
