//! A small type-1 hypervisor for RISC-V with the H extension: it boots Debian's unmodified Linux on any SBI firmware, and
//! everything it knows of guest memory it asks the `guest-mem` library.
//!
//! The one idea: a vCPU owns a hart. Guest harts are numbered 0, 1, ..., each runs on one machine hart and nowhere else for
//! as long as the guest lives, so floating-point state and the vs* CSRs stay where the guest left them, and a remote fence
//! is the firmware's remote fence.
//!
//! Modules that know nothing of the machine they run on compile, and are tested, on any host; the rest exists only on the
//! bare-metal target.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod boot;
pub mod clock;
pub mod device_tree;
pub mod devices;
pub mod entropy;
pub mod features;
pub mod image;
pub mod memory;
pub mod sbi;
pub mod statistics;
pub mod vcpu;
pub mod vm;

#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod csr;
#[cfg(target_os = "none")]
mod exit;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod series;
#[cfg(target_os = "none")]
mod trap;

/// What the program does with a panic: says it and turns the machine off.
#[cfg(target_os = "none")]
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// The hart that panicked first; 0 for none.
    static PANICKED: AtomicUsize = AtomicUsize::new(0);
    let hart = console::this_hart();
    match PANICKED.compare_exchange(0, hart, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => console::last_words(format_args!("{info}{}", series::Now)),
        // Saying it is what failed.
        Err(first) if first == hart => {}
        // Another hart is saying it, and turns the machine off.
        Err(_) => loop {
            core::hint::spin_loop();
        },
    }
    power::off(power::Outcome::Panicked)
}
