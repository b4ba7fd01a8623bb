//! Copies: which elements they are made of, and where a fault ends them.

use super::*;
use std::vec;
use std::vec::Vec;

const PATTERN: [u8; 96] = {
    let mut bytes = [0; 96];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = index as u8 + 1;
        index += 1;
    }
    bytes
};

/// Sizes up to `end`: all of them, or under Miri, which is slow, some.
fn up_to(end: usize) -> impl Iterator<Item = usize> {
    (0..end).step_by(if cfg!(miri) { 5 } else { 1 })
}

#[test]
fn every_alignment_and_length_copies_exactly_its_bytes() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    for offset in up_to(9) {
        for shift in up_to(9) {
            for len in up_to(33) {
                guest.write(FRAME, &[0xee; 64]).unwrap();
                let source = &PATTERN[shift..shift + len];
                hart.copy_out(PAGE + offset as u64, source).unwrap();
                let mut found = [0; 64];
                guest.read(FRAME, &mut found).unwrap();
                let mut expected = [0xee; 64];
                expected[offset..offset + len].copy_from_slice(source);
                assert_eq!(found, expected);

                let mut back = [0xee; 64];
                hart.copy_in(PAGE + offset as u64, &mut back[shift..shift + len])
                    .unwrap();
                let mut expected = [0xee; 64];
                expected[shift..shift + len].copy_from_slice(source);
                assert_eq!(back, expected);
            }
        }
    }
}

#[test]
fn a_fill_sets_exactly_its_bytes() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    for offset in up_to(9) {
        for len in up_to(33) {
            guest.write(FRAME, &[0xee; 64]).unwrap();
            hart.fill(PAGE + offset as u64, 0x5a, len).unwrap();
            let mut found = [0; 64];
            guest.read(FRAME, &mut found).unwrap();
            let mut expected = [0xee; 64];
            expected[offset..offset + len].fill(0x5a);
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn r10_no_element_of_a_copy_is_misaligned_and_co_aligned_copies_are_wide() {
    #[repr(align(8))]
    struct Aligned([u8; 96]);
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    // Misaligned accesses trap in this machine, so that each copy that ends well had none.
    let hart = guest.hart();
    let mut buffer = Aligned([0; 96]);
    for (shift, accesses) in [(0, 8), (8, 8), (4, 16), (2, 32), (1, 64), (3, 64)] {
        hart.reset_counts();
        hart.copy_in(PAGE, &mut buffer.0[shift..shift + 64])
            .unwrap();
        assert_eq!(hart.counts().loads, accesses, "host offset {shift}");
    }
    hart.reset_counts();
    hart.copy_in(PAGE + 5, &mut buffer.0[5..5 + 3 + 16 + 2])
        .unwrap();
    assert_eq!(hart.counts().loads, 3 + 2 + 2);
}

#[test]
fn a_fault_on_the_second_page_reports_the_first_page_copied() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    for before in up_to(20) {
        let start = PAGE + 0x1000 - before as u64;
        let len = before + 11;
        let mut buffer = vec![0xee; len];
        let page_fault = |scause| TrapInfo {
            scause,
            stval: PAGE + 0x1000,
            ..TrapInfo::default()
        };
        let completed = before;
        let trap = page_fault(13);
        assert_eq!(
            hart.copy_in(start, &mut buffer),
            Err(Interrupted { completed, trap })
        );
        assert!(buffer[completed..].iter().all(|&byte| byte == 0xee));
        let trap = page_fault(15);
        assert_eq!(
            hart.copy_out(start, &PATTERN[..len]),
            Err(Interrupted { completed, trap })
        );
        assert_eq!(
            hart.fill(start, 1, len),
            Err(Interrupted { completed, trap })
        );
    }
}

#[test]
fn a_protection_in_the_middle_of_a_page_ends_a_copy_there() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    let start = guest.spa(frame(0x40)).unwrap();
    hart.protect(Protection {
        range: start..Spa::new(start.value() + 4),
        read: false,
        write: true,
        execute: true,
    });
    let mut buffer = [0; 96];
    let result = hart.copy_in(PAGE, &mut buffer).unwrap_err();
    assert_eq!((result.completed, result.trap.scause), (0x40, 5));
    hart.copy_out(PAGE, &buffer).unwrap();
    hart.unprotect();
    hart.copy_in(PAGE, &mut buffer).unwrap();
}

#[test]
fn a_hook_sees_each_access_and_can_race_with_it() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let seen = Cell::new(0);
    let hook = |event: Event| {
        assert_eq!(event.index, seen.get());
        seen.set(seen.get() + 1);
        if event.index == 2 {
            guest.write(frame(16), &[7; 8]).unwrap();
        }
    };
    let hart = guest.hart();
    hart.before_each_access(&hook);
    let words: Vec<u64> = (0..4)
        .map(|index| hart.hlv(PAGE + index * 8, Width::Double).unwrap())
        .collect();
    assert_eq!(words, [0, 0, 0x0707_0707_0707_0707, 0]);
    assert_eq!(seen.get(), 4);
}
