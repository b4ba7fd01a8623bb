//! From a trap to the access that caused it, and from the access to the guest going on.
//!
//! The one idea: the instruction bytes are not evidence. The guest may rewrite them between its trap and our fetch, so what is
//! decoded counts only if it fits the cause, and a [`TrappedAccess`] can be had in no other way (R58, I11).

use core::fmt;

use super::decode::decode;
use super::decoded::{AccessForm, Decoded, DecodedAccess, NotEmulatable};
use super::htinst::{Htinst, decode_htinst};
use super::{GuestRegisters, Instruction, Register};
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, Gva};
use crate::cause;
use crate::fault::{Fault, FaultKind, Operation, TrapInfo};

/// A guest's load or store that trapped, to be carried out on its behalf.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the guest goes on only when its access is completed"]
pub enum TrappedAccess {
    /// Read from the device, then [`complete_load`](TrappedLoad::complete_load).
    Load(TrappedLoad),
    /// Write [`store_value`](TrappedStore::store_value) to the device, then
    /// [`complete_store`](TrappedStore::complete_store).
    Store(TrappedStore),
}

/// Where an access went, for both kinds.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    gva: Gva,
    gpa: Option<Gpa>,
    width: Width,
    len: usize,
}

/// A load that trapped. Not `Clone`: completing it consumes it.
///
/// ```compile_fail,E0382
/// # use guest_mem::instruction::{GuestRegisters, TrappedLoad};
/// fn complete_twice(load: TrappedLoad, registers: &mut impl GuestRegisters) {
///     load.complete_load(registers, 1);
///     load.complete_load(registers, 2);
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct TrappedLoad {
    place: Place,
    rd: Register,
    sign_extend: bool,
}

/// A store that trapped. Not `Clone`: completing it consumes it.
///
/// ```compile_fail,E0382
/// # use guest_mem::instruction::{GuestRegisters, TrappedStore};
/// fn complete_twice(store: TrappedStore, registers: &mut impl GuestRegisters) {
///     store.complete_store(registers);
///     store.complete_store(registers);
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct TrappedStore {
    place: Place,
    rs2: Register,
}

/// Why there is no [`TrappedAccess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrappedError {
    /// The trap came from the walk of the guest's page tables, not from the access: there is nothing to emulate. The guest
    /// keeps page tables where no memory is; its access deserves an access fault of the original type.
    PageTableAccess {
        /// The page-table entry, if the hart reported it.
        gpa: Option<Gpa>,
        /// A [`Load`](AccessKind::Load) of the entry, or a [`Store`](AccessKind::Store) of its A or D bit.
        access: AccessKind,
    },
    /// A memory access that the library does not emulate.
    NotEmulatable(NotEmulatable),
    /// The bytes at the pc are no access that could have trapped so ([`FaultKind::InstructionChanged`]): another hart of the
    /// guest changed them. Enter the guest again; if the access still traps, it traps again.
    InstructionChanged(Fault),
    /// The instruction could not be fetched: [`Fault::resolution`] says who has to act.
    Fetch(Fault),
    /// The cause is not that of a load or a store.
    NotDataAccess(TrapInfo),
}

/// Finds out which load or store trapped: from `htinst` if it is usable, else from the bytes that `fetch` gets at the trap's
/// pc, with the guest's privilege at the trap.
///
/// `fetch` is called at most once, and not at all if `htinst` suffices. Its error may be a [`Fault`] or an
/// [`AccessError`](crate::AccessError). The trap may have any cause of a load (4, 5, 13, 21) or of a store (6, 7, 15, 23).
/// Touches no guest memory itself.
///
/// **Trust.** The guest-physical address comes from the hart. The width comes from the instruction, and the guest can have
/// another of the same direction there by now: a device checks that address *and* width lie within it.
///
/// # Errors
///
/// See [`TrappedError`].
///
/// ```
/// use guest_mem::instruction::{TrappedError, decode_trapped};
/// use guest_mem::{AccessKind, Fault, Gpa, TrapInfo, cause};
///
/// // A page table of the guest's lies in a device.
/// let trap = TrapInfo { scause: cause::STORE_GUEST_PAGE, stval: 0x5000, htval: 0x1000_0008 >> 2, htinst: 0x3000 };
/// let error = decode_trapped(&trap, || -> Result<_, Fault> { unreachable!() }).unwrap_err();
/// assert_eq!(error, TrappedError::PageTableAccess { gpa: Some(Gpa::new(0x1000_0008)), access: AccessKind::Load });
/// ```
pub fn decode_trapped<E: Into<Fault>>(
    trap: &TrapInfo,
    fetch: impl FnOnce() -> Result<Instruction, E>,
) -> Result<TrappedAccess, TrappedError> {
    let Some(access) = data_access(trap.scause) else {
        return Err(TrappedError::NotDataAccess(*trap));
    };
    match decode_htinst(trap.htinst) {
        Htinst::PageTable(walk) if is_guest_page_fault(trap.scause) => {
            return Err(TrappedError::PageTableAccess {
                gpa: page_table_gpa(trap),
                access: walk,
            });
        }
        Htinst::Access(decoded) if decoded.access_kind() == access => {
            return Ok(TrappedAccess::new(decoded, trap));
        }
        Htinst::NotEmulatable(refused) if refused.kind.may_fault_as(access) => {
            return Err(TrappedError::NotEmulatable(refused));
        }
        // A value that does not fit the cause is as good as none.
        _ => {}
    }
    let instruction = fetch().map_err(|error| TrappedError::Fetch(error.into()))?;
    match decode(instruction) {
        Decoded::Access(decoded) if decoded.access_kind() == access => {
            Ok(TrappedAccess::new(decoded, trap))
        }
        Decoded::NotEmulatable(refused) if refused.kind.may_fault_as(access) => {
            Err(TrappedError::NotEmulatable(refused))
        }
        _ => Err(TrappedError::InstructionChanged(changed(trap, access))),
    }
}

/// Whether a cause is one of a load or of a store, and which.
const fn data_access(scause: u64) -> Option<AccessKind> {
    match scause {
        cause::LOAD_MISALIGNED | cause::LOAD_ACCESS | cause::LOAD_PAGE | cause::LOAD_GUEST_PAGE => {
            Some(AccessKind::Load)
        }
        cause::STORE_MISALIGNED
        | cause::STORE_ACCESS
        | cause::STORE_PAGE
        | cause::STORE_GUEST_PAGE => Some(AccessKind::Store),
        _ => None,
    }
}

const fn is_guest_page_fault(scause: u64) -> bool {
    matches!(scause, cause::LOAD_GUEST_PAGE | cause::STORE_GUEST_PAGE)
}

/// The guest-physical address of the access, if the hart reported it: `htval` lacks the two low bits, which `stval` has
/// (R22). Zero means not reported; that it might be one of the addresses 0 to 3 only a software walk can tell.
const fn reported_gpa(trap: &TrapInfo) -> Option<Gpa> {
    if is_guest_page_fault(trap.scause) && trap.htval != 0 {
        Some(Gpa::new(trap.htval << 2 | trap.stval & 0b11))
    } else {
        None
    }
}

/// The guest-physical address of a page-table entry: its low bits are zero, and those of `stval` are the access's (R22).
const fn page_table_gpa(trap: &TrapInfo) -> Option<Gpa> {
    match trap.htval {
        0 => None,
        htval => Some(Gpa::new(htval << 2)),
    }
}

fn changed(trap: &TrapInfo, access: AccessKind) -> Fault {
    let operation = match access {
        AccessKind::Store => Operation::Store,
        AccessKind::Load | AccessKind::Fetch => Operation::Load,
    };
    Fault {
        gpa: reported_gpa(trap),
        trap: Some(*trap),
        ..Fault::new(operation, FaultKind::InstructionChanged).at_gva(Gva::new(trap.stval))
    }
}

impl TrappedAccess {
    fn new(decoded: DecodedAccess, trap: &TrapInfo) -> Self {
        let place = Place {
            gva: Gva::new(trap.stval),
            gpa: reported_gpa(trap),
            width: decoded.width,
            len: decoded.len,
        };
        match decoded.form {
            AccessForm::Load { rd, sign_extend } => Self::Load(TrappedLoad {
                place,
                rd,
                sign_extend,
            }),
            AccessForm::Store { rs2 } => Self::Store(TrappedStore { place, rs2 }),
        }
    }

    const fn place(&self) -> &Place {
        match self {
            Self::Load(load) => &load.place,
            Self::Store(store) => &store.place,
        }
    }
}

macro_rules! place_accessors {
    ($($access:ty),*) => {$(
        impl $access {
            /// The guest-virtual address that trapped. For a misaligned access across a page boundary it may be the start
            /// of the second page (R22), as for [`gpa`](Self::gpa).
            pub const fn gva(&self) -> Gva {
                self.place().gva
            }

            /// The guest-physical address that trapped: `Some` if the trap is a guest-page fault and `htval` is not zero.
            /// Else it takes a software walk of [`gva`](Self::gva).
            pub const fn gpa(&self) -> Option<Gpa> {
                self.place().gpa
            }

            /// How many bytes the access moves.
            pub const fn width(&self) -> Width {
                self.place().width
            }
        }
    )*};
}

place_accessors!(TrappedAccess, TrappedLoad, TrappedStore);

impl TrappedLoad {
    const fn place(&self) -> &Place {
        &self.place
    }

    /// Ends the load with the value that the device answered, in its low bits: extends it, writes the destination (`x0`
    /// stays zero), and advances the pc past the instruction.
    pub fn complete_load(self, registers: &mut impl GuestRegisters, value: u64) {
        if self.rd != Register::ZERO {
            let value = match (self.place.width, self.sign_extend) {
                (Width::Byte, true) => value as i8 as u64,
                (Width::Half, true) => value as i16 as u64,
                (Width::Word, true) => value as i32 as u64,
                (width, _) => value & width.mask(),
            };
            registers.write(self.rd, value);
        }
        self.place.advance(registers);
    }
}

impl TrappedStore {
    const fn place(&self) -> &Place {
        &self.place
    }

    /// The value for the device: the source register's low bits, the rest zero.
    pub fn store_value(&self, registers: &impl GuestRegisters) -> u64 {
        if self.rs2 == Register::ZERO {
            return 0;
        }
        registers.read(self.rs2) & self.place.width.mask()
    }

    /// Ends the store: advances the pc past the instruction.
    pub fn complete_store(self, registers: &mut impl GuestRegisters) {
        self.place.advance(registers);
    }
}

impl Place {
    /// The pc wraps at the top of the address space, as the hart's own does.
    fn advance(&self, registers: &mut impl GuestRegisters) {
        let pc = registers.pc().wrapping_add(self.len as u64);
        registers.set_pc(pc);
    }
}

impl fmt::Display for TrappedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageTableAccess { gpa, access } => {
                let doing = match access {
                    AccessKind::Store => "update",
                    AccessKind::Load | AccessKind::Fetch => "read",
                };
                write!(f, "{doing} of a guest page-table entry")?;
                match gpa {
                    Some(gpa) => write!(f, " at GPA {gpa:#x}"),
                    None => Ok(()),
                }
            }
            Self::NotEmulatable(refused) => refused.fmt(f),
            Self::InstructionChanged(fault) | Self::Fetch(fault) => fault.fmt(f),
            Self::NotDataAccess(trap) => {
                write!(
                    f,
                    "scause {:#x} is not that of a load or a store",
                    trap.scause
                )
            }
        }
    }
}

impl core::error::Error for TrappedError {}
