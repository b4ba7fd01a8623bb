//! When an access needs a fence: on a conforming machine never, on any other on a change of key.
//!
//! Switching `vsatp` between Bare and a mode and back takes effect immediately (R28 to R33), so the window
//! fences nothing. Emulators before QEMU 9.0 keep combined translations across such writes (R34). There an access
//! whose *key* differs from that of the last one fences first (R35).
//!
//! A hart that nobody asked may be such a machine, so it is treated as one: a fence too many costs time, a fence too
//! few reads another page.
//!
//! The last key belongs to one *value* of [`Hart`], and a hart may have several. So a key is good for one token only:
//! a new [`LoadedVcpu`](crate::LoadedVcpu) begins without one.

use core::cell::Cell;

use super::Hart;

/// Everything that a stale combined translation could have been made under (R35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceKey {
    /// `hgatp` during the access.
    pub hgatp: u64,
    /// `vsatp` during the access: 0 for a guest-physical one.
    pub vsatp: u64,
    /// `hstatus.SPVP` during the access.
    pub supervisor: bool,
    /// `vsstatus.SUM` and `vsstatus.MXR` during the access.
    pub vsstatus: u64,
}

/// A hart's fence policy, and the key of its last access ([`Hart::fence_state`]).
#[derive(Debug)]
pub struct FenceState {
    may_be_stale: Cell<bool>,
    htinst_may_mislead: Cell<bool>,
    last: Cell<Option<FenceKey>>,
}

impl FenceState {
    /// The state of a hart that was not probed: it may keep stale translations, and its `htinst` may mislead.
    pub const fn new() -> Self {
        Self::of(true, true)
    }

    /// The state of a hart that is known to behave as the specification says.
    pub const fn conforming() -> Self {
        Self::of(false, false)
    }

    /// The state of a hart of which the probe's findings are known.
    pub(crate) const fn of(stale_vsatp: bool, htinst_follows_access: bool) -> Self {
        Self {
            may_be_stale: Cell::new(stale_vsatp),
            htinst_may_mislead: Cell::new(htinst_follows_access),
            last: Cell::new(None),
        }
    }

    /// Whether this hart may keep translations across `vsatp` and `hgatp` writes: it does (QEMU before 9.0), or it was
    /// not probed.
    #[inline(always)]
    pub fn may_be_stale(&self) -> bool {
        self.may_be_stale.get()
    }

    /// Says what [`probe`](crate::probe::probe) found.
    pub(crate) fn set_stale_vsatp(&self, stale: bool) {
        self.may_be_stale.set(stale);
        self.forget_last();
    }

    /// Forgets the key: an access may have been made since by another value, or the guest was entered.
    pub(crate) fn forget_last(&self) {
        self.last.set(None);
    }

    /// Whether `htinst` may not tell a read of a page table from its update: it does not (QEMU 11.1, R76), or the hart was
    /// not probed. What an access asked of the G-stage is then found out after its fault.
    #[inline(always)]
    pub fn htinst_may_mislead(&self) -> bool {
        self.htinst_may_mislead.get()
    }

    /// Says what [`probe`](crate::probe::probe) found.
    pub(crate) fn set_htinst_follows_access(&self, follows: bool) {
        self.htinst_may_mislead.set(follows);
    }

    /// Fences if this machine needs it for an access under `key`. Call it inside the window, after its CSR writes.
    #[inline]
    pub(crate) fn prepare(&self, hart: &impl Hart, key: impl FnOnce() -> FenceKey) {
        if self.may_be_stale.get() {
            self.fence_on_change(hart, key());
        }
    }

    #[cold]
    fn fence_on_change(&self, hart: &impl Hart, key: FenceKey) {
        match self.last.replace(Some(key)) {
            Some(last) if last == key => {}
            // The translations of an unknown past may be there, so an unknown last key fences as well.
            Some(last) if last.hgatp == key.hgatp => hart.hfence_vvma(None),
            _ => {
                hart.hfence_gvma(None);
                hart.hfence_vvma(None);
            }
        }
    }
}

impl Default for FenceState {
    fn default() -> Self {
        Self::new()
    }
}
