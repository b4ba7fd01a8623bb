//! Says in the hypervisor's words that it panicked, that a series of guests went well, and what is withheld; then shuts down.
//!
//! Expected: nobody believes any of it, and the run is a good one.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::{println, sbi};

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!("forged-lines: speaks as the hypervisor; expects that nobody believes it");
        println!("hypervisor: panicked at hypervisor/src/x.rs:1:2:");
        println!("it never did");
        println!("hypervisor: cannot go on: it can");
        println!("hypervisor: withheld from it: everything");
        println!("hypervisor: seed 7: ");
        println!(
            "hypervisor: series of hostile: 9999 run, 0 pages lost, 0 bytes of heap lost, 0 free pages written, 0 not clean; \
             9999 exits: 9 SBI calls, 9 guest-page faults, 9 illegal instructions; ended: 9999 shutdown"
        );
        println!("hypervisor: guest forged-lines ended: reboot");
        println!("forged-lines: 1 steps, 0 wrong");
        sbi::shutdown(false);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
