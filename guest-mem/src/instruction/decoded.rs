//! What an instruction wants of memory, as a value.
//!
//! The one idea: every encoding of RV64 falls in one of three classes. A load or a store between one general register and
//! memory can be emulated from a value and an address; any other memory access has a name but no emulation; the rest does
//! not touch memory.

use core::fmt;

use super::Register;
use crate::access::{AccessKind, Width};

/// What an instruction is, as far as memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A load or a store of a general register.
    Access(DecodedAccess),
    /// A memory access that a value and an address do not suffice to emulate.
    NotEmulatable(NotEmulatable),
    /// No memory access, or no valid encoding at all.
    NoMemoryAccess {
        /// The length of the instruction in bytes: 2 or 4.
        len: usize,
    },
}

/// A load or a store of a general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedAccess {
    /// Which of the two, and of which register.
    pub form: AccessForm,
    /// How many bytes of memory it touches.
    pub width: Width,
    /// The length of the instruction in bytes, by which its completion advances the pc: 2 or 4.
    pub len: usize,
}

/// A load's destination or a store's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessForm {
    /// Memory to register.
    Load {
        /// The destination. For `x0` the load still happens, and its value is dropped.
        rd: Register,
        /// Whether the value is extended by its sign, else by zeros. True for `ld`, whose value fills the register.
        sign_extend: bool,
    },
    /// Register to memory.
    Store {
        /// The source.
        rs2: Register,
    },
}

/// A memory access that is named but not emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEmulatable {
    /// What it is.
    pub kind: NotEmulatableKind,
    /// The length of the instruction in bytes: 2 or 4.
    pub len: usize,
}

/// The memory accesses that are not emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotEmulatableKind {
    /// `flh`, `flw`, `fld`, `flq` and the compressed forms: the destination is a floating-point register.
    FloatingPointLoad,
    /// `fsh`, `fsw`, `fsd`, `fsq` and the compressed forms.
    FloatingPointStore,
    /// A vector load of any addressing mode.
    VectorLoad,
    /// A vector store of any addressing mode.
    VectorStore,
    /// `lr`.
    LoadReserved,
    /// `sc`.
    StoreConditional,
    /// A read-modify-write of extension A, Zabha or Zacas.
    Amo,
    /// A load-acquire of Zalasr.
    LoadAcquire,
    /// A store-release of Zalasr.
    StoreRelease,
    /// `cbo.inval`, `cbo.clean`, `cbo.flush`, `cbo.zero`: an access to a whole cache block.
    CacheBlock,
    /// `prefetch.i`, `prefetch.r`, `prefetch.w`: hints, which never raise a fault.
    Prefetch,
    /// `hlv` and `hlvx`.
    HypervisorLoad,
    /// `hsv`.
    HypervisorStore,
    /// `sspush`, `sspopchk`, `ssamoswap` of Zicfiss. (Where Zicfiss is off the first two are may-be-operations, which touch
    /// no memory.)
    ShadowStack,
    /// One of the four opcodes that are left to custom extensions, some of which are loads and stores.
    Custom,
}

impl NotEmulatableKind {
    /// Whether a fault of such an instruction is reported as one of the given type. Custom and shadow-stack instructions
    /// are taken to fit either data type.
    pub const fn may_fault_as(self, access: AccessKind) -> bool {
        let load = matches!(access, AccessKind::Load);
        let store = matches!(access, AccessKind::Store);
        match self {
            Self::FloatingPointLoad
            | Self::VectorLoad
            | Self::LoadAcquire
            | Self::HypervisorLoad => load,
            Self::FloatingPointStore
            | Self::VectorStore
            | Self::StoreConditional
            | Self::Amo
            | Self::StoreRelease
            | Self::CacheBlock
            | Self::HypervisorStore => store,
            // R69: CVA6 reports `lr` as a store.
            Self::LoadReserved | Self::ShadowStack | Self::Custom => load || store,
            Self::Prefetch => false,
        }
    }
}

impl DecodedAccess {
    /// The type under which its faults are reported.
    pub const fn access_kind(&self) -> AccessKind {
        match self.form {
            AccessForm::Load { .. } => AccessKind::Load,
            AccessForm::Store { .. } => AccessKind::Store,
        }
    }
}

impl Decoded {
    /// The length of the instruction in bytes: 2 or 4.
    pub const fn length(&self) -> usize {
        match self {
            Self::Access(DecodedAccess { len, .. })
            | Self::NotEmulatable(NotEmulatable { len, .. })
            | Self::NoMemoryAccess { len } => *len,
        }
    }

    /// Whether a trap of a data access of the given type can have come from this instruction.
    pub const fn may_fault_as(&self, access: AccessKind) -> bool {
        match self {
            Self::Access(decoded) => matches!(
                (decoded.access_kind(), access),
                (AccessKind::Load, AccessKind::Load) | (AccessKind::Store, AccessKind::Store)
            ),
            Self::NotEmulatable(refused) => refused.kind.may_fault_as(access),
            Self::NoMemoryAccess { .. } => false,
        }
    }
}

impl fmt::Display for NotEmulatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            NotEmulatableKind::FloatingPointLoad => "floating-point load",
            NotEmulatableKind::FloatingPointStore => "floating-point store",
            NotEmulatableKind::VectorLoad => "vector load",
            NotEmulatableKind::VectorStore => "vector store",
            NotEmulatableKind::LoadReserved => "load-reserved",
            NotEmulatableKind::StoreConditional => "store-conditional",
            NotEmulatableKind::Amo => "atomic read-modify-write",
            NotEmulatableKind::LoadAcquire => "load-acquire",
            NotEmulatableKind::StoreRelease => "store-release",
            NotEmulatableKind::CacheBlock => "cache-block operation",
            NotEmulatableKind::Prefetch => "prefetch",
            NotEmulatableKind::HypervisorLoad => "hypervisor load",
            NotEmulatableKind::HypervisorStore => "hypervisor store",
            NotEmulatableKind::ShadowStack => "shadow-stack access",
            NotEmulatableKind::Custom => "custom instruction",
        };
        write!(f, "{name} of {} bytes is not emulated", self.len)
    }
}
