//! The record of the guest's exit: what the trap CSRs hold before an access of the scoped form.
//!
//! The one idea: a fault overwrites them and the host need not save them (R20), so the vector puts them back; from a frame in
//! memory, whose layout the access unit knows, or for one single access from registers.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// What a fault in the scoped form puts back, and room for its vector and routines. The access unit knows the layout
/// ([`frame`]).
#[derive(Debug)]
#[repr(C)]
pub struct ExitRecord {
    sepc: u64,
    scause: u64,
    stval: u64,
    htval: u64,
    htinst: u64,
    sstatus: u64,
    hstatus: u64,
    /// Registers of the routine while it or its vector needs them for something else, and the caller's that a long copy uses.
    scratch: UnsafeCell<[MaybeUninit<u64>; SCRATCH]>,
}

/// t1 to t4, a4, s3 to s9.
const SCRATCH: usize = 5 + 7;

/// Where the access unit finds the fields of an [`ExitRecord`].
pub mod frame {
    use core::mem::offset_of;

    use super::ExitRecord;

    pub const SEPC: usize = offset_of!(ExitRecord, sepc);
    pub const SCAUSE: usize = offset_of!(ExitRecord, scause);
    pub const STVAL: usize = offset_of!(ExitRecord, stval);
    pub const HTVAL: usize = offset_of!(ExitRecord, htval);
    pub const HTINST: usize = offset_of!(ExitRecord, htinst);
    pub const SSTATUS: usize = offset_of!(ExitRecord, sstatus);
    pub const HSTATUS: usize = offset_of!(ExitRecord, hstatus);
    pub const SCRATCH: usize = offset_of!(ExitRecord, scratch);
}

impl ExitRecord {
    /// The record as the CSRs of this hart have it.
    #[inline(always)]
    pub fn of_this_hart() -> Self {
        let now = RecordInRegisters::of_this_hart();
        Self {
            sepc: now.sepc,
            scause: now.scause,
            stval: now.stval,
            htval: now.htval,
            htinst: now.htinst,
            sstatus: now.sstatus,
            hstatus: now.hstatus,
            scratch: UnsafeCell::new([MaybeUninit::uninit(); SCRATCH]),
        }
    }
}

/// What a fault of a single access puts back.
#[derive(Clone, Copy, Debug)]
pub struct RecordInRegisters {
    pub sepc: u64,
    pub scause: u64,
    pub stval: u64,
    pub htval: u64,
    pub htinst: u64,
    pub sstatus: u64,
    pub hstatus: u64,
}

impl RecordInRegisters {
    /// The record as the CSRs of this hart have it.
    #[inline(always)]
    pub fn of_this_hart() -> Self {
        // htval, htinst and hstatus by their numbers, so that the assembler needs no extension.
        Self {
            sepc: read_csr!("sepc"),
            scause: read_csr!("scause"),
            stval: read_csr!("stval"),
            htval: read_csr!("0x643"),
            htinst: read_csr!("0x64a"),
            sstatus: read_csr!("sstatus"),
            hstatus: read_csr!("0x600"),
        }
    }
}
