//! The access window: what is borrowed comes back, and nothing is fenced.

use super::*;

#[test]
fn r2_the_stated_privilege_is_used_and_r3_so_is_the_guests_sum() {
    let memory = RamArray::<64>::new();
    let user_pages = guest(memory.at(RAM_BASE), RWU);
    let hart = user_pages.hart();
    let mut byte = [0];
    assert!(load(&hart).guest_virtual(USER).read(GVA, &mut byte).is_ok());
    assert!(
        load(&hart)
            .guest_virtual(SUPERVISOR)
            .read(GVA, &mut byte)
            .is_err()
    );
    hart.set_register(Register::Vsstatus, STATUS_SUM);
    assert!(
        load(&hart)
            .guest_virtual(SUPERVISOR)
            .read(GVA, &mut byte)
            .is_ok()
    );

    let memory = RamArray::<64>::new();
    let kernel_pages = guest(memory.at(RAM_BASE), RW);
    let hart = kernel_pages.hart();
    assert!(
        load(&hart)
            .guest_virtual(SUPERVISOR)
            .read(GVA, &mut byte)
            .is_ok()
    );
    assert!(
        load(&hart)
            .guest_virtual(USER)
            .read(GVA, &mut byte)
            .is_err()
    );
}

/// Everything that a window borrows, and what must come back.
const BORROWED: [Register; 5] = [
    Register::Sstatus,
    Register::Hstatus,
    Register::Hgatp,
    Register::Vsatp,
    Register::Vsstatus,
];

#[test]
fn every_borrowed_register_is_put_back_also_after_a_fault() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let fixed = entry::R | entry::X | entry::U;
    guest.map(Gva::new(0x20_0000), gpa(9), fixed).unwrap();
    let hole = Gva::new(0x30_0000);
    for status in [
        0,
        STATUS_SIE,
        STATUS_MXR,
        STATUS_SDT,
        STATUS_SIE | STATUS_MXR,
    ] {
        for spvp in [0, HSTATUS_SPVP] {
            for sum in [0, STATUS_SUM] {
                let hart = guest.hart_of(Machine {
                    recovery: Recovery::ScopedStvec,
                    ..Machine::new()
                });
                hart.set_register(Register::Sstatus, status);
                hart.set_register(Register::Hstatus, spvp);
                hart.set_register(Register::Vsstatus, sum);
                let before = BORROWED.map(|register| hart.register(register));
                let unchanged =
                    || assert_eq!(BORROWED.map(|register| hart.register(register)), before);
                let vcpu = load(&hart);
                let mut buffer = [0; 16];
                for privilege in [USER, SUPERVISOR] {
                    let _ = vcpu.guest_virtual(privilege).read(GVA, &mut buffer);
                    unchanged();
                    assert!(
                        vcpu.guest_virtual(privilege)
                            .read(hole, &mut buffer)
                            .is_err()
                    );
                    unchanged();
                    let _ = vcpu.fetch_instruction(Gva::new(0x20_0000), privilege);
                    unchanged();
                    assert!(vcpu.fetch_instruction(hole, privilege).is_err());
                    unchanged();
                }
                vcpu.guest_physical().read(gpa(1), &mut buffer).unwrap();
                unchanged();
                assert!(
                    vcpu.guest_physical()
                        .read(Gpa::new(0x1000), &mut buffer)
                        .is_err()
                );
                unchanged();
            }
        }
    }
}

#[test]
fn r20_the_scoped_form_keeps_the_exit_record_and_the_hook_does_not() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let record = [
        Register::Sepc,
        Register::Scause,
        Register::Stval,
        Register::Htval,
        Register::Htinst,
        Register::Sstatus,
    ];
    for (recovery, kept) in [
        (Recovery::ScopedStvec, true),
        (Recovery::HandlerHook, false),
    ] {
        let hart = guest.hart_of(Machine {
            recovery,
            ..Machine::new()
        });
        for (value, register) in record.into_iter().take(5).enumerate() {
            hart.set_register(register, 0x1111 * (value as u64 + 1));
        }
        let before = record.map(|register| hart.register(register));
        assert!(
            load(&hart)
                .guest_virtual(USER)
                .read(Gva::new(0), &mut [0; 4])
                .is_err()
        );
        assert_eq!(
            record.map(|register| hart.register(register)) == before,
            kept
        );
    }
}

#[test]
fn r33_no_access_fences_on_a_machine_as_specified() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // Every stale translation that the specification allows is kept, and yet nothing is missed.
    let hart = guest.hart_of(Machine {
        translations: Translations::Lazy,
        ..Machine::new()
    });
    let vcpu = load(&hart);
    let mut bytes = [0; 8];
    for _ in 0..3 {
        vcpu.guest_virtual(USER).read(GVA, &mut bytes).unwrap();
        assert_eq!(bytes[..2], [0, 7]);
        // The same number in the other space is another byte.
        assert!(
            vcpu.guest_physical()
                .read(Gpa::new(GVA.value()), &mut bytes)
                .is_err()
        );
        vcpu.guest_physical()
            .read(gpa(PAGES[1]), &mut bytes)
            .unwrap();
        assert_eq!(bytes[..2], [13, 20]);
        assert!(
            vcpu.guest_virtual(SUPERVISOR)
                .read(GVA, &mut bytes)
                .is_err()
        );
    }
    assert_eq!(hart.counts().fences(), 0);
}

#[test]
fn r35_a_machine_with_stale_vsatp_fences_on_a_change_of_key_only() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // The same number leads to page 1 as a guest-virtual address and to page 9 as a guest-physical one.
    let number = gpa(9).value();
    guest.map(Gva::new(number), gpa(1), RWU).unwrap();
    guest.write(gpa(9), &[0x99; 8]).unwrap();
    guest.write(gpa(1), &[0x11; 8]).unwrap();
    let quirks = Quirks {
        stale_vsatp: true,
        ..Quirks::default()
    };
    let hart = guest.hart_of(Machine {
        quirks,
        ..Machine::new()
    });
    // Without the fences this machine answers what it first saw.
    hart.fence_state().set_stale_vsatp(false);
    assert_eq!(read_at(&load(&hart), number, [false, true]), [0x11, 0x11]);
    hart.fence_state().set_stale_vsatp(true);
    let vcpu = load(&hart);
    assert_eq!(
        read_at(&vcpu, number, [false, true, false, true]),
        [0x11, 0x99, 0x11, 0x99]
    );
    hart.reset_counts();
    assert_eq!(read_at(&vcpu, number, [true; 3]), [0x99; 3]);
    assert_eq!(hart.counts().fences(), 0);
    read_at(&vcpu, number, [false]);
    assert!(hart.counts().fences() > 0);
}

/// A byte at the same number in the guest-physical space, where it says so, and in the guest-virtual one.
fn read_at<const N: usize>(
    vcpu: &LoadedVcpu<'_, impl Hart>,
    number: u64,
    physical: [bool; N],
) -> [u8; N] {
    physical.map(|physical| {
        let mut byte = [0];
        if physical {
            vcpu.guest_physical().read(Gpa::new(number), &mut byte)
        } else {
            vcpu.guest_virtual(USER).read(Gva::new(number), &mut byte)
        }
        .unwrap();
        byte[0]
    })
}

#[test]
fn r34_i9_an_unprobed_hart_reads_the_right_page() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let number = gpa(9).value();
    guest.map(Gva::new(number), gpa(1), RWU).unwrap();
    guest.write(gpa(9), &[0x99; 8]).unwrap();
    guest.write(gpa(1), &[0x11; 8]).unwrap();
    for stale_vsatp in [true, false] {
        let quirks = Quirks {
            stale_vsatp,
            ..Quirks::default()
        };
        let hart = guest.unprobed_hart_of(Machine {
            quirks,
            translations: Translations::Lazy,
            ..Machine::new()
        });
        let vcpu = load(&hart);
        assert_eq!(
            read_at(&vcpu, number, [false, true, true, false]),
            [0x11, 0x99, 0x99, 0x11]
        );
        // As on a machine that failed the probe: twice a change of key, and the first access.
        assert_eq!(hart.counts().hfence_vvma, 3);
    }
}

#[test]
fn r35_a_token_does_not_rely_on_the_accesses_of_another() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let number = gpa(9).value();
    guest.map(Gva::new(number), gpa(1), RWU).unwrap();
    guest.write(gpa(9), &[0x99; 8]).unwrap();
    guest.write(gpa(1), &[0x11; 8]).unwrap();
    let quirks = Quirks {
        stale_vsatp: true,
        ..Quirks::default()
    };
    let hart = guest.hart_of(Machine {
        quirks,
        ..Machine::new()
    });
    for _ in 0..3 {
        assert_eq!(read_at(&load(&hart), number, [false]), [0x11]);
        // Another value for the same hart knows no key of this one: it fences, and reads guest-physically.
        // SAFETY: what the token below needs is put back.
        unsafe {
            let vsatp = hart.swap_csr(Csr::Vsatp, 0);
            hart.hfence_vvma(None);
            assert_eq!(hart.load_guest(number, Width::Byte), Ok(0x99));
            hart.swap_csr(Csr::Vsatp, vsatp);
        }
    }
}

#[test]
fn r24_an_access_with_sdt_set_is_no_double_trap() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    for recovery in [Recovery::HandlerHook, Recovery::ScopedStvec] {
        let hart = guest.hart_of(Machine {
            recovery,
            ..Machine::new()
        });
        hart.set_register(Register::Sstatus, STATUS_SDT);
        assert!(
            load(&hart)
                .guest_virtual(USER)
                .read(Gva::new(0), &mut [0])
                .is_err()
        );
        assert_ne!(hart.register(Register::Sstatus) & STATUS_SDT, 0);
    }
}

#[test]
fn i8_the_hosts_mxr_does_not_reach_guest_accesses() {
    let memory = RamArray::<64>::new();
    let guest = guest_with_code(memory.at(RAM_BASE), entry::X | entry::U);
    let hart = guest.hart();
    hart.set_register(Register::Sstatus, STATUS_MXR);
    assert!(
        load(&hart)
            .guest_virtual(USER)
            .read(CODE, &mut [0])
            .is_err()
    );
    // The guest's own does, at its own stage (R4).
    hart.set_register(Register::Vsstatus, STATUS_MXR);
    assert!(load(&hart).guest_virtual(USER).read(CODE, &mut [0]).is_ok());
}

#[test]
fn r9_the_guests_users_byte_order_does_not_reach_guest_physical_accesses() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    for (ube, written) in [(0, 0), (STATUS_UBE, 2)] {
        let hart = guest.hart();
        hart.set_register(Register::Vsatp, 0);
        hart.set_register(Register::Vsstatus, ube);
        let vcpu = load(&hart);
        vcpu.guest_physical().read(gpa(1), &mut [0; 8]).unwrap();
        // SPVP goes to VS-mode and back, and only where it matters.
        assert_eq!(hart.counts().csr_writes, written);
        assert_eq!(hart.register(Register::Hstatus) & HSTATUS_SPVP, 0);
    }
}

#[test]
fn a_short_copy_across_a_page_opens_one_window_and_a_long_one_as_many_as_pages() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // `vsatp` is changed and put back in each window.
    for (at, len, windows) in [
        (4064, 64, 1),
        (1, 4096, 1),
        (1, 4097, 2),
        (4095, 4098, 3),
        (0, 8192, 2),
    ] {
        let hart = guest.hart();
        let vcpu = load(&hart);
        let before = hart.register(Register::Vsatp);
        let mut bytes = [0; 8192];
        vcpu.guest_physical()
            .read(Gpa::new(gpa(0).value() + at), &mut bytes[..len])
            .unwrap();
        assert_eq!(hart.counts().csr_writes, 2 * windows, "{len} bytes at {at}");
        assert_eq!(hart.register(Register::Vsatp), before);
    }
}
