//! Small trees, each with one thing that a real board has.

use super::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;
use vm_fdt::{FdtReserveEntry, FdtWriter};

mod harts;
mod memory;

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
