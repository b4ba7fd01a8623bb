//! The bare-metal program: `_start`, the exit from the firmware, is in the library's `boot` module.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use hypervisor as _;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    hypervisor::panicked(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the hypervisor runs on a RISC-V machine: `cargo xtask run`");
}
