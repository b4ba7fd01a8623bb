//! Reading a trap: from the CSRs of a guest-access fault to a [`Fault`].
//!
//! The one idea: the cause is decoded by table and never assumed (R18), and the fetch causes that some machines raise for
//! `hlvx` (R60) are folded into the load causes that the specification names.

use super::{
    AccessError, Fault, FaultKind, HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE, Operation,
    TrapInfo,
};
use crate::access::AccessKind;
use crate::address::{Gpa, Gva};
use crate::cause;
use crate::csr::VsMode;

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

impl Space {
    /// That of guest-virtual accesses under this `vsatp`.
    #[inline(always)]
    pub(crate) fn of_vsatp(vsatp: u64) -> Self {
        if matches!(VsMode::of(vsatp), Some(VsMode::Bare)) {
            Self::Identity
        } else {
            Self::Virtual
        }
    }
}

/// Who refused, by cause: the causes of each as bits.
mod refused {
    use crate::cause::{HARDWARE_ERROR, Refuser, bits, bits_of};

    pub const BY_G_STAGE: u32 = bits_of(Refuser::GStage);
    pub const BY_VS_STAGE: u32 = bits_of(Refuser::VsStage);
    pub const BY_MACHINE: u32 = bits_of(Refuser::Machine) | bits(&[HARDWARE_ERROR]);
    pub const AS_MISALIGNED: u32 = bits_of(Refuser::Alignment);
}

/// Whether `htinst` says that the access was an implicit one, and of which kind (R58).
#[inline(always)]
const fn implicit_access(htinst: u64) -> Option<AccessKind> {
    // The 32-bit forms, 0x2000 and 0x2020, are those of a guest with VSXLEN=32.
    const WRITES: u64 = HTINST_PAGE_TABLE_READ ^ HTINST_PAGE_TABLE_WRITE;
    const VSXLEN_64: u64 = 0x1000;
    if htinst & !(WRITES | VSXLEN_64) != HTINST_PAGE_TABLE_READ & !VSXLEN_64 {
        None
    } else if htinst & WRITES != 0 {
        Some(AccessKind::Store)
    } else {
        Some(AccessKind::Load)
    }
}

/// The bit of `htinst` that is set where it holds a transformed instruction: the access was the explicit one then (R58).
const TRANSFORMED: u64 = 1;

/// The type of the implicit access, where the cause says that it was another one than the access asked for: some machines report
/// a read of a page table as a load, also for a store, and an update as a store, also for a load (R67, R68).
#[inline(always)]
fn other_access(operation: Operation, space: Space, scause: u64) -> Option<AccessKind> {
    let is_store = matches!(operation.access_kind(), AccessKind::Store);
    match scause {
        // Without a VS-stage the guest has no page tables.
        _ if space != Space::Virtual => None,
        cause::LOAD_GUEST_PAGE if is_store => Some(AccessKind::Load),
        cause::STORE_GUEST_PAGE if !is_store => Some(AccessKind::Store),
        _ => None,
    }
}

impl Fault {
    /// The fault that a trap of a guest access means.
    #[inline(always)]
    pub(crate) fn from_trap(operation: Operation, space: Space, trap: TrapInfo) -> Self {
        let fault = Self::at_stval(operation, space, trap);
        if trap.stval == 0 {
            return fault.without_address_of_0();
        }
        fault
    }

    /// The same, where `stval` is believed.
    #[inline(always)]
    fn at_stval(operation: Operation, space: Space, trap: TrapInfo) -> Self {
        let cause = cause::bit(trap.scause);
        let by_vs_stage = cause & refused::BY_VS_STAGE != 0;
        let by_g_stage = cause & refused::BY_G_STAGE != 0
            // Without a VS-stage none could refuse; and where `hlvx` reports both stages as cause 12 (R60), only the G-stage
            // fills htval or htinst.
            || by_vs_stage
                && (space != Space::Virtual
                    || trap.scause == cause::INSTRUCTION_PAGE
                        && (trap.htval != 0 || implicit_access(trap.htinst).is_some()));
        let (kind, mut gpa) = if by_g_stage {
            // R22: htval lacks the two low bits, which stval has where it is of the same access. An htval of 0 means that none
            // was given, except that addresses 0 to 3 have it too.
            // A budget of instructions counts this: the usual machine says in one bit that the access was the explicit one.
            let implicit = if trap.htinst & TRANSFORMED != 0 {
                None
            } else {
                implicit_access(trap.htinst).or_else(|| other_access(operation, space, trap.scause))
            };
            let (access, implicit, low) = match implicit {
                None => (operation.access_kind(), false, trap.stval & 0b11),
                Some(access) => (access, true, 0),
            };
            let gpa = (trap.htval != 0).then_some(Gpa::new(trap.htval << 2 | low));
            (FaultKind::GuestPage { access, implicit }, gpa)
        } else if by_vs_stage {
            (FaultKind::Page, None)
        } else if cause & refused::BY_MACHINE != 0 {
            (FaultKind::Access, None)
        } else if cause & refused::AS_MISALIGNED != 0 {
            (FaultKind::Misaligned, None)
        } else {
            (FaultKind::UnexpectedCause, None)
        };
        if space != Space::Virtual {
            gpa = Some(Gpa::new(trap.stval));
        }
        Self {
            operation,
            kind,
            gva: (space != Space::Physical).then_some(Gva::new(trap.stval)),
            gpa,
            trap: Some(trap),
        }
    }

    /// R93: a machine that refuses an access need not say where, and `stval` is 0 then. The guest gets what its own trap said.
    #[inline(always)]
    fn without_address_of_0(self) -> Self {
        if self.kind == FaultKind::Access && !self.operation.is_guests_own() {
            return Self {
                gva: None,
                gpa: None,
                ..self
            };
        }
        self
    }
}

impl AccessError {
    /// The error of an access that trapped after `completed` bytes.
    #[inline(always)]
    pub(crate) fn from_trap(
        operation: Operation,
        space: Space,
        completed: usize,
        trap: TrapInfo,
    ) -> Self {
        /// Out of the way of accesses that do not fault. All arguments are in registers.
        #[cold]
        #[inline(never)]
        fn decoded(
            operation: Operation,
            space: Space,
            completed: usize,
            scause: u64,
            stval: u64,
            htval: u64,
            htinst: u64,
        ) -> AccessError {
            let trap = TrapInfo {
                scause,
                stval,
                htval,
                htinst,
            };
            if stval == 0 {
                return at_0(operation, space, completed, scause, htval, htinst);
            }
            Fault::at_stval(operation, space, trap).after(completed)
        }

        /// Out of the way of the others, of which a budget of instructions counts each.
        #[cold]
        #[inline(never)]
        fn at_0(
            operation: Operation,
            space: Space,
            completed: usize,
            scause: u64,
            htval: u64,
            htinst: u64,
        ) -> AccessError {
            let trap = TrapInfo {
                scause,
                stval: 0,
                htval,
                htinst,
            };
            Fault::from_trap(operation, space, trap).after(completed)
        }
        let TrapInfo {
            scause,
            stval,
            htval,
            htinst,
        } = trap;
        decoded(operation, space, completed, scause, stval, htval, htinst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Resolution;

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

    /// QEMU before 8.1 reads page tables by a load; others update them by a store.
    #[test]
    fn r67_a_cause_of_another_type_is_that_of_a_page_table() {
        use Operation::{Fetch, Load, Read, Store, Write};
        let implicit = |access| (access, true);
        let explicit = |access| (access, false);
        for (scause, operation, (access, implicit)) in [
            (23, Read, implicit(AccessKind::Store)),
            (23, Load, implicit(AccessKind::Store)),
            (23, Fetch, implicit(AccessKind::Store)),
            (21, Write, implicit(AccessKind::Load)),
            (21, Store, implicit(AccessKind::Load)),
            (21, Read, explicit(AccessKind::Load)),
            (21, Fetch, explicit(AccessKind::Fetch)),
            (20, Fetch, explicit(AccessKind::Fetch)),
            (23, Store, explicit(AccessKind::Store)),
        ] {
            let trap = trap(scause, 0x1003, 0x1000_0406, 0);
            let fault = Fault::from_trap(operation, Space::Virtual, trap);
            let low = if implicit { 0 } else { 3 };
            let gpa = Gpa::new(0x4000_1018 | low);
            assert_eq!(fault.kind, FaultKind::GuestPage { access, implicit });
            assert_eq!((fault.gpa, fault.trap), (Some(gpa), Some(trap)));
            let resolve = Resolution::Resolve { gpa, access };
            assert_eq!((fault.operation, fault.resolution()), (operation, resolve));
            // Without a VS-stage there are no tables.
            let fault = Fault::from_trap(operation, Space::Physical, trap);
            let access = operation.access_kind();
            let implicit = false;
            assert_eq!(fault.kind, FaultKind::GuestPage { access, implicit });
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
