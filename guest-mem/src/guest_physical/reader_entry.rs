//! The sequence number by which writers see a reader's guards.
//!
//! The one idea: a reader says "I am inside" with one store and one fence, and a writer that has published a change waits
//! until every reader that was inside has been outside once.
//!
//! # Memory ordering
//!
//! ```text
//! reader                                      writer
//!   sequence := odd          (release)          take something away (a table, a page entry)
//!   fence SeqCst             (F_r)              fence SeqCst             (F_w)
//!   use the table, the entries, the pages       e := sequence            (acquire)
//!   sequence := even         (release)          if e is odd: until sequence != e (acquire)
//! ```
//!
//! The two fences are in one total order. If F_r comes first, the writer sees that sequence number or a later one: it waits
//! for this guard, and the release/acquire pair makes the guard's accesses happen before whatever the writer does next. If F_w
//! comes first, the reader sees what the writer did before F_w: it never sees what was taken away. A reader that leaves and
//! comes back while the writer waits has changed the number; the writer goes on, rightly: having read the older number after
//! F_w, it knows by the fences' order that the newer guard's fence comes after F_w. That number is odd, and the accesses of
//! the older guard still have to happen before what the writer does: hence the release of the store that enters, too.

use core::sync::atomic::Ordering;

use crate::atomic::{AtomicBool, AtomicU64, const_but_for_loom, fence, spin_loop};

/// One reader as writers see it, owned by one [`Reader`](super::Reader) at a time. A cache line of its own (and of its
/// neighbour, which some cores prefetch with it), since its owner writes it twice per guard.
#[repr(align(128))]
pub(super) struct ReaderEntry {
    /// Odd while a guard exists.
    sequence: AtomicU64,
    /// Somebody owns the entry.
    taken: AtomicBool,
}

impl ReaderEntry {
    const_but_for_loom! {
        pub(super) const fn new() -> Self {
            Self {
                sequence: AtomicU64::new(0),
                taken: AtomicBool::new(false),
            }
        }
    }

    /// Takes the entry, if nobody has it, and says whether it did.
    pub(super) fn take(&self) -> bool {
        // Acquire: the owner before has left its guard.
        self.taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives the entry back, and ends a guard that was forgotten. Called by the entry's owner only.
    pub(super) fn give_back(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if sequence % 2 == 1 {
            self.leave(sequence);
        }
        self.taken.store(false, Ordering::Release);
    }

    /// Says that a guard exists, and answers its number. Called by the entry's owner only.
    #[inline]
    pub(super) fn enter(&self) -> u64 {
        // A guard that was forgotten (`mem::forget`) left the number odd, and then it stays: whoever waits for the forgotten
        // one waits for this one too.
        let inside = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(inside, Ordering::Release);
        fence(Ordering::SeqCst);
        inside
    }

    /// Says that the guard of this number is gone. Called by the entry's owner only.
    #[inline]
    pub(super) fn leave(&self, inside: u64) {
        self.sequence.store(inside + 1, Ordering::Release);
    }

    /// Waits until the guard that exists now, if any, is gone. The caller has executed F_w.
    pub(super) fn wait_for_guard(&self, serve: &mut impl FnMut()) {
        let seen = self.sequence.load(Ordering::Acquire);
        if seen % 2 == 1 {
            while self.sequence.load(Ordering::Acquire) == seen {
                serve();
                spin_loop();
            }
        }
    }
}
