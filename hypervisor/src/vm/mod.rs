//! The guest as a whole: its memory, its harts, its devices.
//!
//! The one idea: everything that more than one hart touches is here, behind atomics and locks; what belongs to one vCPU is on
//! its hart's stack, in [`vcpu::Vcpu`](crate::vcpu).
//!
//! No lock is held while another hart is waited for, except across the firmware's remote fences, which other harts take in
//! M-mode whatever they do.

pub mod guest_ram;
pub mod hart_state;
pub mod sleeper;

#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod fences;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
pub use guest::{Ending, Request, TimeLimit, Vm};
