//! Which bits of `menvcfg`, `henvcfg` and `senvcfg` are a case's on this machine, and what a stage holds under them.
//!
//! The one idea: a bit is the case's if the hart holds it both set and clear, and, of `menvcfg`, which only M-mode writes, if the
//! G-stage obeys it. All other bits stay as they were found, and what was measured under them counts.

use differential::{Environment, World};
use guest_mem::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_SSE};
use guest_mem::translate::{AdPolicy, StageRules};
use test_kernel::deviation::{Deviation, HENVCFG_PMM, Machine};
use test_kernel::harness::act_as_supervisor;
use test_kernel::machine;
use test_kernel::oracle::Oracle;
use test_kernel::tables::World as Guest;
use test_kernel::tables::bits::{A, SUPERVISOR, USER};
use test_kernel::{arena, boot, csr, raw};

use crate::deviations::Deviations;

/// Where the measurements map their page.
const GVA: u64 = 0x1000;
/// Svpbmt's lowest value: non-cacheable.
const NON_CACHEABLE: u64 = 1 << 61;

/// What the machine does whatever a case says, and which bits are the case's.
#[derive(Clone, Copy)]
pub struct Measured {
    oracle: Oracle,
    /// The bits that are the case's.
    pub varies: Environment,
    /// The registers as they were found.
    found: Environment,
}

/// What the stages hold and do under a case's environment.
#[derive(Clone, Copy)]
pub struct Rules {
    /// The VS-stage.
    pub vs: StageRules,
    /// The G-stage.
    pub g: StageRules,
    /// `henvcfg` in effect.
    pub henvcfg: u64,
    /// `senvcfg`.
    pub senvcfg: u64,
}

impl Measured {
    /// Measures the machine, whose stages are as the oracle found them. No guest may be loaded.
    pub fn new(machine: &Machine, oracle: Oracle) -> Self {
        // Where pointers are masked by another rule, what comes of it is not told here: the probe of it was.
        let pmm = match machine.has(Deviation::PointerMaskWrong) {
            true => 0,
            false => HENVCFG_PMM,
        };
        let found = Environment {
            menvcfg: 0,
            henvcfg: csr::henvcfg::read(),
            senvcfg: csr::senvcfg::read(),
        };
        let granted = ENVCFG_ADUE | ENVCFG_PBMTE | ENVCFG_SSE;
        let held = || {
            held(granted | pmm, csr::henvcfg::read, |value| {
                // SAFETY: guest state.
                unsafe { csr::henvcfg::write(value) }
            })
        };
        let varies = Environment {
            menvcfg: match machine::is_standalone() {
                true => granted & obeyed(),
                false => 0,
            },
            henvcfg: match machine::is_standalone() {
                true => machine::with_environment(granted, granted, held),
                false => held(),
            },
            senvcfg: held_by_senvcfg(pmm),
        };
        boot::reset_csrs(csr::satp::read());
        arena::release_all();
        Self {
            oracle,
            varies,
            found,
        }
    }

    /// What the stages hold under the environment of a case, on a machine with `deviations`.
    pub fn rules(&self, world: &World, deviations: Deviations) -> Rules {
        let Oracle { vs, g, .. } = self.oracle;
        let ignored = deviations.has(Deviation::EnvironmentIgnored);
        let has = |bit: u64, vs: bool, g: bool| {
            let granted = match self.varies.menvcfg & bit {
                0 => g,
                _ => world.menvcfg & bit != 0,
            };
            let set = match self.varies.henvcfg & bit {
                _ if ignored => granted,
                0 => vs && granted,
                // What is to be written and is not granted is not there.
                _ => world.henvcfg & bit != 0 && (granted || self.varies.menvcfg & bit == 0),
            };
            (set, granted)
        };
        let updates = |rules: StageRules| rules.ad == AdPolicy::Update;
        let ad = has(ENVCFG_ADUE, updates(vs), updates(g));
        let pbmt = has(ENVCFG_PBMTE, vs.pbmt, g.pbmt);
        // Nothing shows whether menvcfg has it, unless henvcfg holds it.
        let possible = self.varies.henvcfg & ENVCFG_SSE != 0;
        let shadow_stacks = has(ENVCFG_SSE, possible, possible);
        let rules = |rules: StageRules, ad: bool, pbmt: bool| StageRules {
            ad: match ad {
                true => AdPolicy::Update,
                false => AdPolicy::Fault,
            },
            pbmt,
            ..rules
        };
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        Rules {
            vs: rules(vs, ad.0, pbmt.0),
            g: rules(g, ad.1, pbmt.1),
            henvcfg: world.henvcfg & HENVCFG_PMM
                | bit(ad.0, ENVCFG_ADUE)
                | bit(pbmt.0, ENVCFG_PBMTE)
                | bit(shadow_stacks.0, ENVCFG_SSE),
            senvcfg: world.senvcfg,
        }
    }

    /// Runs `body` with the environment of a case in the hart's CSRs. Translations are to be fenced in it (R42).
    pub fn during<R>(&self, world: &World, body: impl FnOnce() -> R) -> R {
        let Environment {
            menvcfg,
            henvcfg,
            senvcfg,
        } = self.varies;
        let body = || {
            // SAFETY: guest state.
            unsafe {
                csr::henvcfg::write(self.found.henvcfg & !henvcfg | world.henvcfg);
                csr::senvcfg::write(self.found.senvcfg & !senvcfg | world.senvcfg);
            }
            body()
        };
        let result = match menvcfg {
            0 => body(),
            varies => machine::with_environment(varies, world.menvcfg, body),
        };
        // SAFETY: as they were found.
        unsafe {
            csr::henvcfg::write(self.found.henvcfg);
            csr::senvcfg::write(self.found.senvcfg);
        }
        result
    }
}

/// Of `bits`, those that a register holds both set and clear. The register is as before then.
fn held(bits: u64, read: impl Fn() -> u64, write: impl Fn(u64)) -> u64 {
    let before = read();
    write(before | bits);
    let set = read();
    write(before & !bits);
    let clear = read();
    write(before);
    bits & set & !clear
}

fn held_by_senvcfg(bits: u64) -> u64 {
    // SAFETY: the kernel runs no U-mode meanwhile.
    held(bits, csr::senvcfg::read, |value| unsafe {
        csr::senvcfg::write(value)
    })
}

/// Bits of `menvcfg` that the G-stage obeys. SSE has none to obey there; the register decides.
fn obeyed() -> u64 {
    let allows = |bit: u64, flags: u64| {
        [bit, 0].map(|value| {
            machine::with_environment(bit, value, || {
                Guest::with_page(GVA, SUPERVISOR, flags);
                act_as_supervisor(true);
                boot::fence_everything();
                raw::hlv_d(GVA, 0).is_ok()
            })
        })
    };
    let mut obeyed = ENVCFG_SSE & machine::environment_held(ENVCFG_SSE);
    for (bit, flags) in [
        (ENVCFG_ADUE, USER & !A),
        (ENVCFG_PBMTE, USER | NON_CACHEABLE),
    ] {
        if allows(bit, flags) == [true, false] {
            obeyed |= bit;
        }
    }
    obeyed
}
