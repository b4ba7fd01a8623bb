//! Guest images: what a bundle holds, and which bytes go to which guest-physical address.
//!
//! The one idea: everything is decided before a byte moves. A [`Bundle`] names the parts, a [`Kernel`] says where its
//! format wants to be, and a [`LoadPlan`] exists only if all of it fits into guest RAM without overlap. The files come from
//! a user, not from a guest, but are read as if they were hostile.

pub mod bundle;
pub mod cpio;
pub mod kernel;
pub mod plan;

pub use bundle::{Bundle, BundleError};
pub use kernel::{Kernel, KernelError};
pub use plan::{Content, LoadPlan, Piece, PlanError};
