//! The machine's other harts, at work for a test of the boot hart's.
//!
//! The one idea: [`together`] is a scope. Each other hart runs the test's closure, the boot hart runs its own, and nobody leaves
//! before all are back: so they may borrow what the test has. A trap or a panic of another hart ends its part and fails the
//! test; a hart that does not come back ends the run.

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::global::Global;
use crate::harness::{Outcome, Stop, fail};
use crate::text::Text;
use crate::trap::{self, Frame, Trap};
use crate::{boot, csr, machine, panic, println, shootdown, starting};

/// Harts beside the boot hart that a test is given at most.
pub const OTHERS: usize = 3;

/// Bytes of each one's stack, as a power of two.
const STACK_BITS: usize = 15;

global_asm!(
    r#"
    .section .text
    .globl _other_start
_other_start:
    # In: HS-mode, a0 = hart id, a1 = which other hart this is, from 1; satp = 0.
    lla     sp, __other_stacks
    slli    t0, a1, {stack_bits}
    add     sp, sp, t0
    mv      a0, a1
    call    {main}

    .section .stacks, "aw", @nobits
    .balign 4096
    .globl __other_stacks
__other_stacks:
    .space  {others} << {stack_bits}
    .section .text
    "#,
    stack_bits = const STACK_BITS,
    others = const OTHERS,
    main = sym main,
);

unsafe extern "C" {
    fn _other_start();
    static __other_stacks: u8;
}

/// How long a hart may be waited for, in ticks of `time`: half a minute on QEMU.
const PATIENCE: u64 = 300_000_000;

/// How long one waits for harts that may not be there.
const LOOK: u64 = 1_000_000;

/// What each other hart is doing.
static STATES: [AtomicUsize; OTHERS] = [const { AtomicUsize::new(IDLE) }; OTHERS];

/// Why each hart's part went wrong: written by itself, read when it is back.
static REASONS: [Global<Text>; OTHERS + 1] = [const { Global::new(Text::new()) }; OTHERS + 1];

const IDLE: usize = 0;
const READY: usize = 1;
const CAME_BACK: usize = 2;
const FAILED: usize = 3;

/// Where the test's closure and its crew are.
static BODY: AtomicUsize = AtomicUsize::new(0);

/// Whether the others are to begin.
static BEGIN: AtomicBool = AtomicBool::new(false);

/// The most others that were ever found.
static FOUND: AtomicUsize = AtomicUsize::new(0);

/// The host's own translation.
static SATP: AtomicU64 = AtomicU64::new(0);

/// What the harts of a [`together`] share.
pub struct Crew {
    /// How many others there are.
    pub others: usize,
    stop: AtomicBool,
    rounds: AtomicU64,
    begun: AtomicU64,
}

impl Crew {
    /// Whether the boot hart is still at it.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// The boot hart begins another round, and returns when each of the others has begun it.
    ///
    /// # Panics
    ///
    /// If one of them does not.
    pub fn begin_round(&self) {
        let round = self.rounds.fetch_add(1, Ordering::Release) + 1;
        shootdown::wake(self.others);
        let patience = Patience::new();
        while self.begun.load(Ordering::Acquire) != round * self.others as u64 {
            shootdown::serve(0);
            assert!(!patience.is_over(), "a hart does not begin round {round}");
        }
    }

    /// Sleeps until there is a round that the hart has not `seen`, and begins it, or until the crew does not go on; answers
    /// whether it does.
    ///
    /// A hart of an emulator is a thread, and there may be fewer cores: one that waits must not keep the others from theirs, and
    /// one that has nothing to do should not be stopped where others wait for it.
    pub fn next_round(&self, seen: &mut u64) -> bool {
        let is_later = || self.rounds.load(Ordering::Acquire) != *seen;
        while self.goes_on() && !is_later() {
            shootdown::sleep_unless(|| !self.goes_on() || is_later());
        }
        *seen += 1;
        self.begun.fetch_add(1, Ordering::Release);
        self.goes_on()
    }
}

/// A part of a test went wrong. The words are kept aside, so that results stay small.
pub struct Wrong(());

impl Wrong {
    /// For this reason.
    pub fn because(reason: fmt::Arguments<'_>) -> Self {
        REASONS[current()].set(Text::format(reason));
        Self(())
    }

    /// The same where the boot hart takes part.
    pub fn stop(self) -> Stop {
        Stop::failed(format_args!("{}", REASONS[current()].get().as_str()))
    }
}

/// What another hart answers.
pub type Part = Result<(), Wrong>;

/// What the others borrow.
type Shared<'a> = (&'a (dyn Fn(usize, &Crew) -> Part + Sync), &'a Crew);

/// Ends another hart's part unless the condition holds.
macro_rules! claim {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::harts::Wrong::because(format_args!($($text)*)));
        }
    };
}

pub(crate) use claim;

/// Runs `there` on up to [`OTHERS`] other harts, with their numbers from 1 on, and `here` on this one, number 0. When `here` is
/// done the others see that the crew does not go on. Skips the test on a machine with one hart.
///
/// The others begin with every CSR as a test finds it, and with software interrupts on, which are shootdowns.
pub fn together(
    there: &(dyn Fn(usize, &Crew) -> Part + Sync),
    here: impl FnOnce(&Crew) -> Outcome,
) -> Outcome {
    let mut crew = Crew {
        others: 0,
        stop: AtomicBool::new(false),
        rounds: AtomicU64::new(0),
        begun: AtomicU64::new(0),
    };
    let (mut used, since) = ([false; machine::MAX_HARTS], machine::time());
    BEGIN.store(false, Ordering::Relaxed);
    SATP.store(csr::satp::read(), Ordering::Relaxed);
    shootdown::reset();
    while crew.others < OTHERS {
        for (hart, used) in used.iter_mut().enumerate() {
            if *used || crew.others == OTHERS {
                continue;
            }
            STATES[crew.others].store(IDLE, Ordering::Release);
            // A hart that has only just been stopped is refused: it is asked again.
            if starting::start(hart, _other_start, crew.others + 1) {
                *used = true;
                crew.others += 1;
                shootdown::is_hart(crew.others, hart);
            }
        }
        // The shim knows how many there are.
        if machine::is_standalone() && crew.others + 1 >= machine::harts() {
            break;
        }
        let waited = machine::time() - since;
        let enough = crew.others >= FOUND.load(Ordering::Relaxed);
        if enough && waited > LOOK || waited > PATIENCE {
            break;
        }
    }
    FOUND.fetch_max(crew.others, Ordering::Relaxed);
    if crew.others == 0 {
        return Err(Stop::skipped(format_args!("no other hart")));
    }
    shootdown::set_others(crew.others);
    let shared: Shared<'_> = (there, &crew);
    BODY.store(&raw const shared as usize, Ordering::Relaxed);
    wait_for(crew.others, |state| state != IDLE);
    BEGIN.store(true, Ordering::Release);
    let outcome = trap::catch(|| here(&crew));
    crew.stop.store(true, Ordering::Release);
    shootdown::wake(crew.others);
    wait_for(crew.others, |state| state > READY);
    for (index, state) in STATES[..crew.others].iter().enumerate() {
        if state.load(Ordering::Acquire) == FAILED {
            fail!("hart {}: {}", index + 1, REASONS[index + 1].get().as_str());
        }
    }
    match outcome {
        Ok(outcome) => outcome,
        Err(trap) => fail!("{trap:?} {}", panic::take().as_str()),
    }
}

/// Waits until each of so many others is in such a state. Shootdowns are served meanwhile.
fn wait_for(others: usize, is_wanted: impl Fn(usize) -> bool) {
    let patience = Patience::new();
    for state in &STATES[..others] {
        while !is_wanted(state.load(Ordering::Acquire)) {
            shootdown::serve(0);
            if patience.is_over() {
                // What they borrow is about to go.
                println!("FAILED: a hart does not come back");
                boot::power_off(false);
            }
        }
    }
}

/// Steps that each hart has made, for the harts that wait for it.
static STEPS: [AtomicU64; OTHERS + 1] = [const { AtomicU64::new(0) }; OTHERS + 1];

/// Says that hart `me` gets somewhere. On a busy host that may be slow: a wait has no limit in time while harts make steps.
pub fn step(me: usize) {
    STEPS[me].fetch_add(1, Ordering::Relaxed);
}

fn steps() -> u64 {
    let each = STEPS.iter().map(|steps| steps.load(Ordering::Relaxed));
    each.fold(0, u64::wrapping_add)
}

/// How long one waits for other harts, none of which makes a step, before something is wrong.
pub struct Patience {
    since: AtomicU64,
    steps: AtomicU64,
}

impl Patience {
    /// From now on.
    pub fn new() -> Self {
        Self {
            since: AtomicU64::new(machine::time()),
            steps: AtomicU64::new(steps()),
        }
    }

    /// Whether it was too long since the last step of any hart.
    pub fn is_over(&self) -> bool {
        let (now, steps) = (machine::time(), steps());
        if self.steps.swap(steps, Ordering::Relaxed) != steps {
            self.since.store(now, Ordering::Relaxed);
        }
        now - self.since.load(Ordering::Relaxed) > PATIENCE
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

/// Another hart's Rust.
extern "C" fn main(me: usize) -> ! {
    boot::reset_csrs(SATP.load(Ordering::Relaxed));
    STATES[me - 1].store(READY, Ordering::Release);
    while !BEGIN.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let shared =
        BODY.load(Ordering::Relaxed) as *const (&(dyn Fn(usize, &Crew) -> Part + Sync), &Crew);
    // SAFETY: `together` keeps both until this hart has come back.
    let (there, crew) = unsafe { *shared };
    shootdown::enable();
    let part = there(me, crew);
    shootdown::disable();
    leave(me, if part.is_ok() { CAME_BACK } else { FAILED })
}

/// The end of this hart's part.
fn leave(me: usize, state: usize) -> ! {
    boot::clear_translation();
    shootdown::retire(me);
    STATES[me - 1].store(state, Ordering::Release);
    loop {
        sbi_rt::hart_stop();
    }
}

/// Which other hart this is, from 1 on; 0 is the boot hart. Known by the stack.
pub fn current() -> usize {
    let here = 0u8;
    let stacks = (&raw const __other_stacks) as usize;
    match (&raw const here as usize).checked_sub(stacks) {
        Some(offset) if offset < OTHERS << STACK_BITS => (offset >> STACK_BITS) + 1,
        _ => 0,
    }
}

/// Takes a trap of another hart that is not the library's: a shootdown, or the end of its part.
pub fn trapped(me: usize, frame: &mut Frame) {
    if (frame.info.scause as i64) < 0 {
        shootdown::interrupted(me);
        return;
    }
    let panic = panic::take();
    if panic.is_empty() {
        let _ = Wrong::because(format_args!("unexpected trap: {:?}", Trap::of(frame)));
    } else {
        let _ = Wrong::because(format_args!("{}", panic.as_str()));
    }
    leave(me, FAILED)
}
