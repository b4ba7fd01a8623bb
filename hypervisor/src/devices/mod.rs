//! Emulated devices: what a guest's loads and stores to trapped guest-physical addresses reach.
//!
//! The one idea: a device is plain state behind [`Mmio`]; it knows neither its address nor who else is on the bus, and
//! every access of every width has an answer, so no guest can make one fail.

mod board;
mod bus;
pub mod finisher;
pub mod plic;
pub mod rtc;
pub mod uart;

use guest_mem::Width;

pub use board::{Board, Wiring};
pub use bus::{Bus, BusError};

/// A device with registers in guest-physical memory.
pub trait Mmio {
    /// Answers a load of `width` at `offset` from the device's base, zero-extended. What the device does not have reads as
    /// zero.
    fn read(&mut self, offset: u64, width: Width) -> u64;

    /// Takes a store of the low `width` of `value` at `offset` from the device's base. What the device does not have
    /// ignores it.
    fn write(&mut self, offset: u64, width: Width, value: u64);
}
