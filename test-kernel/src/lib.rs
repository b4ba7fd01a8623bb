//! What the bare-metal programs of this package share: boot, traps, console, guest tables, and the tests themselves.
//!
//! The one idea: a program is a `kernel_main` over these modules. `src/main.rs` is the test kernel; `src/bin/` holds the others.
#![cfg(target_os = "none")]
#![no_std]

pub mod arena;
pub mod boot;
pub mod console;
pub mod csr;
pub mod deviation;
pub mod forms;
pub mod global;
pub mod guest;
pub mod harness;
pub mod harts;
pub mod library;
pub mod machine;
pub mod oracle;
pub mod panic;
pub mod raw;
pub mod registers;
pub mod shootdown;
pub mod sight;
pub mod slots;
pub mod starting;
pub mod storm;
pub mod tables;
pub mod tests;
pub mod text;
pub mod trap;
pub mod witness;
