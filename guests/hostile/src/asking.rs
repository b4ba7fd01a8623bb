//! A hart stores, and at once asks the host about what it stored: the host sees it.
//!
//! The one idea: the first hart has read the page before, so the host serves it from a page of zeroes.
//! Then both harts store to it. Each store makes the host put a page of its own in place of the zeroes,
//! and the second hart's question comes while the host does that.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::machine::Machine;
use guest_kit::{csr_write, sbi, wait_until};
use sbi_spec::legacy::LEGACY_SEND_IPI;

use crate::found::{Finding, Place};
use crate::layout::Layout;
use crate::memory::untouched;
use crate::random::Random;
use crate::second;
use crate::sharing::PATIENCE;

/// Rounds of a hart mask, and of a page table.
const ROUNDS: u64 = 2;
/// What the second hart writes to the console, a byte of a page each.
pub const WORD: &[u8] = b"clean";

/// A hart mask that no guest has: the host refuses the call if it reads this, and not if it reads 0.
const NO_SUCH_HART: u64 = 1 << 40;
/// The answer to that.
const INVALID_PARAM: i64 = -3;

/// What the second hart stores, and has the host read.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Question {
    /// The hart mask of a legacy call.
    Mask = 1,
    /// The entry of the page table that leads to such a mask.
    Table = 2,
    /// A byte for the console.
    Byte = 3,
    /// Nothing: it is over.
    Nothing = 4,
}

/// The question of this round, its page and its byte. The number is stored last.
static QUESTION: AtomicU64 = AtomicU64::new(0);
static ABOUT: AtomicU64 = AtomicU64::new(0);
static BYTE: AtomicU64 = AtomicU64::new(0);
static ROUND: AtomicU64 = AtomicU64::new(0);
/// The last round that the second hart is done with, and what the host said.
static DONE: AtomicU64 = AtomicU64::new(0);
static ANSWER: AtomicU64 = AtomicU64::new(0);

/// A mask at an address that the image maps.
static MASK: AtomicU64 = AtomicU64::new(NO_SUCH_HART);

/// The second hart's root table, of Sv39.
#[repr(align(4096))]
struct Root(UnsafeCell<[u64; 512]>);

// SAFETY: the second hart's alone.
unsafe impl Sync for Root {}

static ROOT: Root = Root(UnsafeCell::new([0; 512]));

/// Bits of a page-table entry: valid, and what a leaf that the supervisor may use in every way has.
const VALID: u64 = 1;
const LEAF: u64 = 0b1100_1111;
/// The gigabyte of the root's entry that leads to the page in question.
const WINDOW: u64 = 1 << 30;
/// Bytes of a leaf in that page.
const LARGE: u64 = 2 << 20;

const fn entry(physical: u64, flags: u64) -> u64 {
    physical >> 12 << 10 | flags
}

/// The first hart's part of one round: the host's answer.
fn ask(
    machine: &Machine,
    layout: &Layout,
    random: &mut Random,
    question: Question,
    byte: u8,
) -> Option<u64> {
    let page = untouched(layout, random);
    let round = ROUND.load(Ordering::Relaxed) + 1;
    QUESTION.store(question as u64, Ordering::Relaxed);
    ABOUT.store(page, Ordering::Relaxed);
    BYTE.store(byte.into(), Ordering::Relaxed);
    // SAFETY: memory that this program does not use otherwise; the second hart stores elsewhere in it.
    unsafe {
        (page as *const u64).read_volatile();
        ROUND.store(round, Ordering::Release);
        ((page + 8) as *mut u64).write_volatile(1);
    }
    let done = || DONE.load(Ordering::Acquire) == round;
    if !wait_until(PATIENCE * machine.timebase_frequency, done) {
        return None;
    }
    // Zero again, for who looks at memory that nobody has written.
    for word in [page, page + 8] {
        // SAFETY: as above, and the second hart is done with it.
        unsafe { (word as *mut u64).write_volatile(0) };
    }
    Some(ANSWER.load(Ordering::Relaxed))
}

/// The first hart's part: the questions whose answers it can see.
pub fn look(machine: &Machine, layout: &Layout, random: &mut Random) -> Result<(), Finding> {
    for round in 0..2 * ROUNDS {
        let (question, place) = match round % 2 {
            0 => (Question::Mask, Place::Answer("a hart mask")),
            _ => (
                Question::Table,
                Place::Answer("a hart mask behind a page table"),
            ),
        };
        let answer = ask(machine, layout, random, question, 0).ok_or(Finding {
            place: Place::NoSecondHart,
            value: round,
        })?;
        if answer.cast_signed() != INVALID_PARAM {
            return Err(Finding {
                place,
                value: answer,
            });
        }
    }
    Ok(())
}

/// Has the second hart, if there is one, write [`WORD`] to the console.
pub fn say(machine: &Machine, layout: &Layout, random: &mut Random) {
    for &byte in WORD {
        if machine.harts == 1 || ask(machine, layout, random, Question::Byte, byte).is_none() {
            sbi::console_write(1, &raw const byte as u64);
        }
    }
    if machine.harts > 1 {
        let _ = ask(machine, layout, random, Question::Nothing, 0);
    }
}

/// The second hart's part. A trap of its own only makes the host's answer a wrong one.
pub fn take_part(random: &mut Random) {
    second::step_over_traps();
    let root = ROOT.0.get().cast::<u64>();
    // SAFETY: this hart's table. The image lies in the gigabyte that the second entry maps to itself.
    unsafe {
        root.add(2).write_volatile(entry(2 << 30, LEAF));
        csr_write!("satp", 8u64 << 60 | root as u64 >> 12);
        asm!("sfence.vma");
    }
    for round in 1.. {
        while ROUND.load(Ordering::Acquire) != round {
            core::hint::spin_loop();
        }
        let question = QUESTION.load(Ordering::Relaxed);
        let page = ABOUT.load(Ordering::Relaxed);
        for _ in 0..random.below(64) {
            core::hint::spin_loop();
        }
        if question == Question::Nothing as u64 {
            // SAFETY: the image runs where it is mapped.
            unsafe {
                csr_write!("satp", 0u64);
                asm!("sfence.vma");
            }
            DONE.store(round, Ordering::Release);
            return;
        }
        let answer = match question {
            1 => {
                store(page, NO_SUCH_HART);
                sbi::legacy_call(LEGACY_SEND_IPI, [page, 0, 0, 0]) as i64
            }
            2 => {
                // SAFETY: this hart's table; the window is used by nobody else.
                unsafe { root.add(1).write_volatile(entry(page, VALID)) };
                let mask = &raw const MASK as u64;
                store(page, entry(mask & !(LARGE - 1), LEAF));
                // SAFETY: a fence changes no state that Rust knows of.
                unsafe { asm!("sfence.vma") };
                let pointer = WINDOW + mask % LARGE;
                sbi::legacy_call(LEGACY_SEND_IPI, [pointer, 0, 0, 0]) as i64
            }
            _ => {
                // SAFETY: memory that this program does not use otherwise.
                unsafe { (page as *mut u8).write_volatile(BYTE.load(Ordering::Relaxed) as u8) };
                sbi::console_write(1, page).error as i64
            }
        };
        ANSWER.store(answer.cast_unsigned(), Ordering::Relaxed);
        DONE.store(round, Ordering::Release);
    }
}

fn store(at: u64, value: u64) {
    // SAFETY: callers pass memory that this program does not use otherwise.
    unsafe { (at as *mut u64).write_volatile(value) };
}
