//! The time of day, for the guest's clock.
//!
//! The one idea: the machine's own clock is read once, at boot, and from then on `time` counts. Without a clock that the
//! hypervisor knows it is 1970 at boot.

#[cfg(target_os = "none")]
use crate::csr;

/// The time of day as a function of `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Ticks of `time` in a second.
    pub frequency: u64,
    /// Nanoseconds since 1970 when `time` was 0.
    origin: u64,
}

impl Clock {
    /// A clock that shows `nanoseconds` at the tick `now`.
    pub fn new(frequency: u64, now: u64, nanoseconds: u64) -> Self {
        let origin = nanoseconds.wrapping_sub(nanoseconds_of(now, frequency));
        Self { frequency, origin }
    }

    /// The time at a tick.
    pub fn at(&self, ticks: u64) -> u64 {
        self.origin
            .wrapping_add(nanoseconds_of(ticks, self.frequency))
    }

    /// The time now.
    #[cfg(target_os = "none")]
    pub fn now(&self) -> u64 {
        self.at(csr::read!("time"))
    }
}

fn nanoseconds_of(ticks: u64, frequency: u64) -> u64 {
    const SECOND: u128 = 1_000_000_000;
    (u128::from(ticks) * SECOND / u128::from(frequency.max(1))) as u64
}

/// Reads the Goldfish clock at `base`.
///
/// # Safety
///
/// The registers of such a clock are there, and no translation is on.
#[cfg(target_os = "none")]
pub unsafe fn read_goldfish(base: u64) -> u64 {
    use crate::devices::rtc::register;
    let read = |offset: u64| {
        // SAFETY: by this function's contract; reading the clock has no effect but to keep the time's high half.
        u64::from(unsafe { ((base + offset) as *const u32).read_volatile() })
    };
    let low = read(register::TIME_LOW);
    read(register::TIME_HIGH) << 32 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_from_where_it_was_read() {
        const NOW: u64 = 1_796_000_000_000_000_000;
        for frequency in [1_000_000, 10_000_000, 800_000_000] {
            let clock = Clock::new(frequency, 5 * frequency, NOW);
            assert_eq!(clock.at(5 * frequency), NOW);
            assert_eq!(clock.at(6 * frequency), NOW + 1_000_000_000);
            // A year later, with ticks whose product with a second does not fit 64 bits.
            let year = 365 * 24 * 3600;
            let later = (5 + year) * frequency;
            assert_eq!(clock.at(later), NOW + year * 1_000_000_000);
        }
    }
}
