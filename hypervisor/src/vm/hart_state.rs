//! The life of a guest hart, as the SBI's hart state management sees it.
//!
//! The one idea: every state of a guest changes under one lock, together with what the change
//! carries (where to start). Of two harts that start a third one exactly one succeeds, and of all
//! harts that stop exactly one is the last (I21).

use spin::Mutex;

use crate::boot::machine::MAX_HARTS;

/// The states of the HSM extension that an observer can meet here; a stop and a suspend take effect
/// at once, so there is no pending form of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum State {
    /// It runs.
    Started = 0,
    /// It does not run, and waits to be started.
    Stopped = 1,
    /// It was told to start and has not yet.
    StartPending = 2,
    /// It waits for an interrupt.
    Suspended = 4,
    /// It was woken and does not run yet.
    ResumePending = 6,
}

/// Where a hart starts: the registers that the SBI defines for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The guest-physical address of the first instruction.
    pub address: u64,
    /// What the hart finds in `a1`.
    pub opaque: u64,
}

/// Why a hart was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// It runs, or is about to.
    AlreadyAvailable,
}

/// The states of a guest's harts.
///
/// All of them are behind one lock. So the last hart that stops knows that nobody can start another
/// one, and a hart that stops while another one starts it does not take itself for the last.
#[derive(Debug)]
pub struct HartStates {
    harts: Mutex<[Inner; MAX_HARTS]>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Inner {
    state: State,
    start: Start,
}

impl HartStates {
    /// `len` harts, [`MAX_HARTS`] at most, that were never started.
    pub const fn new(len: usize) -> Self {
        const NEVER_STARTED: Inner = Inner {
            state: State::Stopped,
            start: Start {
                address: 0,
                opaque: 0,
            },
        };
        Self {
            harts: Mutex::new([NEVER_STARTED; MAX_HARTS]),
            len: if len < MAX_HARTS { len } else { MAX_HARTS },
        }
    }

    /// How many harts there are.
    pub const fn count(&self) -> usize {
        self.len
    }

    /// The state of hart `index`, if there is one.
    pub fn hart(&self, index: usize) -> Option<HartState<'_>> {
        (index < self.len).then_some(HartState { all: self, index })
    }
}

/// The state of one guest hart.
#[derive(Clone, Copy, Debug)]
pub struct HartState<'a> {
    all: &'a HartStates,
    index: usize,
}

/// What a hart that has stopped leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Another hart runs, or somebody has asked for a start.
    OthersGoOn,
    /// No hart runs or is about to. That stays so, since only a hart that runs can start one.
    Last,
}

impl HartState<'_> {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.all.harts.lock()[self.index])
    }

    /// The state now.
    pub fn get(&self) -> State {
        self.with(|hart| hart.state)
    }

    /// Tells a stopped hart where to start. Its own hart then finds that by [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// The hart is not stopped.
    pub fn request_start(&self, start: Start) -> Result<(), StartError> {
        self.with(|hart| match hart.state {
            State::Stopped => {
                *hart = Inner {
                    state: State::StartPending,
                    start,
                };
                Ok(())
            }
            _ => Err(StartError::AlreadyAvailable),
        })
    }

    /// Called by the hart itself: how to start, if somebody asked for it. The start stays pending
    /// until the hart is reset and says so ([`set`](Self::set)): an interrupt that is sent to a
    /// hart that shows as started is not lost.
    pub fn start(&self) -> Option<Start> {
        self.with(|hart| (hart.state == State::StartPending).then_some(hart.start))
    }

    /// Called by the hart itself, which runs and stops.
    pub fn stop(&self) -> Stopped {
        let mut harts = self.all.harts.lock();
        harts[self.index].state = State::Stopped;
        let mut all = harts[..self.all.len].iter();
        if all.all(|hart| hart.state == State::Stopped) {
            Stopped::Last
        } else {
            Stopped::OthersGoOn
        }
    }

    /// Called by the hart itself, with the states that nobody else may interfere with.
    pub fn set(&self, state: State) {
        self.with(|hart| hart.state = state);
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const START: Start = Start {
        address: 0x8020_0000,
        opaque: 7,
    };

    #[test]
    fn a_stopped_hart_starts_once_where_it_was_told() {
        let harts = HartStates::new(1);
        let hart = harts.hart(0).unwrap();
        assert_eq!(hart.start(), None);
        assert_eq!(hart.request_start(START), Ok(()));
        assert_eq!(hart.get(), State::StartPending);
        assert_eq!(hart.start(), Some(START));
        // What other harts send to one that shows as started is for its new life.
        assert_eq!(hart.get(), State::StartPending);
        hart.set(State::Started);
        assert_eq!(hart.start(), None);
    }

    #[test]
    fn a_hart_that_is_not_stopped_cannot_be_started() {
        let harts = HartStates::new(1);
        let hart = harts.hart(0).unwrap();
        for state in [
            State::Started,
            State::StartPending,
            State::Suspended,
            State::ResumePending,
        ] {
            hart.set(state);
            assert_eq!(hart.request_start(START), Err(StartError::AlreadyAvailable));
            assert_eq!(hart.get(), state);
        }
    }

    #[test]
    fn of_two_harts_that_start_a_third_one_succeeds() {
        let harts = HartStates::new(1);
        let hart = harts.hart(0).unwrap();
        let granted: usize = std::thread::scope(|scope| {
            let starters: std::vec::Vec<_> = (0..4)
                .map(|_| scope.spawn(|| usize::from(hart.request_start(START).is_ok())))
                .collect();
            starters.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(granted, 1);
    }

    #[test]
    fn harts_beyond_the_guests_have_no_state() {
        let harts = HartStates::new(2);
        assert!(harts.hart(1).is_some());
        assert!(harts.hart(2).is_none());
        assert_eq!(HartStates::new(MAX_HARTS + 1).count(), MAX_HARTS);
    }

    #[test]
    fn the_last_hart_that_stops_knows_it() {
        let harts = HartStates::new(3);
        let hart = |index| harts.hart(index).unwrap();
        hart(0).set(State::Started);
        hart(2).set(State::Suspended);
        assert_eq!(hart(0).stop(), Stopped::OthersGoOn);
        assert_eq!(hart(0).request_start(START), Ok(()));
        assert_eq!(hart(2).stop(), Stopped::OthersGoOn, "a start is pending");
        hart(0).set(State::Started);
        assert_eq!(hart(0).stop(), Stopped::Last);
    }

    /// The last hart of a guest starts the first one and stops, while the first one stops, too. A
    /// start that succeeded lets the guest go on; otherwise exactly one hart is the last.
    #[test]
    fn i21_no_guest_ends_while_a_start_is_pending() {
        const ROUNDS: usize = 100_000;
        const LAST: usize = MAX_HARTS - 1;
        let guests: std::vec::Vec<_> = (0..ROUNDS).map(|_| HartStates::new(MAX_HARTS)).collect();
        for guest in &guests {
            guest.hart(0).unwrap().set(State::Started);
            guest.hart(LAST).unwrap().set(State::Started);
        }
        // Both come to each guest at once.
        let meet = |at: &AtomicUsize, round| {
            at.fetch_add(1, Ordering::SeqCst);
            for waited in 0_u64.. {
                if at.load(Ordering::SeqCst) >= 2 * (round + 1) {
                    return;
                }
                if waited > 1_000 {
                    std::thread::yield_now();
                }
            }
        };
        let at = AtomicUsize::new(0);
        let (first, last) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let stop = |(round, guest): (usize, &HartStates)| {
                    meet(&at, round);
                    guest.hart(0).unwrap().stop()
                };
                guests.iter().enumerate().map(stop).collect()
            });
            let last = scope.spawn(|| {
                let start_and_stop = |(round, guest): (usize, &HartStates)| {
                    meet(&at, round);
                    let started = guest.hart(0).unwrap().request_start(START).is_ok();
                    (started, guest.hart(LAST).unwrap().stop())
                };
                guests.iter().enumerate().map(start_and_stop).collect()
            });
            let first: std::vec::Vec<_> = first.join().unwrap();
            let last: std::vec::Vec<_> = last.join().unwrap();
            (first, last)
        });
        for (round, (first, (started, last))) in first.into_iter().zip(last).enumerate() {
            let ends = usize::from(first == Stopped::Last) + usize::from(last == Stopped::Last);
            assert_eq!(
                ends,
                usize::from(!started),
                "guest {round}: {first:?}, {last:?}"
            );
        }
    }
}
