//! One virtual hart, and the hart that runs it.
//!
//! The one idea: this loop is all a hart does for a guest. It waits until the guest starts its vCPU, resets it, and then
//! enters the guest and handles its exit, over and over.

pub mod confirm;
pub mod firmware_features;
pub mod pace;
pub mod stuck;
pub mod waiting;

#[cfg(target_os = "none")]
mod context;
#[cfg(target_os = "none")]
pub mod grant;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod redirect;
#[cfg(target_os = "none")]
mod reset;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod walk;

#[cfg(target_os = "none")]
pub use memory::DemandPaging;
#[cfg(target_os = "none")]
pub use run::{Hart, Next, Vcpu, probe_machine, run};
