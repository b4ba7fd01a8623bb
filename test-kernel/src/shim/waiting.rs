//! Waiting for a device that may never answer.
//!
//! The one idea: a wait has an end, and after one that was in vain nobody waits any more: a device is looked at once then. So a
//! console that is dead costs a run one wait, and one that comes back is used again.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Looks at a device before it is given up: about a million cycles of a simulated core, a tenth of a second on QEMU.
const LOOKS: u32 = 1 << 18;

/// Whether the device is worth waiting for.
pub struct Waiting {
    in_vain: AtomicBool,
}

impl Waiting {
    /// It is.
    pub const fn new() -> Self {
        Self {
            in_vain: AtomicBool::new(false),
        }
    }

    /// Waits until the device `is_ready`; answers whether it became so.
    pub fn until(&self, mut is_ready: impl FnMut() -> bool) -> bool {
        let looks = if self.in_vain.load(Relaxed) { 1 } else { LOOKS };
        let ready = (0..looks).any(|_| is_ready());
        if !ready {
            self.in_vain.store(true, Relaxed);
        }
        ready
    }

    /// Whether a wait was in vain.
    pub fn was_in_vain(&self) -> bool {
        self.in_vain.load(Relaxed)
    }

    /// The device is there after all.
    pub fn renew(&self) {
        self.in_vain.store(false, Relaxed);
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the device was looked at until it was ready, at the look of this number.
    fn looks(waiting: &Waiting, ready_at: u32) -> (u32, bool) {
        let mut looks = 0;
        let ready = waiting.until(|| {
            looks += 1;
            looks == ready_at
        });
        (looks, ready)
    }

    #[test]
    fn a_wait_ends_when_the_device_is_ready_or_after_a_bounded_number_of_looks() {
        let waiting = Waiting::new();
        assert_eq!(looks(&waiting, 1), (1, true));
        assert_eq!(looks(&waiting, 1000), (1000, true));
        assert!(!waiting.was_in_vain());
        assert_eq!(looks(&waiting, u32::MAX), (LOOKS, false));
        assert!(waiting.was_in_vain());
    }

    #[test]
    fn after_a_wait_in_vain_the_device_is_looked_at_once() {
        let waiting = Waiting::new();
        looks(&waiting, u32::MAX);
        assert_eq!(looks(&waiting, 2), (1, false));
        assert_eq!(looks(&waiting, 1), (1, true));
        waiting.renew();
        assert_eq!(looks(&waiting, 2), (2, true));
    }
}
