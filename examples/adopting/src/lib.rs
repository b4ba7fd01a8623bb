//! How an existing hypervisor takes `guest-mem` in. `docs/adopting.md` walks through these three files.
//!
//! - [`handler_hook`]: one line at the top of the trap handler that is there already.
//! - [`scoped_stvec`]: nothing of the trap entry is touched.
//! - [`five_functions`]: callers that expect `copy_from_guest(..) -> usize` and its four companions keep them.
//!
//! None of them needs a change to the linker script.
#![no_std]

pub mod five_functions;
#[cfg(target_arch = "riscv64")]
pub mod handler_hook;
#[cfg(target_arch = "riscv64")]
pub mod scoped_stvec;
