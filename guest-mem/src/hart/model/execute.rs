//! One guest access, from the address to the byte or the trap.

use super::lookup::Regime;
use super::{ACCESS_PC, Event, Misaligned, ModelHart, Recovery, Register};
use crate::access::{GuestPrivilege, Width};
use crate::address::Gva;
use crate::cause;
use crate::csr::{HSTATUS_SPVP, STATUS_SIE, STATUS_UBE, atp_mode};
use crate::fault::{Fault, FaultKind, HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE, TrapInfo};
use crate::translate::{Access, Purpose, trap_of};

impl ModelHart<'_> {
    /// Executes one access of `width` at `address`. `value` is what a store stores.
    ///
    /// # Panics
    ///
    /// Where [`Hart`](super::super::Hart)'s contract is broken.
    pub(super) fn access(
        &self,
        address: u64,
        width: Width,
        purpose: Purpose,
        value: u64,
    ) -> Result<u64, TrapInfo> {
        let hgatp = self.register(Register::Hgatp);
        assert!(atp_mode(hgatp) != 0, "guest access with hgatp Bare (R12)");
        assert!(
            self.register(Register::Sstatus) & STATUS_SIE == 0,
            "guest access with interrupts on (R26)"
        );
        if let Some(hook) = self.before_access.get() {
            hook(Event {
                address,
                purpose,
                index: self.counts().accesses(),
            });
        }
        self.count(|counts| match purpose {
            Purpose::Store => counts.stores += 1,
            Purpose::Load => counts.loads += 1,
            Purpose::ExecutableLoad | Purpose::Fetch => counts.fetches += 1,
        });
        self.perform(address, width, purpose, value)
            .map_err(|fault| self.trap(&fault, purpose))
    }

    fn perform(
        &self,
        address: u64,
        width: Width,
        purpose: Purpose,
        value: u64,
    ) -> Result<u64, Fault> {
        let supervisor = self.register(Register::Hstatus) & HSTATUS_SPVP != 0;
        // VS-mode's endianness is `hstatus.VSBE`, which the walk looks at.
        assert!(
            supervisor || self.register(Register::Vsstatus) & STATUS_UBE == 0,
            "the model is little-endian (R9)"
        );
        let mut access = Access {
            gva: Gva::new(address),
            purpose,
            privilege: if supervisor {
                GuestPrivilege::Supervisor
            } else {
                GuestPrivilege::User
            },
        };
        if access.gva.is_aligned_to(width.bytes() as u64) {
            return self.perform_aligned(access, width, value);
        }
        if self.machine.misaligned == Misaligned::Traps {
            let gva = Regime::of(self).vs.effective_address(access);
            return Err(Fault::new(purpose.operation(), FaultKind::Misaligned).at_gva(gva));
        }
        // A fault in the middle leaves the bytes before it stored (R11).
        let mut loaded = 0;
        for index in 0..width.bytes() {
            let shift = 8 * index as u32;
            access.gva = Gva::new(address.wrapping_add(index as u64));
            loaded |= self.perform_aligned(access, Width::Byte, value >> shift)? << shift;
        }
        Ok(loaded)
    }

    fn perform_aligned(&self, access: Access, width: Width, value: u64) -> Result<u64, Fault> {
        let regime = Regime::of(self);
        let gva = regime.vs.effective_address(access);
        let access = Access { gva, ..access };
        let spa = regime.locate(access)?;
        let refused = || Fault::new(access.purpose.operation(), FaultKind::Access).at_gva(gva);
        if !self.permits(spa, width.bytes() as u64, access.purpose) {
            return Err(refused());
        }
        if access.purpose == Purpose::Store {
            self.ram.store(spa, width, value).ok_or_else(refused)?;
            return Ok(0);
        }
        self.ram.load(spa, width).ok_or_else(refused)
    }

    /// Takes the trap and lets the host recover from it. Answers what its handler sees.
    fn trap(&self, fault: &Fault, purpose: Purpose) -> TrapInfo {
        self.count(|counts| counts.faults += 1);
        let Some(mut trap) = trap_of(fault, purpose) else {
            unreachable!("no trap reports {fault}")
        };
        let quirks = self.machine.quirks;
        let mut gva = true;
        if quirks.page_faults_as_access_faults {
            trap.scause = match trap.scause {
                cause::LOAD_PAGE => cause::LOAD_ACCESS,
                cause::STORE_PAGE => cause::STORE_ACCESS,
                other => other,
            };
        } else if quirks.access_faults_without_gva {
            gva = !matches!(trap.scause, cause::LOAD_ACCESS | cause::STORE_ACCESS);
        }
        if quirks.hlvx_faults_as_fetch && purpose == Purpose::ExecutableLoad {
            trap.scause = match trap.scause {
                cause::LOAD_PAGE | cause::LOAD_GUEST_PAGE => cause::INSTRUCTION_PAGE,
                cause::LOAD_ACCESS => cause::INSTRUCTION_ACCESS,
                cause::LOAD_MISALIGNED => cause::INSTRUCTION_MISALIGNED,
                other => other,
            };
        }
        if let FaultKind::GuestPage { implicit: true, .. } = fault.kind {
            if quirks.implicit_faults_are_loads {
                trap.scause = cause::LOAD_GUEST_PAGE;
            }
            if quirks.htinst_follows_access && trap.htinst != 0 {
                trap.htinst = match purpose {
                    Purpose::Store => HTINST_PAGE_TABLE_WRITE,
                    Purpose::Load | Purpose::ExecutableLoad | Purpose::Fetch => {
                        HTINST_PAGE_TABLE_READ
                    }
                };
            }
        }
        if quirks.protected_accesses_are_loads
            && matches!(trap.scause, cause::LOAD_ACCESS | cause::STORE_ACCESS)
        {
            (trap.scause, trap.stval) = (cause::LOAD_ACCESS, 0);
        }
        if !self.machine.writes_htval {
            // A pseudo-instruction goes with a nonzero htval only (R58).
            (trap.htval, trap.htinst) = (0, 0);
        }
        let before = self.registers.snapshot();
        self.registers.enter_trap(&trap, ACCESS_PC, gva);
        match self.machine.recovery {
            Recovery::HandlerHook => self.registers.return_from_trap(),
            Recovery::ScopedStvec => {
                self.registers.restore(&before);
                if quirks.htinst_is_read_only {
                    self.registers.set(Register::Htinst, trap.htinst);
                }
            }
        }
        trap
    }
}
