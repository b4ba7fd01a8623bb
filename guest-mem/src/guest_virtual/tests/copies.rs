//! Copies and fills: every byte, and the exact count after a fault.

use super::*;

#[test]
fn reads_and_writes_of_every_size_and_alignment_move_exactly_their_bytes() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // Misaligned accesses trap on this machine: none is made (R10).
    let hart = guest.hart_of(Machine {
        misaligned: Misaligned::Traps,
        ..Machine::new()
    });
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    for start in [0, 1, 2, 4, 7, 4096 - 20, 4096 - 3] {
        for len in [0, 1, 2, 3, 7, 8, 9, 15, 17, 31, 130, 300] {
            for skew in [0, 1, 2, 4, 7] {
                let before = virtual_bytes(&guest);
                let address = Gva::new(GVA.value() + start as u64);
                let mut buffer = vec![0xa5; len + skew + 8];
                space.read(address, &mut buffer[skew..][..len]).unwrap();
                assert_eq!(buffer[skew..][..len], before[start..][..len]);
                assert!(
                    buffer[..skew]
                        .iter()
                        .chain(&buffer[skew + len..])
                        .all(|&byte| byte == 0xa5)
                );

                let source: Vec<u8> = (0..len + skew).map(|n| (n * 3 + start) as u8).collect();
                space.write(address, &source[skew..]).unwrap();
                let mut expected = before.clone();
                expected[start..][..len].copy_from_slice(&source[skew..]);
                assert_eq!(
                    virtual_bytes(&guest),
                    expected,
                    "start {start} len {len} skew {skew}"
                );

                space.fill(address, 0x5a, len).unwrap();
                expected[start..][..len].fill(0x5a);
                assert_eq!(virtual_bytes(&guest), expected);
                space.write(GVA, &before).unwrap();
            }
        }
    }
}

#[test]
fn a_fault_on_the_second_page_reports_the_first_page_copied() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hole = Gva::new(GVA.value() + 4 * 4096);
    for recovery in [Recovery::HandlerHook, Recovery::ScopedStvec] {
        let hart = guest.hart_of(Machine {
            recovery,
            ..Machine::new()
        });
        let vcpu = load(&hart);
        for before in [1, 7, 8, 63, 64, 130, 4096] {
            let start = Gva::new(hole.value() - before);
            let mut buffer = vec![0xa5; before as usize + 100];
            let error = vcpu
                .guest_virtual(USER)
                .read(start, &mut buffer)
                .unwrap_err();
            assert_eq!(error.completed, before as usize);
            assert!(buffer[before as usize..].iter().all(|&byte| byte == 0xa5));
            assert_eq!(
                (error.fault.kind, error.fault.gva),
                (FaultKind::Page, Some(hole))
            );
            let injection = Injection {
                cause: 13,
                tval: hole.value(),
            };
            assert_eq!(error.fault.resolution(), Resolution::Inject(injection));

            let error = vcpu.guest_virtual(USER).write(start, &buffer).unwrap_err();
            assert_eq!(error.completed, before as usize);
            let injection = Injection {
                cause: 15,
                tval: hole.value(),
            };
            assert_eq!(error.fault.resolution(), Resolution::Inject(injection));

            let error = vcpu
                .guest_virtual(USER)
                .fill(start, 0, before as usize + 1)
                .unwrap_err();
            assert_eq!(
                (error.completed, error.fault.operation),
                (before as usize, Operation::Fill)
            );
        }
    }
}

#[test]
fn completed_is_exact_for_a_fault_at_every_word_in_the_middle_of_a_page() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    let page = guest.spa(gpa(PAGES[0])).unwrap();
    for refused in (256..256 + 300).step_by(8) {
        hart.unprotect();
        let at = |offset: u64| Spa::new(page.value() + offset);
        hart.protect(Protection {
            range: at(refused)..at(refused + 8),
            read: false,
            write: false,
            execute: false,
        });
        for start in 240..250 {
            let address = Gva::new(GVA.value() + start);
            let expected = (refused - start) as usize;
            let before = virtual_bytes(&guest);
            let mut buffer = [0xa5; 400];
            let error = space.read(address, &mut buffer).unwrap_err();
            assert_eq!(
                (error.completed, error.fault.kind),
                (expected, FaultKind::Access)
            );
            assert_eq!(buffer[..expected], before[start as usize..refused as usize]);
            assert!(buffer[expected..].iter().all(|&byte| byte == 0xa5));
            assert_eq!(error.fault.resolution(), Resolution::Refuse);

            let error = space.write(address, &[0x11; 400]).unwrap_err();
            assert_eq!(error.completed, expected);
            let mut after = before.clone();
            after[start as usize..refused as usize].fill(0x11);
            assert_eq!(virtual_bytes(&guest), after);
            hart.unprotect();
            space.write(GVA, &before).unwrap();
            hart.protect(Protection {
                range: at(refused)..at(refused + 8),
                read: false,
                write: false,
                execute: false,
            });
        }
    }
}
