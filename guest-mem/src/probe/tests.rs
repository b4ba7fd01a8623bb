//! The probe recognises what the software hart is told to be.

use super::*;
use crate::csr::ENVCFG_ADUE;
use crate::hart::model::{Machine, ModelHart, Quirks, RamArray, Recovery, Register, Translations};

const BASE: Spa = Spa::new(0x8_0000_0000);

fn profile_of(machine: Machine, menvcfg: u64, henvcfg: u64) -> MachineProfile {
    let memory = RamArray::<16>::new();
    let ram = memory.at(BASE);
    let hart = ModelHart::new(ram, machine);
    hart.set_register(Register::Menvcfg, menvcfg);
    hart.set_register(Register::Henvcfg, henvcfg);
    let scratch = ram.host_ptr(BASE).unwrap().cast().as_ptr();
    // SAFETY: the memory is this test's alone.
    let profile = unsafe { probe(&hart, scratch, BASE) }.unwrap();
    assert_eq!(hart.fence_state().may_be_stale(), profile.stale_vsatp);
    assert_eq!(
        hart.fence_state().htinst_may_mislead(),
        profile.htinst_follows_access
    );
    profile
}

const AS_SPECIFIED: MachineProfile = MachineProfile::AS_SPECIFIED;

#[test]
fn a_machine_as_specified_needs_nothing() {
    for translations in [Translations::None, Translations::Lazy] {
        for recovery in [Recovery::HandlerHook, Recovery::ScopedStvec] {
            let machine = Machine {
                translations,
                recovery,
                ..Machine::new()
            };
            assert_eq!(profile_of(machine, 0, 0), AS_SPECIFIED);
        }
    }
}

#[test]
fn the_a_and_d_policy_of_each_stage_is_measured() {
    use AdPolicy::{Fault, Update};
    for (menvcfg, henvcfg, vs, g) in [
        (0, 0, Fault, Fault),
        (0, ENVCFG_ADUE, Fault, Fault),
        (ENVCFG_ADUE, 0, Fault, Update),
        (ENVCFG_ADUE, ENVCFG_ADUE, Update, Update),
    ] {
        let profile = profile_of(Machine::new(), menvcfg, henvcfg);
        assert_eq!((profile.vs_stage_ad, profile.g_stage_ad), (vs, g));
    }
}

#[test]
fn r34_stale_translations_are_recognised() {
    let quirks = Quirks {
        stale_vsatp: true,
        ..Quirks::default()
    };
    let profile = profile_of(
        Machine {
            quirks,
            ..Machine::new()
        },
        0,
        0,
    );
    assert_eq!(
        profile,
        MachineProfile {
            stale_vsatp: true,
            ..AS_SPECIFIED
        }
    );
}

#[test]
fn r59_page_faults_that_arrive_as_access_faults_are_recognised() {
    let quirks = Quirks {
        page_faults_as_access_faults: true,
        ..Quirks::default()
    };
    let profile = profile_of(
        Machine {
            quirks,
            ..Machine::new()
        },
        0,
        0,
    );
    assert_eq!(
        profile,
        MachineProfile {
            page_faults_as_access_faults: true,
            ..AS_SPECIFIED
        }
    );
}

#[test]
fn r67_r76_what_implicit_faults_say_is_measured() {
    for (implicit_faults_are_loads, htinst_follows_access) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let quirks = Quirks {
            implicit_faults_are_loads,
            htinst_follows_access,
            ..Quirks::default()
        };
        let machine = Machine {
            quirks,
            ..Machine::new()
        };
        let expected = MachineProfile {
            implicit_faults_are_loads,
            htinst_follows_access,
            ..AS_SPECIFIED
        };
        assert_eq!(profile_of(machine, 0, 0), expected);
    }
}

#[test]
fn the_registers_are_put_back() {
    let memory = RamArray::<16>::new();
    let ram = memory.at(BASE);
    let hart = ModelHart::new(
        ram,
        Machine {
            recovery: Recovery::ScopedStvec,
            ..Machine::new()
        },
    );
    let registers = [
        (Register::Sstatus, STATUS_SIE | STATUS_MXR),
        (Register::Hstatus, 0),
        (Register::Hgatp, SV39 | 0x1234 << 2),
        (Register::Vsatp, SV39 | 0x777),
        (Register::Vsstatus, STATUS_SUM),
    ];
    for (register, value) in registers {
        hart.set_register(register, value);
    }
    // SAFETY: the memory is this test's alone.
    unsafe { probe(&hart, ram.host_ptr(BASE).unwrap().cast().as_ptr(), BASE) }.unwrap();
    for (register, value) in registers {
        assert_eq!(hart.register(register), value, "{register:?}");
    }
}

#[test]
fn scratch_memory_must_be_aligned_to_the_root_table() {
    let memory = RamArray::<16>::new();
    let ram = memory.at(BASE);
    let hart = ModelHart::new(ram, Machine::new());
    let scratch = ram.host_ptr(BASE).unwrap().cast().as_ptr();
    // SAFETY: refused before anything is touched.
    let result = unsafe { probe(&hart, scratch, Spa::new(BASE.value() + 4096)) };
    assert_eq!(result, Err(ProbeError::Misaligned));
    assert_eq!(hart.counts().accesses(), 0);
}
