//! What the CSRs say about a translation, taken out of the CSRs.
//!
//! The one idea: a walk depends on values, never on a hart, so that it can be done for a guest that is not loaded, and
//! repeated.

use super::{Access, Purpose};
use crate::access::GuestPrivilege;
use crate::address::{Gpa, Gva, PAGE_SHIFT, Spa};
use crate::csr::{
    ATP_PPN, ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_PMM_SHIFT, ENVCFG_SSE, GMode, HSTATUS_VSBE,
    STATUS_MXR, STATUS_SUM, VsMode,
};
use crate::fault::FaultKind;

/// What a stage does about an A or D bit that is clear (R55).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdPolicy {
    /// Faults (Svade).
    Fault,
    /// Sets the bit by an atomic compare-and-exchange, and walks again if the entry changed meanwhile (Svadu).
    Update,
    /// Goes on without setting it: for looking at a translation without leaving a trace.
    Ignore,
}

/// What the entries of one stage may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageRules {
    /// What happens when A or D is clear.
    pub ad: AdPolicy,
    /// Svpbmt is on for this stage: `henvcfg.PBMTE` for the VS-stage, `menvcfg.PBMTE` for the G-stage.
    pub pbmt: bool,
    /// The hart has Svnapot.
    pub svnapot: bool,
    /// The hart has Svrsw60t59b: bits 60:59 are software's.
    pub svrsw60t59b: bool,
}

impl StageRules {
    /// A stage without extensions, whose A and D bits are software's to set (Svade).
    pub const BASE: Self = Self {
        ad: AdPolicy::Fault,
        pbmt: false,
        svnapot: false,
        svrsw60t59b: false,
    };

    const fn looking(self) -> Self {
        Self {
            ad: match self.ad {
                AdPolicy::Update => AdPolicy::Ignore,
                other => other,
            },
            ..self
        }
    }
}

/// How many high bits of an address pointer masking drops (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PointerMask {
    /// None.
    #[default]
    Off,
    /// 7 bits.
    Seven,
    /// 16 bits.
    Sixteen,
}

impl PointerMask {
    /// What the PMM field of `henvcfg` or `senvcfg` says.
    pub const fn of_envcfg(envcfg: u64) -> Self {
        match envcfg >> ENVCFG_PMM_SHIFT & 0b11 {
            2 => Self::Seven,
            3 => Self::Sixteen,
            _ => Self::Off,
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Seven => 7,
            Self::Sixteen => 16,
        }
    }
}

/// The VS-stage: guest-virtual to guest-physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsRegime {
    /// `vsatp.MODE`.
    pub mode: VsMode,
    /// The root table.
    pub root: Gpa,
    /// What its entries may hold.
    pub rules: StageRules,
    /// `vsstatus.SUM`: VS-mode may load and store to user pages.
    pub sum: bool,
    /// `vsstatus.MXR` or `sstatus.MXR`: loads may read execute-only pages (R4).
    pub mxr: bool,
    /// `henvcfg.SSE`: shadow-stack pages exist (R16).
    pub shadow_stack: bool,
    /// `henvcfg.PMM`: pointer masking of accesses as VS-mode.
    pub supervisor_mask: PointerMask,
    /// `senvcfg.PMM`: pointer masking of accesses as VU-mode.
    pub user_mask: PointerMask,
}

/// The G-stage: guest-physical to machine addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GRegime {
    /// `hgatp.MODE`. Bare leads every guest-physical address to the machine address of the same number.
    pub mode: GMode,
    /// The root table, 16 KiB large and aligned.
    pub root: Spa,
    /// What its entries may hold.
    pub rules: StageRules,
    /// `sstatus.MXR`: explicit loads may read execute-only pages (R4). `vsstatus.MXR` has no say here.
    pub mxr: bool,
}

/// The CSRs that the VS-stage depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VsCsrs {
    /// `vsatp`.
    pub vsatp: u64,
    /// `vsstatus`.
    pub vsstatus: u64,
    /// `sstatus`.
    pub sstatus: u64,
    /// `hstatus`.
    pub hstatus: u64,
    /// `henvcfg` as the hart holds it: ADUE, PBMTE and SSE are clear where `menvcfg` does not grant them, whatever was written.
    pub henvcfg: u64,
    /// `senvcfg`.
    pub senvcfg: u64,
}

impl VsRegime {
    /// `vsatp.MODE` Bare: guest-virtual addresses are guest-physical ones.
    pub const BARE: Self = Self {
        mode: VsMode::Bare,
        root: Gpa::new(0),
        rules: StageRules::BASE,
        sum: false,
        mxr: false,
        shadow_stack: false,
        supervisor_mask: PointerMask::Off,
        user_mask: PointerMask::Off,
    };

    /// The VS-stage that `csrs` describe, on a hart with the given extensions.
    ///
    /// The A/D policy and the memory types come from `henvcfg`; of `rules` only what no CSR tells is used. A machine that
    /// does not obey `henvcfg.ADUE` (R65) is served by setting `rules.ad` of the result to what was measured.
    ///
    /// # Errors
    ///
    /// [`FaultKind::UnsupportedRegime`] for an unknown mode (R41), or big-endian page tables (R9).
    pub const fn from_csrs(csrs: &VsCsrs, rules: StageRules) -> Result<Self, FaultKind> {
        if csrs.hstatus & HSTATUS_VSBE != 0 {
            return Err(FaultKind::UnsupportedRegime);
        }
        let Some(mode) = VsMode::of(csrs.vsatp) else {
            return Err(FaultKind::UnsupportedRegime);
        };
        Ok(Self {
            mode,
            root: Gpa::new((csrs.vsatp & ATP_PPN) << PAGE_SHIFT),
            rules: StageRules {
                ad: if csrs.henvcfg & ENVCFG_ADUE != 0 {
                    AdPolicy::Update
                } else {
                    AdPolicy::Fault
                },
                pbmt: csrs.henvcfg & ENVCFG_PBMTE != 0,
                ..rules
            },
            sum: csrs.vsstatus & STATUS_SUM != 0,
            mxr: (csrs.vsstatus | csrs.sstatus) & STATUS_MXR != 0,
            shadow_stack: csrs.henvcfg & ENVCFG_SSE != 0,
            supervisor_mask: PointerMask::of_envcfg(csrs.henvcfg),
            user_mask: PointerMask::of_envcfg(csrs.senvcfg),
        })
    }

    /// The same stage, but a walk leaves A and D bits alone: for reports.
    pub const fn looking(self) -> Self {
        Self {
            rules: self.rules.looking(),
            ..self
        }
    }

    /// How many high bits of the address of `access` pointer masking replaces (R14).
    pub(crate) const fn masked_bits(&self, access: Access) -> u32 {
        let data = matches!(access.purpose, Purpose::Load | Purpose::Store);
        match access.privilege {
            _ if !data || self.mxr => 0,
            GuestPrivilege::Supervisor => self.supervisor_mask.bits(),
            GuestPrivilege::User => self.user_mask.bits(),
        }
    }

    /// The address of `access` after pointer masking: what is translated, and what `stval` shows (R14).
    pub const fn effective_address(&self, access: Access) -> Gva {
        let bits = self.masked_bits(access);
        if bits == 0 {
            return access.gva;
        }
        let shifted = access.gva.value() << bits;
        Gva::new(match self.mode {
            VsMode::Bare => shifted >> bits,
            _ => (shifted.cast_signed() >> bits).cast_unsigned(),
        })
    }

    /// Whether the mode can translate `gva` at all: its high bits are copies of its top bit (R49).
    pub const fn is_canonical(&self, gva: Gva) -> bool {
        let bits = match self.mode {
            VsMode::Bare => return true,
            VsMode::Sv39 => 39,
            VsMode::Sv48 => 48,
            VsMode::Sv57 => 57,
        };
        let unused = 64 - bits;
        (gva.value() << unused).cast_signed() >> unused == gva.value().cast_signed()
    }
}

impl GRegime {
    /// The G-stage of `hgatp`. `rules` are what `menvcfg` says, which HS-mode cannot read: measure it, or know the firmware.
    ///
    /// # Errors
    ///
    /// [`FaultKind::UnsupportedRegime`] for an unknown mode or a root table that is not 16 KiB aligned (R41).
    pub const fn from_csrs(hgatp: u64, sstatus: u64, rules: StageRules) -> Result<Self, FaultKind> {
        match GMode::of(hgatp) {
            Some(mode) if hgatp & 0b11 == 0 => Ok(Self {
                mode,
                root: Spa::new((hgatp & ATP_PPN) << PAGE_SHIFT),
                rules,
                mxr: sstatus & STATUS_MXR != 0,
            }),
            _ => Err(FaultKind::UnsupportedRegime),
        }
    }

    /// The same stage, but a walk leaves A and D bits alone: for reports.
    pub const fn looking(self) -> Self {
        Self {
            rules: self.rules.looking(),
            ..self
        }
    }
}
