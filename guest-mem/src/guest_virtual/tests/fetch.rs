//! Instruction fetch.

use super::*;

#[test]
fn r8_instructions_of_both_lengths_are_fetched_across_a_page_boundary() {
    let memory = RamArray::<64>::new();
    // Execute-only is enough (R5).
    let guest = guest_with_code(memory.at(RAM_BASE), entry::X | entry::U);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let fetched = vcpu.fetch_instruction(CODE, USER).unwrap();
    assert_eq!((fetched.bits(), fetched.length()), (0x0045_a503, 4));
    let short = vcpu
        .fetch_instruction(Gva::new(CODE.value() - 2), USER)
        .unwrap();
    assert_eq!((short.bits(), short.length()), (0x4501, 2));
    assert_eq!(hart.counts().fetches, 3);
}

#[test]
fn r8_the_second_half_has_its_own_fault() {
    for quirk in [false, true] {
        let memory = RamArray::<64>::new();
        let guest = guest_with_code(memory.at(RAM_BASE), entry::X | entry::U);
        let quirks = Quirks {
            hlvx_faults_as_fetch: quirk,
            ..Quirks::default()
        };
        let hart = guest.hart_of(Machine {
            quirks,
            ..Machine::new()
        });
        let second = Gva::new(CODE.value() + 2);

        guest.unback(gpa(11)).unwrap();
        let error = load(&hart).fetch_instruction(CODE, USER).unwrap_err();
        assert_eq!((error.completed, error.fault.gva), (2, Some(second)));
        let resolution = Resolution::Resolve {
            gpa: gpa(11),
            access: AccessKind::Fetch,
        };
        assert_eq!(error.fault.resolution(), resolution, "R60 {quirk}");

        guest.map(second, gpa(11), RWU).unwrap();
        let error = load(&hart).fetch_instruction(CODE, USER).unwrap_err();
        let injection = Injection {
            cause: 12,
            tval: second.value(),
        };
        assert_eq!(
            (error.completed, error.fault.resolution()),
            (2, Resolution::Inject(injection)),
            "R60 {quirk}"
        );
    }
}

#[test]
fn r7_vs_mode_fetches_from_no_user_page_whatever_sum_says() {
    let memory = RamArray::<64>::new();
    let guest = guest_with_code(memory.at(RAM_BASE), entry::R | entry::X | entry::U);
    let hart = guest.hart();
    hart.set_register(Register::Vsstatus, STATUS_SUM);
    let vcpu = load(&hart);
    assert!(vcpu.guest_virtual(SUPERVISOR).read(CODE, &mut [0]).is_ok());
    let error = vcpu.fetch_instruction(CODE, SUPERVISOR).unwrap_err();
    assert_eq!(
        error.fault.resolution(),
        Resolution::Inject(Injection {
            cause: 12,
            tval: CODE.value()
        })
    );
    assert!(vcpu.fetch_instruction(CODE, USER).is_ok());
}
