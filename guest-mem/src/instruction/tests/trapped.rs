//! From a trap to a completed access.

use super::*;
use crate::address::{Gpa, Gva};
use crate::cause;
use crate::fault::{Fault, FaultKind, GuestExit, Operation, Resolution, TrapInfo};
use crate::probe::MachineProfile;
use crate::{AccessKind, GuestPrivilege};

const LB_A0: u32 = 0x0005_8503;
const SB_A0: u32 = 0x00a5_8023;
const LWU_A0: u32 = 0x0005_e503;
const C_SW_A0: u32 = 0xc188;
const NOP: u32 = 0x0000_0013;
const AMOADD_W: u32 = 0x00b6_252f;
const LR_W: u32 = 0x1005_a52f;
const PREFETCH_R: u32 = 0x0215_6013;

const LOADS: [u64; 4] = [
    cause::LOAD_MISALIGNED,
    cause::LOAD_ACCESS,
    cause::LOAD_PAGE,
    cause::LOAD_GUEST_PAGE,
];
const STORES: [u64; 4] = [
    cause::STORE_MISALIGNED,
    cause::STORE_ACCESS,
    cause::STORE_PAGE,
    cause::STORE_GUEST_PAGE,
];

/// A vCPU that fails the test if it is asked for `x0`.
struct Vcpu {
    x: [u64; 32],
    pc: u64,
}

impl Vcpu {
    fn new() -> Self {
        let mut x = [0; 32];
        for (number, value) in (0..).zip(&mut x) {
            *value = 0x8182_8384_8586_8700 | number;
        }
        x[11] = STVAL;
        Self { x, pc: 0x1000 }
    }
}

impl GuestRegisters for Vcpu {
    fn read(&self, register: Register) -> u64 {
        assert_ne!(register, Register::ZERO);
        self.x[register.index()]
    }

    fn write(&mut self, register: Register, value: u64) {
        assert_ne!(register, Register::ZERO);
        self.x[register.index()] = value;
    }

    fn pc(&self) -> u64 {
        self.pc
    }

    fn set_pc(&mut self, pc: u64) {
        self.pc = pc;
    }
}

/// Where all accesses here go: what `a1` holds, which is also the base of the compressed ones.
const STVAL: u64 = 0xffff_ffff_c000_0006;

fn trap(scause: u64, htinst: u64) -> TrapInfo {
    TrapInfo {
        scause,
        stval: STVAL,
        htval: 0x1000_0006 >> 2,
        htinst,
    }
}

fn fault_of(trap: &TrapInfo) -> Fault {
    let exit = GuestExit {
        trap: *trap,
        pc: 0x1000,
        privilege: GuestPrivilege::Supervisor,
        vsatp: 8 << 60,
    };
    Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED)
}

fn decode_trap<E: Into<Fault>>(
    trap: &TrapInfo,
    fetch: impl FnOnce() -> Result<Instruction, E>,
) -> Result<TrappedAccess, TrappedError> {
    decode_trapped(&fault_of(trap), &Vcpu::new(), fetch)
}

fn fetched(bits: u32) -> impl FnOnce() -> Result<Instruction, Fault> {
    move || Ok(Instruction::from_bits(bits))
}

fn no_fetch() -> Result<Instruction, Fault> {
    panic!("fetched although htinst suffices")
}

fn load(bits: u32) -> TrappedLoad {
    match decode_trap(&trap(cause::LOAD_GUEST_PAGE, 0), fetched(bits)) {
        Ok(TrappedAccess::Load(load)) => load,
        other => panic!("{bits:x} is a load, not {other:?}"),
    }
}

fn store(bits: u32) -> TrappedStore {
    match decode_trap(&trap(cause::STORE_GUEST_PAGE, 0), fetched(bits)) {
        Ok(TrappedAccess::Store(store)) => store,
        other => panic!("{bits:x} is a store, not {other:?}"),
    }
}

#[test]
fn r58_an_access_has_to_fit_the_cause_else_the_guest_is_retried() {
    let refuses = |scause, bits| {
        let error = decode_trap(&trap(scause, 0), fetched(bits)).unwrap_err();
        let TrappedError::InstructionChanged(fault) = error else {
            panic!("scause {scause}, {bits:x}: {error:?}");
        };
        assert_eq!(fault.kind, FaultKind::InstructionChanged);
        assert_eq!(fault.trap, Some(trap(scause, 0)));
        fault.operation
    };
    for scause in LOADS {
        assert!(decode_trap(&trap(scause, 0), fetched(LB_A0)).is_ok());
        for bits in [SB_A0, C_SW_A0, NOP, AMOADD_W, PREFETCH_R] {
            assert_eq!(refuses(scause, bits), Operation::GuestLoad);
        }
    }
    for scause in STORES {
        assert!(decode_trap(&trap(scause, 0), fetched(SB_A0)).is_ok());
        for bits in [LB_A0, LWU_A0, NOP, PREFETCH_R] {
            assert_eq!(refuses(scause, bits), Operation::GuestStore);
        }
    }
}

#[test]
fn r58_htinst_alone_suffices_and_a_useless_one_does_not_mislead() {
    let (transformed_lb, transformed_sb) = (0x0000_0503, 0x00a0_0023);
    let expected = decode_trap(&trap(cause::LOAD_GUEST_PAGE, 0), fetched(LB_A0));
    let loaded = trap(cause::LOAD_GUEST_PAGE, transformed_lb);
    assert_eq!(decode_trap(&loaded, no_fetch), expected);
    for useless in [transformed_sb, transformed_lb | 1 << 33, NOP.into(), 0x3010] {
        let trap = trap(cause::LOAD_GUEST_PAGE, useless);
        assert_eq!(decode_trap(&trap, fetched(LB_A0)), expected);
    }
}

/// The causes that a firmware passes on: what it left in `htinst` may be another trap's.
#[test]
fn r95_an_htinst_of_another_trap_is_not_believed() {
    let (transformed_lw, transformed_sw) = (0x0000_2503, 0x00a0_2023);
    for (causes, fits, transformed) in [
        (LOADS, LB_A0, transformed_lw),
        (STORES, SB_A0, transformed_sw),
    ] {
        for scause in causes {
            for stale in [
                transformed,
                transformed | 4 << 15,
                0x3000,
                0x3020,
                AMOADD_W.into(),
            ] {
                let decoded = decode_trap(&trap(scause, stale), fetched(fits));
                if [4, 5, 6, 7].contains(&scause) {
                    // It is the byte's, which is at the pc.
                    let access = decoded.unwrap();
                    assert_eq!(access.width(), Width::Byte, "{scause}, {stale:#x}");
                    assert_eq!(access.gva(), Gva::new(STVAL));
                } else if stale == transformed {
                    assert_eq!(decoded.unwrap().width(), Width::Word, "{scause}");
                }
            }
        }
    }
}

#[test]
fn r58_a_page_table_access_is_never_emulated() {
    for scause in [cause::LOAD_GUEST_PAGE, cause::STORE_GUEST_PAGE] {
        for (htinst, access) in [(0x3000, AccessKind::Load), (0x3020, AccessKind::Store)] {
            let error = decode_trap(&trap(scause, htinst), no_fetch).unwrap_err();
            // R22: the two low bits of `stval` are the access's, not the entry's.
            let TrappedError::PageTableAccess(fault) = error else {
                panic!("{error:?}");
            };
            let kind = FaultKind::GuestPage {
                access,
                implicit: true,
            };
            assert_eq!((fault.kind, fault.gpa), (kind, Some(Gpa::new(0x1000_0004))));
            // Whatever the walk did, the guest's access was what the cause says.
            let unbacked = if scause == cause::LOAD_GUEST_PAGE {
                5
            } else {
                7
            };
            let injection = fault.injection_when_unbacked().unwrap();
            assert_eq!((injection.cause, injection.tval), (unbacked, STVAL));
        }
    }
}

#[test]
fn r58_a_failed_fetch_says_who_has_to_act() {
    let gva = Gva::new(0x4000);
    let page_fault = Fault::new(Operation::Fetch, FaultKind::Page).at_gva(gva);
    let error = decode_trap(
        &trap(cause::LOAD_GUEST_PAGE, 0),
        || Err(page_fault.after(2)),
    );
    let Err(TrappedError::Fetch(fault)) = error else {
        panic!("{error:?}");
    };
    let Resolution::Inject(injection) = fault.resolution() else {
        panic!("{fault}");
    };
    assert_eq!(
        (injection.cause, injection.tval),
        (cause::INSTRUCTION_PAGE, 0x4000)
    );
}

#[test]
fn other_causes_are_not_looked_into() {
    for scause in [0, 1, 2, 3, 8, 10, 12, 20, 22, 1 << 63 | 5] {
        let trap = trap(scause, 0);
        let error = decode_trap(&trap, no_fetch).unwrap_err();
        assert_eq!(error, TrappedError::NotDataAccess(fault_of(&trap)));
    }
}

#[test]
fn what_is_not_emulated_is_named_whether_fetched_or_in_htinst() {
    let amo = NotEmulatable {
        kind: NotEmulatableKind::Amo,
        len: 4,
    };
    let by_fetch = decode_trap(&trap(cause::STORE_GUEST_PAGE, 0), fetched(AMOADD_W));
    assert_eq!(by_fetch, Err(TrappedError::NotEmulatable(amo)));
    // R69: CVA6 reports `lr` as a store.
    let lr = NotEmulatable {
        kind: NotEmulatableKind::LoadReserved,
        len: 4,
    };
    for scause in [cause::LOAD_GUEST_PAGE, cause::STORE_GUEST_PAGE] {
        let decoded = decode_trap(&trap(scause, 0), fetched(LR_W));
        assert_eq!(decoded, Err(TrappedError::NotEmulatable(lr)));
    }
    let transformed = trap(cause::STORE_GUEST_PAGE, u64::from(AMOADD_W & !(0x1f << 15)));
    let by_htinst = decode_trap(&transformed, no_fetch);
    assert_eq!(by_htinst, Err(TrappedError::NotEmulatable(amo)));
}

#[test]
fn r22_the_address_is_htval_with_the_low_bits_of_stval() {
    let load = load(LB_A0);
    assert_eq!(load.gpa(), Some(Gpa::new(0x1000_0006)));
    assert_eq!(load.gva(), Gva::new(0xffff_ffff_c000_0006));
    assert_eq!(load.width(), Width::Byte);
}

#[test]
fn r22_an_unreported_address_is_none_and_not_page_zero() {
    let unreported = TrapInfo {
        htval: 0,
        ..trap(cause::LOAD_GUEST_PAGE, 0)
    };
    let access = decode_trap(&unreported, fetched(LB_A0)).unwrap();
    assert_eq!(access.gpa(), None);
    // Only guest-page faults write it.
    for scause in [cause::LOAD_ACCESS, cause::LOAD_PAGE, cause::LOAD_MISALIGNED] {
        let access = decode_trap(&trap(scause, 0), fetched(LB_A0)).unwrap();
        assert_eq!(access.gpa(), None);
    }
}

#[test]
fn a_completed_load_extends_by_width_and_sign() {
    let device = 0xf1f2_f3f4_f5f6_f7f8;
    for (funct3, value) in [
        (0, 0xffff_ffff_ffff_fff8),
        (1, 0xffff_ffff_ffff_f7f8),
        (2, 0xffff_ffff_f5f6_f7f8),
        (3, device),
        (4, 0xf8),
        (5, 0xf7f8),
        (6, 0xf5f6_f7f8),
    ] {
        let mut vcpu = Vcpu::new();
        load(0x0005_8503 | funct3 << 12).complete_load(&mut vcpu, device);
        assert_eq!((vcpu.x[10], vcpu.pc), (value, 0x1004), "funct3 {funct3}");
        // A positive value stays so.
        load(0x0005_8503 | funct3 << 12).complete_load(&mut vcpu, 0x7f);
        assert_eq!((vcpu.x[10], vcpu.pc), (0x7f, 0x1008), "funct3 {funct3}");
    }
}

#[test]
fn a_load_writes_its_register_and_no_other() {
    for number in 0..32u32 {
        let mut vcpu = Vcpu::new();
        let before = vcpu.x;
        load(0x0005_8003 | number << 7).complete_load(&mut vcpu, 0x55);
        for (other, (value, untouched)) in (0..).zip(vcpu.x.into_iter().zip(before)) {
            let expected = if other == number && other != 0 {
                0x55
            } else {
                untouched
            };
            assert_eq!(value, expected, "x{other} after a load of x{number}");
        }
        assert_eq!(vcpu.pc, 0x1004);
    }
}

#[test]
fn a_store_gives_the_low_bits_of_its_register() {
    for (funct3, mask) in [(0, 0xff), (1, 0xffff), (2, 0xffff_ffff), (3, u64::MAX)] {
        for number in 0..32u32 {
            let mut vcpu = Vcpu::new();
            let store = store(0x0005_8023 | funct3 << 12 | number << 20);
            let register = if number == 0 {
                0
            } else {
                vcpu.x[number as usize]
            };
            assert_eq!(store.store_value(&vcpu), register & mask);
            store.complete_store(&mut vcpu);
            assert_eq!(vcpu.pc, 0x1004);
        }
    }
}

#[test]
fn the_pc_advances_by_the_length_in_memory_also_when_htinst_holds_the_expanded_form() {
    let mut vcpu = Vcpu::new();
    store(C_SW_A0).complete_store(&mut vcpu);
    assert_eq!(vcpu.pc, 0x1002);
    let trap = trap(cause::STORE_GUEST_PAGE, 0x00a0_2021); // sw a0, with bit 1 clear
    let Ok(TrappedAccess::Store(store)) = decode_trap(&trap, no_fetch) else {
        panic!("not a store");
    };
    store.complete_store(&mut vcpu);
    assert_eq!(vcpu.pc, 0x1004);
}

/// `lb`, `lh`, `lw` or `ld a0, 0(a1)`; `sb` to `sd a0, 0(a1)`.
fn access_of(width: Width, is_store: bool) -> u32 {
    let funct3 = width.bytes().ilog2() << 12;
    if is_store {
        SB_A0 | funct3
    } else {
        LB_A0 | funct3
    }
}

/// The same as the hart transforms it, with the offset of the part that faulted.
fn transformed(width: Width, is_store: bool, offset: u64) -> u64 {
    u64::from(access_of(width, is_store) & !(0x1f << 15)) | offset << 15
}

#[test]
fn r75_an_access_across_pages_is_told_apart() {
    const PAGE: u64 = 0x7000;
    const DEVICE: u64 = 0x1000_0000;
    for width in Width::ALL {
        let bytes = width.bytes() as u64;
        for before in 0..=bytes {
            for (is_store, by_htinst, second_faults) in
                (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0))
            {
                let start = PAGE - before;
                let split = before > 0 && before < bytes;
                if second_faults && !split {
                    continue;
                }
                let offset = if second_faults { before } else { 0 };
                let scause = if is_store { 23 } else { 21 };
                let gpa = if second_faults {
                    DEVICE
                } else {
                    DEVICE + start % 0x1000
                };
                let trap = TrapInfo {
                    scause,
                    stval: start + offset,
                    htval: gpa >> 2,
                    htinst: if by_htinst {
                        transformed(width, is_store, offset)
                    } else {
                        0
                    },
                };
                let mut vcpu = Vcpu::new();
                vcpu.x[11] = start;
                let fetch = || {
                    assert!(!by_htinst, "fetched although htinst suffices");
                    Ok::<_, Fault>(Instruction::from_bits(access_of(width, is_store)))
                };
                let access = decode_trapped(&fault_of(&trap), &vcpu, fetch).unwrap();
                let what = std::format!("{width:?} {before} before, store {is_store}, {trap:x?}");
                assert_eq!(access.gva(), Gva::new(start), "{what}");
                assert_eq!(access.width(), width, "{what}");
                let TrappedAccess::AcrossPages(across) = access else {
                    assert!(!split, "{what}");
                    assert_eq!(access.gpa(), Some(Gpa::new(gpa)), "{what}");
                    continue;
                };
                assert!(split, "{what}");
                let gpa = Some(Gpa::new(gpa));
                let gpas = if second_faults {
                    [None, gpa]
                } else {
                    [gpa, None]
                };
                let parts = across.parts();
                assert_eq!(parts.map(|part| part.gpa), gpas, "{what}");
                assert_eq!(
                    parts.map(|part| part.len as u64),
                    [before, bytes - before],
                    "{what}"
                );
                assert_eq!(parts.map(|part| part.gva.value()), [start, PAGE], "{what}");
                let injection = across.injection();
                let cause = if is_store { 6 } else { 4 };
                assert_eq!((injection.cause, injection.tval), (cause, start), "{what}");
                let whole = across.into_whole();
                assert_eq!(
                    (whole.gpa(), whole.gva()),
                    (None, Gva::new(start)),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn r75_a_misaligned_access_within_a_page_is_one_access() {
    let start = 0x7ff1;
    let mut vcpu = Vcpu::new();
    vcpu.x[11] = start;
    // A hart may report a later byte of it.
    for offset in 0..8 {
        let trap = TrapInfo {
            scause: cause::LOAD_GUEST_PAGE,
            stval: start + offset,
            htval: (0x1000_0ff1 + offset) >> 2,
            htinst: 0,
        };
        let fetch = fetched(access_of(Width::Double, false));
        let access = decode_trapped(&fault_of(&trap), &vcpu, fetch).unwrap();
        assert!(matches!(access, TrappedAccess::Load(_)));
        assert_eq!(access.gva(), Gva::new(start));
        assert_eq!(access.gpa(), Some(Gpa::new(0x1000_0ff1)), "offset {offset}");
    }
}

#[test]
fn r75_an_instruction_that_does_not_lead_to_the_address_changed() {
    let mut vcpu = Vcpu::new();
    for (base, fits) in [
        (STVAL, true),
        (STVAL - 7, true),
        (STVAL - 8, false),
        (STVAL + 1, false),
        (0, false),
        // Pointer masking drops up to 16 high bits (R14).
        (STVAL ^ 0xffff << 48, true),
        (STVAL ^ 1 << 47, false),
    ] {
        vcpu.x[11] = base;
        let fault = fault_of(&trap(cause::LOAD_GUEST_PAGE, 0));
        let decoded = decode_trapped(&fault, &vcpu, fetched(access_of(Width::Double, false)));
        let changed = matches!(decoded, Err(TrappedError::InstructionChanged(_)));
        assert_eq!(changed, !fits, "base {base:#x}: {decoded:x?}");
    }
}

#[test]
fn r75_an_offset_of_htinst_beyond_the_width_counts_as_none() {
    for offset in 0..32 {
        let trap = trap(
            cause::LOAD_GUEST_PAGE,
            transformed(Width::Word, false, offset),
        );
        let mut fetches = 0;
        let decoded = decode_trap(&trap, || {
            fetches += 1;
            Ok::<_, Fault>(Instruction::from_bits(access_of(Width::Word, false)))
        });
        assert!(decoded.is_ok());
        assert_eq!(fetches, u32::from(offset >= 4), "offset {offset}");
    }
}

#[test]
fn what_a_later_completion_needs_can_be_asked() {
    let load = load(0x0005_8503 | 4 << 12); // lbu
    assert_eq!(load.register().index(), 10);
    assert!(!load.is_sign_extended());
    assert_eq!((load.width(), load.instruction_len()), (Width::Byte, 4));
    let store = store(C_SW_A0);
    assert_eq!(store.register().index(), 10);
    assert_eq!((store.width(), store.instruction_len()), (Width::Word, 2));
}

#[test]
fn the_pc_wraps_at_the_top_of_the_address_space() {
    let mut vcpu = Vcpu::new();
    vcpu.pc = u64::MAX - 3;
    load(LB_A0).complete_load(&mut vcpu, 0);
    assert_eq!(vcpu.pc, 0);
}

#[test]
fn errors_say_in_one_line_what_a_person_needs() {
    use std::string::ToString;
    let lines = [
        decode_trap(&trap(cause::LOAD_GUEST_PAGE, 0x3000), no_fetch),
        decode_trap(&trap(cause::STORE_GUEST_PAGE, 0), fetched(0x2508 | 0x8000)),
        decode_trap(&trap(cause::LOAD_GUEST_PAGE, 0), fetched(SB_A0)),
        decode_trap(&trap(cause::VIRTUAL_INSTRUCTION, 0), no_fetch),
    ]
    .map(|error| error.unwrap_err().to_string());
    assert_eq!(
        lines[0],
        "read of a guest page-table entry at GPA 0x10000004"
    );
    assert_eq!(lines[1], "floating-point store of 2 bytes is not emulated");
    assert!(lines[2].starts_with(
        "guest load of its own at GVA 0xffffffffc0000006 at GPA 0x10000006: instruction does not match"
    ));
    assert!(lines[3].ends_with("is not that of a load or a store of the guest's"));
    assert!(lines[3].contains("scause 22"));
}
