//! The model itself: what it does for each instruction, and what a fault leaves behind.

extern crate std;

use super::*;
use crate::access::Width;
use crate::address::{Gpa, Gva};
use crate::csr::{
    GMode, HSTATUS_GVA, HSTATUS_SPV, HSTATUS_SPVP, STATUS_MXR, STATUS_SDT, STATUS_SIE, STATUS_SPIE,
    STATUS_SPP, STATUS_SUM, VsMode,
};
use crate::fault::TrapInfo;
use crate::hart::{Csr, Hart, Interrupted};
use crate::translate::entry::{A, D, R, U, W, X, pack};

mod copies;
mod faults;
mod kept;
mod translations;

const RAM_BASE: Spa = Spa::new(0x8_0000_0000);
/// A user page that the guest may read, write and execute.
const PAGE: u64 = 0x10_0000;
const FRAME: Gpa = Gpa::new(0x8000_3000);
const RWXU: u64 = R | W | X | U;

/// A guest with [`PAGE`] mapped to [`FRAME`], and the page after it not mapped.
fn guest(memory: &RamArray<32>) -> ModelGuest<'_> {
    let guest = ModelGuest::new(memory.at(RAM_BASE)).unwrap();
    guest.map(Gva::new(PAGE), FRAME, RWXU).unwrap();
    guest
}

fn frame(offset: u64) -> Gpa {
    Gpa::new(FRAME.value() + offset)
}

impl ModelHart<'_> {
    fn hlv(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        // SAFETY: the model has no host memory at stake.
        unsafe { self.load_guest(address, width) }
    }

    fn hsv(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        // SAFETY: as above.
        unsafe { self.store_guest(address, width, value) }
    }

    fn parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        // SAFETY: as above.
        unsafe { self.fetch_parcel(address) }
    }

    fn copy_in(&self, source: u64, destination: &mut [u8]) -> Result<(), Interrupted> {
        // SAFETY: the buffer is valid for its length.
        unsafe { self.copy_from_guest(source, destination.as_mut_ptr(), destination.len()) }
    }

    fn copy_out(&self, destination: u64, source: &[u8]) -> Result<(), Interrupted> {
        // SAFETY: the buffer is valid for its length.
        unsafe { self.copy_to_guest(destination, source.as_ptr(), source.len()) }
    }

    fn fill(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        // SAFETY: the model has no host memory at stake.
        unsafe { self.fill_guest(destination, byte, len) }
    }

    fn set_bits(&self, register: Register, bits: u64) {
        self.set_register(register, self.register(register) | bits);
    }
}
