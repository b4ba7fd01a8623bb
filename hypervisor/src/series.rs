//! Guests one after another, on all harts: one as a rule; thousands in a series, which is a test of the hypervisor.
//!
//! The one idea: every hart runs the same guest until that is over, and the first hart gives its memory back when the last
//! other hart has left it. In a series each guest is new and has its own seed, and after each one nothing may be missing: no
//! frame, no byte of the heap, no word of a frame that was free.
//!
//! A guest of a series says in its first line whether it found what a new guest must find; a line that begins with
//! `clean so far` is a yes. Whatever it does later is its own business, until its time is over.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use alloc::boxed::Box;
use alloc::vec::Vec;
use guest_mem::cause;
use log::LevelFilter;
use sbi_rt::HartMask;

use crate::console;
use crate::csr;
use crate::guest::{self, Recipe};
use crate::memory::frames::FRAME;
use crate::memory::host;
use crate::power::Outcome;
use crate::vm::{Ending, TimeLimit, Vm};
use crate::{power, report, vcpu};

/// Milliseconds that a guest of a series has, if the bundle does not say.
const TIME_LIMIT: u64 = 20;

/// `scause` of an `ecall` from VS-mode.
const ECALL_FROM_VS: u64 = 10;

/// Guests in a row of dots.
const ROW: u64 = 50;

/// Failures that are told one by one.
const TOLD: u64 = 20;

/// Frames that are free, and watched, from the first guest of a series on.
const WATCHED: usize = 64;

/// The guest that runs, for harts that join it.
static GUEST: AtomicPtr<Vm> = AtomicPtr::new(core::ptr::null_mut());
/// How many guests there have been, counted when harts may join the newest.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// How many harts besides the first have left the newest guest.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// How many harts besides the first are there to join guests.
static READY: AtomicUsize = AtomicUsize::new(0);

/// The seed of the guest that runs, in a series.
static SEED: AtomicU64 = AtomicU64::new(0);
static IN_SERIES: AtomicBool = AtomicBool::new(false);

/// The first hart: makes each guest, runs it with the other harts, and turns the machine off.
pub fn lead(recipe: Recipe) -> ! {
    // What they take and give back until then is no guest's.
    while READY.load(Ordering::Acquire) < recipe.host_harts().len() - 1 {
        core::hint::spin_loop();
    }
    let is_good = match recipe.bundle().series {
        Some(count) => series(&recipe, count),
        None => {
            let vm = make(&recipe, None);
            recipe.announce();
            let vm = run(&recipe.release(), vm);
            report::closing_line(&vm);
            vm.ending() == Some(Ending::Shutdown)
        }
    };
    power::off(match is_good {
        true => Outcome::Good,
        false => Outcome::GuestFailed,
    })
}

/// Every other hart: joins each guest.
pub fn follow(index: usize) -> ! {
    READY.fetch_add(1, Ordering::Release);
    let mut joined = 0;
    loop {
        let round = ROUND.load(Ordering::Acquire);
        if round == joined {
            wait();
            continue;
        }
        joined = round;
        // SAFETY: the guest of this round lives until every hart has left it.
        let vm = unsafe { &*GUEST.load(Ordering::Acquire) };
        vcpu::run(vm, index);
        LEFT.fetch_add(1, Ordering::Release);
    }
}

/// Waits for an interrupt of another hart, or for none.
fn wait() {
    // SAFETY: interrupts are off in HS-mode, so this one only wakes; it is cleared before the caller looks again for what it
    // announces.
    unsafe {
        csr::write!("sie", csr::SSI);
        core::arch::asm!("wfi", options(nomem, nostack));
        csr::clear!("sip", csr::SSI);
    }
}

fn make(recipe: &Recipe, seed: Option<u64>) -> Box<Vm> {
    match recipe.make(seed) {
        Ok(vm) => vm,
        Err(error) => power::give_up(format_args!("{error}")),
    }
}

/// Runs a guest on all of its harts to its end, and gives it back when all of them have left it.
fn run(host_harts: &[u64], vm: Box<Vm>) -> Box<Vm> {
    let vm = Box::into_raw(vm);
    LEFT.store(0, Ordering::Relaxed);
    GUEST.store(vm, Ordering::Relaxed);
    ROUND.fetch_add(1, Ordering::Release);
    let others = &host_harts[1..];
    for &id in others {
        sbi_rt::send_ipi(HartMask::from_mask_base(1, id as usize));
    }
    // SAFETY: `vm` lives until it is taken back below.
    vcpu::run(unsafe { &*vm }, 0);
    while LEFT.load(Ordering::Acquire) < others.len() {
        core::hint::spin_loop();
    }
    // SAFETY: made from a box above, and no hart uses it any more.
    unsafe { Box::from_raw(vm) }
}

/// Runs `count` guests and says what came of them; returns whether nothing was wrong.
fn series(recipe: &Recipe, count: u64) -> bool {
    let bundle = recipe.bundle();
    let name = bundle.name.unwrap_or("guest");
    let limit = bundle.time_limit.unwrap_or(TIME_LIMIT);
    log::info!(
        "a series of {count} guests {name} on {} hart(s), from seed {} on, each for {limit} ms at most",
        recipe.host_harts().len(),
        bundle.seed
    );
    let ticks = (recipe.timebase_frequency() / 1000).saturating_mul(limit);
    watch_some_frames();
    // What the guests do wrong is counted, and not told one by one.
    log::set_max_level(LevelFilter::Error);
    IN_SERIES.store(true, Ordering::Relaxed);
    let mut account = Account::default();
    for number in 0..count {
        let seed = bundle.seed.wrapping_add(number);
        SEED.store(seed, Ordering::Relaxed);
        if number.is_multiple_of(ROW) {
            console::say(format_args!("seed {seed}: "));
        }
        console::dot();
        account.guest(recipe, seed, ticks);
    }
    IN_SERIES.store(false, Ordering::Relaxed);
    log::set_max_level(LevelFilter::Info);
    log::info!("series of {name}: {account}");
    account.wrong() == 0
}

/// Makes some frames known as free, so that a write to them is found.
fn watch_some_frames() {
    let frames: Vec<_> = (0..WATCHED)
        .map_while(|_| host::allocate_zeroed(1, FRAME))
        .collect();
    for frame in frames {
        // SAFETY: just allocated, and never used.
        unsafe { host::free(frame, 1) };
    }
}

/// What came of the guests.
#[derive(Debug, Default)]
struct Account {
    run: u64,
    not_clean: u64,
    frames_lost: u64,
    heap_lost: u64,
    overwritten: u64,
    exits: u64,
    sbi_calls: u64,
    guest_page_faults: u64,
    illegal: u64,
    device_accesses: u64,
    done_wrong: u64,
    endings: [u64; Ending::ALL.len()],
}

impl Account {
    /// Runs one guest and looks at what it left.
    fn guest(&mut self, recipe: &Recipe, seed: u64, ticks: u64) {
        let (free, heap) = (host::free_bytes(), host::heap_bytes());
        let mut vm = make(recipe, Some(seed));
        console::keep_first_line();
        vm.time_limit = Some(TimeLimit::new(ticks));
        let vm = run(recipe.host_harts(), vm);
        let ending = vm.ending();
        self.count(&vm);
        // SAFETY: every hart has left it, with its memory unloaded.
        unsafe { guest::unmake(vm) };

        self.run += 1;
        for (count, kind) in self.endings.iter_mut().zip(Ending::ALL) {
            *count += u64::from(ending == Some(kind));
        }
        let line = console::first_line();
        let line = line.as_ref().and_then(console::FirstLine::text);
        if !line.is_some_and(|line| line.starts_with("clean so far")) {
            self.not_clean += 1;
            let line = line.unwrap_or("nothing");
            let line = line.escape_debug();
            self.tell(seed, format_args!("its first line is: {line} ({ending:?})"));
        }
        let (before, after) = (free / FRAME, host::free_bytes() / FRAME);
        if after != before {
            // More than before: one came back twice, and will have two owners.
            self.frames_lost += before.abs_diff(after);
            self.tell(
                seed,
                format_args!("{before} frames were free before it, and {after} after it"),
            );
        }
        let lost = host::heap_bytes().saturating_sub(heap) as u64;
        if lost != 0 {
            self.heap_lost += lost;
            self.tell(
                seed,
                format_args!("{lost} bytes of the heap did not come back"),
            );
        }
        if let Err(overwritten) = host::check_free_frames() {
            self.overwritten += 1;
            self.tell(seed, format_args!("{overwritten}"));
        }
    }

    /// Adds up what the guest made the hypervisor do.
    fn count(&mut self, vm: &Vm) {
        let of = |causes: &[u64]| {
            let each = causes.iter();
            each.map(|&cause| vm.exits.exceptions(cause as usize))
                .sum::<u64>()
        };
        self.exits += vm.exits.total();
        self.sbi_calls += of(&[ECALL_FROM_VS]);
        self.guest_page_faults += of(&[
            cause::INSTRUCTION_GUEST_PAGE,
            cause::LOAD_GUEST_PAGE,
            cause::STORE_GUEST_PAGE,
        ]);
        self.illegal += of(&[cause::ILLEGAL_INSTRUCTION, cause::VIRTUAL_INSTRUCTION]);
        self.device_accesses += vm.memory_use.device_accesses.get();
        self.done_wrong += vm.complaints();
    }

    /// How much was lost, written or found that should not have been.
    fn wrong(&self) -> u64 {
        self.not_clean + self.frames_lost + self.heap_lost + self.overwritten
    }

    fn tell(&self, seed: u64, what: fmt::Arguments<'_>) {
        if self.wrong() <= TOLD {
            console::say(format_args!("FAILED: guest with seed {seed}: {what}"));
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} run, {} pages lost, {} bytes of heap lost, {} free pages written, {} not clean; {} exits: {} SBI calls, {} \
             guest-page faults, {} illegal instructions; {} device accesses, {} things done wrong; ended:",
            self.run,
            self.frames_lost,
            self.heap_lost,
            self.overwritten,
            self.not_clean,
            self.exits,
            self.sbi_calls,
            self.guest_page_faults,
            self.illegal,
            self.device_accesses,
            self.done_wrong,
        )?;
        let endings = Ending::ALL.iter().zip(self.endings);
        for (index, (ending, count)) in endings.filter(|&(_, count)| count > 0).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} {count} {ending}")?;
        }
        Ok(())
    }
}

/// For the last words: which guest of a series runs, if one does.
pub struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !IN_SERIES.load(Ordering::Relaxed) {
            return Ok(());
        }
        let seed = SEED.load(Ordering::Relaxed);
        write!(f, "\nwhile the guest with seed {seed} of a series runs")?;
        let line = console::first_line();
        match line.as_ref().and_then(console::FirstLine::text) {
            Some(line) => write!(f, ", whose first line is: {}", line.escape_debug()),
            None => Ok(()),
        }
    }
}
