//! What the bare-metal programs of this package share: boot, traps, console, guest tables, and the tests themselves.
//!
//! The one idea: a program is a `kernel_main` over these modules. `src/main.rs` is the test kernel; `src/bin/` holds the others.
//! What knows nothing of the machine, `arguments` and `shim`, is tested on any host; the rest exists for the target only.
#![cfg_attr(target_os = "none", no_std)]

/// The name of a symbol of the library's access unit: it ends in the library's version, which is this program's.
#[cfg(target_os = "none")]
macro_rules! unit_symbol {
    ($name:ident) => {
        concat!(
            stringify!($name),
            "_v",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
        )
    };
}

#[cfg(target_os = "none")]
pub mod arena;
pub mod arguments;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod breakpoints;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod csr;
#[cfg(target_os = "none")]
pub mod deviation;
#[cfg(target_os = "none")]
pub mod forms;
#[cfg(target_os = "none")]
pub mod global;
#[cfg(target_os = "none")]
pub mod guest;
#[cfg(target_os = "none")]
pub mod harness;
#[cfg(target_os = "none")]
pub mod harts;
#[cfg(target_os = "none")]
pub mod library;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
pub mod oracle;
#[cfg(target_os = "none")]
pub mod panic;
#[cfg(target_os = "none")]
pub mod raw;
#[cfg(target_os = "none")]
pub mod registers;
pub mod shim;
#[cfg(target_os = "none")]
pub mod shootdown;
#[cfg(target_os = "none")]
pub mod sight;
#[cfg(target_os = "none")]
pub mod slots;
#[cfg(target_os = "none")]
pub mod starting;
#[cfg(target_os = "none")]
pub mod storm;
#[cfg(target_os = "none")]
pub mod tables;
#[cfg(target_os = "none")]
pub mod tests;
#[cfg(target_os = "none")]
pub mod text;
#[cfg(target_os = "none")]
pub mod trap;
#[cfg(target_os = "none")]
pub mod witness;
