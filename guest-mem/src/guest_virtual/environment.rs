//! What a walk of the VS-stage has to know that the loaded CSRs do not say.

use crate::probe::MachineProfile;
use crate::translate::{AdPolicy, StageRules};

/// What the VS-stage depends on beside the loaded CSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsEnvironment {
    /// What page-table entries may hold, and who updates A and D bits: see [`probe`](crate::probe::probe).
    pub rules: StageRules,
    /// `henvcfg` of the vCPU as the hart holds it, not as it was meant: pointer masking, shadow stacks. What `menvcfg` does not
    /// grant is clear there.
    pub henvcfg: u64,
    /// `senvcfg` of the vCPU: pointer masking of VU-mode (R14).
    pub senvcfg: u64,
    /// The rights of an access are known by a walk only: [`MachineProfile::obeys_sum`] is false (R62). Every access then goes
    /// by a walk and the host's mapping.
    pub walk_always: bool,
    /// Instructions are fetched by a walk: the machine's `hlvx` asks for another right than X
    /// ([`MachineProfile::hlvx_needs_execute`] is false, R61), or takes another privilege's translation (R62).
    pub walk_fetches: bool,
    /// Copies and fills of this many bytes or more go by one walk a page and the host's mapping; [`usize::MAX`]: none do. It is
    /// a matter of speed only, and the machine's to say: an emulator wants it small, an in-order core large. Measure it by
    /// [`BackedVirtual::measure_walk_from`](super::BackedVirtual::measure_walk_from). Remote fences of the guest's then wait for
    /// read guards: see [`with_memory`](super::GuestVirtual::with_memory).
    pub walk_from: usize,
}

impl VsEnvironment {
    /// No extensions; A and D bits are left to the guest (Svade).
    pub const BASE: Self = Self {
        rules: StageRules::BASE,
        henvcfg: 0,
        senvcfg: 0,
        walk_always: false,
        walk_fetches: false,
        walk_from: usize::MAX,
    };

    /// The environment of a vCPU with these CSRs on a machine that was probed. Of `rules`, the A/D policy is the probe's.
    ///
    /// ```
    /// # use guest_mem::Spa;
    /// # use guest_mem::hart::Hart;
    /// # use guest_mem::hart::model::{Machine, ModelHart, RamArray};
    /// # use guest_mem::probe::probe;
    /// use guest_mem::guest_virtual::VsEnvironment;
    /// use guest_mem::translate::{AdPolicy, StageRules};
    ///
    /// # let (ram, address) = (RamArray::<16>::new(), Spa::new(0x8_0000_0000));
    /// # let ram = ram.at(address);
    /// # let hart = ModelHart::new(ram, Machine::new());
    /// # let scratch = ram.host_ptr(address).unwrap().cast().as_ptr();
    /// # // SAFETY: nobody else uses the memory, and no vCPU is loaded.
    /// let profile = unsafe { probe(&hart, scratch, address) }?;
    /// // What the ISA string lists is the host's to say; who updates A and D bits is measured.
    /// let rules = StageRules { svnapot: true, ..StageRules::BASE };
    /// let (henvcfg, senvcfg) = (0, 0); // as they are while the vCPU is loaded
    /// let environment = VsEnvironment::new(&profile, rules, henvcfg, senvcfg);
    /// assert_eq!(environment.rules.ad, profile.vs_stage_ad);
    /// assert!(environment.rules.svnapot && !environment.walk_always);
    /// # assert_eq!(profile.vs_stage_ad, AdPolicy::Fault);
    /// # Ok::<(), guest_mem::probe::ProbeError>(())
    /// ```
    pub const fn new(
        profile: &MachineProfile,
        rules: StageRules,
        henvcfg: u64,
        senvcfg: u64,
    ) -> Self {
        Self {
            rules: StageRules {
                ad: profile.vs_stage_ad,
                ..rules
            },
            henvcfg,
            senvcfg,
            walk_always: !profile.obeys_sum,
            walk_fetches: !profile.hlvx_needs_execute || !profile.obeys_sum,
            walk_from: usize::MAX,
        }
    }

    /// The same with `policy` for A and D bits of the guest's page tables.
    ///
    /// The probe measures what `hlv` and `hsv` do. The guest's own accesses obey `henvcfg.ADUE`, which QEMU's `hlv` does not
    /// (R65). If that bit can be set on this machine, pass what it says, so that a walk on the guest's behalf faults where
    /// the guest's own access faults (R74).
    ///
    /// ```
    /// use guest_mem::guest_virtual::VsEnvironment;
    /// use guest_mem::probe::MachineProfile;
    /// use guest_mem::translate::{AdPolicy, StageRules};
    ///
    /// let profile = MachineProfile { vs_stage_ad: AdPolicy::Update, ..MachineProfile::AS_SPECIFIED };
    /// let henvcfg = 0; // ADUE is clear
    /// let environment = VsEnvironment::new(&profile, StageRules::BASE, henvcfg, 0)
    ///     .with_ad_policy(AdPolicy::Fault);
    /// assert_eq!(environment.rules.ad, AdPolicy::Fault);
    /// ```
    #[must_use]
    pub const fn with_ad_policy(self, policy: AdPolicy) -> Self {
        Self {
            rules: StageRules {
                ad: policy,
                ..self.rules
            },
            ..self
        }
    }

    /// The same with copies of `bytes` or more by walks ([`walk_from`](Self::walk_from)).
    #[must_use]
    pub const fn with_walk_from(self, bytes: usize) -> Self {
        Self {
            walk_from: bytes,
            ..self
        }
    }
}
