//! Faults: what each reports, and what the trap leaves in the CSRs.

use super::*;
use crate::hart::model::registers::Register::{Hstatus, Htval, Scause, Sepc, Sstatus, Stval};

/// Makes one kind of fault in a guest and answers the address to access.
type Arrange = fn(&ModelGuest<'_>, &ModelHart<'_>) -> u64;

/// What it is, how to make it, the causes that `hlv`, `hsv` and `hlvx` report, and the guest-physical address.
type Example = (&'static str, Arrange, [u64; 3], Option<u64>);

const FAULTS: [Example; 7] = [
    (
        "VS-stage: not mapped",
        |_, _| PAGE + 0x1000,
        [13, 15, 13],
        None,
    ),
    (
        "VS-stage: not canonical",
        |_, _| 1 << 39,
        [13, 15, 13],
        None,
    ),
    (
        "G-stage: not backed",
        |guest, _| {
            guest.unback(FRAME).unwrap();
            PAGE + 0x18
        },
        [21, 23, 21],
        Some(FRAME.value() + 0x18),
    ),
    (
        "G-stage: no rights",
        |guest, _| {
            guest
                .set_g_entry(FRAME, pack(RAM_BASE.value(), R | W | X | A | D))
                .unwrap();
            PAGE
        },
        [21, 23, 21],
        Some(FRAME.value()),
    ),
    (
        "machine: protected",
        |guest, hart| {
            let start = guest.spa(FRAME).unwrap();
            hart.protect(Protection {
                range: start..Spa::new(start.value() + 0x1000),
                read: false,
                write: false,
                execute: false,
            });
            PAGE
        },
        [5, 7, 5],
        None,
    ),
    (
        "machine: no memory there",
        |guest, _| {
            guest.back(FRAME, Spa::new(0x1000), R | W | X).unwrap();
            PAGE
        },
        [5, 7, 5],
        None,
    ),
    ("misaligned", |_, _| PAGE + 1, [4, 6, 4], None),
];

fn fault_of(hart: &ModelHart<'_>, instruction: usize, address: u64) -> TrapInfo {
    match instruction {
        0 => hart.hlv(address, Width::Half).unwrap_err(),
        1 => hart.hsv(address, Width::Half, 0).unwrap_err(),
        _ => hart.parcel(address).unwrap_err(),
    }
}

#[test]
fn r18_r22_each_fault_reports_its_cause_and_address() {
    for (name, arrange, causes, gpa) in FAULTS {
        for (instruction, scause) in causes.into_iter().enumerate() {
            let memory = RamArray::<32>::new();
            let guest = guest(&memory);
            let hart = guest.hart();
            let stval = arrange(&guest, &hart);
            let htval = gpa.map_or(0, |gpa| gpa >> 2);
            let expected = TrapInfo {
                scause,
                stval,
                htval,
                htinst: 0,
            };
            assert_eq!(fault_of(&hart, instruction, stval), expected, "{name}");
            assert_eq!((hart.counts().faults, hart.counts().accesses()), (1, 1));
        }
    }
}

#[test]
fn r22_r58_a_page_table_that_is_not_backed_is_an_implicit_fault_of_the_original_type() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    let entry = guest.entry(Gva::new(PAGE)).unwrap();
    guest.unback(entry.page_base()).unwrap();
    for (instruction, scause) in [21, 23, 21].into_iter().enumerate() {
        let expected = TrapInfo {
            scause,
            stval: PAGE,
            htval: entry.value() >> 2,
            htinst: 0x3000,
        };
        assert_eq!(fault_of(&hart, instruction, PAGE), expected);
    }
}

#[test]
fn r19_r20_a_recovered_trap_overwrites_the_record_of_the_guests_exit() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    // As a guest's exit leaves them: from VS-mode, with interrupts off since.
    hart.set_register(Sstatus, STATUS_SPP | STATUS_SPIE);
    hart.set_register(Hstatus, HSTATUS_SPV | HSTATUS_SPVP);
    hart.set_register(Sepc, 0x1234);
    let vs = [Register::Vsatp, Register::Vsstatus, Register::Hgatp];
    let before = vs.map(|register| hart.register(register));
    guest.unback(FRAME).unwrap();
    hart.set_bits(Register::Vsstatus, STATUS_SUM);
    hart.hlv(PAGE, Width::Byte).unwrap_err();

    // SPIE became the SIE of the access, which is 0, then 1 by the handler's return; SPP says that the trap came from VS-mode
    // no more.
    assert_eq!(hart.register(Sstatus), STATUS_SPIE);
    assert_eq!(hart.register(Hstatus), HSTATUS_GVA | HSTATUS_SPVP);
    assert_eq!(hart.register(Sepc), ACCESS_PC);
    assert_eq!((hart.register(Scause), hart.register(Stval)), (21, PAGE));
    assert_eq!(hart.register(Htval), FRAME.value() >> 2);
    hart.set_register(Register::Vsstatus, 0);
    assert_eq!(vs.map(|register| hart.register(register)), before);
}

#[test]
fn a_scoped_vector_leaves_every_csr_as_it_was() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart_of(Machine {
        recovery: Recovery::ScopedStvec,
        ..Machine::new()
    });
    hart.set_register(Sstatus, STATUS_SPP | STATUS_SPIE);
    hart.set_register(Hstatus, HSTATUS_SPV | HSTATUS_SPVP);
    hart.set_register(Sepc, 0x1234);
    hart.set_register(Scause, 10);
    let before = hart.registers.snapshot();
    assert_eq!(hart.hlv(PAGE + 0x1000, Width::Byte).unwrap_err().scause, 13);
    assert_eq!(hart.registers.snapshot(), before);
}

#[test]
fn r58_a_scoped_vector_cannot_restore_a_read_only_htinst() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let table = guest.entry(Gva::new(PAGE)).unwrap().page_base();
    guest.unback(table).unwrap();
    for read_only in [false, true] {
        let hart = guest.hart_of(Machine {
            recovery: Recovery::ScopedStvec,
            quirks: Quirks {
                htinst_is_read_only: read_only,
                ..Quirks::default()
            },
            ..Machine::new()
        });
        hart.set_register(Register::Htinst, 0x53);
        hart.hlv(PAGE, Width::Byte).unwrap_err();
        let left = if read_only { 0x3000 } else { 0x53 };
        assert_eq!(hart.register(Register::Htinst), left);
    }
}

#[test]
#[should_panic(expected = "double trap")]
fn r24_a_fault_with_sdt_set_is_a_double_trap() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    hart.set_bits(Sstatus, STATUS_SDT);
    let _ = hart.hlv(PAGE + 0x1000, Width::Byte);
}

#[test]
#[should_panic(expected = "R12")]
fn r12_an_access_without_a_g_stage_is_a_bug_of_the_host() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    hart.set_register(Register::Hgatp, 0);
    let _ = hart.hlv(PAGE, Width::Byte);
}

#[test]
#[should_panic(expected = "R26")]
fn r26_an_access_with_interrupts_on_is_a_bug_of_the_host() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    hart.set_bits(Sstatus, STATUS_SIE);
    let _ = hart.hlv(PAGE, Width::Byte);
}

#[test]
fn r10_r11_a_machine_with_misaligned_accesses_does_them_byte_by_byte() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart_of(Machine {
        misaligned: Misaligned::Works,
        ..Machine::new()
    });
    hart.hsv(PAGE + 3, Width::Double, 0x8877_6655_4433_2211)
        .unwrap();
    assert_eq!(hart.hlv(PAGE + 3, Width::Double), Ok(0x8877_6655_4433_2211));
    // Over the end of the page: the part before it is stored, and stval names the part that faulted.
    let trap = hart.hsv(PAGE + 0xffd, Width::Double, u64::MAX).unwrap_err();
    assert_eq!((trap.scause, trap.stval), (15, PAGE + 0x1000));
    assert_eq!(hart.hlv(PAGE + 0xffc, Width::Word), Ok(0xffff_ff00));
}

#[test]
fn r22_a_machine_that_writes_no_htval_writes_no_pseudo_instruction() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart_of(Machine {
        writes_htval: false,
        ..Machine::new()
    });
    let table = guest.entry(Gva::new(PAGE)).unwrap().page_base();
    guest.unback(table).unwrap();
    let trap = hart.hlv(PAGE, Width::Byte).unwrap_err();
    assert_eq!((trap.scause, trap.htval, trap.htinst), (21, 0, 0));
}

#[test]
fn r59_r60_quirky_machines_report_other_causes() {
    let fetch = Quirks {
        hlvx_faults_as_fetch: true,
        ..Quirks::default()
    };
    let access = Quirks {
        page_faults_as_access_faults: true,
        ..Quirks::default()
    };
    for (quirks, index, expected) in [
        (fetch, 0, [13, 15, 12]),
        (fetch, 2, [21, 23, 12]),
        (fetch, 4, [5, 7, 1]),
        (fetch, 6, [4, 6, 0]),
        (access, 0, [5, 7, 5]),
        (access, 2, [21, 23, 21]),
    ] {
        for (instruction, scause) in expected.into_iter().enumerate() {
            let memory = RamArray::<32>::new();
            let guest = guest(&memory);
            let hart = guest.hart_of(Machine {
                quirks,
                ..Machine::new()
            });
            let (name, arrange, _, gpa) = FAULTS[index];
            let address = arrange(&guest, &hart);
            let trap = fault_of(&hart, instruction, address);
            assert_eq!(trap.scause, scause, "{name}");
            assert_eq!(trap.htval, gpa.map_or(0, |gpa| gpa >> 2), "{name}");
        }
    }
}

#[test]
fn r5_r15_physical_protection_wants_read_for_hlv_write_for_hsv_and_both_read_and_execute_for_hlvx()
{
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    let start = guest.spa(FRAME).unwrap();
    for rights in 0..8 {
        let [read, write, execute] = [1, 2, 4].map(|bit| rights & bit != 0);
        hart.unprotect();
        hart.protect(Protection {
            range: start..Spa::new(start.value() + 8),
            read,
            write,
            execute,
        });
        let allowed = [
            hart.hlv(PAGE, Width::Double).is_ok(),
            hart.hsv(PAGE, Width::Double, 0).is_ok(),
            hart.parcel(PAGE).is_ok(),
        ];
        assert_eq!(allowed, [read, write, read && execute]);
        assert!(hart.parcel(PAGE + 8).is_ok());
    }
}

#[test]
fn r5_r8_hlvx_takes_16_or_32_bits_and_needs_x_and_alignment() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.write(FRAME, &[0x83, 0xa5, 0x45, 0x90]).unwrap();
    guest.map(Gva::new(PAGE), FRAME, X | U).unwrap();
    let hart = guest.hart();
    assert_eq!(hart.hlvx(PAGE, Width::Half), Ok(0xa583));
    assert_eq!(hart.hlvx(PAGE, Width::Word), Ok(0x9045_a583));
    let cause = |address| hart.hlvx(address, Width::Word).unwrap_err().scause;
    assert_eq!(cause(PAGE + 2), 4);
    guest.map(Gva::new(PAGE), FRAME, R | W | U).unwrap();
    assert_eq!(cause(PAGE), 13);
}

#[test]
fn r15_a_protected_page_table_of_either_stage_is_an_access_fault_of_the_original_type() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let vs_table = guest.spa(guest.entry(Gva::new(PAGE)).unwrap()).unwrap();
    for table in [vs_table.page_base(), RAM_BASE] {
        let hart = guest.hart();
        hart.protect(Protection {
            range: table..Spa::new(table.value() + 0x4000),
            read: false,
            write: true,
            execute: true,
        });
        for (instruction, scause) in [5, 7, 5].into_iter().enumerate() {
            let trap = fault_of(&hart, instruction, PAGE);
            assert_eq!((trap.scause, trap.htval, trap.htinst), (scause, 0, 0));
        }
    }
}

#[test]
fn r21_access_faults_through_the_firmware_may_have_gva_clear() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.back(FRAME, Spa::new(0x1000), R | W).unwrap();
    for quirk in [false, true] {
        let hart = guest.hart_of(Machine {
            quirks: Quirks {
                access_faults_without_gva: quirk,
                ..Quirks::default()
            },
            ..Machine::new()
        });
        assert_eq!(hart.hlv(PAGE, Width::Byte).unwrap_err().scause, 5);
        assert_eq!(hart.register(Hstatus) & HSTATUS_GVA == 0, quirk);
    }
}
