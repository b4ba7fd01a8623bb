//! What the guest-virtual space asks of guest-physical memory that it walks and writes by itself.
//!
//! The one idea: a page that was located is used by plain loads and stores, and the dirty log is told afterwards; what makes both
//! right is the read guard that the memory stands for.

use core::ptr::NonNull;

use super::page_tables::Stretch;
use super::view::PhysicalView;
use crate::address::Gpa;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;
use crate::translate::{GStage, Purpose};

/// Guest-physical memory that the host maps, as the guest-virtual space uses it: to walk the guest's page tables, and to
/// reach what they lead to.
///
/// It stands for a read guard: while it exists, nobody acknowledges that a translation is gone which it has shown.
///
/// # Safety
///
/// Where [`direct`](Self::direct) answers an address, the bytes from there to the end of the guest-physical 4 KiB page are
/// valid for reads while the memory exists, and for writes if the page was located for a store; nothing but guests and this
/// library accesses them, unless in order with that, or as R77 says (assembly, or atomics of single bytes). Addresses are aligned alike, to a page.
/// [`stretch`](Self::stretch) promises the same, for all of its bytes.
pub unsafe trait BackingMemory: GStage + GuestMemory<Address = Gpa> {
    /// Whether writes have to be seen by a dirty log at the moment.
    fn is_logging(&self) -> bool;

    /// Where the host has the byte that [`locate`](GStage::locate) found, if plain loads and stores may reach it: RAM, whose
    /// memory type the G-stage leaves to the machine.
    fn direct(&self, page: &Self::Page) -> Option<NonNull<u8>>;

    /// As [`locate`](GStage::locate), for an access that is not made yet: leaves what it finds as it is, the G-stage's own A and
    /// D bits too.
    ///
    /// # Errors
    ///
    /// What refuses.
    fn look(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
        self.locate(at, purpose)
    }

    /// Memory in which most entries and pages will be found, if it knows: for speed only.
    fn stretch(&self) -> Option<Stretch> {
        None
    }

    /// Logs that bytes of the page of `gpa` were written through [`direct`](Self::direct), while
    /// [`is_logging`](Self::is_logging). Called after that.
    fn mark_dirty(&self, gpa: Gpa);
}

// SAFETY: a located page is one that `run` has found to be memory of a slot, and writable for a store: the contract of slots
// and page entries. A view is the guard itself.
unsafe impl BackingMemory for PhysicalView<'_> {
    #[inline]
    fn is_logging(&self) -> bool {
        self.logging()
    }

    #[inline]
    fn direct(&self, page: &Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        *page
    }

    #[inline]
    fn stretch(&self) -> Option<Stretch> {
        PhysicalView::stretch(self)
    }

    fn mark_dirty(&self, gpa: Gpa) {
        PhysicalView::mark_dirty(self, gpa);
    }
}
