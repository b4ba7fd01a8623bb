//! Binary search among the slots of a table, by steps that are constants.
//!
//! The one idea: all that a search can know before it has an address is decided when the slots change, and kept as a
//! [`Course`].

use core::cell::Cell;
use core::ptr;

use super::slot::Slot;
use crate::address::Gpa;

/// How a search among some number of slots goes: made when the slots change, so that a search decides nothing but where the
/// address lies.
///
/// The first step leaves a power of two of places, the first ones or the last ones, which overlap them; the other steps halve
/// those.
pub(super) struct Course {
    searcher: Searcher,
    /// The length of the first step in bytes.
    first_step: usize,
    /// How many steps follow.
    levels: u32,
}

/// [`Course::search`] of some courses, under its contract.
type Searcher = for<'m> unsafe fn(*const Slot<'m>, Gpa, &Course, &Cell<usize>) -> *const Slot<'m>;

/// The searchers whose steps are constants, by the number of those that halve: each step is a load, a comparison and an
/// addition.
const SEARCHERS: [Searcher; 10] = [
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

impl Course {
    pub(super) const OF_NO_SLOTS: Self = Self {
        searcher: search_nothing,
        first_step: 0,
        levels: 0,
    };

    /// The course among so many slots.
    pub(super) fn of(slots: usize) -> Self {
        let Some(others) = slots.checked_sub(1) else {
            return Self::OF_NO_SLOTS;
        };
        let levels = others.checked_ilog2().unwrap_or(0);
        Self {
            searcher: *SEARCHERS
                .get(levels as usize)
                .unwrap_or(&(search_by_course as Searcher)),
            first_step: (slots - (1 << levels)) * size_of::<Slot<'_>>(),
            levels,
        }
    }

    /// Finds, among the places from `first` on, the slot that holds an address, and writes down its place; null if none does.
    ///
    /// # Safety
    ///
    /// `first` is a pointer to all places of a table, and this is the course for the slots in them.
    #[inline(always)]
    pub(super) unsafe fn search<'m>(
        &self,
        first: *const Slot<'m>,
        gpa: Gpa,
        hint: &Cell<usize>,
    ) -> *const Slot<'m> {
        // SAFETY: the caller's promise.
        unsafe { (self.searcher)(first, gpa, self, hint) }
    }
}

/// The [`Searcher`] of no slots.
unsafe fn search_nothing<'m>(
    _: *const Slot<'m>,
    _: Gpa,
    _: &Course,
    _: &Cell<usize>,
) -> *const Slot<'m> {
    ptr::null()
}

/// The [`Searcher`] of LEVELS steps that halve.
unsafe fn search<'m, const LEVELS: u32>(
    first: *const Slot<'m>,
    gpa: Gpa,
    course: &Course,
    hint: &Cell<usize>,
) -> *const Slot<'m> {
    // SAFETY: the caller's promise.
    unsafe { search_by_steps(first, gpa, course.first_step, LEVELS, hint) }
}

/// The [`Searcher`] of any number of steps.
unsafe fn search_by_course<'m>(
    first: *const Slot<'m>,
    gpa: Gpa,
    course: &Course,
    hint: &Cell<usize>,
) -> *const Slot<'m> {
    // SAFETY: the caller's promise.
    unsafe { search_by_steps(first, gpa, course.first_step, course.levels, hint) }
}

/// # Safety
///
/// As [`Searcher`]'s, for slots whose course has this first step and so many levels.
#[inline(always)]
unsafe fn search_by_steps<'m>(
    first: *const Slot<'m>,
    gpa: Gpa,
    first_step: usize,
    levels: u32,
    hint: &Cell<usize>,
) -> *const Slot<'m> {
    // Compared without a negation. No slot reaches the top of the 64-bit space.
    let after = Gpa::new(gpa.value().wrapping_add(1));
    let later = |at: *const Slot<'m>, step: usize| {
        // SAFETY: all steps of a course add up to the slots less one (`Course::of`), so this is one of the places.
        let next = unsafe { at.byte_add(step) };
        // SAFETY: as above.
        let base = unsafe { (*next).base };
        if base < after { next } else { at }
    };
    let mut at = later(first, first_step);
    for level in (0..levels).rev() {
        at = later(at, size_of::<Slot<'_>>() << level);
    }
    // SAFETY: as above.
    if !unsafe { (*at).contains(gpa) } {
        return ptr::null();
    }
    // SAFETY: both are places of one table.
    hint.set(unsafe { at.offset_from_unsigned(first) });
    at
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn among_any_number_of_slots_each_is_found_and_nothing_between_them() {
        let many: &[usize] = if cfg!(miri) {
            &[]
        } else {
            &[63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 3000]
        };
        for &count in (0..=33).collect::<Vec<_>>().iter().chain(many) {
            let base = |place: usize| Gpa::new(place as u64 * 0x3000 + 0x1000);
            let slots: Vec<_> = (0..count)
                .map(|place| Slot::trapped(base(place), 0x1000))
                .collect();
            let course = Course::of(count);
            let hint = Cell::new(usize::MAX);
            let found = |gpa: u64| {
                hint.set(usize::MAX);
                // SAFETY: the slots are all places of a table with so many.
                let slot = unsafe { course.search(slots.as_ptr(), Gpa::new(gpa), &hint).as_ref() };
                slot.map(|slot| (slot.base, hint.get()))
            };
            for place in 0..count {
                let at = base(place).value();
                let here = Some((base(place), place));
                assert_eq!(found(at), here, "the first byte of {place} of {count}");
                assert_eq!(
                    found(at + 0xfff),
                    here,
                    "the last byte of {place} of {count}"
                );
                assert_eq!(found(at - 1), None, "before {place} of {count}");
                assert_eq!(found(at + 0x1000), None, "after {place} of {count}");
                assert_eq!(hint.get(), usize::MAX);
            }
            assert_eq!((found(0), found(u64::MAX)), (None, None));
        }
    }
}
