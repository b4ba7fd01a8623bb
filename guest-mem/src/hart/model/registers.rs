//! The CSRs of the model, with the writes that hardware would not take as they are.

use core::cell::Cell;

use crate::csr::{
    ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_SSE, GMode, HSTATUS_GVA, HSTATUS_SPV, STATUS_SDT, STATUS_SIE,
    STATUS_SPIE, STATUS_SPP, VsMode,
};
use crate::fault::TrapInfo;
use crate::hart::Csr;

/// A CSR of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// `sstatus`.
    Sstatus,
    /// `hstatus`.
    Hstatus,
    /// `hgatp`.
    Hgatp,
    /// `vsatp`.
    Vsatp,
    /// `vsstatus`.
    Vsstatus,
    /// `menvcfg`: ADUE and PBMTE govern the G-stage; those and SSE are what `henvcfg` may have set.
    Menvcfg,
    /// `henvcfg`: ADUE, PBMTE and SSE govern the VS-stage, PMM masks pointers of VS-mode.
    Henvcfg,
    /// `senvcfg`: PMM masks pointers of VU-mode.
    Senvcfg,
    /// `sepc`.
    Sepc,
    /// `scause`.
    Scause,
    /// `stval`.
    Stval,
    /// `htval`.
    Htval,
    /// `htinst`.
    Htinst,
}

const COUNT: usize = Register::Htinst as usize + 1;

impl From<Csr> for Register {
    fn from(csr: Csr) -> Self {
        match csr {
            Csr::Sstatus => Self::Sstatus,
            Csr::Hstatus => Self::Hstatus,
            Csr::Hgatp => Self::Hgatp,
            Csr::Vsatp => Self::Vsatp,
            Csr::Vsstatus => Self::Vsstatus,
        }
    }
}

/// `hgatp` has 14 bits of VMID and a root of 16 KiB.
const HGATP_ZERO: u64 = 0b11 << 58 | 0b11;
const ATP_MODE: u64 = 0xf << 60;
/// What is read-only zero in `henvcfg` where `menvcfg` has it clear (I8).
const GRANTED: u64 = ENVCFG_ADUE | ENVCFG_PBMTE | ENVCFG_SSE;

#[derive(Debug)]
pub(super) struct Registers {
    values: [Cell<u64>; COUNT],
}

impl Registers {
    pub const fn new() -> Self {
        Self {
            values: [const { Cell::new(0) }; COUNT],
        }
    }

    pub fn get(&self, register: Register) -> u64 {
        let value = self.values[register as usize].get();
        match register {
            Register::Henvcfg => value & (self.get(Register::Menvcfg) | !GRANTED),
            _ => value,
        }
    }

    /// Writes what the hart takes of `value` (R31, R41).
    pub fn set(&self, register: Register, value: u64) {
        let cell = &self.values[register as usize];
        let taken = match register {
            // A mode that the hart does not have: the write is ignored as a whole.
            Register::Vsatp if VsMode::of(value).is_none() => cell.get(),
            // Here only the mode is: the other fields are taken.
            Register::Hgatp if GMode::of(value).is_none() => {
                cell.get() & ATP_MODE | value & !ATP_MODE & !HGATP_ZERO
            }
            Register::Hgatp => value & !HGATP_ZERO,
            _ => value,
        };
        cell.set(taken);
    }

    /// What a trap from HS-mode to HS-mode writes (R19). SPVP stays.
    pub fn enter_trap(&self, trap: &TrapInfo, pc: u64, gva: bool) {
        let status = self.get(Register::Sstatus);
        assert!(
            status & STATUS_SDT == 0,
            "double trap: a guest access faulted with sstatus.SDT set (R24)"
        );
        let enabled = if status & STATUS_SIE != 0 {
            STATUS_SPIE
        } else {
            0
        };
        let kept = status & !(STATUS_SIE | STATUS_SPIE);
        self.set(Register::Sstatus, kept | enabled | STATUS_SPP | STATUS_SDT);
        let kept = self.get(Register::Hstatus) & !(HSTATUS_SPV | HSTATUS_GVA);
        self.set(Register::Hstatus, kept | if gva { HSTATUS_GVA } else { 0 });
        self.set(Register::Sepc, pc);
        self.set(Register::Scause, trap.scause);
        self.set(Register::Stval, trap.stval);
        self.set(Register::Htval, trap.htval);
        self.set(Register::Htinst, trap.htinst);
    }

    /// What the handler's `sret` to HS-mode writes (R20).
    pub fn return_from_trap(&self) {
        let status = self.get(Register::Sstatus);
        let enabled = if status & STATUS_SPIE != 0 {
            STATUS_SIE
        } else {
            0
        };
        let kept = status & !(STATUS_SIE | STATUS_SPP | STATUS_SDT);
        self.set(Register::Sstatus, kept | enabled | STATUS_SPIE);
        self.set(
            Register::Hstatus,
            self.get(Register::Hstatus) & !HSTATUS_SPV,
        );
    }

    pub fn snapshot(&self) -> [u64; COUNT] {
        core::array::from_fn(|index| self.values[index].get())
    }

    pub fn restore(&self, snapshot: &[u64; COUNT]) {
        for (cell, &value) in self.values.iter().zip(snapshot) {
            cell.set(value);
        }
    }
}
