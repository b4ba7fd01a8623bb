//! Any trap and any instruction bytes: what becomes of them fits the cause, and completing it does to the registers what
//! one load or store may do.
#![no_main]

use std::cell::Cell;

use arbitrary::Arbitrary;
use guest_mem::instruction::{
    Decoded, DecodedAccess, GuestRegisters, Htinst, Instruction, NotEmulatable, NotEmulatableKind,
    Register, TrappedAccess, TrappedError, decode_htinst, decode_trapped,
};
use guest_mem::fault::GuestExit;
use guest_mem::probe::MachineProfile;
use guest_mem::translate::AdPolicy;
use guest_mem::{AccessKind, Fault, GuestPrivilege, Resolution, TrapInfo};
use libfuzzer_sys::fuzz_target;

mod by_listing;

mod access {
    pub use guest_mem::Width;
}

#[derive(Arbitrary, Debug)]
struct Input {
    scause: u8,
    stval: u64,
    htval: u64,
    htinst: u64,
    /// What is in memory at the pc.
    instruction: u32,
    pc: u64,
    value: u64,
    vsatp_is_bare: bool,
    implicit_faults_are_loads: bool,
    htinst_follows_access: bool,
    updates: bool,
}

struct Vcpu {
    x: [u64; 32],
    pc: u64,
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

/// `htinst`, step by step: a pseudo-instruction; else 32 bits of which bit 0 is set; bit 1 is the instruction's length, and
/// with it set again the rest is the 4-byte form of the instruction, which the listing knows.
fn expected(htinst: u64) -> Htinst {
    match htinst {
        0x2000 | 0x3000 => return Htinst::PageTable(AccessKind::Load),
        0x2020 | 0x3020 => return Htinst::PageTable(AccessKind::Store),
        _ => {}
    }
    let Ok(bits) = u32::try_from(htinst) else {
        return Htinst::Unusable;
    };
    let (transformed, long) = (bits & 1 == 1, bits & 2 == 2);
    let len = if long { 4 } else { 2 };
    if !transformed {
        return Htinst::Unusable;
    }
    match by_listing::expected(bits | 2) {
        Decoded::Access(access) => Htinst::Access {
            access: DecodedAccess { len, ..access },
            offset: u64::from(bits >> 15 & 0x1f),
        },
        Decoded::NotEmulatable(refused) => match refused.kind {
            NotEmulatableKind::Custom | NotEmulatableKind::Prefetch => Htinst::Unusable,
            kind => Htinst::NotEmulatable(NotEmulatable { kind, len }),
        },
        Decoded::NoMemoryAccess { .. } => Htinst::Unusable,
    }
}

fuzz_target!(|input: Input| {
    assert_eq!(decode_htinst(input.htinst), expected(input.htinst));

    let trap = TrapInfo {
        scause: input.scause.into(),
        stval: input.stval,
        htval: input.htval,
        htinst: input.htinst,
    };
    let fetched = Cell::new(false);
    let fetch = || {
        fetched.set(true);
        Ok::<_, Fault>(Instruction::from_bits(input.instruction))
    };
    let access = match trap.scause {
        4 | 5 | 13 | 21 => Some(AccessKind::Load),
        6 | 7 | 15 | 23 => Some(AccessKind::Store),
        _ => None,
    };
    let mut vcpu = Vcpu {
        x: core::array::from_fn(|number| input.value ^ number as u64),
        pc: input.pc,
    };
    let before = vcpu.x;
    let exit = GuestExit {
        trap,
        pc: input.pc,
        privilege: GuestPrivilege::Supervisor,
        vsatp: if input.vsatp_is_bare { 0 } else { 8 << 60 },
    };
    let profile = MachineProfile {
        vs_stage_ad: if input.updates {
            AdPolicy::Update
        } else {
            AdPolicy::Fault
        },
        implicit_faults_are_loads: input.implicit_faults_are_loads,
        htinst_follows_access: input.htinst_follows_access,
        ..MachineProfile::AS_SPECIFIED
    };
    let fault = Fault::from_guest_exit(&exit, &profile);
    let _ = fault.to_string();
    // A refusal of memory is never without an owner, and nothing else has one.
    assert_eq!(
        fault.resolution() == Resolution::Refuse,
        !matches!(trap.scause, 0 | 1 | 4..=7 | 12 | 13 | 15 | 20 | 21 | 23)
    );
    let is_fetch = fault.operation.access_kind() == AccessKind::Fetch;
    let kind = match decode_trapped(&fault, &vcpu, fetch) {
        Err(error) => {
            let _ = error.to_string();
            assert_eq!(
                matches!(error, TrappedError::NotDataAccess(_)),
                access.is_none() || is_fetch
            );
            return;
        }
        Ok(TrappedAccess::Load(load)) => {
            assert!(input.stval.wrapping_sub(load.gva().value()) < load.width().bytes() as u64);
            load.complete_load(&mut vcpu, input.value);
            AccessKind::Load
        }
        Ok(TrappedAccess::Store(store)) => {
            assert_eq!(store.store_value(&vcpu) & !store.width().mask(), 0);
            store.complete_store(&mut vcpu);
            AccessKind::Store
        }
        Ok(TrappedAccess::AcrossPages(access)) => {
            let [first, second] = access.parts();
            assert_eq!(first.len + second.len, access.width().bytes());
            assert!(first.len > 0 && second.len > 0);
            assert_eq!(second.gva.value(), first.gva.value().wrapping_add(first.len as u64));
            assert!(second.gva.is_aligned_to(4096));
            assert!(first.gpa.is_none() || second.gpa.is_none());
            assert_eq!(access.injection().tval, first.gva.value());
            return;
        }
    };
    assert_eq!(Some(kind), access);
    let changed = before
        .iter()
        .zip(&vcpu.x)
        .filter(|(old, new)| old != new)
        .count();
    assert!(changed <= usize::from(kind == AccessKind::Load));
    let source = if fetched.get() {
        input.instruction
    } else {
        trap.htinst as u32
    };
    let len = if source & 0b11 == 0b11 { 4 } else { 2 };
    assert_eq!(vcpu.pc.wrapping_sub(input.pc), len);
});
