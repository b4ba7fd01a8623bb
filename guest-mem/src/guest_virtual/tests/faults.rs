//! Guest-page faults name what has to be resolved.

use super::*;
use crate::csr::ENVCFG_ADUE;
use crate::hart::model::Event;
use crate::translate::entry::{A, D, R, U, V, W, X};

#[test]
fn a_guest_page_fault_is_to_be_resolved_at_its_guest_physical_address() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    guest.unback(gpa(PAGES[1])).unwrap();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let error = vcpu
        .guest_virtual(USER)
        .write(Gva::new(GVA.value() + 4090), &[1; 20])
        .unwrap_err();
    assert_eq!(error.completed, 6);
    let resolution = Resolution::Resolve {
        gpa: gpa(PAGES[1]),
        access: AccessKind::Store,
    };
    assert_eq!(error.fault.resolution(), resolution);
    // If nothing backs it, the guest sees the access fault of the original type.
    let unbacked = Injection {
        cause: 7,
        tval: GVA.value() + 4096,
    };
    assert_eq!(error.fault.injection_when_unbacked(), Some(unbacked));

    let error = vcpu
        .guest_physical()
        .read(Gpa::new(gpa(PAGES[1]).value() + 5), &mut [0; 4])
        .unwrap_err();
    let at = Gpa::new(gpa(PAGES[1]).value() + 5);
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve {
            gpa: at,
            access: AccessKind::Load
        }
    );
    assert_eq!(error.fault.injection_when_unbacked(), None);
}

#[test]
fn r22_an_unreachable_page_table_is_to_be_resolved_for_reading() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let leaf_entry = guest.entry(GVA).unwrap();
    guest.unback(leaf_entry).unwrap();
    let hart = guest.hart();
    let error = load(&hart)
        .guest_virtual(USER)
        .write(GVA, &[1])
        .unwrap_err();
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve {
            gpa: leaf_entry,
            access: AccessKind::Load
        }
    );
    let unbacked = Injection {
        cause: 7,
        tval: GVA.value(),
    };
    assert_eq!(error.fault.injection_when_unbacked(), Some(unbacked));
}

#[test]
fn r22_under_a_bare_vs_stage_the_guest_physical_address_is_known_without_htval() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // Address 0 has an htval of 0 on every machine.
    for (writes_htval, address) in [(true, 0), (false, 0), (false, 0x5008)] {
        for quirk in [false, true] {
            let hart = guest.hart_of(Machine {
                writes_htval,
                quirks: Quirks {
                    hlvx_faults_as_fetch: quirk,
                    ..Quirks::default()
                },
                ..Machine::new()
            });
            hart.set_register(Register::Vsatp, 0);
            let vcpu = load(&hart);
            let resolve = |access| Resolution::Resolve {
                gpa: Gpa::new(address),
                access,
            };
            let error = vcpu
                .fetch_instruction(Gva::new(address), SUPERVISOR)
                .unwrap_err();
            assert_eq!(error.fault.resolution(), resolve(AccessKind::Fetch));
            let error = vcpu
                .guest_virtual(SUPERVISOR)
                .read(Gva::new(address), &mut [0])
                .unwrap_err();
            assert_eq!(error.fault.resolution(), resolve(AccessKind::Load));
        }
    }
}

/// The guest of the tests with its leaf table's page shown by the G-stage with `bits`, and the leaf's A and D clear.
fn with_table<'a>(guest: &ModelGuest<'a>, leaf: u64, bits: Option<u64>) -> Gpa {
    let entry = guest.entry(GVA).unwrap();
    guest.set_entry(GVA, leaf).unwrap();
    match bits {
        Some(bits) => guest
            .back(
                entry.page_base(),
                guest.spa(entry.page_base()).unwrap(),
                bits,
            )
            .unwrap(),
        None => guest.unback(entry.page_base()).unwrap(),
    }
    entry
}

/// A machine on which `htinst` of an implicit access follows the explicit one, and whose hardware updates A and D bits.
fn follows<'a>(guest: &ModelGuest<'a>) -> ModelHart<'a> {
    let quirks = Quirks {
        htinst_follows_access: true,
        ..Quirks::default()
    };
    let hart = guest.hart_of(Machine {
        quirks,
        ..Machine::new()
    });
    hart.set_register(Register::Menvcfg, ENVCFG_ADUE);
    hart.set_register(Register::Henvcfg, ENVCFG_ADUE);
    hart
}

/// By every way of an access, what has to be resolved: a read of the table if it is not there, an update if it is read-only.
#[test]
fn r76_reads_and_updates_of_tables_are_told_apart_without_htinst() {
    for readable in [false, true] {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU | X);
        let leaf = V | R | W | X | U | (gpa(PAGES[0]).page_number() << 10);
        let entry = with_table(&guest, leaf, readable.then_some(R | U));
        let hart = follows(&guest);
        let mut vcpu = load(&hart);
        let access = if readable {
            AccessKind::Store
        } else {
            AccessKind::Load
        };
        let resolve = Resolution::Resolve { gpa: entry, access };
        let user = vcpu.guest_virtual(USER);
        let order = Ordering::Relaxed;
        let mut many = [0; 3 * 4096];
        for error in [
            user.read(GVA, &mut [0; 8]).unwrap_err(),
            user.read(GVA, &mut many).unwrap_err(),
            user.write(GVA, &[1]).unwrap_err(),
            user.fill(GVA, 1, 20).unwrap_err(),
            user.load::<u32>(GVA, order).unwrap_err(),
            user.store(GVA, 1u8, order).unwrap_err(),
            vcpu.fetch_instruction(GVA, USER).unwrap_err(),
        ] {
            assert_eq!(error.fault.resolution(), resolve, "{error}");
        }
        let window = vcpu.open_window(USER);
        for error in [
            window.read(GVA, &mut [0; 8]).unwrap_err(),
            window.store(GVA, 1u8, order).unwrap_err(),
        ] {
            assert_eq!(error.fault.resolution(), resolve, "{error}");
        }
        drop(window);
        assert_eq!(hart.register(Register::Vsatp), guest.vsatp());
    }
}

/// An entry that needs no update was refused when it was read, and another hart has shown it since.
#[test]
fn r76_a_table_that_came_back_meanwhile_is_asked_for_reading() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let leaf = V | R | W | U | A | D | (gpa(PAGES[0]).page_number() << 10);
    let entry = with_table(&guest, leaf, None);
    let table = entry.page_base();
    let table_spa = guest.spa(table).unwrap();
    // The table's page is shown again between the access and the look at the entry.
    let come_back = |event: Event| {
        if event.index == 1 {
            guest.back(table, table_spa, R | W).unwrap();
        }
    };
    let hart = follows(&guest);
    hart.before_each_access(&come_back);
    let error = load(&hart)
        .guest_virtual(USER)
        .write(GVA, &[1])
        .unwrap_err();
    let access = AccessKind::Load;
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve { gpa: entry, access }
    );
    assert_eq!(hart.counts().accesses(), 2);
}

/// CVA6: what PMP refuses is cause 5 with `stval` 0, of a store as well (reported).
#[test]
fn r69_r93_what_pmp_refuses_without_an_address_has_none() {
    for recovery in [Recovery::HandlerHook, Recovery::ScopedStvec] {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU | entry::X);
        let hart = guest.hart_of(Machine {
            recovery,
            quirks: Quirks {
                protected_accesses_are_loads: true,
                ..Quirks::default()
            },
            ..Machine::new()
        });
        let start = guest.spa(gpa(PAGES[0])).unwrap();
        hart.protect(Protection {
            range: start..start.checked_add(4096).unwrap(),
            read: false,
            write: false,
            execute: false,
        });
        let vcpu = load(&hart);
        let user = vcpu.guest_virtual(USER);
        let physical = vcpu.guest_physical();
        let order = Ordering::Relaxed;
        for (operation, error) in [
            (Operation::Write, user.write(GVA, &[1]).unwrap_err()),
            (Operation::Read, user.read(GVA, &mut [0; 9]).unwrap_err()),
            (Operation::Store, user.store(GVA, 1u8, order).unwrap_err()),
            (
                Operation::Fetch,
                vcpu.fetch_instruction(GVA, USER).unwrap_err(),
            ),
            (
                Operation::Write,
                physical.write(gpa(PAGES[0]), &[1]).unwrap_err(),
            ),
        ] {
            let fault = error.fault;
            assert_eq!(
                (fault.operation, fault.kind),
                (operation, FaultKind::Access)
            );
            assert_eq!((fault.gva, fault.gpa), (None, None), "{error}");
            assert_eq!(fault.resolution(), Resolution::Refuse);
            assert_eq!(fault.trap.unwrap().scause, 5);
        }
    }
}
