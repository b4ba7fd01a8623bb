//! Harts: which are fit, and what they have in common.

use super::*;

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
