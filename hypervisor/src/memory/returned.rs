//! Frames that came back, until somebody wants them again.
//!
//! The one idea: a frame that nobody owns holds a pattern that only its address gives. Whoever still writes to it (a guest
//! through a translation that it should have forgotten, the host through a pointer that it should not have) is found out when
//! the frame is handed out again, or at the next [`check`](Returned::check).
//!
//! A piece of several frames is kept whole, since guests that are alike ask for alike pieces; where single frames run out, one
//! is broken into them. Nothing is put together again.

use core::fmt;

use guest_mem::Spa;

use super::frames::FRAME;

/// Sizes of pieces at most: a frame, the root of a G-stage, the page array of a guest.
const SIZES: usize = 6;

/// Words of a frame.
const WORDS: u64 = FRAME / 8;

/// A free frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwritten {
    /// The word.
    pub at: Spa,
    /// What it holds.
    pub found: u64,
}

impl fmt::Display for Overwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, found } = self;
        write!(f, "{at:#x} was written while it was free: {found:#018x}")
    }
}

/// Pieces of one size: a list that goes through their first words.
#[derive(Clone, Copy, Debug, Default)]
struct Stack {
    frames: u64,
    top: u64,
    pieces: u64,
}

/// The frames that came back.
#[derive(Debug)]
pub struct Returned {
    stacks: [Stack; SIZES],
}

impl Returned {
    /// None.
    pub const fn new() -> Self {
        Self {
            stacks: [Stack {
                frames: 0,
                top: 0,
                pieces: 0,
            }; SIZES],
        }
    }

    /// Takes back a piece of `frames` frames. One of more sizes than there is room for stays unused, which the count of free
    /// bytes shows.
    ///
    /// # Safety
    ///
    /// The frames are reached at their own address, and belong to the caller, who gives them up.
    pub unsafe fn put(&mut self, start: Spa, frames: u64) {
        // An empty stack may take another size only if no other stack has that one.
        let place = |fits: fn(&Stack, u64) -> bool| {
            let mut stacks = self.stacks.iter();
            stacks.position(|stack| fits(stack, frames))
        };
        let place = place(|stack, frames| stack.frames == frames)
            .or_else(|| place(|stack, _| stack.pieces == 0));
        let Some(place) = place else {
            return;
        };
        let stack = &mut self.stacks[place];
        let link = [stack.top, stack.top ^ pattern(start.value())];
        for word in 0..frames * WORDS {
            let at = start.value() + 8 * word;
            let content = link.get(word as usize).copied().unwrap_or(pattern(at));
            // SAFETY: inside the piece, which is nobody else's.
            unsafe { (at as *mut u64).write_volatile(content) };
        }
        *stack = Stack {
            frames,
            top: start.value(),
            pieces: stack.pieces + 1,
        };
    }

    /// Hands out a piece of exactly `frames` frames that starts at a multiple of `alignment`, if the last one that came back
    /// does.
    ///
    /// # Errors
    ///
    /// Somebody wrote to it.
    pub fn take(&mut self, frames: u64, alignment: u64) -> Result<Option<Spa>, Overwritten> {
        let fits = |stack: &&mut Stack| {
            stack.pieces > 0 && stack.frames == frames && stack.top.is_multiple_of(alignment)
        };
        let Some(stack) = self.stacks.iter_mut().find(fits) else {
            return Ok(None);
        };
        let next = stack.checked_next(stack.top)?;
        let start = core::mem::replace(&mut stack.top, next);
        stack.pieces -= 1;
        Ok(Some(Spa::new(start)))
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        let of = |stack: &Stack| stack.pieces * stack.frames * FRAME;
        self.stacks.iter().map(of).sum()
    }

    /// Looks at every word of them.
    ///
    /// # Errors
    ///
    /// The first one that somebody wrote to.
    pub fn check(&self) -> Result<(), Overwritten> {
        for stack in &self.stacks {
            let mut piece = stack.top;
            for _ in 0..stack.pieces {
                piece = stack.checked_next(piece)?;
            }
        }
        Ok(())
    }
}

impl Default for Returned {
    fn default() -> Self {
        Self::new()
    }
}

impl Stack {
    /// Checks the piece at `start` and answers the one below it, of which the piece holds two copies, one in disguise.
    fn checked_next(&self, start: u64) -> Result<u64, Overwritten> {
        // SAFETY: inside a piece that was given up to this list.
        let word = |at: u64| unsafe { (at as *const u64).read_volatile() };
        let next = word(start);
        for word_number in 1..self.frames * WORDS {
            let at = start + 8 * word_number;
            let found = word(at);
            let expected = if word_number == 1 {
                next ^ pattern(start)
            } else {
                pattern(at)
            };
            if found != expected {
                let at = Spa::new(at);
                return Err(Overwritten { at, found });
            }
        }
        Ok(next)
    }
}

/// What a free word at this address holds.
const fn pattern(at: u64) -> u64 {
    0xf4ee_0000_0000_0000 ^ at.rotate_left(21)
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    #[repr(C, align(16384))]
    struct Piece([u64; 2048]);

    fn piece() -> Spa {
        let piece = Box::leak(Box::new(Piece([0; 2048])));
        Spa::new(core::ptr::from_mut(piece) as u64)
    }

    fn returned(pieces: &[(Spa, u64)]) -> Returned {
        let mut returned = Returned::new();
        for &(start, frames) in pieces {
            // SAFETY: leaked for this test alone.
            unsafe { returned.put(start, frames) };
        }
        returned
    }

    #[test]
    fn pieces_come_back_by_their_size_and_are_counted() {
        let pieces = [(piece(), 1), (piece(), 4), (piece(), 1)];
        let mut returned = returned(&pieces);
        assert_eq!(returned.bytes(), 6 * FRAME);
        assert_eq!(returned.take(2, FRAME), Ok(None));
        assert_eq!(returned.take(4, 4 * FRAME), Ok(Some(pieces[1].0)));
        assert_eq!(returned.take(4, 4 * FRAME), Ok(None));
        let mut singles = Vec::new();
        while let Ok(Some(single)) = returned.take(1, FRAME) {
            singles.push(single);
        }
        assert_eq!(singles, [pieces[2].0, pieces[0].0]);
        assert_eq!(returned.bytes(), 0);
    }

    #[test]
    fn pieces_of_a_size_that_is_there_take_no_room_from_another_size() {
        let mut returned = returned(&[(piece(), 4), (piece(), 1), (piece(), 1)]);
        assert!(returned.take(4, FRAME).unwrap().is_some());
        // SAFETY: leaked for this test alone.
        unsafe { returned.put(piece(), 1) };
        let stacks = |frames| {
            let stacks = returned.stacks.iter();
            let used = stacks.filter(|stack| stack.pieces > 0 && stack.frames == frames);
            used.count()
        };
        assert_eq!((stacks(1), stacks(4)), (1, 0));
    }

    #[test]
    fn a_write_to_any_word_of_a_free_piece_is_found() {
        let (first, second) = (piece(), piece());
        for word in [0, 1, 2, 1023, 2047] {
            for start in [first, second] {
                let mut returned = returned(&[(first, 4), (second, 4)]);
                assert_eq!(returned.check(), Ok(()));
                let at = start.value() + 8 * word;
                // SAFETY: inside the test's own piece.
                unsafe { *(at as *mut u64) ^= 1 << 20 };
                assert!(returned.check().is_err(), "word {word}");
                let taken = returned.take(4, FRAME);
                assert_eq!(taken.is_err(), start == second, "word {word}");
            }
        }
    }
}
