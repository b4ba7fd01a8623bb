//! A second hart: started, interrupted, fenced from afar, suspended, stopped.
//!
//! The one idea: the second hart does one thing at a time, which the boot hart names in a word of
//! shared memory and whose result it waits for. All waits end.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::trap::{interrupt, taken};
use guest_kit::{csr_clear, csr_set, entry, sbi, wait_until};
use sbi_spec::hsm::suspend_type::NON_RETENTIVE;
use sbi_spec::hsm::{EID_HSM, HART_SUSPEND, hart_state};
use sbi_spec::legacy::LEGACY_CLEAR_IPI;

use crate::code::{call, constant_function, fence_i, write_code};
use crate::memory::untouched;
use crate::paging::{self, pte, window};
use crate::report::Report;

/// What the second hart is to do.
mod task {
    pub const NONE: u64 = 0;
    pub const SUSPEND: u64 = 1;
    pub const CALL: u64 = 2;
    pub const READ: u64 = 3;
    pub const STOP: u64 = 4;
    pub const SUSPEND_AND_FORGET: u64 = 5;
}

static TASK: AtomicU64 = AtomicU64::new(task::NONE);
static OPERAND: AtomicU64 = AtomicU64::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);
/// The hart number and the opaque value that the second hart was started with.
static ARRIVED: [AtomicU64; 2] = [AtomicU64::new(u64::MAX), AtomicU64::new(0)];

const OPAQUE: u64 = 0x0123_4567_89ab_cdef;
/// What it is resumed with.
const RESUME_OPAQUE: u64 = 0xfedc_ba98_7654_3210;

/// The page of the window that the boot hart maps elsewhere.
const MOVING: u64 = 12;

/// Where the second hart is to be started.
pub fn second_hart_entry() -> u64 {
    entry::second_hart_entry(second_main)
}

/// Where the second hart goes on.
extern "C" fn second_main(hart: u64, opaque: u64) -> ! {
    // SAFETY: the boot hart built the table before it started this hart; the other bits only let
    // interrupts come.
    unsafe {
        paging::turn_on();
        csr_set!("sie", 1u64 << interrupt::SOFTWARE);
        csr_set!("sstatus", 2u64);
    }
    // The task that brought it here anew, if any.
    TASK.store(task::NONE, Ordering::SeqCst);
    ARRIVED[1].store(opaque, Ordering::SeqCst);
    ARRIVED[0].store(hart, Ordering::SeqCst);
    loop {
        // The task is stored after its operand.
        let task = TASK.load(Ordering::SeqCst);
        let operand = OPERAND.load(Ordering::SeqCst);
        let result = match task {
            task::NONE => {
                core::hint::spin_loop();
                continue;
            }
            task::SUSPEND => sbi::hart_suspend_retentive().error as u64,
            task::SUSPEND_AND_FORGET => {
                let entry = second_hart_entry();
                // As compilers pass a `uint32_t`: sign-extended.
                let kind = NON_RETENTIVE.cast_signed() as u64;
                let arguments = [kind, entry, RESUME_OPAQUE, 0, 0];
                sbi::call(EID_HSM, HART_SUSPEND, arguments).error as u64
            }
            task::CALL => call(operand),
            // SAFETY: the boot hart names an address that is mapped.
            task::READ => unsafe { (operand as *const u64).read_volatile() },
            _ => {
                TASK.store(task::NONE, Ordering::SeqCst);
                sbi::hart_stop().error as u64
            }
        };
        RESULT.store(result, Ordering::SeqCst);
        TASK.store(task::NONE, Ordering::SeqCst);
    }
}

/// The second hart, from the boot hart's side.
struct Second {
    hart: u64,
    patience: u64,
}

impl Second {
    fn begin(&self, task: u64, operand: u64) {
        OPERAND.store(operand, Ordering::SeqCst);
        TASK.store(task, Ordering::SeqCst);
    }

    /// The result of the task begun last, unless it never ends.
    fn finish(&self) -> Option<u64> {
        let done = || TASK.load(Ordering::SeqCst) == task::NONE;
        wait_until(self.patience, done).then(|| RESULT.load(Ordering::SeqCst))
    }

    fn run(&self, task: u64, operand: u64) -> Option<u64> {
        self.begin(task, operand);
        self.finish()
    }

    fn mask(&self) -> u64 {
        1 << self.hart
    }

    fn reaches(&self, state: usize) -> bool {
        wait_until(self.patience, || sbi::hart_status(self.hart).value == state)
    }
}

/// The chapter.
pub fn visit(report: &mut Report<'_>, boot_hart: u64) {
    report.chapter("Harts: a second one, and fences from afar");
    clear_own_interrupt(report, boot_hart);
    if report.machine.harts < 2 {
        report.skip("a second hart", "the machine has one");
        return;
    }
    let second = Second {
        hart: if boot_hart == 0 { 1 } else { 0 },
        patience: 2 * report.machine.timebase_frequency,
    };
    if !start(report, &second) {
        return;
    }
    interrupt_and_suspend(report, &second);
    fences(report, &second);

    second.begin(task::STOP, 0);
    let stopped = second.reaches(hart_state::STOPPED);
    report.step(
        "the hart stops itself",
        stopped,
        format_args!("state stopped"),
    );
    if stopped {
        crate::reset::visit(report, second.hart, second.patience);
    }
}

/// The legacy call that takes an interrupt back answers whether there was one.
fn clear_own_interrupt(report: &mut Report<'_>, hart: u64) {
    if !report.machine.under_hypervisor {
        report.skip("taking an interrupt back", "other firmware answers 0");
        return;
    }
    // SAFETY: the bit only decides whether interrupts come.
    unsafe { csr_clear!("sie", 1u64 << interrupt::SOFTWARE) };
    let clear = || sbi::legacy_call(LEGACY_CLEAR_IPI, [0; 4]);
    clear();
    let none = clear();
    sbi::send_ipi(1 << hart, 0);
    let one = clear();
    let none_again = clear();
    report.step(
        "the legacy call that takes an interrupt back tells whether there was one",
        (none, none_again) == (0, 0) && one > 0,
        format_args!("{none}, {one}, {none_again}"),
    );
}

fn start(report: &mut Report<'_>, second: &Second) -> bool {
    let before = sbi::hart_status(second.hart).value;
    let started = sbi::hart_start(second.hart, second_hart_entry(), OPAQUE);
    let arrived = || ARRIVED[0].load(Ordering::SeqCst) == second.hart;
    let came = started.error == 0 && wait_until(second.patience, arrived);
    let opaque = ARRIVED[1].load(Ordering::SeqCst);
    report.step(
        "hart_start brings a stopped hart to the entry with its opaque value",
        before == hart_state::STOPPED && came && opaque == OPAQUE,
        format_args!("hart {}, {opaque:#x}", second.hart),
    );
    if came {
        let again = sbi::hart_start(second.hart, second_hart_entry(), 0);
        report.step(
            "starting it again is refused as already available",
            again.error as isize == -6,
            format_args!("error {}", again.error as isize),
        );
    }
    came
}

fn interrupt_and_suspend(report: &mut Report<'_>, second: &Second) {
    let before = taken(interrupt::SOFTWARE);
    let sent = sbi::send_ipi(second.mask(), 0);
    let came = wait_until(second.patience, || taken(interrupt::SOFTWARE) > before);
    report.step(
        "an inter-processor interrupt arrives",
        sent.error == 0 && came,
        format_args!("at hart {}", second.hart),
    );

    second.begin(task::SUSPEND, 0);
    let suspended = second.reaches(hart_state::SUSPENDED);
    sbi::send_ipi(second.mask(), 0);
    let woken = second.finish();
    report.step(
        "a hart suspends itself and an interrupt wakes it",
        suspended && woken == Some(0),
        format_args!("state suspended, result {woken:?}"),
    );

    ARRIVED[0].store(u64::MAX, Ordering::SeqCst);
    let before = taken(interrupt::SOFTWARE);
    second.begin(task::SUSPEND_AND_FORGET, 0);
    let suspended = second.reaches(hart_state::SUSPENDED);
    sbi::send_ipi(second.mask(), 0);
    let arrived = || ARRIVED[0].load(Ordering::SeqCst) == second.hart;
    let came = wait_until(second.patience, arrived);
    let interrupted = wait_until(second.patience, || taken(interrupt::SOFTWARE) > before);
    let opaque = ARRIVED[1].load(Ordering::SeqCst);
    report.step(
        "one that gives its registers up resumes at the entry, with the interrupt pending",
        suspended && came && interrupted && opaque == RESUME_OPAQUE,
        format_args!("{opaque:#x}"),
    );
}

fn fences(report: &mut Report<'_>, second: &Second) {
    let page = untouched(report, 10);
    write_code(page, &constant_function(33));
    fence_i();
    sbi::remote_fence_i(second.mask());
    let first = second.run(task::CALL, page);
    write_code(page, &constant_function(44));
    let fenced = sbi::remote_fence_i(second.mask());
    let then = second.run(task::CALL, page);
    report.step(
        "after a remote fence.i the other hart runs the new code",
        fenced.error == 0 && (first, then) == (Some(33), Some(44)),
        format_args!("{first:?}, then {then:?}"),
    );

    let frames = [untouched(report, 11), untouched(report, 12)];
    for (frame, value) in frames.into_iter().zip([55u64, 66]) {
        // SAFETY: the frames are this step's.
        unsafe { (frame as *mut u64).write_volatile(value) };
    }
    let mut seen = [None; 2];
    let mut errors = 0;
    for (frame, seen) in frames.into_iter().zip(&mut seen) {
        paging::set(MOVING, frame, pte::DATA);
        // SAFETY: a fence changes no state that Rust knows of.
        unsafe { asm!("fence rw, rw") };
        errors |= sbi::remote_sfence_vma(second.mask(), window(MOVING), 4096).error;
        *seen = second.run(task::READ, window(MOVING));
    }
    report.step(
        "after a remote sfence.vma it sees the new page",
        errors == 0 && seen == [Some(55), Some(66)],
        format_args!("{seen:?}, entry {:#x}", paging::entry(MOVING)),
    );
}
