//! The slot table: slots sorted by address, none overlapping.

use core::cell::Cell;
// Also under loom: what only has to be unique needs no order to be tried.
use core::sync::atomic::{AtomicU64, Ordering};

use super::search::Course;
use super::slot::{Backing, Slot, SlotError};
use crate::address::{Gpa, PAGE_SIZE};
use crate::atomic::{Witness, const_but_for_loom};
use crate::csr::GMode;

/// Changes of the slots of all memories.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A slot table of which the first `len` places are in use; the others hold no address, so that any place may be looked at.
/// `S` is an array of slots, or a slice once it is shared.
pub(super) struct Table<S: ?Sized> {
    /// Counts the changes of the memory's slots.
    pub(super) generation: u64,
    /// This table of this memory: no other one has the same, but that one without a change has 0 (and no slots).
    pub(super) identity: u64,
    /// Addresses at or above this are outside the guest-physical space.
    pub(super) limit: u64,
    /// Some slot is logging.
    pub(super) logging: bool,
    len: usize,
    /// How a search among so many slots goes.
    course: Course,
    /// Of the places, and of all else here.
    witness: Witness,
    places: S,
}

impl<'m, const SLOTS: usize> Table<[Slot<'m>; SLOTS]> {
    const_but_for_loom! {
        pub(super) const fn new(mode: GMode) -> Self {
            Self {
                generation: 0,
                identity: 0,
                limit: match mode {
                    GMode::Bare => 0,
                    _ => 1 << mode.gpa_bits(),
                },
                logging: false,
                len: 0,
                course: Course::OF_NO_SLOTS,
                witness: Witness::new(),
                places: [Slot::EMPTY; SLOTS],
            }
        }
    }

    /// Numbers the table as that of a new generation.
    pub(super) fn number(&mut self, generation: u64) {
        self.generation = generation;
        // Unique is enough: nothing is ordered by it.
        self.identity = CHANGES.fetch_add(1, Ordering::Relaxed) + 1;
    }

    pub(super) fn copy_slots_from(&mut self, other: &Self) {
        other.witness.reads();
        self.witness.writes();
        self.resize(other.len);
        self.logging = other.logging;
        self.places = other.places;
    }

    fn resize(&mut self, len: usize) {
        self.len = len;
        self.course = Course::of(len);
    }

    fn check(&self, slot: &Slot<'m>) -> Result<(), SlotError> {
        let (base, len) = (slot.base, slot.len);
        if len == 0 {
            return Err(SlotError::Empty { base });
        }
        let host = match slot.backing {
            Backing::Linear { host } | Backing::Device { host } => host.addr().get() as u64,
            Backing::Paged { .. } | Backing::GuestOnly | Backing::Trapped => 0,
        };
        for value in [base.value(), len, host] {
            if !value.is_multiple_of(PAGE_SIZE) {
                return Err(SlotError::Misaligned { value });
            }
        }
        match base.checked_add(len) {
            Some(end) if end.value() <= self.limit => {}
            _ => {
                return Err(SlotError::OutOfRange {
                    base,
                    len,
                    gpa_bits: self.limit.checked_ilog2().unwrap_or(0),
                });
            }
        }
        match slot.dirty_log {
            Some(bits) if (bits.len() as u64).saturating_mul(64) < slot.pages() => {
                Err(SlotError::NoDirtyLog { base })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, slot: Slot<'m>) -> Result<(), SlotError> {
        self.check(&slot)?;
        let end = slot.base.value() + slot.len;
        let at = self
            .slots()
            .partition_point(|other| other.base.value() + other.len <= slot.base.value());
        if let Some(next) = self.slots().get(at)
            && next.base.value() < end
        {
            return Err(SlotError::Overlap {
                existing: next.base,
            });
        }
        if self.len == SLOTS {
            return Err(SlotError::Full { slots: SLOTS });
        }
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = slot;
        self.resize(self.len + 1);
        self.logging |= slot.logging;
        Ok(())
    }

    pub(super) fn remove(&mut self, base: Gpa) -> Result<Slot<'m>, SlotError> {
        let at = self.position(base)?;
        let slot = self.places[at];
        self.places.copy_within(at + 1..self.len, at);
        self.resize(self.len - 1);
        self.places[self.len] = Slot::EMPTY;
        self.logging = self.slots().iter().any(|slot| slot.logging);
        Ok(slot)
    }

    /// Changes the slot that begins at `base` and answers it. `change` leaves its range and backing alone.
    pub(super) fn change(
        &mut self,
        base: Gpa,
        change: impl FnOnce(&mut Slot<'m>) -> Result<(), SlotError>,
    ) -> Result<Slot<'m>, SlotError> {
        let at = self.position(base)?;
        change(&mut self.places[at])?;
        self.logging = self.slots().iter().any(|slot| slot.logging);
        Ok(self.places[at])
    }

    pub(super) fn get(&self, base: Gpa) -> Result<Slot<'m>, SlotError> {
        self.position(base).map(|at| self.places[at])
    }

    fn position(&self, base: Gpa) -> Result<usize, SlotError> {
        self.slots()
            .binary_search_by_key(&base, |slot| slot.base)
            .map_err(|_| SlotError::NoSuchSlot { base })
    }

    fn slots(&self) -> &[Slot<'m>] {
        &self.places[..self.len]
    }
}

impl<'m> Table<[Slot<'m>]> {
    #[inline]
    pub(super) fn shared_slots(&self) -> &[Slot<'m>] {
        self.witness.reads();
        &self.places[..self.len]
    }

    /// The slot at a place: in a place that is not in use, one that holds no address.
    #[inline]
    pub(super) fn place(&self, index: usize) -> Option<&Slot<'m>> {
        self.witness.reads();
        self.places.get(index)
    }

    /// The slot that holds `gpa`; the place in `hint` is looked at first, and is where it was found afterwards.
    #[inline]
    pub(super) fn find(&self, gpa: Gpa, hint: &Cell<usize>) -> Option<&Slot<'m>> {
        match self.place(hint.get()) {
            Some(slot) if slot.contains(gpa) => Some(slot),
            _ => {
                // Of all places: a pointer made of the first one's reference may not leave it.
                let first = self.places.as_ptr();
                // SAFETY: all places are this table's, and so is the course (`resize`).
                unsafe { self.course.search(first, gpa, hint).as_ref() }
            }
        }
    }
}
