//! The slot table: slots sorted by address, none overlapping.

use core::cell::Cell;

use super::slot::{Backing, Slot, SlotError};
use crate::address::{Gpa, PAGE_SIZE};
use crate::atomic::{Witness, const_but_for_loom};
use crate::csr::GMode;

/// A slot table of which the first `len` places are in use; the others hold no address, so that any place may be looked at.
/// `S` is an array of slots, or a slice once it is shared.
pub(super) struct Table<S: ?Sized> {
    /// Counts the changes of the memory's slots.
    pub(super) generation: u64,
    /// Addresses at or above this are outside the guest-physical space.
    pub(super) limit: u64,
    /// Some slot is logging.
    pub(super) logging: bool,
    len: usize,
    /// How a search among so many slots goes, and its first step.
    search: Search,
    first_step: usize,
    /// Of the places, and of all else here.
    witness: Witness,
    places: S,
}

/// Finds the slot that holds an address and writes down its place.
type Search = for<'t, 'm> fn(&'t Table<[Slot<'m>]>, Gpa, &Cell<usize>) -> Option<&'t Slot<'m>>;

/// The searches that take so many halving steps after the first one: chosen when the slots change, so that a search decides
/// nothing but where the address lies.
const SEARCHES: [Search; 10] = [
    search::<0>,
    search::<1>,
    search::<2>,
    search::<3>,
    search::<4>,
    search::<5>,
    search::<6>,
    search::<7>,
    search::<8>,
    search::<9>,
];

/// The search of no slots.
fn search_nothing<'t, 'm>(
    _: &'t Table<[Slot<'m>]>,
    _: Gpa,
    _: &Cell<usize>,
) -> Option<&'t Slot<'m>> {
    None
}

/// The search of 2^LEVELS + 1 to 2^(LEVELS+1) slots, or of one. Its steps are constants, so that each is a load, a comparison
/// and an addition.
fn search<'t, 'm, const LEVELS: u32>(
    table: &'t Table<[Slot<'m>]>,
    gpa: Gpa,
    hint: &Cell<usize>,
) -> Option<&'t Slot<'m>> {
    table.search(LEVELS, gpa, hint)
}

/// The search of more slots than those of [`SEARCHES`] are for.
fn search_many<'t, 'm>(
    table: &'t Table<[Slot<'m>]>,
    gpa: Gpa,
    hint: &Cell<usize>,
) -> Option<&'t Slot<'m>> {
    let levels = (table.len - table.first_step).ilog2();
    table.search(levels, gpa, hint)
}

impl<'m, const SLOTS: usize> Table<[Slot<'m>; SLOTS]> {
    const_but_for_loom! {
        pub(super) const fn new(mode: GMode) -> Self {
            Self {
                generation: 0,
                limit: match mode {
                    GMode::Bare => 0,
                    _ => 1 << mode.gpa_bits(),
                },
                logging: false,
                len: 0,
                search: search_nothing,
                first_step: 0,
                witness: Witness::new(),
                places: [Slot::EMPTY; SLOTS],
            }
        }
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
        let Some(others) = len.checked_sub(1) else {
            self.search = search_nothing;
            return;
        };
        // The first step leaves a power of two of places: the first ones, or the last ones, which overlap them.
        let levels = others.checked_ilog2().unwrap_or(0);
        self.first_step = len - (1 << levels);
        self.search = *SEARCHES
            .get(levels as usize)
            .unwrap_or(&(search_many as Search));
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
            _ => (self.search)(self, gpa, hint),
        }
    }

    /// Binary search: the first step, and `levels` more that halve 2^`levels` places.
    #[inline(always)]
    fn search(&self, levels: u32, gpa: Gpa, hint: &Cell<usize>) -> Option<&Slot<'m>> {
        // Of all places: a pointer made of the first one's reference may not leave it.
        let first = self.places.as_ptr();
        // Compared without a negation. No slot reaches the top of the 64-bit space.
        let after = Gpa::new(gpa.value().wrapping_add(1));
        let later = |at: *const Slot<'m>, slots: usize| {
            // SAFETY: the first step and those after it add up to `len` slots less one (`resize`), and this search is that for
            // `len`, which is not 0; so this is one of the places.
            let next = unsafe { at.add(slots) };
            // SAFETY: as above.
            let base = unsafe { (*next).base };
            if base < after { next } else { at }
        };
        let mut at = later(first, self.first_step);
        for level in (0..levels).rev() {
            at = later(at, 1 << level);
        }
        // SAFETY: as above.
        let slot = unsafe { &*at };
        if !slot.contains(gpa) {
            return None;
        }
        // SAFETY: both are in the one slice.
        hint.set(unsafe { at.offset_from_unsigned(first) });
        Some(slot)
    }
}
