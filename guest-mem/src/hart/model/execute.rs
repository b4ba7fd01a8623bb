//! One guest access, from the address to the byte or the trap.

use super::{ACCESS_PC, Event, Misaligned, ModelHart, Recovery, Register, Translations};
use crate::access::{GuestPrivilege, Width};
use crate::address::{Gpa, Gva, Spa};
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, GMode, HSTATUS_SPVP, STATUS_SIE, VsMode, atp_mode};
use crate::fault::{Fault, FaultKind, TrapInfo, cause};
use crate::translate::{
    Access, AdPolicy, EntryMemory, GPage, GRegime, GStage, GTables, Leaf, Need, Purpose, Reason,
    Refused, StageRules, VsCsrs, VsRegime, check_g_leaf, check_vs_leaf, trap_of, walk_vs_stage,
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
struct Regime<'h, 'a> {
    hart: &'h ModelHart<'a>,
    vs: VsRegime,
    g: GRegime,
    asid: u64,
    vmid: u64,
}

impl<'a> ModelHart<'a> {
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
            let gva = self.regime().vs.effective_address(access);
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
        let regime = self.regime();
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

    fn regime(&self) -> Regime<'_, 'a> {
        let vsatp = self.register(Register::Vsatp);
        let hgatp = self.register(Register::Hgatp);
        let sstatus = self.register(Register::Sstatus);
        let menvcfg = self.register(Register::Menvcfg);
        // What menvcfg does not enable is read-only zero in henvcfg (I8).
        let governed = ENVCFG_ADUE | ENVCFG_PBMTE;
        let csrs = VsCsrs {
            vsatp,
            vsstatus: self.register(Register::Vsstatus),
            sstatus,
            hstatus: self.register(Register::Hstatus),
            henvcfg: self.register(Register::Henvcfg) & (menvcfg | !governed),
            senvcfg: self.register(Register::Senvcfg),
        };
        let rules = StageRules {
            ad: if menvcfg & ENVCFG_ADUE != 0 {
                AdPolicy::Update
            } else {
                AdPolicy::Fault
            },
            pbmt: menvcfg & ENVCFG_PBMTE != 0,
            svnapot: self.machine.svnapot,
            svrsw60t59b: self.machine.svrsw60t59b,
        };
        Regime {
            hart: self,
            // Registers takes no unknown mode and no misaligned root, so that only VSBE is left.
            vs: VsRegime::from_csrs(&csrs, rules).expect("the model is little-endian (R9)"),
            g: GRegime::from_csrs(hgatp, sstatus, rules).expect("hgatp was legalized"),
            asid: asid_of(vsatp),
            vmid: vmid_of(hgatp),
        }
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

impl Regime<'_, '_> {
    fn is_lazy(&self) -> bool {
        self.hart.machine.translations == Translations::Lazy
    }

    /// Where the access goes, through what the hart kept or through the tables.
    fn locate(&self, access: Access) -> Result<Spa, Fault> {
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
        let (tlb, address) = (&self.hart.tlb, access.gva.value());
        // The canonical check comes before any translation (R49), and Bare takes effect at once (R28).
        let translated = self.vs.mode != VsMode::Bare && self.vs.is_canonical(access.gva);
        if translated
            && self.is_lazy()
            && let Some(leaf) = tlb.vs(self.vmid, self.asid, address)
        {
            let fault = |kind| Fault::new(access.purpose.operation(), kind).at_gva(access.gva);
            match check_vs_leaf(&self.vs, &leaf, access) {
                Err(Reason::ShadowStack) => return Err(fault(FaultKind::ShadowStack)),
                Err(_) => return Err(fault(FaultKind::Page)),
                // To set D, the entry has to be read again.
                Ok(()) if access.purpose == Purpose::Store && !leaf.dirty => {}
                Ok(()) => return Ok((Gpa::new(leaf.output(address)), Some(leaf))),
            }
        }
        let (gpa, leaf) = loop {
            match walk_vs_stage(&self.vs, self, access, &()) {
                // Another thread kept changing the entry: hardware has no bound.
                Err(fault) if fault.kind == FaultKind::Unresolved => {}
                other => break other?,
            }
        };
        if let Some(leaf) = leaf
            && self.is_lazy()
        {
            tlb.insert_vs(self.vmid, self.asid, address, leaf);
        }
        Ok((gpa, leaf))
    }

    fn g_stage(&self, gpa: Gpa, need: Need) -> Result<GPage, FaultKind> {
        let (tlb, address) = (&self.hart.tlb, gpa.value());
        let fits = self.g.mode != GMode::Bare && address >> self.g.mode.gpa_bits() == 0;
        if fits
            && self.is_lazy()
            && let Some(leaf) = tlb.g(self.vmid, address)
        {
            match check_g_leaf(&self.g, &leaf, need) {
                Err(_) => {
                    return Err(FaultKind::GuestPage {
                        access: need.kind(),
                        implicit: false,
                    });
                }
                Ok(()) if need.is_store() && !leaf.dirty => {}
                Ok(()) => {
                    return Ok(GPage {
                        spa: Spa::new(leaf.output(address)),
                        leaf: Some(leaf),
                    });
                }
            }
        }
        let page = loop {
            match GTables::new(self.g, self).walk(gpa, need) {
                Err(FaultKind::Unresolved) => {}
                other => break other?,
            }
        };
        if let Some(leaf) = page.leaf
            && self.is_lazy()
        {
            tlb.insert_g(self.vmid, address, leaf);
        }
        Ok(page)
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
        use core::sync::atomic::Ordering::AcqRel;
        use core::sync::atomic::Ordering::Acquire;
        if !self.hart.permits(at, 8, Purpose::Store) {
            return Err(Refused);
        }
        let word = self.hart.ram.word(at).ok_or(Refused)?;
        let result = word.compare_exchange(current, new, AcqRel, Acquire);
        if result.is_ok() {
            self.hart.count(|counts| counts.entries_updated += 1);
        }
        Ok(result)
    }
}
