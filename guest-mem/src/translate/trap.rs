//! What hardware reports for a fault that a walk found (R18, R22, R58).

use super::Purpose;
use crate::access::AccessKind;
use crate::cause;
use crate::fault::{Fault, FaultKind, HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE, TrapInfo};

/// The trap CSRs of `fault`, met by an access for `purpose`, on a hart that writes `htval` always and, for explicit accesses,
/// `htinst` never. `None` for a fault that is no trap: one that software found before it asked the machine.
pub const fn trap_of(fault: &Fault, purpose: Purpose) -> Option<TrapInfo> {
    use AccessKind::{Fetch, Load, Store};
    let kind = purpose.access_kind();
    let scause = match fault.kind {
        FaultKind::Page => match kind {
            Fetch => cause::INSTRUCTION_PAGE,
            Load => cause::LOAD_PAGE,
            Store => cause::STORE_PAGE,
        },
        // The original type, also when the G-stage refused a page-table entry.
        FaultKind::GuestPage { .. } => match kind {
            Fetch => cause::INSTRUCTION_GUEST_PAGE,
            Load => cause::LOAD_GUEST_PAGE,
            Store => cause::STORE_GUEST_PAGE,
        },
        FaultKind::Access => match kind {
            Fetch => cause::INSTRUCTION_ACCESS,
            Load => cause::LOAD_ACCESS,
            Store => cause::STORE_ACCESS,
        },
        FaultKind::Misaligned => match kind {
            Fetch => cause::INSTRUCTION_MISALIGNED,
            Load => cause::LOAD_MISALIGNED,
            Store => cause::STORE_MISALIGNED,
        },
        FaultKind::ShadowStack => match kind {
            Fetch => cause::INSTRUCTION_ACCESS,
            Load | Store => cause::STORE_ACCESS,
        },
        _ => return None,
    };
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
            Store => HTINST_PAGE_TABLE_WRITE,
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
