//! Memory that both harts write to: nothing that either of them writes is lost, and neither goes on seeing what was there
//! before.
//!
//! The one idea: nobody has touched the pages before, so that the host brings them in meanwhile: as a page of zeroes for who
//! reads, and as a page of their own in place of that for who writes.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kit::machine::Machine;
use guest_kit::wait_until;

use crate::found::{Finding, Place};
use crate::layout::Layout;
use crate::memory::untouched;
use crate::random::Random;

/// Seconds to wait for the other hart, which may share its processor with others on the machine below.
pub const PATIENCE: u64 = 3;
/// Pages that both write to at the same time.
const CONTESTED: u64 = 5;
/// Pages that the first hart reads, and reads again when the second one has written.
const WATCHED: u64 = 3;

/// What goes on.
static STAGE: AtomicU64 = AtomicU64::new(NOTHING);
const NOTHING: u64 = 0;
/// Both harts write to the contested pages.
const BOTH_WRITE: u64 = 1;
/// The second one has.
const WRITTEN: u64 = 2;
/// The second hart writes to the watched pages.
const SECOND_WRITES: u64 = 3;
/// It has.
const OVER: u64 = 4;

static SEED: AtomicU64 = AtomicU64::new(0);
static LAYOUT: AtomicU64 = AtomicU64::new(0);

/// What a hart writes; never 0.
const fn written(seed: u64, hart: u64) -> u64 {
    seed << 2 | 2 | hart
}

/// A hart's word of each contested page, in the same order for both harts.
fn contested(layout: &Layout, seed: u64, hart: u64) -> impl Iterator<Item = *mut u64> {
    let mut pages = Random::new(seed);
    (0..CONTESTED).map(move |_| (untouched(layout, &mut pages) + 8 * hart) as *mut u64)
}

/// A word of each watched page; one that is also contested has its words elsewhere.
fn watched(layout: &Layout, seed: u64) -> impl Iterator<Item = *mut u64> {
    let mut pages = Random::new(!seed);
    (0..WATCHED).map(move |_| (untouched(layout, &mut pages) + 64) as *mut u64)
}

/// One hart's part of the contest; on every second page it reads first.
fn contest(layout: &Layout, seed: u64, hart: u64) {
    for (word, round) in contested(layout, seed, hart).zip(hart..) {
        // SAFETY: memory that this program does not use otherwise.
        unsafe {
            if round.is_multiple_of(2) {
                word.read_volatile();
            }
            word.write_volatile(written(seed, hart));
        }
    }
}

/// The first hart's part: begins, takes part, and looks at what came of it. `layout` lives as long as the guest.
pub fn look(machine: &Machine, layout: &Layout, random: &mut Random) -> Result<(), Finding> {
    let seed = random.next();
    SEED.store(seed, Ordering::Relaxed);
    LAYOUT.store(core::ptr::from_ref(layout) as u64, Ordering::Relaxed);
    STAGE.store(BOTH_WRITE, Ordering::Release);
    contest(layout, seed, 0);
    wait_for(machine, WRITTEN)?;
    for hart in [0, 1] {
        expect(contested(layout, seed, hart), written(seed, hart))?;
    }
    expect(watched(layout, seed), 0)?;
    // From here to the second look nothing makes this hart exit, so only a fence makes it forget the page of zeroes.
    STAGE.store(SECOND_WRITES, Ordering::Release);
    wait_for(machine, OVER)?;
    expect(watched(layout, seed), written(seed, 1))?;
    // Zero again, for who looks at memory that nobody has written.
    let contested = contested(layout, seed, 0).chain(contested(layout, seed, 1));
    for word in contested.chain(watched(layout, seed)) {
        // SAFETY: memory that this program does not use otherwise.
        unsafe { word.write_volatile(0) };
    }
    Ok(())
}

/// The second hart's part; gives the layout. A hart that starts again finds everything over.
pub fn take_part() -> &'static Layout {
    while STAGE.load(Ordering::Acquire) == NOTHING {
        core::hint::spin_loop();
    }
    let seed = SEED.load(Ordering::Relaxed);
    // SAFETY: the first hart's, which keeps it to the end.
    let layout = unsafe { &*(LAYOUT.load(Ordering::Relaxed) as *const Layout) };
    if STAGE.load(Ordering::Relaxed) == BOTH_WRITE {
        contest(layout, seed, 1);
        STAGE.store(WRITTEN, Ordering::Release);
        while STAGE.load(Ordering::Acquire) == WRITTEN {
            core::hint::spin_loop();
        }
        for word in watched(layout, seed) {
            // SAFETY: memory that this program does not use otherwise.
            unsafe { word.write_volatile(written(seed, 1)) };
        }
        STAGE.store(OVER, Ordering::Release);
    }
    layout
}

fn wait_for(machine: &Machine, stage: u64) -> Result<(), Finding> {
    let come = || STAGE.load(Ordering::Acquire) == stage;
    if wait_until(PATIENCE * machine.timebase_frequency, come) {
        return Ok(());
    }
    Err(Finding {
        place: Place::NoSecondHart,
        value: stage,
    })
}

fn expect(words: impl Iterator<Item = *mut u64>, expected: u64) -> Result<(), Finding> {
    for word in words {
        // SAFETY: memory that this program does not use otherwise.
        let value = unsafe { word.read_volatile() };
        if value != expected {
            let place = Place::Memory(word as u64);
            return Err(Finding { place, value });
        }
    }
    Ok(())
}
