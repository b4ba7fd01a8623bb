//! The fields of the CSRs that decide how a guest access is translated: `hstatus`, `sstatus`, `vsstatus`, `vsatp`, `hgatp`.

/// `sstatus.SIE` and `vsstatus.SIE`: supervisor interrupts are enabled.
pub const STATUS_SIE: u64 = 1 << 1;
/// `sstatus.SPIE` and `vsstatus.SPIE`: they were before the trap.
pub const STATUS_SPIE: u64 = 1 << 5;
/// `vsstatus.UBE`: VU-mode data is big-endian.
pub const STATUS_UBE: u64 = 1 << 6;
/// `sstatus.SPP` and `vsstatus.SPP`: the trap came from supervisor mode.
pub const STATUS_SPP: u64 = 1 << 8;
/// `vsstatus.SUM`: VS-mode may load and store to pages with U=1.
pub const STATUS_SUM: u64 = 1 << 18;
/// `sstatus.MXR` and `vsstatus.MXR`: loads may read execute-only pages.
pub const STATUS_MXR: u64 = 1 << 19;
/// `sstatus.SPELP` (Zicfilp): whether the interrupted code expected a landing pad.
pub const STATUS_SPELP: u64 = 1 << 23;
/// `sstatus.SDT` (Ssdbltrp): another trap now is a double trap.
pub const STATUS_SDT: u64 = 1 << 24;

/// `hstatus.VSBE`: VS-mode data and page tables are big-endian.
pub const HSTATUS_VSBE: u64 = 1 << 5;
/// `hstatus.GVA`: `stval` holds a guest-virtual address.
pub const HSTATUS_GVA: u64 = 1 << 6;
/// `hstatus.SPV`: the trap came from V=1.
pub const HSTATUS_SPV: u64 = 1 << 7;
/// `hstatus.SPVP`: `hlv`/`hlvx`/`hsv` act as VS-mode (1) or VU-mode (0).
pub const HSTATUS_SPVP: u64 = 1 << 8;
/// `hstatus.HU`: `hlv`/`hlvx`/`hsv` are legal in U-mode.
pub const HSTATUS_HU: u64 = 1 << 9;

/// The physical page number field of `satp`, `vsatp` and `hgatp`.
pub const ATP_PPN: u64 = (1 << 44) - 1;

/// The mode field of `vsatp` or `hgatp`.
pub const fn atp_mode(atp: u64) -> u64 {
    atp >> 60
}

/// `vsatp.MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsMode {
    /// No VS-stage: a guest-virtual address is a guest-physical one.
    Bare,
    /// 39-bit addresses, 3 levels.
    Sv39,
    /// 48-bit addresses, 4 levels.
    Sv48,
    /// 57-bit addresses, 5 levels.
    Sv57,
}

impl VsMode {
    /// The mode that a value of `vsatp` selects, or `None` for one that this library does not know.
    pub const fn of(vsatp: u64) -> Option<Self> {
        match atp_mode(vsatp) {
            0 => Some(Self::Bare),
            8 => Some(Self::Sv39),
            9 => Some(Self::Sv48),
            10 => Some(Self::Sv57),
            _ => None,
        }
    }

    /// Levels of page tables; 0 for Bare.
    pub const fn levels(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Sv39 => 3,
            Self::Sv48 => 4,
            Self::Sv57 => 5,
        }
    }
}

/// `hgatp.MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GMode {
    /// No G-stage: a guest-physical address is a machine address. No access of this library runs under it (R12).
    Bare,
    /// 41-bit guest-physical addresses, 3 levels.
    Sv39x4,
    /// 50-bit guest-physical addresses, 4 levels.
    Sv48x4,
    /// 59-bit guest-physical addresses, 5 levels.
    Sv57x4,
}

impl GMode {
    /// The mode that a value of `hgatp` selects, or `None` for one that this library does not know.
    pub const fn of(hgatp: u64) -> Option<Self> {
        match atp_mode(hgatp) {
            0 => Some(Self::Bare),
            8 => Some(Self::Sv39x4),
            9 => Some(Self::Sv48x4),
            10 => Some(Self::Sv57x4),
            _ => None,
        }
    }

    /// Levels of page tables; 0 for Bare.
    pub const fn levels(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Sv39x4 => 3,
            Self::Sv48x4 => 4,
            Self::Sv57x4 => 5,
        }
    }

    /// Bits of a guest-physical address; higher ones must be zero (R13). 0 for Bare, which has no guest-physical space.
    pub const fn gpa_bits(self) -> u32 {
        match self {
            Self::Bare => 0,
            Self::Sv39x4 => 41,
            Self::Sv48x4 => 50,
            Self::Sv57x4 => 59,
        }
    }
}

/// `henvcfg.SSE` and `menvcfg.SSE`: shadow-stack pages exist (Zicfiss).
pub const ENVCFG_SSE: u64 = 1 << 3;
/// Where the two bits of `henvcfg.PMM` and `senvcfg.PMM` begin: pointer masking (R14).
pub const ENVCFG_PMM_SHIFT: u32 = 32;
/// `henvcfg.ADUE` and `menvcfg.ADUE`: the hardware updates A and D bits (R55).
pub const ENVCFG_ADUE: u64 = 1 << 61;
/// `henvcfg.PBMTE` and `menvcfg.PBMTE`: page-based memory types exist (R52).
pub const ENVCFG_PBMTE: u64 = 1 << 62;
