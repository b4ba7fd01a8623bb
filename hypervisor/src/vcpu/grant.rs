//! What the hypervisor CSRs give a guest, and giving it.
//!
//! The one idea: the CSRs are asked, by writing what is wanted and reading back, and the guest's
//! device tree is made from the answer.

use sbi_spec::fwft::feature_type::PTE_AD_HW_UPDATING;

use super::firmware_features::FirmwareFeatures;
use super::redirect;
use crate::boot::machine::CacheBlocks;
use crate::csr;
use crate::features::{self, AdUpdates, Choices, Counters, Granted, Henvcfg};
use crate::memory::cache;
use crate::memory::page_table::MapError;

/// Exceptions that a guest takes itself: those it causes by its own doing and that need nothing of
/// the host. Illegal instructions (2) and access faults (1, 5, 7) come to the host first, which
/// says so and injects them.
const DELEGATED_EXCEPTIONS: u64 = 1 << 0 | 1 << 3 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15;

/// Exceptions that reach the host by the firmware's redirect only (R25), for machines on which that
/// fails ([`redirect`]): the guest takes them as well.
const REDIRECTED_EXCEPTIONS: u64 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;

/// Where `henvcfg.PMM` is.
const PMM_SHIFT: u32 = 32;

/// `hstateen0.ENVCFG`: the guest may access its `senvcfg`.
const STATEEN_ENVCFG: u64 = 1 << 62;

/// What a guest is given; the same on every hart.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// What the CSRs took.
    pub granted: Granted,
    /// The machine's ISA string.
    pub isa: &'static str,
    /// `henvcfg.ADUE` can be set, so it says who updates A and D bits of the guest's tables.
    pub governs_ad_updates: bool,
    asks_for_ad_updates: bool,
    /// The guest reaches the registers of Ssaia: the machine has them, and no `hstateen0` that
    /// hides them.
    pub interrupt_registers: bool,
    state_enable: bool,
    exceptions: u64,
}

impl Grant {
    /// Asks this hart for what the machine's ISA string lists, and tries where a guest's illegal
    /// instruction goes.
    ///
    /// # Errors
    ///
    /// No memory for the trial.
    pub fn probe(isa: &'static str, blocks: CacheBlocks) -> Result<Self, MapError> {
        let mut exceptions = DELEGATED_EXCEPTIONS;
        if !redirect::reaches_host()? {
            log::warn!(
                "an illegal instruction of a guest does not reach the host on this machine: the guest takes it itself"
            );
            exceptions |= REDIRECTED_EXCEPTIONS;
        }
        let asks_for_ad_updates = features::lists(isa, "svade") && features::lists(isa, "svadu");
        if asks_for_ad_updates {
            ask_for_ad_updates();
        }
        let block = u64::from(blocks.management);
        let can_flush =
            features::lists(isa, "zicbom") && block.is_power_of_two() && cache::can_flush();
        let wanted = features::wanted_environment(isa, can_flush);
        // SAFETY: no guest runs yet, and `apply` writes the registers again before one does.
        unsafe {
            csr::write!("henvcfg", wanted.bits());
            csr::write!("hcounteren", Counters::all().bits());
        }
        let environment = Henvcfg::from_bits_truncate(csr::read!("henvcfg")) & wanted;
        if environment.contains(Henvcfg::PBMTE) {
            cache::turn_on(block);
        }
        let ad_updates = match environment.contains(Henvcfg::ADUE) {
            true if features::lists(isa, "svade") => AdUpdates::Chosen,
            true => AdUpdates::Always,
            false => AdUpdates::Never,
        };
        let masks = |field: u64| {
            features::lists(isa, "ssnpm") && takes(field << PMM_SHIFT, 0b11 << PMM_SHIFT)
        };
        let choices = Choices {
            ad_updates,
            masks_seven_bits: masks(0b10),
            masks_sixteen_bits: masks(0b11),
        };
        let state_enable = features::lists(isa, "smstateen") || features::lists(isa, "ssstateen");
        Ok(Self {
            granted: Granted {
                choices,
                environment,
                counters: Counters::from_bits_truncate(csr::read!("hcounteren")),
                vectors: features::has_vectors(isa) && has_vector_unit(),
            },
            isa,
            governs_ad_updates: takes(Henvcfg::ADUE.bits(), Henvcfg::ADUE.bits()),
            asks_for_ad_updates,
            interrupt_registers: features::lists(isa, "ssaia") && !state_enable,
            state_enable,
            exceptions,
        })
    }

    /// Whether this hart can do what the grant demands of the host: flush, where a guest reads past
    /// the caches (I20).
    pub fn is_kept_by_this_hart(&self) -> bool {
        !self.granted.environment.contains(Henvcfg::PBMTE) || cache::can_flush()
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

    /// Gives it to the guest of this hart, and nothing else, with what the guest chose of it.
    pub fn apply(&self, chosen: &FirmwareFeatures) {
        if self.asks_for_ad_updates {
            ask_for_ad_updates();
        }
        // SAFETY: these registers govern V=1 only.
        unsafe {
            csr::write!("henvcfg", chosen.henvcfg(self.granted.environment));
            csr::write!("hcounteren", self.granted.counters.bits());
            csr::write!("hedeleg", self.exceptions);
            csr::write!("hideleg", csr::VS_INTERRUPTS);
            if self.state_enable {
                // hstateen1 to 3 govern nothing yet, and firmware may keep them to itself
                // (mstateen1 to 3).
                csr::write!("hstateen0", STATEEN_ENVCFG);
            }
        }
    }
}

/// Asks the firmware to let this hart update A and D bits: with Svade and Svadu it starts without
/// (`menvcfg.ADUE`), and `henvcfg.ADUE` cannot be set then. Firmware without FWFT refuses, and the
/// guest has Svade alone.
fn ask_for_ad_updates() {
    sbi_rt::fwft_set(PTE_AD_HW_UPDATING as u32, 1, 0);
}

/// Whether the field `mask` of `henvcfg` takes `value`.
fn takes(value: u64, mask: u64) -> bool {
    let old = csr::read!("henvcfg");
    // SAFETY: the register governs V=1 only, no guest runs, and it is put back.
    unsafe { csr::write!("henvcfg", old & !mask | value) };
    let taken = csr::read!("henvcfg") & mask == value;
    // SAFETY: it was there before.
    unsafe { csr::write!("henvcfg", old) };
    taken
}

/// Whether `sstatus.VS` can be set on this hart. Leaves the unit off.
fn has_vector_unit() -> bool {
    // SAFETY: the hypervisor is compiled without vector instructions, so it has nothing in the
    // unit.
    unsafe { csr::set!("sstatus", csr::SSTATUS_VS) };
    let has_unit = csr::read!("sstatus") & csr::SSTATUS_VS != 0;
    // SAFETY: the hypervisor has nothing in the unit.
    unsafe { csr::clear!("sstatus", csr::SSTATUS_VS) };
    has_unit
}
