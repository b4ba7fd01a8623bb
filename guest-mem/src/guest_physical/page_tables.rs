//! The guest's page tables, read and updated where the host has them.
//!
//! The one idea: a slot is the G-stage's answer without its table. Each table's address goes through the slots at each level
//! (R47, R57), each entry is one 64-bit atomic access, and an update of an A or D bit is a write like any other: refused where
//! the slot or page is read-only, and logged.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::direct;
use super::slot::{Backing, Slot};
use super::view::PhysicalView;
use crate::access::{AccessKind, Width};
use crate::address::Gpa;
use crate::fault::{AccessError, FaultKind, Operation};
use crate::guest_memory::GuestMemory;
use crate::translate::{GStage, Purpose};

/// A range of guest-physical memory that the host has in one piece: where, without asking for each address.
///
/// Good while the guard exists that gave it.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    base: u64,
    len: u64,
    host: NonNull<u8>,
    writable: bool,
}

impl Stretch {
    /// No address.
    pub(crate) const EMPTY: Self = Self {
        base: 0,
        len: 0,
        host: NonNull::dangling(),
        writable: false,
    };

    /// The host's address of `at`, if the access may be made here.
    #[inline(always)]
    pub(crate) fn place(&self, at: Gpa, purpose: Purpose) -> Option<NonNull<u8>> {
        let offset = at.value().wrapping_sub(self.base);
        let allowed = self.writable || purpose.access_kind() != AccessKind::Store;
        // SAFETY: inside the range, whose bytes are at `host`.
        (offset < self.len && allowed).then(|| unsafe { self.host.add(offset as usize) })
    }

    /// The page-table entry at `at`, if it is here.
    ///
    /// # Safety
    ///
    /// `at` is aligned to 8.
    #[inline(always)]
    pub(crate) unsafe fn load(&self, at: Gpa) -> Option<u64> {
        let host = self.place(at, Purpose::Load)?;
        // SAFETY: valid for reads, by the contract of who made it; ranges are aligned alike in both spaces, to a page.
        Some(unsafe { direct::load(host.as_ptr(), Width::Double, Ordering::Acquire) })
    }
}

impl PhysicalView<'_> {
    /// The host's address of `at`, if the slot that was used last has it as memory and lets the operation be: the way of almost
    /// every entry and page, in a few instructions. `None` says nothing about the address.
    #[inline]
    fn plain_address(&self, operation: Operation, at: Gpa) -> Option<NonNull<u8>> {
        match self.in_last_slot(operation, at) {
            Some((_, host)) => NonNull::new(host),
            None => self.paged_address(operation, at),
        }
    }

    /// The slot that was used last, if it is linear.
    pub fn stretch(&self) -> Option<Stretch> {
        let slot = self.slots().get(self.last_slot())?;
        match slot.backing() {
            Backing::Linear { host } => Some(Stretch {
                base: slot.base().value(),
                len: slot.byte_len(),
                host,
                writable: !slot.is_read_only(),
            }),
            _ => None,
        }
    }

    /// Whether a table of the guest's may be at `at`. One among device registers, passed through or emulated, is a guest-page
    /// fault: for the host to decide about, never to read or emulate (R57, R58).
    fn check_table(&self, at: Gpa, access: AccessKind) -> Result<(), FaultKind> {
        match self.slot_at(at).map(Slot::backing) {
            Some(Backing::Device { .. } | Backing::Trapped) => Err(FaultKind::GuestPage {
                access,
                implicit: false,
            }),
            _ => Ok(()),
        }
    }
}

/// A guest's table may name any address, also one that is too wide: no slot has it.
fn refusal(error: AccessError) -> FaultKind {
    match error.fault.kind {
        FaultKind::OutOfRange => FaultKind::NoSlot,
        kind => kind,
    }
}

/// Walks of the guest's tables through the slots. Under [`AdPolicy::Update`](crate::translate::AdPolicy::Update) they set A
/// and D bits as hardware does, and the dirty log has the page-table pages that this changes.
///
/// The page found is the host address of the byte, good while the view exists; `None` where the host does not map it.
impl GStage for PhysicalView<'_> {
    type Page = Option<NonNull<u8>>;

    #[inline]
    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        if at.is_aligned_to(size_of::<u64>() as u64)
            && let Some(host) = self.plain_address(Operation::Load, at)
        {
            // SAFETY: memory of a slot, whose contract makes it valid for reads while this guard exists; slots and pages
            // are aligned alike in both spaces.
            return Ok(unsafe { direct::load(host.as_ptr(), Width::Double, Ordering::Acquire) });
        }
        self.check_table(at, AccessKind::Load)?;
        self.load(at, Ordering::Acquire).map_err(refusal)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        self.check_table(at, AccessKind::Store)?;
        self.compare_exchange(at, current, new, Ordering::AcqRel)
            .map_err(refusal)
    }

    #[inline]
    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
        if let Some(host) = self.plain_address(purpose.operation(), at) {
            return Ok(Some(host));
        }
        self.host_address(purpose.operation(), at)
            .map_err(|fault| match fault.kind {
                FaultKind::GuestPage { implicit, .. } => FaultKind::GuestPage {
                    access: purpose.access_kind(),
                    implicit,
                },
                kind => kind,
            })
    }
}
