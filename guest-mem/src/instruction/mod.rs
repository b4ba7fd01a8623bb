//! The instruction that trapped: what it was, what it wanted of memory, and how to finish it for the guest.
//!
//! The one idea: an emulated access goes through three values, each made from the one before. The [`Instruction`] is bits,
//! as the guest's memory or `htinst` gave them; [`Decoded`] says what they mean; a [`TrappedAccess`] is a load or a store that
//! fits the trap, and completing it consumes it, so that no access is finished twice.
//!
//! ```
//! use guest_mem::fault::GuestExit;
//! use guest_mem::instruction::{GuestRegisters, Instruction, Register, TrappedAccess, decode_trapped};
//! use guest_mem::probe::MachineProfile;
//! use guest_mem::{Fault, Gpa, GuestPrivilege, TrapInfo, cause};
//!
//! struct Vcpu { x: [u64; 32], pc: u64 }
//! impl GuestRegisters for Vcpu {
//!     fn read(&self, x: Register) -> u64 { self.x[x.index()] }
//!     fn write(&mut self, x: Register, value: u64) { self.x[x.index()] = value }
//!     fn pc(&self) -> u64 { self.pc }
//!     fn set_pc(&mut self, pc: u64) { self.pc = pc }
//! }
//! let mut vcpu = Vcpu { x: [0; 32], pc: 0x8000_0000 };
//! vcpu.x[11] = 0x1000_0000;
//!
//! // The guest ran `lb a0, 5(a1)` on a device at 0x1000_0000; the hart left `htinst` zero.
//! let exit = GuestExit {
//!     trap: TrapInfo { scause: cause::LOAD_GUEST_PAGE, stval: 0x1000_0005, htval: 0x1000_0005 >> 2, htinst: 0 },
//!     pc: vcpu.pc,
//!     privilege: GuestPrivilege::Supervisor,
//!     vsatp: 0,
//! };
//! let fault = Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED);
//! let fetch = || Ok::<_, Fault>(Instruction::from_parcels(0x8503, 0x0055));
//!
//! match decode_trapped(&fault, &vcpu, fetch).unwrap() {
//!     TrappedAccess::Load(load) => {
//!         assert_eq!(load.gpa(), Some(Gpa::new(0x1000_0005)));
//!         load.complete_load(&mut vcpu, 0x80); // what the device answered
//!     }
//!     TrappedAccess::Store(store) => {
//!         let _for_the_device = store.store_value(&vcpu);
//!         store.complete_store(&mut vcpu);
//!     }
//!     TrappedAccess::AcrossPages(access) => {
//!         let _for_the_guest = access.injection();
//!     }
//! }
//! assert_eq!((vcpu.x[10] as i64, vcpu.pc), (-128, 0x8000_0004));
//! ```

use core::fmt;

mod address;
mod compressed;
mod decode;
mod decoded;
mod htinst;
mod registers;
#[cfg(test)]
mod tests;
mod trapped;

pub use address::AddressOperands;
pub use decode::decode;
pub use decoded::{AccessForm, Decoded, DecodedAccess, NotEmulatable, NotEmulatableKind};
pub use htinst::{Htinst, decode_htinst};
pub use registers::{GuestRegisters, Register};
pub use trapped::{
    AccessPart, AcrossPages, TrappedAccess, TrappedError, TrappedLoad, TrappedStore, decode_trapped,
};

/// The bits of one instruction of 2 or 4 bytes.
///
/// Encodings of more than 32 bits, of which none is ratified, are held by their first 4 bytes; they decode to
/// [`Decoded::NoMemoryAccess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    bits: u32,
}

impl Instruction {
    /// The length in bytes, 2 or 4, of an instruction that begins with the parcel `first`: 4 if its two low bits are both
    /// set (unprivileged specification, "Base Instruction-Length Encoding").
    ///
    /// ```
    /// use guest_mem::instruction::Instruction;
    ///
    /// assert_eq!(Instruction::length_of(0x4501), 2); // c.li a0, 0
    /// assert_eq!(Instruction::length_of(0x8503), 4); // lb a0, ...
    /// ```
    #[inline]
    pub const fn length_of(first: u16) -> usize {
        if first & 0b11 == 0b11 { 4 } else { 2 }
    }

    /// Puts an instruction together from 16-bit parcels in the order of their addresses (R8). `second` counts only if
    /// `first` [asks for it](Self::length_of).
    ///
    /// ```
    /// use guest_mem::instruction::Instruction;
    ///
    /// let two = Instruction::from_parcels(0x4501, 0xffff);
    /// assert_eq!((two.bits(), two.length()), (0x4501, 2));
    /// let four = Instruction::from_parcels(0x8503, 0x0055);
    /// assert_eq!((four.bits(), four.length()), (0x0055_8503, 4));
    /// ```
    #[inline]
    pub const fn from_parcels(first: u16, second: u16) -> Self {
        let bits = match Self::length_of(first) {
            2 => first as u32,
            _ => (second as u32) << 16 | first as u32,
        };
        Self { bits }
    }

    /// The instruction in the low bits of a word. Bits above a 2-byte instruction are dropped.
    ///
    /// ```
    /// use guest_mem::instruction::Instruction;
    ///
    /// assert_eq!(Instruction::from_bits(0xdead_4501).bits(), 0x4501);
    /// ```
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self::from_parcels(bits as u16, (bits >> 16) as u16)
    }

    /// The instruction whose parcels a hart has put together, zero above the first if it is the only one.
    #[inline]
    pub(crate) const fn of_fetched(bits: u32) -> Self {
        Self { bits }
    }

    /// The bits; zero above bit 15 for an instruction of 2 bytes.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The length in bytes: 2 or 4.
    #[inline]
    pub const fn length(self) -> usize {
        Self::length_of(self.bits as u16)
    }
}

impl fmt::Display for Instruction {
    /// The bits in hexadecimal, as wide as the instruction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.length() * 2;
        write!(f, "{:0digits$x}", self.bits)
    }
}
