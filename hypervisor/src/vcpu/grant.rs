//! What the hypervisor CSRs give a guest, and giving it.
//!
//! The one idea: the CSRs are asked, by writing what is wanted and reading back, and the guest's device tree is made from
//! the answer.

use super::redirect;
use crate::csr;
use crate::features::{self, Counters, Granted, Henvcfg};
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
    /// What the CSRs took.
    pub granted: Granted,
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
            granted: Granted {
                environment: Henvcfg::from_bits_truncate(csr::read!("henvcfg")) & wanted,
                counters: Counters::from_bits_truncate(csr::read!("hcounteren")),
                vectors: features::has_vectors(isa) && has_vector_unit(),
            },
            isa,
            interrupt_registers: features::lists(isa, "ssaia") && !state_enable,
            state_enable,
            exceptions,
        })
    }

    /// Whether the guest programs its timer itself.
    pub fn own_timer(&self) -> bool {
        self.granted.environment.contains(Henvcfg::STCE)
    }

    /// The units with registers of their own that the guest has, as fields of `sstatus`.
    pub fn units(&self) -> u64 {
        if self.granted.vectors {
            csr::SSTATUS_FS | csr::SSTATUS_VS
        } else {
            csr::SSTATUS_FS
        }
    }

    /// Gives it to the guest of this hart, and nothing else.
    pub fn apply(&self) {
        // SAFETY: these registers govern V=1 only.
        unsafe {
            csr::write!("henvcfg", self.granted.environment.bits());
            csr::write!("hcounteren", self.granted.counters.bits());
            csr::write!("hedeleg", self.exceptions);
            csr::write!("hideleg", csr::VS_INTERRUPTS);
            if self.state_enable {
                // hstateen1 to 3 govern nothing yet, and firmware may keep them to itself (mstateen1 to 3).
                csr::write!("hstateen0", STATEEN_ENVCFG);
            }
        }
    }
}

/// Whether `sstatus.VS` can be set on this hart. Leaves the unit off.
fn has_vector_unit() -> bool {
    // SAFETY: the hypervisor is compiled without vector instructions, so it has nothing in the unit.
    unsafe { csr::set!("sstatus", csr::SSTATUS_VS) };
    let has_unit = csr::read!("sstatus") & csr::SSTATUS_VS != 0;
    // SAFETY: the hypervisor has nothing in the unit.
    unsafe { csr::clear!("sstatus", csr::SSTATUS_VS) };
    has_unit
}
