//! What the hypervisor CSRs give a guest, and giving it.
//!
//! The one idea: the CSRs are asked, by writing what is wanted and reading back, and the guest's device tree is made from
//! the answer.

use super::redirect;
use crate::csr;
use crate::features::{self, Counters, Henvcfg};
use crate::memory::page_table::MapError;

/// Exceptions that a guest takes itself: those it causes by its own doing and that need nothing of the host. Illegal
/// instructions (2) and access faults (1, 5, 7) come to the host first, which says so and injects them.
const DELEGATED_EXCEPTIONS: u64 = 1 << 0 | 1 << 3 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15;

/// Exceptions that reach the host by the firmware's redirect only (R25), for machines on which that fails
/// ([`redirect`]): the guest takes them as well.
const REDIRECTED_EXCEPTIONS: u64 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;

/// `hstateen0.ENVCFG`: the guest may access its `senvcfg`.
const STATEEN_ENVCFG: u64 = 1 << 62;

/// What a guest is given; the same on every hart.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// `henvcfg`.
    pub environment: Henvcfg,
    /// `hcounteren`.
    pub counters: Counters,
    /// The machine's ISA string.
    pub isa: &'static str,
    /// The guest reaches the registers of Ssaia: the machine has them, and no `hstateen0` that hides them.
    pub interrupt_registers: bool,
    state_enable: bool,
    exceptions: u64,
}

impl Grant {
    /// Asks this hart for what the machine's ISA string lists, and tries where a guest's illegal instruction goes.
    ///
    /// # Errors
    ///
    /// No memory for the trial.
    pub fn probe(isa: &'static str) -> Result<Self, MapError> {
        let mut exceptions = DELEGATED_EXCEPTIONS;
        if !redirect::reaches_host()? {
            log::warn!(
                "an illegal instruction of a guest does not reach the host on this machine: the guest takes it itself"
            );
            exceptions |= REDIRECTED_EXCEPTIONS;
        }
        let wanted = features::wanted_environment(isa);
        // SAFETY: no guest runs yet, and `apply` writes the registers again before one does.
        unsafe {
            csr::write!("henvcfg", wanted.bits());
            csr::write!("hcounteren", Counters::all().bits());
        }
        let state_enable = features::lists(isa, "smstateen") || features::lists(isa, "ssstateen");
        Ok(Self {
            environment: Henvcfg::from_bits_truncate(csr::read!("henvcfg")) & wanted,
            counters: Counters::from_bits_truncate(csr::read!("hcounteren")),
            isa,
            interrupt_registers: features::lists(isa, "ssaia") && !state_enable,
            state_enable,
            exceptions,
        })
    }

    /// Whether the guest programs its timer itself.
    pub fn own_timer(&self) -> bool {
        self.environment.contains(Henvcfg::STCE)
    }

    /// Gives it to the guest of this hart, and nothing else.
    pub fn apply(&self) {
        // SAFETY: these registers govern V=1 only.
        unsafe {
            csr::write!("henvcfg", self.environment.bits());
            csr::write!("hcounteren", self.counters.bits());
            csr::write!("hedeleg", self.exceptions);
            csr::write!("hideleg", csr::VS_INTERRUPTS);
            if self.state_enable {
                // hstateen1 to 3 govern nothing yet, and firmware may keep them to itself (mstateen1 to 3).
                csr::write!("hstateen0", STATEEN_ENVCFG);
            }
        }
    }
}
