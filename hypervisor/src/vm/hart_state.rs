//! The life of a guest hart, as the SBI's hart state management sees it.
//!
//! The one idea: a state changes under one lock, together with what the change carries (where to start), so that of two
//! harts that start a third one exactly one succeeds.

use spin::Mutex;

/// The states of the HSM extension that an observer can meet here; a stop and a suspend take effect at once, so there is no
/// pending form of either.
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

/// The state of one guest hart.
#[derive(Debug)]
pub struct HartState {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    start: Start,
}

impl HartState {
    /// A hart that was never started.
    pub const fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: State::Stopped,
                start: Start {
                    address: 0,
                    opaque: 0,
                },
            }),
        }
    }

    /// The state now.
    pub fn get(&self) -> State {
        self.inner.lock().state
    }

    /// Tells a stopped hart where to start. Its own hart then finds that by [`start`](Self::start).
    pub fn request_start(&self, start: Start) -> Result<(), StartError> {
        let mut inner = self.inner.lock();
        match inner.state {
            State::Stopped => {
                *inner = Inner {
                    state: State::StartPending,
                    start,
                };
                Ok(())
            }
            _ => Err(StartError::AlreadyAvailable),
        }
    }

    /// Called by the hart itself: how to start, if somebody asked for it. The start stays pending until the hart is reset and
    /// says so ([`set`](Self::set)): an interrupt that is sent to a hart that shows as started is not lost.
    pub fn start(&self) -> Option<Start> {
        let inner = self.inner.lock();
        (inner.state == State::StartPending).then_some(inner.start)
    }

    /// Called by the hart itself, which has stopped or never ran. A start that somebody asked for meanwhile stays.
    pub fn set_stopped_unless_pending(&self) {
        let mut inner = self.inner.lock();
        if inner.state != State::StartPending {
            inner.state = State::Stopped;
        }
    }

    /// Called by the hart itself, with the states that nobody else may interfere with.
    pub fn set(&self, state: State) {
        self.inner.lock().state = state;
    }
}

impl Default for HartState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start = Start {
        address: 0x8020_0000,
        opaque: 7,
    };

    #[test]
    fn a_stopped_hart_starts_once_where_it_was_told() {
        let hart = HartState::new();
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
        let hart = HartState::new();
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
        let hart = HartState::new();
        let granted: usize = std::thread::scope(|scope| {
            let starters: std::vec::Vec<_> = (0..4)
                .map(|_| scope.spawn(|| usize::from(hart.request_start(START).is_ok())))
                .collect();
            starters.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(granted, 1);
    }
}
