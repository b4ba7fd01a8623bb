//! What a walk of the VS-stage has to know that the loaded CSRs do not say.

use crate::probe::MachineProfile;
use crate::translate::StageRules;

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
    /// Copies and fills of this many bytes or more go by one walk a page and the host's mapping; [`usize::MAX`]: none do. It is
    /// a matter of speed only, and the machine's to say: an emulator wants it small, an in-order core large. Measure it by
    /// [`BackedVirtual::measure_walk_from`](super::BackedVirtual::measure_walk_from).
    pub walk_from: usize,
}

impl VsEnvironment {
    /// No extensions; A and D bits are left to the guest (Svade).
    pub const BASE: Self = Self {
        rules: StageRules::BASE,
        henvcfg: 0,
        senvcfg: 0,
        walk_always: false,
        walk_from: usize::MAX,
    };

    /// The environment of a vCPU with these CSRs on a machine that was probed. Of `rules`, the A/D policy is the probe's.
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
            walk_from: usize::MAX,
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
