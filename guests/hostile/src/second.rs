//! The second hart: it looks at what it found, and then makes trouble for the first one for as long as the guest lives.
//!
//! The one idea: it has no need to come back from anything, so its trap vector only steps over what trapped.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_kit::machine::Machine;
use guest_kit::vectors::has_vectors;
use guest_kit::{csr_write, sbi, wait_until};
use sbi_spec::{rfnc, spi, time};

use crate::found::{self, Finding, Place};
use crate::instructions;
use crate::layout::Layout;
use crate::random::Random;
use crate::{asking, sharing, stamp, tables};

/// What it does.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Task {
    /// SBI calls that interrupt and fence.
    Calls = 1,
    /// Writes page-table entries.
    Tables = 2,
    /// Rewrites an instruction, and the entry of its page.
    Rewrite = 3,
}

/// Whether it has stored what it found.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// Whether this machine has vector registers for it to look at.
static HAS_VECTORS: AtomicBool = AtomicBool::new(false);
/// What it found in them.
static FOUND_IN_VECTORS: FoundInVectors = FoundInVectors(UnsafeCell::new(None));

struct FoundInVectors(UnsafeCell<Option<Finding>>);

// SAFETY: the second hart writes it before `ARRIVED`, and the first one reads it after that.
unsafe impl Sync for FoundInVectors {}

/// What it is to do, once it is told.
static TASK: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);

/// Where it is to be started.
pub fn entry() -> u64 {
    found::entry(main)
}

/// Starts it, looks at what it found, and at memory that both write to. `layout` lives as long as the guest.
pub fn look(machine: &Machine, layout: &Layout, random: &mut Random) -> Result<(), Finding> {
    let opaque = random.next();
    HAS_VECTORS.store(has_vectors(machine), Ordering::Release);
    let answer = sbi::hart_start(1, entry(), opaque);
    let arrived = || ARRIVED.load(Ordering::Acquire) != 0;
    if answer.error != 0 || !wait_until(sharing::PATIENCE * machine.timebase_frequency, arrived) {
        return Err(Finding {
            place: Place::NoSecondHart,
            value: answer.error as u64,
        });
    }
    found::hart(machine, 1, opaque)?;
    // SAFETY: the second hart wrote it before it arrived, and does not again.
    if let Some(finding) = unsafe { *FOUND_IN_VECTORS.0.get() } {
        return Err(finding);
    }
    sharing::look(machine, layout, random)?;
    asking::look(machine, layout, random)
}

/// Tells it what to do, if it is there.
pub fn set(task: Task, seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    TASK.store(task as u64, Ordering::Release);
}

// hostile_step_over: sepc += 4, or 2 for a compressed instruction. Uses sscratch for a register.
global_asm!(
    r#"
    .section .text.hostile_step_over, "ax", @progbits
    .balign 4
    .globl  hostile_step_over
hostile_step_over:
    csrw    sscratch, t0
    csrr    t0, sepc
    addi    t0, t0, 4
    csrw    sepc, t0
    csrr    t0, sscratch
    sret
    "#,
);

/// Makes this hart step over whatever traps.
pub fn step_over_traps() {
    // SAFETY: this hart takes no trap that means anything.
    unsafe {
        asm!("la {0}, hostile_step_over", "csrw stvec, {0}", out(reg) _);
        csr_write!("sie", 0u64);
    }
}

/// Where it goes on once it has stored what it found.
extern "C" fn main(_hart: u64, _opaque: u64) -> ! {
    if HAS_VECTORS.load(Ordering::Acquire) {
        let found = found::vectors(1).err();
        // SAFETY: the first hart does not read it before `ARRIVED`. A hart that is started once more finds its own stamp there,
        // and nobody looks.
        unsafe { *FOUND_IN_VECTORS.0.get() = found };
    }
    ARRIVED.store(1, Ordering::Release);
    let layout = sharing::take_part();
    if TASK.load(Ordering::Acquire) == 0 {
        asking::take_part(&mut Random::new(layout.free.start));
    }
    while TASK.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    let mut random = Random::new(SEED.load(Ordering::Relaxed));
    stamp::registers(SEED.load(Ordering::Relaxed));
    if HAS_VECTORS.load(Ordering::Relaxed) {
        stamp::vectors(SEED.load(Ordering::Relaxed));
    }
    step_over_traps();
    loop {
        match TASK.load(Ordering::Relaxed) {
            1 => {
                call(layout, &mut random);
                if random.one_in(64) {
                    // Until the first hart starts it again, if it does.
                    sbi::hart_stop();
                }
            }
            2 => {
                for _ in 0..random.below(64) {
                    tables::scribble(layout, &mut random);
                }
                if random.one_in(16) {
                    call(layout, &mut random);
                }
            }
            _ => rewrite(layout, &mut random),
        }
    }
}

fn call(layout: &Layout, random: &mut Random) {
    let mut arguments = [
        random.below(4),
        0,
        random.value(layout),
        random.value(layout),
        0,
    ];
    let (extension, functions) = random.one_of(&[
        (spi::EID_SPI, 1),
        (rfnc::EID_RFNC, 3),
        (rfnc::EID_RFNC, 3),
        (time::EID_TIME, 1),
        (4, 1),
        (5, 1),
        (6, 1),
        (7, 1),
    ]);
    if extension < 8 {
        arguments[0] = random.value(layout);
    }
    sbi::call(extension, random.below(functions) as usize, arguments);
}

fn rewrite(layout: &Layout, random: &mut Random) {
    for _ in 0..16 {
        let word = instructions::reaching_memory(random);
        // SAFETY: the code page, in which the first hart runs whatever it finds.
        unsafe { (layout.code as *mut u32).write_volatile(word) };
        if random.one_in(4) {
            let entry = tables::moved(layout, random);
            // SAFETY: the entry is for this.
            unsafe { (tables::moving_entry(layout) as *mut u64).write_volatile(entry) };
        }
        if random.one_in(8) {
            sbi::remote_fence_i(1);
        }
    }
}
