//! Guest-memory access for RISC-V hypervisors.
//!
//! A hypervisor constantly touches memory at addresses that an untrusted guest chose. This crate does that: by the
//! H extension's `hlv`/`hlvx`/`hsv` at guest-virtual addresses, by the host's own mapping at guest-physical ones, with
//! every fault returned as a value that says what happened, where, and how far the access got.
#![no_std]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("guest-mem is for RV64 hypervisors and 64-bit development machines");

pub mod access;
pub mod address;
pub mod copy;
pub mod csr;
pub mod fault;
pub mod guest_memory;
pub mod guest_physical;
pub mod guest_virtual;
pub mod hart;
pub mod inject;
pub mod instruction;
pub mod probe;
pub mod sync;
pub mod translate;

pub use access::{AccessKind, GuestPrivilege, Width};
pub use address::{Gpa, Gva, Spa};
pub use copy::{
    copy_from_guest, copy_from_guest_va, copy_to_guest, copy_to_guest_va, fetch_guest_instruction,
};
pub use fault::{AccessError, Fault, FaultKind, Operation, Resolution, TrapInfo};
pub use guest_memory::GuestMemory;
pub use guest_virtual::LoadedVcpu;
#[cfg(target_arch = "riscv64")]
pub use hart::riscv64::try_fixup;
pub use sync::sync_instructions;
