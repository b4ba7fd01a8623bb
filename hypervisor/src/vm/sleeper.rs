//! A hart of the hypervisor that waits for an interrupt, and the fences that are left to it meanwhile.
//!
//! The one idea: a hart in the hypervisor's `wfi` reaches nothing of its guest. A fence that others owe it need not wake it: it
//! is noted, and the hart fences before it does anything else. Who leaves a fence notes it first and looks then whether the
//! hart still sleeps; who wakes says so first and looks then what was noted. So one of the two sees the other.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bitflags::bitflags;

bitflags! {
    /// Fences that a hart owes its guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Owed: u8 {
        /// `fence.i`.
        const INSTRUCTIONS = 1 << 0;
        /// `hfence.vvma` of every address.
        const TRANSLATIONS = 1 << 1;
    }
}

/// One hart.
#[derive(Debug, Default)]
pub struct Sleeper {
    asleep: AtomicBool,
    owed: AtomicU8,
}

impl Sleeper {
    /// A hart that is awake.
    pub const fn new() -> Self {
        Self {
            asleep: AtomicBool::new(false),
            owed: AtomicU8::new(0),
        }
    }

    /// Called by the hart itself: runs `wait`, which touches nothing of the guest. The caller carries out the fences that it gets
    /// before it does.
    #[must_use = "the fences are owed to the guest"]
    pub fn sleep(&self, wait: impl FnOnce()) -> Owed {
        self.asleep.store(true, Ordering::SeqCst);
        wait();
        self.asleep.store(false, Ordering::SeqCst);
        Owed::from_bits_truncate(self.owed.swap(0, Ordering::SeqCst))
    }

    /// Leaves a fence to the hart, if it sleeps; else it has to be asked in another way. Where it wakes just now it may fence
    /// once more than it must.
    #[must_use = "a hart that is awake does not look"]
    pub fn leave(&self, fence: Owed) -> bool {
        if !self.asleep.load(Ordering::Relaxed) {
            return false;
        }
        self.owed.fetch_or(fence.bits(), Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn r44_a_fence_is_left_to_a_hart_that_sleeps_and_to_no_other() {
        let hart = Sleeper::new();
        assert!(!hart.leave(Owed::INSTRUCTIONS));
        let owed = hart.sleep(|| {
            assert!(hart.leave(Owed::TRANSLATIONS));
            assert!(hart.leave(Owed::INSTRUCTIONS));
        });
        assert_eq!(owed, Owed::all());
        assert!(!hart.leave(Owed::INSTRUCTIONS));
        assert_eq!(hart.sleep(|| {}), Owed::empty());
    }

    /// A hart that sleeps and wakes all the time, and one that changes something and fences: what was changed before a fence is
    /// seen by the hart once it goes on after that fence.
    #[test]
    fn r44_no_fence_left_to_a_hart_that_wakes_is_lost() {
        const ROUNDS: u64 = 5_000;
        let hart = Sleeper::new();
        let (changed, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while seen.load(Ordering::SeqCst) < ROUNDS {
                    let owed = hart.sleep(std::thread::yield_now);
                    if owed.contains(Owed::TRANSLATIONS) {
                        // The fence: from here on it sees what there was.
                        seen.store(changed.load(Ordering::SeqCst), Ordering::SeqCst);
                    }
                    std::thread::yield_now();
                }
            });
            for round in 1..=ROUNDS {
                changed.store(round, Ordering::SeqCst);
                if hart.leave(Owed::TRANSLATIONS) {
                    let start = std::time::Instant::now();
                    while seen.load(Ordering::SeqCst) < round {
                        assert!(start.elapsed().as_secs() < 60, "round {round} was lost");
                        std::thread::yield_now();
                    }
                } else {
                    // As the firmware does, whatever the hart is at.
                    seen.store(round, Ordering::SeqCst);
                }
            }
        });
    }
}
