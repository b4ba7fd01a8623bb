//! A hart of the hypervisor that waits for an interrupt, and the fences that are left to it meanwhile.
//!
//! The one idea: a hart in the hypervisor's `wfi` reaches nothing of its guest. A fence that others owe it need not wake it: it
//! is noted, and the hart fences before it does anything else. Who leaves a fence notes it first and looks then whether the
//! hart still sleeps; who wakes says so first and looks then what was noted. So one of the two sees the other.
//!
//! A hart that sleeps keeps `vsatp` and `hgatp`, and may walk the guest's tables for itself. R44 says why that does no harm.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

use bitflags::bitflags;
use guest_mem::hart::Hart;

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

impl Owed {
    /// Carries the fences out on this hart, after everything that other harts stored before they left them.
    pub fn carry_out(self, hart: &impl Hart) {
        fence(Ordering::SeqCst);
        if self.contains(Self::TRANSLATIONS) {
            hart.hfence_vvma(None);
        }
        if self.contains(Self::INSTRUCTIONS) {
            hart.fence_i();
        }
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

    use guest_mem::guest_virtual::LoadedVcpu;
    use guest_mem::hart::model::{Machine, ModelGuest, RamArray, Translations};
    use guest_mem::translate::entry;
    use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, Spa};

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

    /// The hart walks the guest's tables in its sleep, as it may, before and after the guest changes them. All that it keeps
    /// of that is gone with the fence that was left to it.
    #[test]
    fn r44_what_a_hart_walked_in_its_sleep_is_forgotten() {
        const PAGE: Gva = Gva::new(0x10_0000);
        const OLD: Gpa = Gpa::new(0x8000_2000);
        const NEW: Gpa = Gpa::new(0x8000_3000);
        let memory = RamArray::<32>::new();
        let guest = ModelGuest::new(memory.at(Spa::new(0x8_0000_0000))).unwrap();
        guest.write(OLD, &[1]).unwrap();
        guest.write(NEW, &[2]).unwrap();
        guest.map(PAGE, OLD, entry::R).unwrap();
        let hart = guest.hart_of(Machine {
            translations: Translations::Lazy,
            ..Machine::new()
        });
        let read = || {
            // SAFETY: the guest is loaded on this hart, which has one token at a time.
            let loaded = unsafe { LoadedVcpu::new(&hart) };
            let memory = loaded.guest_virtual(GuestPrivilege::Supervisor);
            memory.read_obj::<u8>(PAGE)
        };
        let sleeper = Sleeper::new();
        let owed = sleeper.sleep(|| {
            assert_eq!(read(), Ok(1));
            guest.map(PAGE, NEW, entry::R).unwrap();
            assert_eq!(read(), Ok(1), "a lazy hart keeps the old page");
            assert!(sleeper.leave(Owed::TRANSLATIONS));
            assert_eq!(read(), Ok(1), "in its sleep nobody sees that");
        });
        owed.carry_out(&hart);
        assert_eq!(read(), Ok(2));
    }
}
