//! Small trees, each with one thing that a real board has.

use super::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A tree with the usual cells, with what `build` puts into the root.
fn tree(build: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    tree_with_reservations(&[], build)
}

fn tree_with_reservations(
    reservations: &[(u64, u64)],
    build: impl FnOnce(&mut FdtWriter),
) -> Vec<u8> {
    let entry = |&(start, len)| FdtReserveEntry::new(start, len).unwrap();
    let reservations: Vec<_> = reservations.iter().map(entry).collect();
    let mut fdt = FdtWriter::new_with_mem_reserv(&reservations).unwrap();
    let root = fdt.begin_node("").unwrap();
    fdt.property_u32("#address-cells", 2).unwrap();
    fdt.property_u32("#size-cells", 2).unwrap();
    build(&mut fdt);
    fdt.end_node(root).unwrap();
    fdt.finish().unwrap()
}

fn node(fdt: &mut FdtWriter, name: &str, properties: impl FnOnce(&mut FdtWriter)) {
    let node = fdt.begin_node(name).unwrap();
    properties(fdt);
    fdt.end_node(node).unwrap();
}

/// A hart of a tree. What is `None` is not there.
#[derive(Clone, Copy)]
struct Cpu<'a> {
    id: u64,
    status: Option<&'a str>,
    isa: Option<&'a str>,
    base: Option<&'a str>,
    extensions: Option<&'a [&'a str]>,
    mmu: Option<&'a str>,
    blocks: [u32; 3],
    timebase: Option<u32>,
}

const CPU: Cpu<'static> = Cpu {
    id: 0,
    status: Some("okay"),
    isa: Some("rv64imafdch_zicboz"),
    base: None,
    extensions: None,
    mmu: Some("riscv,sv48"),
    blocks: [0, 64, 0],
    timebase: None,
};

const DISABLED: Cpu<'static> = Cpu {
    status: Some("disabled"),
    ..CPU
};
const WITHOUT_MMU: Cpu<'static> = Cpu {
    mmu: Some("riscv,none"),
    ..CPU
};
const WITHOUT_H: Cpu<'static> = Cpu {
    isa: Some("rv64imafdc"),
    ..CPU
};

fn with_id(id: u64, cpu: Cpu<'_>) -> Cpu<'_> {
    Cpu { id, ..cpu }
}

fn cpus_node(fdt: &mut FdtWriter, cells: u32, timebase: Option<u32>, cpus: &[Cpu<'_>]) {
    node(fdt, "cpus", |fdt| {
        fdt.property_u32("#address-cells", cells).unwrap();
        fdt.property_u32("#size-cells", 0).unwrap();
        if let Some(timebase) = timebase {
            fdt.property_u32("timebase-frequency", timebase).unwrap();
        }
        for cpu in cpus {
            node(fdt, &format!("cpu@{:x}", cpu.id), |fdt| {
                cpu_properties(fdt, cells, cpu)
            });
        }
        node(fdt, "cpu-map", |_| {});
    });
}

fn cpu_properties(fdt: &mut FdtWriter, cells: u32, cpu: &Cpu<'_>) {
    fdt.property_string("device_type", "cpu").unwrap();
    match cells {
        1 => fdt.property_u32("reg", cpu.id as u32).unwrap(),
        _ => fdt.property_u64("reg", cpu.id).unwrap(),
    }
    for (name, value) in [
        ("status", cpu.status),
        ("riscv,isa", cpu.isa),
        ("riscv,isa-base", cpu.base),
        ("mmu-type", cpu.mmu),
    ] {
        if let Some(value) = value {
            fdt.property_string(name, value).unwrap();
        }
    }
    if let Some(extensions) = cpu.extensions {
        let extensions = extensions.iter().map(ToString::to_string).collect();
        fdt.property_string_list("riscv,isa-extensions", extensions)
            .unwrap();
    }
    for (name, bytes) in ["cbom", "cboz", "cbop"].into_iter().zip(cpu.blocks) {
        if bytes > 0 {
            fdt.property_u32(&format!("riscv,{name}-block-size"), bytes)
                .unwrap();
        }
    }
    if let Some(timebase) = cpu.timebase {
        fdt.property_u32("timebase-frequency", timebase).unwrap();
    }
}

fn memory_node(fdt: &mut FdtWriter, start: u64, len: u64, status: Option<&str>) {
    node(fdt, &format!("memory@{start:x}"), |fdt| {
        fdt.property_string("device_type", "memory").unwrap();
        fdt.property_array_u64("reg", &[start, len]).unwrap();
        if let Some(status) = status {
            fdt.property_string("status", status).unwrap();
        }
    });
}

fn reserved_node(fdt: &mut FdtWriter, children: impl FnOnce(&mut FdtWriter)) {
    node(fdt, "reserved-memory", |fdt| {
        fdt.property_u32("#address-cells", 2).unwrap();
        fdt.property_u32("#size-cells", 2).unwrap();
        fdt.property_null("ranges").unwrap();
        children(fdt);
    });
}

/// A machine with these harts and little else.
fn with_cpus(cpus: &[Cpu<'_>]) -> Vec<u8> {
    tree(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        cpus_node(fdt, 1, Some(10_000_000), cpus);
    })
}

/// A machine with one hart, and with what `build` puts into the root.
fn with_root(build: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    tree(|fdt| {
        build(fdt);
        cpus_node(fdt, 1, Some(10_000_000), &[CPU]);
    })
}

fn read(blob: &[u8]) -> Machine {
    Machine::from_device_tree(blob, None).unwrap()
}

fn error(blob: &[u8]) -> MachineError {
    Machine::from_device_tree(blob, None).unwrap_err()
}

fn range(start: u64, end: u64) -> Range {
    Range { start, end }
}

fn notes(machine: &Machine) -> Vec<Note> {
    machine.notes.iter().collect()
}

#[test]
fn a_machine_is_read_from_its_device_tree() {
    let blob = tree_with_reservations(&[(0x8100_0000, 0x1000)], |fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        memory_node(fdt, 0x1_0000_0000, 0x4000, None);
        let cpus = [with_id(0, DISABLED), with_id(3, CPU), with_id(1, CPU)];
        cpus_node(fdt, 1, Some(10_000_000), &cpus);
        reserved_node(fdt, |fdt| {
            node(fdt, "mmode_resv0@80000000", |fdt| {
                fdt.property_array_u64("reg", &[0x8000_0000, 0x8_0000])
                    .unwrap();
            });
        });
        node(fdt, "chosen", |fdt| {
            fdt.property_u32("linux,initrd-start", 0x8400_0000).unwrap();
            fdt.property_u64("linux,initrd-end", 0x8400_1234).unwrap();
        });
    });
    let machine = read(&blob);
    assert_eq!(
        machine.memory.as_slice(),
        [
            range(0x8000_0000, 0x9000_0000),
            range(0x1_0000_0000, 0x1_0000_4000)
        ]
    );
    assert_eq!(
        machine.reserved.as_slice(),
        [
            range(0x8000_0000, 0x8008_0000),
            range(0x8100_0000, 0x8100_1000)
        ]
    );
    assert_eq!(machine.harts.as_slice(), [3, 1]);
    assert_eq!(
        machine.isa.as_str(),
        "rv64imafdch_zicboz_zicsr_zifencei_zicntr_zihpm"
    );
    assert_eq!(machine.mmu, Mmu::Sv48);
    assert_eq!(machine.timebase_frequency, 10_000_000);
    let zero_alone = CacheBlocks {
        zero: 64,
        ..CacheBlocks::default()
    };
    assert_eq!(machine.cache_block_bytes, zero_alone);
    assert_eq!(machine.initrd, Some(range(0x8400_0000, 0x8400_1234)));
}

#[test]
fn a_machine_without_a_bundle_has_none() {
    assert_eq!(read(&with_cpus(&[CPU])).initrd, None);
}

#[test]
fn what_every_machine_has_is_missed() {
    let no_memory = with_root(|_| {});
    let no_harts = tree(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000, None);
        node(fdt, "cpus", |_| {});
    });
    let no_cpus = tree(|fdt| memory_node(fdt, 0x8000_0000, 0x1000, None));
    for (blob, missing) in [
        (no_memory, MachineError::Missing("memory")),
        (no_harts, MachineError::Missing("cpu")),
        (no_cpus, MachineError::Missing("cpus")),
        (Vec::from([0; 64]), MachineError::NotADeviceTree),
    ] {
        assert_eq!(error(&blob), missing);
    }
}

#[test]
fn r79_the_new_isa_properties_are_enough_and_win_over_the_old() {
    // As Linux's tree of the EIC7700 has it: no `riscv,isa`, no `zicntr`.
    let new = Cpu {
        isa: None,
        base: Some("rv64i"),
        extensions: Some(&[
            "i", "m", "a", "f", "d", "c", "h", "sscofpmf", "zba", "zicsr",
        ]),
        blocks: [0; 3],
        ..CPU
    };
    let isa = "rv64imafdch_sscofpmf_zba_zicsr";
    assert_eq!(read(&with_cpus(&[new])).isa.as_str(), isa);
    let both = Cpu {
        isa: Some("rv64imac"),
        ..new
    };
    assert_eq!(read(&with_cpus(&[both])).isa.as_str(), isa);
    // Half of the new form is none.
    let half = Cpu { base: None, ..both };
    assert_eq!(
        error(&with_cpus(&[half])),
        MachineError::NoHart(Unfit::NoHypervisor)
    );
    let neither = Cpu { isa: None, ..half };
    assert_eq!(
        error(&with_cpus(&[neither])),
        MachineError::NoHart(Unfit::NoIsa)
    );
}

#[test]
fn r80_harts_that_cannot_run_a_guest_may_come_first() {
    let blob = with_cpus(&[
        with_id(0, DISABLED),
        with_id(1, WITHOUT_MMU),
        with_id(2, WITHOUT_H),
        with_id(3, CPU),
        with_id(4, WITHOUT_H),
    ]);
    let machine = read(&blob);
    assert_eq!(machine.harts.as_slice(), [3]);
    let unused = |count, why| Note::Harts { count, why };
    assert_eq!(
        notes(&machine),
        [
            unused(1, Unfit::Disabled),
            unused(1, Unfit::NoMmu),
            unused(2, Unfit::NoHypervisor)
        ]
    );
}

#[test]
fn r80_a_machine_without_a_hart_says_what_the_closest_lacks() {
    for (cpus, why) in [
        (&[DISABLED][..], Unfit::Disabled),
        (&[WITHOUT_MMU, DISABLED], Unfit::NoMmu),
        (&[DISABLED, WITHOUT_H, WITHOUT_MMU], Unfit::NoHypervisor),
    ] {
        assert_eq!(error(&with_cpus(cpus)), MachineError::NoHart(why));
    }
    for (status, why) in [
        ("okay", None),
        ("ok", None),
        ("fail", Some(Unfit::Disabled)),
        ("reserved", Some(Unfit::Disabled)),
        ("", Some(Unfit::Disabled)),
    ] {
        let status = Some(status);
        let read = Machine::from_device_tree(&with_cpus(&[Cpu { status, ..CPU }]), None);
        assert_eq!(read.err(), why.map(MachineError::NoHart), "{status:?}");
    }
    assert!(
        Machine::from_device_tree(
            &with_cpus(&[Cpu {
                status: None,
                ..CPU
            }]),
            None
        )
        .is_ok()
    );
}

#[test]
fn r80_the_boot_hart_is_first_and_must_be_fit() {
    let mut cpus: Vec<_> = (0..12).map(|id| with_id(id, CPU)).collect();
    cpus[5] = with_id(5, WITHOUT_H);
    let blob = with_cpus(&cpus);
    let boot = |id| Machine::from_device_tree(&blob, Some(id));
    // The last of them would not be among the first eight.
    let machine = boot(11).unwrap();
    assert_eq!(machine.harts.as_slice(), [11, 0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(
        notes(&machine),
        [
            Note::Harts {
                count: 1,
                why: Unfit::NoHypervisor
            },
            Note::MoreHarts { count: 3 }
        ]
    );
    for (id, why) in [(5, Unfit::NoHypervisor), (12, Unfit::Unknown)] {
        assert_eq!(boot(id).unwrap_err(), MachineError::BootHart { id, why });
    }
}

#[test]
fn r80_hart_numbers_may_be_sparse_and_large() {
    let ids = [0x1_0000_0003, 0, 0x8000_0000, 64];
    let cpus = ids.map(|id| with_id(id, CPU));
    let blob = tree(|fdt| {
        memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
        cpus_node(fdt, 2, Some(1), &cpus);
    });
    assert_eq!(read(&blob).harts.as_slice(), ids);
}

#[test]
fn r80_a_guest_gets_what_all_harts_have() {
    let small = Cpu {
        id: 7,
        isa: Some("rv64imafdch_zicbom_zicboz_zicbop"),
        mmu: Some("riscv,sv39"),
        blocks: [64, 64, 32],
        ..CPU
    };
    let big = Cpu {
        isa: Some("rv64imafdcvh_zicbom_zicboz_zicbop_sstc"),
        mmu: Some("riscv,sv57"),
        blocks: [64, 64, 64],
        ..CPU
    };
    let machine = read(&with_cpus(&[big, small]));
    assert_eq!(
        machine.isa.as_str(),
        "rv64imafdch_zicbom_zicboz_zicsr_zifencei_zicntr_zihpm"
    );
    assert_eq!(machine.mmu, Mmu::Sv39);
    let extension = "zicbop";
    assert_eq!(notes(&machine), [Note::NoBlockSize { extension }]);
    assert_eq!(machine.cache_block_bytes.management, 64);
}

#[test]
fn a_block_extension_without_its_size_is_not_used() {
    let cpu = |isa, blocks| Cpu {
        isa: Some(isa),
        blocks,
        ..CPU
    };
    let isa = "rv64imafdch_zicbom_zicboz_zicbop";
    for (cpu, sizes) in [
        (cpu(isa, [64, 32, 128]), [64, 32, 128]),
        (cpu(isa, [64, 0, 48]), [64, 0, 0]),
        (cpu("rv64imach", [64, 64, 64]), [0, 0, 0]),
        (
            cpu("rv64imach_zic64b_zicbom_zicboz_zicbop", [0, 0, 0]),
            [64; 3],
        ),
    ] {
        let machine = read(&with_cpus(&[cpu]));
        let blocks = machine.cache_block_bytes;
        assert_eq!([blocks.management, blocks.zero, blocks.prefetch], sizes);
        for (extension, size) in ["zicbom", "zicboz", "zicbop"].into_iter().zip(sizes) {
            assert_eq!(machine.isa.lists(extension), size > 0, "{extension}");
        }
    }
}

#[test]
fn the_timebase_may_be_of_the_harts() {
    let blob = |of_all, of_hart| {
        tree(|fdt| {
            memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
            let cpu = Cpu {
                timebase: of_hart,
                ..CPU
            };
            cpus_node(fdt, 1, of_all, &[with_id(1, DISABLED), cpu]);
        })
    };
    for (of_all, of_hart, ticks) in [
        (Some(800_000_000), None, 800_000_000),
        (None, Some(24_000_000), 24_000_000),
        (Some(1), Some(2), 1),
    ] {
        assert_eq!(read(&blob(of_all, of_hart)).timebase_frequency, ticks);
    }
    let missing = MachineError::Missing("timebase-frequency");
    assert_eq!(error(&blob(None, None)), missing);
    assert_eq!(error(&blob(Some(0), None)), missing);
}

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

#[test]
fn r80_no_serial_port_is_asked_for_and_any_is_accepted() {
    let serial = |properties: &[(&str, u32)]| -> Result<Machine, MachineError> {
        let blob = with_root(|fdt| {
            memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
            node(fdt, "soc", |fdt| {
                node(fdt, "serial@10000000", |fdt| {
                    fdt.property_string("compatible", "snps,dw-apb-uart")
                        .unwrap();
                    fdt.property_array_u32("reg", &[0x1000_0000, 0x100])
                        .unwrap();
                    for &(name, value) in properties {
                        fdt.property_u32(name, value).unwrap();
                    }
                });
            });
        });
        Machine::from_device_tree(&blob, None)
    };
    let expected = format!("{:?}", read(&with_cpus(&[CPU])));
    for properties in [
        &[][..],
        &[("reg-shift", 2), ("reg-io-width", 4)],
        &[("clock-frequency", 500_000_000), ("reg-shift", 0)],
    ] {
        let machine = serial(properties).unwrap();
        assert_eq!(format!("{machine:?}"), expected);
    }
}

#[test]
fn the_seed_and_the_clock_are_found() {
    let blob = |seed: &[u8], status: &str, ranges: &[u64]| {
        with_root(|fdt| {
            memory_node(fdt, 0x8000_0000, 0x1000_0000, None);
            node(fdt, "chosen", |fdt| fdt.property("rng-seed", seed).unwrap());
            node(fdt, "soc", |fdt| {
                fdt.property_u32("#address-cells", 2).unwrap();
                fdt.property_u32("#size-cells", 2).unwrap();
                fdt.property_array_u64("ranges", ranges).unwrap();
                node(fdt, "rtc@101000", |fdt| {
                    fdt.property_array_u64("reg", &[0x10_1000, 0x1000]).unwrap();
                    fdt.property_string("compatible", "google,goldfish-rtc")
                        .unwrap();
                    fdt.property_string("status", status).unwrap();
                });
            });
        })
    };
    let machine = read(&blob(&[7; 48], "okay", &[]));
    assert_eq!(machine.rng_seed.as_slice(), [7; 32]);
    assert_eq!(machine.rtc, Some(0x10_1000));
    assert_eq!(format!("{:?}", machine.rng_seed), "32 bytes");
    let machine = read(&blob(&[1, 2], "disabled", &[]));
    assert_eq!(
        (machine.rng_seed.as_slice(), machine.rtc),
        (&[1, 2][..], None)
    );
    assert_eq!(read(&blob(&[], "okay", &[0, 1 << 32, 1])).rtc, None);
    let neither = read(&with_cpus(&[CPU]));
    assert_eq!((neither.rng_seed.as_slice(), neither.rtc), (&[][..], None));
}

#[test]
fn every_note_and_error_is_one_line() {
    let of_notes = [
        Note::MemoryRanges { bytes: 3 << 20 },
        Note::ReservedRanges { bytes: 4096 },
        Note::Harts {
            count: 2,
            why: Unfit::NoHypervisor,
        },
        Note::MoreHarts { count: 56 },
        Note::Isa,
        Note::NoBlockSize {
            extension: "zicbom",
        },
    ]
    .map(|note| note.to_string());
    let of_errors = [
        MachineError::NoHart(Unfit::NoMmu),
        MachineError::Malformed("reg of memory"),
        MachineError::BootHart {
            id: 7,
            why: Unfit::Unknown,
        },
    ]
    .map(|error| error.to_string());
    let expected: [String; 9] = [
        "the memory has more than 64 ranges: 3 MiB are not used",
        "the reserved memory has more than 64 ranges: 4 KiB between them are not used either",
        "harts that are not used: 2 (no hypervisor extension)",
        "harts that are not used: 56 (more than 8)",
        "the harts have too many extensions: the last ones are not used",
        "zicbom is not used: the device tree has no one block size for it",
        "no hart of this machine can run a guest: no address translation",
        "the device tree has a malformed reg of memory",
        "the firmware started hart 7, which cannot run a guest: it is not in the device tree",
    ]
    .map(String::from);
    assert!(of_notes.into_iter().chain(of_errors).eq(expected));
}
