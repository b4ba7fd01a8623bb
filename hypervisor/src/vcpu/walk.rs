//! Looking through the guest's own translation, without an access: for crash reports, and for
//! faults whose guest-physical address the hart did not report (R22).

use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::translate::{
    Access, AdPolicy, EntryMemory, GPage, GRegime, GTables, Refused, StageRules, Translation,
    VsCsrs, VsRegime, WalkTrace, translate_observed,
};
use guest_mem::{Fault, FaultKind, Operation, Spa};

use super::Vcpu;
use crate::csr;
use crate::features::{self, Henvcfg};
use crate::memory::host::HostTables;

impl EntryMemory for HostTables {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        self.load(at).ok_or(Refused)
    }

    fn compare_exchange_entry(
        &self,
        _at: Spa,
        _current: u64,
        _new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        // Walks here only look.
        Err(Refused)
    }
}

impl Vcpu<'_> {
    /// Walks both stages for `access`, telling `trace` each step. Leaves A and D bits alone.
    ///
    /// # Errors
    ///
    /// The fault that the access would meet.
    pub fn walk(&self, access: Access, trace: &WalkTrace) -> Result<Translation<GPage>, Fault> {
        let regime = self.regimes().map_err(|kind| Fault {
            operation: Operation::Translate,
            kind,
            gva: Some(access.gva),
            gpa: None,
            trap: None,
        })?;
        let (vs, g) = regime;
        let tables = GTables::new(g.looking(), HostTables).observed(trace);
        translate_observed(&vs.looking(), &tables, access, trace)
    }

    /// What the G-stage refused of the guest's own access `fault`, where the hart did not say (R22,
    /// R76). `None` if the guest's tables have changed since: it tries again (R46).
    pub fn walked(&self, fault: &Fault) -> Option<Fault> {
        let (vs, g) = self.regimes().ok()?;
        let tables = GTables::new(g.looking(), HostTables);
        fault.walked(&vs, &tables, self.privilege())
    }

    /// What the guest's page-table entries may hold. Who updates A and D bits is for the probe to
    /// say.
    fn rules(&self) -> StageRules {
        StageRules {
            ad: AdPolicy::Fault,
            pbmt: self.vm.grant.granted.environment.contains(Henvcfg::PBMTE),
            svnapot: features::lists(self.vm.grant.isa, "svnapot"),
            svrsw60t59b: false,
        }
    }

    /// What the VS-stage depends on beside the loaded CSRs, for accesses that may go by a walk.
    pub fn environment(&self) -> VsEnvironment {
        let (henvcfg, senvcfg) = (csr::read!("henvcfg"), csr::read!("senvcfg"));
        VsEnvironment::new(&self.vm.profile, self.rules(), henvcfg, senvcfg)
            .with_ad_policy(self.ad_policy())
    }

    /// Who updates A and D bits of the guest's tables: what the guest was granted, where that can
    /// be said. The probe measures `hlv`, which QEMU lets follow `menvcfg` (R65).
    fn ad_policy(&self) -> AdPolicy {
        let henvcfg = Henvcfg::from_bits_truncate(csr::read!("henvcfg"));
        match self.vm.grant.governs_ad_updates {
            true if henvcfg.contains(Henvcfg::ADUE) => AdPolicy::Update,
            true => AdPolicy::Fault,
            false => self.vm.profile.vs_stage_ad,
        }
    }

    fn regimes(&self) -> Result<(VsRegime, GRegime), FaultKind> {
        let rules = self.rules();
        let csrs = VsCsrs {
            vsatp: csr::read!("vsatp"),
            vsstatus: csr::read!("vsstatus"),
            sstatus: csr::read!("sstatus"),
            hstatus: self.context.hstatus,
            henvcfg: csr::read!("henvcfg"),
            senvcfg: csr::read!("senvcfg"),
        };
        let mut vs = VsRegime::from_csrs(&csrs, rules)?;
        let mut g = GRegime::from_csrs(csr::read!("hgatp"), csrs.sstatus, StageRules::BASE)?;
        vs.rules.ad = self.ad_policy();
        g.rules.ad = self.vm.profile.g_stage_ad;
        Ok((vs, g))
    }
}
