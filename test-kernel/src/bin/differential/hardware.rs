//! A case on the hart: registers, one instruction, and its value or trap.

use differential::{Environment, Instruction, Mode, Offer, World};
use guest_mem::csr::{STATUS_MXR, STATUS_SUM};
use guest_mem::fault::{HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE};
use guest_mem::{TrapInfo, cause};
use test_kernel::harness::act_as_supervisor;
use test_kernel::trap::Trap;
use test_kernel::{boot, csr, raw};

use crate::environment::Measured;

/// rs1 of an instruction, where `htinst` has the address's offset: 0 for an aligned access.
const RS1: u32 = 0x1f << 15;

/// The hart.
pub struct Hardware {
    /// What `htinst` may hold for each instruction, in the order of [`Instruction::ALL`].
    transformed: [u64; Instruction::ALL.len()],
}

/// The modes that `vsatp` and `hgatp` take, beside the environment's bits. Leaves both 0.
pub fn offer(environment: Environment) -> Offer {
    let takes = |write: &dyn Fn(u64), read: &dyn Fn() -> u64| {
        Mode::ALL.map(|mode| {
            write(0);
            write(mode.number() << 60);
            let taken = read() >> 60 == mode.number();
            write(0);
            taken
        })
    };
    // SAFETY: guest state, and no guest access happens meanwhile.
    let vs_modes = takes(
        &|value| unsafe { csr::vsatp::write(value) },
        &csr::vsatp::read,
    );
    // SAFETY: as above.
    let mut g_modes = takes(
        &|value| unsafe { csr::hgatp::write(value) },
        &csr::hgatp::read,
    );
    // No guest access without a G-stage (R12).
    g_modes[0] = false;
    Offer {
        vs_modes,
        g_modes,
        environment,
    }
}

impl Hardware {
    /// The hart, with no guest loaded.
    pub fn new() -> Self {
        let transformed = Instruction::ALL.map(|instruction| {
            let is_it = |name: &str| {
                let dotted = name
                    .bytes()
                    .map(|byte| if byte == b'_' { b'.' } else { byte });
                dotted.eq(instruction.name().bytes())
            };
            let word = raw::words().find(|(name, _)| is_it(name));
            word.map_or(0, |(_, word)| u64::from(word & !RS1))
        });
        Self { transformed }
    }

    /// What `htval` and `htinst` hold before an access, as its trap would show them.
    pub fn stale(&self, world: &World) -> TrapInfo {
        TrapInfo {
            htval: csr::htval::read(),
            htinst: self.normal_htinst(csr::htinst::read(), world.instruction),
            ..TrapInfo::default()
        }
    }

    /// Does the access of a case whose words are in memory. No guest is loaded afterwards.
    pub fn execute(&self, world: &World, measured: &Measured) -> Result<u64, TrapInfo> {
        let result = with_guest(world, measured, || {
            access(world.instruction)(world.address, world.value)
        });
        match result {
            Ok(_) if world.instruction.stores() => Ok(0),
            Ok(value) => Ok(value),
            Err(Trap { info, .. }) => Err(TrapInfo {
                htinst: match info {
                    // Without a guest-physical address the pseudo-instruction may be given or not (R58).
                    TrapInfo {
                        htval: 0,
                        htinst: HTINST_PAGE_TABLE_READ | HTINST_PAGE_TABLE_WRITE,
                        scause: cause::INSTRUCTION_PAGE..=cause::STORE_GUEST_PAGE,
                        ..
                    } => 0,
                    _ => self.normal_htinst(info.htinst, world.instruction),
                },
                ..info
            }),
        }
    }

    /// `htinst`, but 0 where the specification leaves the choice between that and the transformed instruction.
    fn normal_htinst(&self, htinst: u64, instruction: Instruction) -> u64 {
        match htinst == self.transformed[instruction as usize] {
            true => 0,
            false => htinst,
        }
    }
}

/// Runs `body` with the guest of a case in this hart's CSRs, and nothing of any guest cached. No guest is loaded afterwards.
pub fn with_guest<T>(world: &World, measured: &Measured, body: impl FnOnce() -> T) -> T {
    measured.during(world, || with_registers(world, body))
}

fn with_registers<T>(world: &World, body: impl FnOnce() -> T) -> T {
    let host = bits(world.host_sum, STATUS_SUM) | bits(world.host_mxr, STATUS_MXR);
    let guest = bits(world.vs_sum, STATUS_SUM) | bits(world.vs_mxr, STATUS_MXR);
    // SAFETY: `vsatp` is off while `hgatp` changes (R32); the tables lead to the block, or to what the machine refuses.
    // The host has no pages that SUM or MXR would open.
    unsafe {
        csr::vsatp::write(0);
        csr::hgatp::write(world.hgatp);
        csr::vsatp::write(world.vsatp);
        csr::vsstatus::write(guest);
        csr::sstatus::set(host);
    }
    act_as_supervisor(world.supervisor);
    boot::fence_everything();
    let result = body();
    // SAFETY: no guest.
    unsafe {
        csr::sstatus::clear(host);
        csr::vsatp::write(0);
        csr::hgatp::write(0);
    }
    result
}

const fn bits(set: bool, bits: u64) -> u64 {
    if set { bits } else { 0 }
}

fn access(instruction: Instruction) -> fn(u64, u64) -> Result<u64, Trap> {
    match instruction {
        Instruction::HlvB => raw::hlv_b,
        Instruction::HlvBu => raw::hlv_bu,
        Instruction::HlvH => raw::hlv_h,
        Instruction::HlvHu => raw::hlv_hu,
        Instruction::HlvW => raw::hlv_w,
        Instruction::HlvWu => raw::hlv_wu,
        Instruction::HlvD => raw::hlv_d,
        Instruction::HlvxHu => raw::hlvx_hu,
        Instruction::HlvxWu => raw::hlvx_wu,
        Instruction::HsvB => raw::hsv_b,
        Instruction::HsvH => raw::hsv_h,
        Instruction::HsvW => raw::hsv_w,
        Instruction::HsvD => raw::hsv_d,
    }
}
