//! The SBI as the guest sees it.
//!
//! The one idea: the guest's firmware is this file's implementation of the SBI extensions; what it asks of other harts it
//! asks in guest numbers, and every argument is checked before anything happens. Dispatch, and the base extension, are those
//! of the `rustsbi` crate.

pub mod arguments;

#[cfg(target_os = "none")]
mod call;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod hart_management;
#[cfg(target_os = "none")]
mod legacy;
#[cfg(target_os = "none")]
mod remote;
#[cfg(target_os = "none")]
pub use call::handle;
