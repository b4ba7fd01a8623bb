//! Where one access goes: through the translations that the hart kept, or through the tables.
//!
//! The one idea: the two stages are kept and looked up apart, and a page-table entry of the guest's goes through what is kept
//! of the G-stage like any other access. A walk begins at the last table that the hart remembers the way to.

use core::cell::Cell;

use super::tlb::{Space, StageTlb};
use super::{ModelHart, Register, Translations};
use crate::access::Width;
use crate::address::{Gpa, Spa};
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, GMode, VsMode};
use crate::fault::{Fault, FaultKind};
use crate::translate::entry::{G, level_shift};
use crate::translate::{
    Access, AdPolicy, Below, EntryMemory, GPage, GRegime, GStage, GTables, Leaf, Need, Observer,
    Outcome, Purpose, Reason, Refused, StageRules, Step, VsCsrs, VsRegime, check_g_leaf,
    check_vs_leaf, walk_vs_stage_from,
};

/// `vsatp.ASID`.
const fn asid_of(vsatp: u64) -> u64 {
    vsatp >> 44 & 0xffff
}

/// `hgatp.VMID`.
pub(super) const fn vmid_of(hgatp: u64) -> u64 {
    hgatp >> 44 & 0x3fff
}

/// The translation of one access: what the CSRs say now.
pub(super) struct Regime<'h, 'a> {
    hart: &'h ModelHart<'a>,
    pub vs: VsRegime,
    g: GRegime,
    vs_space: Space,
    g_space: Space,
}

impl<'h, 'a> Regime<'h, 'a> {
    /// What the CSRs of `hart` say now.
    pub fn of(hart: &'h ModelHart<'a>) -> Self {
        let vsatp = hart.register(Register::Vsatp);
        let hgatp = hart.register(Register::Hgatp);
        let sstatus = hart.register(Register::Sstatus);
        let menvcfg = hart.register(Register::Menvcfg);
        let csrs = VsCsrs {
            vsatp,
            vsstatus: hart.register(Register::Vsstatus),
            sstatus,
            hstatus: hart.register(Register::Hstatus),
            henvcfg: hart.register(Register::Henvcfg),
            senvcfg: hart.register(Register::Senvcfg),
        };
        let rules = StageRules {
            ad: if menvcfg & ENVCFG_ADUE != 0 {
                AdPolicy::Update
            } else {
                AdPolicy::Fault
            },
            pbmt: menvcfg & ENVCFG_PBMTE != 0,
            svnapot: hart.machine.svnapot,
            svrsw60t59b: hart.machine.svrsw60t59b,
        };
        Self {
            hart,
            // Registers takes no unknown mode and no misaligned root, so that only VSBE is left.
            vs: VsRegime::from_csrs(&csrs, rules).expect("the model is little-endian (R9)"),
            g: GRegime::from_csrs(hgatp, sstatus, rules).expect("hgatp was legalized"),
            vs_space: Space {
                vmid: vmid_of(hgatp),
                asid: Some(asid_of(vsatp)),
            },
            g_space: Space {
                vmid: vmid_of(hgatp),
                asid: None,
            },
        }
    }

    fn is_lazy(&self) -> bool {
        self.hart.machine.translations == Translations::Lazy
    }

    /// Takes note of one walk. What an eager hart keeps is never looked at.
    fn memory<'r>(&'r self, stage: &'r StageTlb, space: Space, address: u64) -> Memory<'r> {
        let known = self
            .is_lazy()
            .then(|| stage.table(space, address))
            .flatten();
        Memory {
            stage,
            space,
            address,
            keeps: self.is_lazy(),
            keeps_refusals: self.is_lazy() && self.hart.machine.keeps_refusals,
            begin: known.map(|(below, _)| below),
            global: Cell::new(known.is_some_and(|(_, global)| global)),
        }
    }

    /// Where the access goes, through what the hart kept or through the tables.
    pub fn locate(&self, access: Access) -> Result<Spa, Fault> {
        let address = access.gva.value();
        let stale = self.hart.machine.quirks.stale_vsatp;
        if stale && let Some(spa) = self.hart.tlb.stale(address, access.purpose) {
            return Ok(Spa::new(spa));
        }
        let (gpa, vs) = self.vs_stage(access)?;
        let page = self
            .g_stage(gpa, Need::Explicit(access.purpose))
            .map_err(|kind| {
                Fault::new(access.purpose.operation(), kind)
                    .at_gva(access.gva)
                    .at_gpa(gpa)
            })?;
        if stale {
            let allows = |purpose| {
                let access = Access { purpose, ..access };
                let store = purpose == Purpose::Store;
                vs.is_none_or(|leaf| {
                    check_vs_leaf(&self.vs, &leaf, access).is_ok() && (leaf.dirty || !store)
                }) && page.leaf.is_none_or(|leaf| {
                    check_g_leaf(&self.g, &leaf, Need::Explicit(purpose)).is_ok()
                        && (leaf.dirty || !store)
                })
            };
            let kinds = [
                Purpose::Load,
                Purpose::Store,
                Purpose::ExecutableLoad,
                Purpose::Fetch,
            ];
            let tlb = &self.hart.tlb;
            tlb.insert_stale(address, page.spa.value(), kinds.map(allows));
        }
        Ok(page.spa)
    }

    fn vs_stage(&self, access: Access) -> Result<(Gpa, Option<Leaf>), Fault> {
        let (tlb, space, address) = (&self.hart.tlb.vs, self.vs_space, access.gva.value());
        // The canonical check comes before any translation (R49), and Bare takes effect at once (R28).
        let translated = self.vs.mode != VsMode::Bare && self.vs.is_canonical(access.gva);
        if translated
            && self.is_lazy()
            && let Some(leaf) = tlb.leaf(space, address)
        {
            let fault = |kind| Fault::new(access.purpose.operation(), kind).at_gva(access.gva);
            let Some(leaf) = leaf else {
                return Err(fault(FaultKind::Page));
            };
            match check_vs_leaf(&self.vs, &leaf, access) {
                Err(Reason::ShadowStack) => return Err(fault(FaultKind::ShadowStack)),
                Err(_) => return Err(fault(FaultKind::Page)),
                // To set D, the entry has to be read again.
                Ok(()) if access.purpose == Purpose::Store && !leaf.dirty => {}
                Ok(()) => return Ok((Gpa::new(leaf.output(address)), Some(leaf))),
            }
        }
        let (gpa, leaf) = loop {
            let memory = self.memory(tlb, space, address);
            match walk_vs_stage_from(&self.vs, self, access, &memory, memory.begin) {
                // Another thread kept changing the entry: hardware has no bound.
                Err(fault) if fault.kind == FaultKind::Unresolved => {}
                Err(fault) => return Err(fault),
                Ok((gpa, leaf)) => {
                    memory.keep(leaf);
                    break (gpa, leaf);
                }
            }
        };
        Ok((gpa, leaf))
    }

    fn g_stage(&self, gpa: Gpa, need: Need) -> Result<GPage, FaultKind> {
        let (tlb, space, address) = (&self.hart.tlb.g, self.g_space, gpa.value());
        let fits = self.g.mode != GMode::Bare && address >> self.g.mode.gpa_bits() == 0;
        if fits
            && self.is_lazy()
            && let Some(leaf) = tlb.leaf(space, address)
        {
            let refused = FaultKind::GuestPage {
                access: need.kind(),
                implicit: false,
            };
            let leaf = leaf.ok_or(refused)?;
            match check_g_leaf(&self.g, &leaf, need) {
                Err(_) => return Err(refused),
                Ok(()) if need.is_store() && !leaf.dirty => {}
                Ok(()) => {
                    return Ok(GPage {
                        spa: Spa::new(leaf.output(address)),
                        leaf: Some(leaf),
                    });
                }
            }
        }
        loop {
            let memory = self.memory(tlb, space, address);
            let tables = GTables::new(self.g, self).observed(&memory);
            match tables.walk_from(gpa, need, memory.begin) {
                Err(FaultKind::Unresolved) => {}
                Err(kind) => return Err(kind),
                Ok(page) => {
                    memory.keep(page.leaf);
                    return Ok(page);
                }
            }
        }
    }
}

/// Takes note of what one walk reads, for the hart to keep.
struct Memory<'r> {
    stage: &'r StageTlb,
    space: Space,
    address: u64,
    keeps: bool,
    keeps_refusals: bool,
    /// Where the walk begins, if not at the root.
    begin: Option<Below>,
    /// An entry on the way was global, and so is all that it leads to.
    global: Cell<bool>,
}

impl Memory<'_> {
    fn space(&self, global: bool) -> Space {
        Space {
            vmid: self.space.vmid,
            asid: self.space.asid.filter(|_| !global && !self.global.get()),
        }
    }

    fn keep(&self, leaf: Option<Leaf>) {
        if self.keeps
            && let Some(leaf) = leaf
        {
            let space = self.space(leaf.global);
            self.stage
                .keep_leaf(space, self.address, leaf.page_shift, Some(leaf));
        }
    }
}

impl Observer for Memory<'_> {
    fn observe(&self, step: Step) {
        let shift = level_shift(step.level);
        match step.outcome {
            Outcome::Table(table) if self.keeps => {
                self.global
                    .set(self.global.get() || step.entry.is_some_and(|entry| entry & G != 0));
                let below = Below {
                    table,
                    level: step.level - 1,
                };
                self.stage
                    .keep_table(self.space(false), self.address, shift, below);
            }
            // The G bit of an entry that is not valid says nothing.
            Outcome::Refused(Reason::NotValid) if self.keeps_refusals => {
                self.stage.keep_leaf(self.space, self.address, shift, None);
            }
            _ => {}
        }
    }
}

/// What the VS-stage's walk asks goes through the kept G-stage translations as well.
impl GStage for Regime<'_, '_> {
    type Page = GPage;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        let page = self.g_stage(at, Need::ReadEntry)?;
        EntryMemory::read_entry(&self, page.spa).map_err(|Refused| FaultKind::Access)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        let page = self.g_stage(at, Need::WriteEntry)?;
        EntryMemory::compare_exchange_entry(&self, page.spa, current, new)
            .map_err(|Refused| FaultKind::Access)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<GPage, FaultKind> {
        self.g_stage(at, Need::Explicit(purpose))
    }
}

/// Entries lie in the machine's memory, where protection counts as for supervisor loads and stores (R15).
impl EntryMemory for &Regime<'_, '_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        if !self.hart.permits(at, 8, Purpose::Load) {
            return Err(Refused);
        }
        self.hart.count(|counts| counts.entries_read += 1);
        self.hart.ram.load(at, Width::Double).ok_or(Refused)
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        if !self.hart.permits(at, 8, Purpose::Store) {
            return Err(Refused);
        }
        let exchange = self.hart.ram.compare_exchange(at, current, new);
        let result = exchange.ok_or(Refused)?;
        if result.is_ok() {
            self.hart.count(|counts| counts.entries_updated += 1);
        }
        Ok(result)
    }
}
