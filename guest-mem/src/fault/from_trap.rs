//! Reading a trap: from the CSRs of a guest-access fault to a [`Fault`].
//!
//! The one idea: the cause is decoded by table and never assumed (R18), and the fetch causes that some machines raise for
//! `hlvx` (R60) are folded into the load causes that the specification names.

use super::{
    Fault, FaultKind, HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE, Operation, TrapInfo,
};
use crate::access::AccessKind;
use crate::address::{Gpa, Gva};
use crate::cause;

/// Which address `stval` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// The VS-stage was on: a guest-virtual address.
    Virtual,
    /// The VS-stage was Bare as the guest's own choice: a guest-virtual address, and the guest-physical one of the same number.
    Identity,
    /// `vsatp` was 0 for the access: a guest-physical address.
    Physical,
}

/// Whether `htinst` says that the access was an implicit one, and of which kind (R58).
fn implicit_access(htinst: u64) -> Option<AccessKind> {
    // The 32-bit forms, 0x2000 and 0x2020, are those of a guest with VSXLEN=32.
    match htinst {
        HTINST_PAGE_TABLE_READ | 0x2000 => Some(AccessKind::Load),
        HTINST_PAGE_TABLE_WRITE | 0x2020 => Some(AccessKind::Store),
        _ => None,
    }
}

/// The guest-physical address in `htval`, if there is one (R22): of the access itself, with the low bits that `htval`
/// lacks, or of a page-table entry. `htval` 0 means that none was given, except that page 0 has it too.
fn reported_gpa(trap: &TrapInfo, implicit: bool) -> Option<Gpa> {
    if trap.htval == 0 {
        return None;
    }
    let low = if implicit { 0 } else { trap.stval & 0b11 };
    Some(Gpa::new(trap.htval << 2 | low))
}

impl Fault {
    /// The fault that a trap of a guest access means.
    pub(crate) fn from_trap(operation: Operation, space: Space, trap: TrapInfo) -> Self {
        let implicit = implicit_access(trap.htinst);
        let guest_page = FaultKind::GuestPage {
            access: implicit.unwrap_or(operation.access_kind()),
            implicit: implicit.is_some(),
        };
        let kind = match trap.scause {
            // R60: `hlvx` may report both stages as cause 12; only the G-stage fills htval or htinst.
            cause::INSTRUCTION_PAGE if trap.htval != 0 || implicit.is_some() => guest_page,
            cause::INSTRUCTION_PAGE | cause::LOAD_PAGE | cause::STORE_PAGE => FaultKind::Page,
            cause::INSTRUCTION_GUEST_PAGE | cause::LOAD_GUEST_PAGE | cause::STORE_GUEST_PAGE => {
                guest_page
            }
            cause::INSTRUCTION_ACCESS | cause::LOAD_ACCESS | cause::STORE_ACCESS => {
                FaultKind::Access
            }
            cause::INSTRUCTION_MISALIGNED | cause::LOAD_MISALIGNED | cause::STORE_MISALIGNED => {
                FaultKind::Misaligned
            }
            _ => FaultKind::UnexpectedCause,
        };
        let (gva, gpa) = match space {
            Space::Virtual => {
                let gpa = match kind {
                    FaultKind::GuestPage { implicit, .. } => reported_gpa(&trap, implicit),
                    _ => None,
                };
                (Some(Gva::new(trap.stval)), gpa)
            }
            Space::Identity => (Some(Gva::new(trap.stval)), Some(Gpa::new(trap.stval))),
            Space::Physical => (None, Some(Gpa::new(trap.stval))),
        };
        // Without a VS-stage none could refuse: R60 again, for a guest-physical address whose htval is 0.
        let kind = match (space, kind) {
            (Space::Identity | Space::Physical, FaultKind::Page) => guest_page,
            (_, kind) => kind,
        };
        Self {
            operation,
            kind,
            gva,
            gpa,
            trap: Some(trap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap(scause: u64, stval: u64, htval: u64, htinst: u64) -> TrapInfo {
        TrapInfo {
            scause,
            stval,
            htval,
            htinst,
        }
    }

    const EXPLICIT_LOAD: FaultKind = FaultKind::GuestPage {
        access: AccessKind::Load,
        implicit: false,
    };

    #[test]
    fn r18_every_cause_has_its_kind() {
        let rows = [
            (13, Operation::Read, FaultKind::Page),
            (15, Operation::Write, FaultKind::Page),
            (5, Operation::Read, FaultKind::Access),
            (7, Operation::Write, FaultKind::Access),
            (4, Operation::Read, FaultKind::Misaligned),
            (6, Operation::Write, FaultKind::Misaligned),
            (21, Operation::Read, EXPLICIT_LOAD),
            (
                23,
                Operation::Write,
                FaultKind::GuestPage {
                    access: AccessKind::Store,
                    implicit: false,
                },
            ),
            (2, Operation::Read, FaultKind::UnexpectedCause),
        ];
        for (scause, operation, kind) in rows {
            let fault = Fault::from_trap(operation, Space::Virtual, trap(scause, 0x1000, 0, 0));
            assert_eq!(fault.kind, kind, "cause {scause}");
        }
    }

    #[test]
    fn r22_the_gpa_is_htval_shifted_with_the_low_bits_of_stval() {
        let fault = Fault::from_trap(
            Operation::Read,
            Space::Virtual,
            trap(21, 0x7fff_1236, 0x1000_048d, 0x6c00_4573),
        );
        assert_eq!(fault.gpa, Some(Gpa::new(0x4000_1236)));
        assert_eq!(fault.gva, Some(Gva::new(0x7fff_1236)));
    }

    #[test]
    fn r22_an_implicit_fault_names_the_page_table_entry() {
        for (htinst, access) in [(0x3000, AccessKind::Load), (0x3020, AccessKind::Store)] {
            let fault = Fault::from_trap(
                Operation::Write,
                Space::Virtual,
                trap(23, 0x1003, 0x1000_0406, htinst),
            );
            assert_eq!(
                fault.kind,
                FaultKind::GuestPage {
                    access,
                    implicit: true
                }
            );
            assert_eq!(fault.gpa, Some(Gpa::new(0x4000_1018)));
        }
    }

    #[test]
    fn r22_without_htval_the_gpa_is_unknown() {
        let fault = Fault::from_trap(Operation::Read, Space::Virtual, trap(21, 0x1000, 0, 0));
        assert_eq!((fault.kind, fault.gpa), (EXPLICIT_LOAD, None));
    }

    #[test]
    fn r60_a_fetch_fault_of_hlvx_is_sorted_by_htval() {
        let fetch = |htval, htinst| {
            Fault::from_trap(
                Operation::Fetch,
                Space::Virtual,
                trap(12, 0x1000, htval, htinst),
            )
            .kind
        };
        assert_eq!(fetch(0, 0), FaultKind::Page);
        assert_eq!(
            fetch(0x400, 0),
            FaultKind::GuestPage {
                access: AccessKind::Fetch,
                implicit: false
            }
        );
        assert_eq!(
            fetch(0, 0x3000),
            FaultKind::GuestPage {
                access: AccessKind::Load,
                implicit: true
            }
        );
    }

    #[test]
    fn r22_without_a_vs_stage_the_guest_physical_address_is_stval() {
        for (space, gva) in [
            (Space::Physical, None),
            (Space::Identity, Some(Gva::new(0x123))),
        ] {
            for scause in [21, 13, 12] {
                let fault = Fault::from_trap(Operation::Read, space, trap(scause, 0x123, 0, 0));
                assert_eq!(
                    (fault.kind, fault.gva, fault.gpa),
                    (EXPLICIT_LOAD, gva, Some(Gpa::new(0x123)))
                );
            }
        }
    }
}
