//! What hardware reports for a fault that a walk found (R18, R22, R58).

use super::Purpose;
use crate::access::AccessKind;
use crate::cause::{self, Refusal, Refuser};
use crate::fault::{Fault, FaultKind, HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE, TrapInfo};

/// The trap CSRs of `fault`, met by an access for `purpose`, on a hart that writes `htval` always and, for explicit accesses,
/// `htinst` never. `None` for a fault that is no trap: one that software found before it asked the machine.
pub const fn trap_of(fault: &Fault, purpose: Purpose) -> Option<TrapInfo> {
    let access = purpose.access_kind();
    let (by, access) = match fault.kind {
        FaultKind::Page => (Refuser::VsStage, access),
        // The original type, also when the G-stage refused a page-table entry.
        FaultKind::GuestPage { .. } => (Refuser::GStage, access),
        FaultKind::Access => (Refuser::Machine, access),
        FaultKind::Misaligned => (Refuser::Alignment, access),
        FaultKind::ShadowStack => match access {
            AccessKind::Fetch => (Refuser::Machine, AccessKind::Fetch),
            AccessKind::Load | AccessKind::Store => (Refuser::Machine, AccessKind::Store),
        },
        _ => return None,
    };
    let scause = cause::of_refusal(Refusal { by, access });
    let stval = match (fault.gva, fault.gpa) {
        (Some(gva), _) => gva.value(),
        (None, Some(gpa)) => gpa.value(),
        (None, None) => 0,
    };
    let htval = match (fault.kind, fault.gpa) {
        (FaultKind::GuestPage { .. }, Some(gpa)) => gpa.value() >> 2,
        _ => 0,
    };
    let htinst = match fault.kind {
        FaultKind::GuestPage {
            implicit: true,
            access,
        } if htval != 0 => match access {
            AccessKind::Store => HTINST_PAGE_TABLE_WRITE,
            _ => HTINST_PAGE_TABLE_READ,
        },
        _ => 0,
    };
    Some(TrapInfo {
        scause,
        stval,
        htval,
        htinst,
    })
}
