//! Time on one hart: the guest's timer where the guest has none of its own, and the host's tick.
//!
//! The one idea: the firmware offers one deadline a hart, so the earlier of the two is programmed.

use super::pace::Pace;
use crate::csr;

/// The timers of one vCPU and its hart.
#[derive(Debug)]
pub struct Timer {
    /// The guest has `stimecmp`.
    own_timer: bool,
    pace: Pace,
    tick: u64,
    guest: u64,
}

impl Timer {
    /// Starts ticking. The first hart reads the console.
    pub fn new(own_timer: bool, timebase_frequency: u64, index: usize) -> Self {
        let mut pace = Pace::new(timebase_frequency, index);
        let tick = now().saturating_add(pace.until_next());
        let mut timer = Self {
            own_timer,
            pace,
            tick,
            guest: u64::MAX,
        };
        timer.arm();
        timer
    }

    fn arm(&mut self) {
        sbi_rt::set_timer(self.tick.min(self.guest));
    }

    /// Stops ticking.
    pub fn stop(&mut self) {
        sbi_rt::set_timer(u64::MAX);
    }

    /// The guest's request for a timer interrupt at `deadline`, which also takes back one that is pending.
    pub fn set_guest(&mut self, deadline: u64) {
        // SAFETY: both registers are the guest's.
        unsafe {
            if self.own_timer {
                csr::write!("vstimecmp", deadline);
            } else {
                csr::clear!("hvip", csr::VSTI);
                self.guest = deadline;
                self.arm();
            }
        }
    }

    /// Told that there was input: the next ticks come fast.
    pub fn hurry(&mut self) {
        self.pace.hurry();
    }

    /// Serves a timer interrupt of the host. Answers whether it was time for a tick.
    pub fn expired(&mut self) -> bool {
        let now = now();
        if self.guest <= now {
            self.guest = u64::MAX;
            // SAFETY: the register is the guest's.
            unsafe { csr::set!("hvip", csr::VSTI) };
        }
        let tick = self.tick <= now;
        if tick {
            self.tick = now.saturating_add(self.pace.until_next());
        }
        self.arm();
        tick
    }
}

fn now() -> u64 {
    csr::read!("time")
}
