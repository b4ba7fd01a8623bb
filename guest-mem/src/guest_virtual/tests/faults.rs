//! Guest-page faults name what has to be resolved.

use super::*;

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
