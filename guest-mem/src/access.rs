//! What an access is, apart from where it goes: its type, its width, and whose rights it uses.

use crate::csr::STATUS_SPP;

/// The type of an access, as the architecture counts it when it picks a fault cause.
///
/// An instruction fetch on the guest's behalf is done with `hlvx`, whose faults are *load* faults (R6); it is kept apart
/// here because its permission is X and because the guest has to be told of a fetch fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Reads data: needs R (or X with MXR).
    Load,
    /// Writes data, or reads and writes it: needs W.
    Store,
    /// Reads instructions: needs X.
    Fetch,
}

/// Whose rights a guest-virtual access uses: what `hstatus.SPVP` says (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestPrivilege {
    /// VU-mode: pages with U=1 only.
    User,
    /// VS-mode: pages with U=0, and those with U=1 for data while `vsstatus.SUM` is set (R3).
    Supervisor,
}

impl GuestPrivilege {
    /// The privilege of a guest that exited, by the `sstatus` of the exit: SPP.
    ///
    /// ```
    /// use guest_mem::GuestPrivilege;
    ///
    /// assert_eq!(GuestPrivilege::from_exit(1 << 8), GuestPrivilege::Supervisor);
    /// assert_eq!(GuestPrivilege::from_exit(0), GuestPrivilege::User);
    /// ```
    #[inline]
    pub const fn from_exit(sstatus: u64) -> Self {
        if sstatus & STATUS_SPP != 0 {
            Self::Supervisor
        } else {
            Self::User
        }
    }
}

/// The width of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Half = 2,
    /// 4 bytes.
    Word = 4,
    /// 8 bytes.
    Double = 8,
}

impl Width {
    /// Every width, narrowest first.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// The width in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// The width of `bytes` bytes, if there is one.
    #[inline]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Half),
            4 => Some(Self::Word),
            8 => Some(Self::Double),
            _ => None,
        }
    }

    /// The bits of a register that an access of this width moves.
    #[inline]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self as u32)
    }
}
