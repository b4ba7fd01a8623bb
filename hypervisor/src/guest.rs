//! Making the guest: from a bundle that the loader put into memory, or from the image that is built in.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use spin::Once;

use crate::boot::machine::Machine;
use crate::csr;
use crate::devices::BusError;
use crate::vcpu::grant::Grant;
use crate::vm::Vm;
use crate::vm::guest_ram::{GuestRam, RamError};

/// The tour guest's ELF file, or nothing.
static TOUR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tour.elf"));

static VM: Once<&'static Vm> = Once::new();

/// Why there is no guest.
#[derive(Debug)]
pub enum GuestError {
    /// Nothing was given to run.
    NoImage,
    /// The machine's memory does not suffice for the tables of the guest.
    Ram(RamError),
    /// The devices overlap.
    Devices(BusError),
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => f.write_str(
                "there is no guest: no bundle was passed as initrd, and none was built in",
            ),
            Self::Devices(error) => write!(f, "guest devices: {error}"),
            Self::Ram(error) => write!(f, "guest memory: {error}"),
        }
    }
}

/// Makes the guest that will run on the machine's harts `host_harts`.
pub fn create(machine: &Machine<'static>, host_harts: &[u64]) -> Result<&'static Vm, GuestError> {
    if machine.initrd.is_none() && TOUR.is_empty() {
        return Err(GuestError::NoImage);
    }
    let grant = Grant::probe(machine.isa);
    let ram = GuestRam::new(128 << 20, vmid()).map_err(GuestError::Ram)?;
    let vm: &Vm = Box::leak(Box::new(
        Vm::new(
            String::from("tour"),
            ram,
            grant,
            machine.timebase_frequency,
            host_harts,
        )
        .map_err(GuestError::Devices)?,
    ));
    VM.call_once(|| vm);
    Ok(vm)
}

/// The guest.
pub fn get() -> &'static Vm {
    VM.get()
        .expect("the boot hart makes the guest before it starts others")
}

/// A VMID for the guest: 1, or 0 where the machine has no room for one (R41).
fn vmid() -> u64 {
    const VMID: u64 = 0x3fff << 44;
    // SAFETY: no guest runs; the mode stays Bare.
    unsafe { csr::write!("hgatp", VMID) };
    let has_vmids = csr::read!("hgatp") & VMID != 0;
    // SAFETY: as above.
    unsafe { csr::write!("hgatp", 0) };
    u64::from(has_vmids)
}
