//! RAM and reservations.

use super::*;
use crate::memory::frames::FRAME;

#[test]
fn r80_status_counts_for_memory_and_for_reservations() {
    let blob = with_root(|fdt| {
        memory_node(fdt, 0x1_0000_0000, 0x1000_0000, Some("disabled"));
        memory_node(fdt, 0x8000_0000, 0x1000_0000, Some("okay"));
        memory_node(fdt, 0x2_0000_0000, 0x1000_0000, Some("fail"));
        reserved_node(fdt, |fdt| {
            for (start, status) in [(0x8000_0000, "okay"), (0x8800_0000, "disabled")] {
                node(fdt, &format!("firmware@{start:x}"), |fdt| {
                    fdt.property_array_u64("reg", &[start, 0x1000]).unwrap();
                    fdt.property_string("status", status).unwrap();
                });
            }
        });
    });
    let machine = read(&blob);
    assert_eq!(machine.memory.as_slice(), [range(0x8000_0000, 0x9000_0000)]);
    assert_eq!(
        machine.reserved.as_slice(),
        [range(0x8000_0000, 0x8000_1000)]
    );
    let none = with_root(|fdt| memory_node(fdt, 0x8000_0000, 0x1000, Some("disabled")));
    assert_eq!(error(&none), MachineError::Missing("memory"));
}

#[test]
fn r80_64_ranges_of_memory_and_reservations_are_used() {
    const MIB: u64 = 1 << 20;
    let blob = |count: u64| {
        with_root(|fdt| {
            for index in 1..=count {
                memory_node(fdt, index << 30, 2 * MIB, None);
            }
            reserved_node(fdt, |fdt| {
                for index in 1..=count {
                    let start = (index << 30) + MIB;
                    node(fdt, &format!("firmware@{start:x}"), |fdt| {
                        fdt.property_array_u64("reg", &[start, 4096]).unwrap();
                    });
                }
            });
        })
    };
    let all = read(&blob(64));
    assert_eq!(all.memory.as_slice().len(), 64);
    assert_eq!(all.reserved.as_slice().len(), 64);
    assert!(notes(&all).is_empty());
    // The 65th range of memory is not used, and its reservation does not matter.
    let most = read(&blob(65));
    assert_eq!(most.memory, all.memory);
    assert_eq!(most.reserved, all.reserved);
    assert_eq!(notes(&most), [Note::MemoryRanges { bytes: 2 * MIB }]);
}

#[test]
fn r80_no_reservation_is_lost_for_want_of_room() {
    const STEP: u64 = 0x10_0000;
    let start = |index: u64| 0x8000_0000 + index * STEP;
    let places: Vec<_> = (0..70).map(|index| (start(index), 0x1000)).collect();
    let blob = tree_with_reservations(&places, |fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        cpus_node(fdt, 1, Some(1), &[CPU]);
    });
    let machine = read(&blob);
    assert_eq!(machine.reserved.as_slice().len(), 64);
    for (start, len) in places {
        let reserved = machine.reserved.as_slice().iter();
        let mut reserved = reserved.filter(|range| range.start <= start);
        assert!(reserved.any(|range| range.end >= start + len), "{start:#x}");
    }
    let bytes = 6 * (STEP - 0x1000);
    assert_eq!(notes(&machine), [Note::ReservedRanges { bytes }]);
}

#[test]
fn r80_reserved_nodes_of_every_kind_keep_what_they_have() {
    let blob = with_root(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        reserved_node(fdt, |fdt| {
            node(fdt, "secure@80000000", |fdt| {
                fdt.property_array_u64("reg", &[0x8000_0000, 0x1000, 0x8010_0000, 0x1000])
                    .unwrap();
                fdt.property_null("no-map").unwrap();
            });
            node(fdt, "video@84000000", |fdt| {
                fdt.property_array_u64("reg", &[0x8400_0000, 0x10_0000])
                    .unwrap();
                fdt.property_null("reusable").unwrap();
            });
            // No place yet: an operating system chooses one.
            node(fdt, "linux,cma", |fdt| {
                fdt.property_u64("size", 0x100_0000).unwrap();
                fdt.property_array_u64("alloc-ranges", &[0x8800_0000, 0x800_0000])
                    .unwrap();
                fdt.property_null("reusable").unwrap();
            });
            // Not in RAM.
            node(fdt, "dma@107a000000", |fdt| {
                fdt.property_array_u64("reg", &[0x10_7a00_0000, 0x1000])
                    .unwrap();
            });
        });
    });
    let machine = read(&blob);
    assert_eq!(
        machine.reserved.as_slice(),
        [
            range(0x8000_0000, 0x8000_1000),
            range(0x8010_0000, 0x8010_1000),
            range(0x8400_0000, 0x8410_0000)
        ]
    );
    assert!(notes(&machine).is_empty());
}

#[test]
fn r80_a_reservation_that_cannot_be_read_is_not_passed_over() {
    let reserved = with_root(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        reserved_node(fdt, |fdt| {
            node(fdt, "firmware@80000000", |fdt| {
                fdt.property_array_u32("reg", &[0x8000_0000, 0x1000, 0])
                    .unwrap();
            });
        });
    });
    let malformed = MachineError::Malformed("reg of reserved memory");
    assert_eq!(error(&reserved), malformed);
    let top = with_root(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        reserved_node(fdt, |fdt| {
            node(fdt, "rest@8f000000", |fdt| {
                fdt.property_array_u64("reg", &[0x8f00_0000, u64::MAX])
                    .unwrap();
            });
        });
    });
    assert_eq!(
        read(&top).reserved.as_slice(),
        [range(0x8f00_0000, u64::MAX)]
    );
}

#[test]
fn r80_memory_that_is_named_twice_is_used_once() {
    let blob = with_root(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        memory_node(fdt, 0x8800_0000, 0x1000_0000, None);
        memory_node(fdt, 0x9800_0000, 0x800_0000, None);
    });
    assert_eq!(
        read(&blob).memory.as_slice(),
        [range(0x8000_0000, 0xa000_0000)]
    );
}

#[test]
fn r80_memory_out_of_reach_is_not_used_and_said() {
    const GIB: u64 = 1 << 30;
    let blob = |start, len| with_root(|fdt| memory_node(fdt, start, len, None));
    let machine = read(&blob(2 * GIB, 512 * GIB));
    assert_eq!(machine.memory.as_slice(), [range(2 * GIB, 256 * GIB)]);
    let bytes = 258 * GIB;
    assert_eq!(notes(&machine), [Note::MemoryOutOfReach { bytes }]);
    assert_eq!(
        notes(&machine)[0].to_string(),
        "264192 MiB of memory lie above 256 GiB and are not used"
    );
    assert!(notes(&read(&blob(2 * GIB, 254 * GIB))).is_empty());
    let error = error(&blob(0x4000_3000_0000, 4 * GIB));
    assert_eq!(error, MachineError::Missing("memory within reach"));
    // As on the TH1520: the frame at address 0 is not for use.
    let machine = read(&blob(0, 4 * GIB));
    assert_eq!(machine.memory.as_slice(), [range(FRAME, 4 * GIB)]);
}
