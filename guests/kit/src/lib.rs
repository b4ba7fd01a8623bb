//! What the bare-metal guests of this repository share: the way in, traps, SBI calls, a console,
//! the device tree.
//!
//! The one idea: a guest is an ordinary S-mode program that runs under any SBI firmware as well, so
//! that what it expects of the hypervisor can be compared with what a machine does.
#![no_std]

#[cfg(target_os = "none")]
mod bare;

#[cfg(target_os = "none")]
pub use bare::*;

#[cfg(not(target_os = "none"))]
pub mod link;
