//! How long it is from one tick of the host to the next.
//!
//! The one idea: nobody types most of the time, and a receiver of 16 bytes that is filled at each tick makes a paste as slow as
//! the ticks. So ticks come fast while there is input, and slowly again soon after it.

/// Slow ticks in a second on the hart that reads the console, and on the others.
const CONSOLE_TICKS: u64 = 100;
const OTHER_TICKS: u64 = 10;

/// How many times faster ticks come while somebody types, and how many of them come fast after the last input.
const FASTER: u64 = 10;
const FAST_TICKS: u32 = 50;

/// The pace of one hart's ticks.
#[derive(Debug)]
pub struct Pace {
    slow: u64,
    fast_ones: u32,
}

impl Pace {
    /// Slow ticks, where `time` counts `timebase_frequency` in a second. Hart 0 reads the console.
    pub fn new(timebase_frequency: u64, index: usize) -> Self {
        let ticks = if index == 0 {
            CONSOLE_TICKS
        } else {
            OTHER_TICKS
        };
        Self {
            slow: (timebase_frequency / ticks).max(1),
            fast_ones: 0,
        }
    }

    /// Told that there was input.
    pub fn hurry(&mut self) {
        self.fast_ones = FAST_TICKS;
    }

    /// How long it is to the tick after this one.
    pub fn until_next(&mut self) -> u64 {
        if self.fast_ones == 0 {
            return self.slow;
        }
        self.fast_ones -= 1;
        (self.slow / FASTER).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCY: u64 = 10_000_000;

    #[test]
    fn ticks_come_fast_after_input_and_slowly_again_without() {
        let mut pace = Pace::new(FREQUENCY, 0);
        assert_eq!(pace.until_next(), FREQUENCY / 100);
        pace.hurry();
        for _ in 0..FAST_TICKS {
            assert_eq!(pace.until_next(), FREQUENCY / 1000);
        }
        assert_eq!(pace.until_next(), FREQUENCY / 100);
    }

    #[test]
    fn a_paste_of_full_receivers_takes_a_second_and_a_half_at_most() {
        let mut pace = Pace::new(FREQUENCY, 0);
        let mut time = 0;
        for _ in 0..20_000 / 16 {
            time += pace.until_next();
            pace.hurry();
        }
        assert!(time < FREQUENCY * 3 / 2, "{time}");
    }

    #[test]
    fn time_goes_on_whatever_the_frequency_is() {
        for frequency in [0, 1, 99, 1000] {
            let mut pace = Pace::new(frequency, 1);
            pace.hurry();
            assert!(pace.until_next() > 0);
        }
    }
}
