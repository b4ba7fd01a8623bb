//! From the firmware's jump to a hypervisor that can run a guest.
//!
//! The one idea: until the host's own page table is on and the trap vector stands, nothing is done that could fault, and
//! only one hart runs.

mod blob;
pub mod isa;
pub mod machine;
pub mod operator;
mod tree;

#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub mod hart_local;
#[cfg(target_os = "none")]
mod host_tables;
#[cfg(target_os = "none")]
mod start;

#[cfg(target_os = "none")]
use start::{STARTING, primary, secondary};
