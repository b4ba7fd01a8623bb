//! The guest's page tables, read and updated where the host has them.
//!
//! The one idea: a slot is the G-stage's answer without its table. Each table's address goes through the slots at each level
//! (R47, R57), each entry is one 64-bit atomic access, and an update of an A or D bit is a write like any other: refused where
//! the slot or page is read-only, and logged.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::slot::{Backing, Slot};
use super::view::PhysicalView;
use crate::access::AccessKind;
use crate::address::Gpa;
use crate::fault::{AccessError, FaultKind};
use crate::guest_memory::GuestMemory;
use crate::translate::{GStage, Purpose};

impl PhysicalView<'_> {
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

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
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

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
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
