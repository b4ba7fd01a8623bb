//! When an access needs a fence: by the specification never, on a machine with stale `vsatp` on a change of key.
//!
//! The one idea: switching `vsatp` between Bare and a mode and back takes effect immediately (R28 to R33), so the window
//! fences nothing. Emulators before QEMU 9.0 keep combined translations across such writes (R34); on those, and only on
//! those, an access whose *key* differs from that of the last one fences first (R35).
//!
//! The last key is this *value's*, and so is what the probe found: on such a machine one [`Hart`] value makes all guest accesses of
//! its hart. Two of them, each with a key of its own, would use each other's stale translations.

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

/// A hart's fence policy, and the key of its last access: one a machine hart ([`Hart::fence_state`]).
#[derive(Debug, Default)]
pub struct FenceState {
    stale_vsatp: Cell<bool>,
    last: Cell<Option<FenceKey>>,
}

impl FenceState {
    /// The state of a hart that behaves as the specification says.
    pub const fn new() -> Self {
        Self {
            stale_vsatp: Cell::new(false),
            last: Cell::new(None),
        }
    }

    /// Whether this hart keeps translations across `vsatp` and `hgatp` writes (QEMU before 9.0).
    pub fn stale_vsatp(&self) -> bool {
        self.stale_vsatp.get()
    }

    /// Says what [`probe`](crate::probe::probe) found.
    pub(crate) fn set_stale_vsatp(&self, stale: bool) {
        self.stale_vsatp.set(stale);
        self.last.set(None);
    }

    /// Fences if this machine needs it for an access under `key`. To be called inside the window, after its CSR writes.
    #[inline]
    pub(crate) fn prepare(&self, hart: &impl Hart, key: impl FnOnce() -> FenceKey) {
        if self.stale_vsatp.get() {
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
