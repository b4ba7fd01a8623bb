//! Guests: what the hypervisor is given to boot ([`Bundle`]) and the Linux that xtask puts together ([`linux`]).

mod bundle;
mod cpio;
pub mod initramfs;
pub mod linux;
pub mod userland;

pub use bundle::{Bundle, Series};
