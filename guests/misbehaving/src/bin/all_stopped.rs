//! Stops its only hart, so that nobody is left to start one.
//!
//! Expected: the hypervisor ends this guest. On bare firmware it hangs the machine.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::{println, sbi};

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!("all-stopped: stops its only hart; expects to be ended");
        let answer = sbi::hart_stop();
        println!("all-stopped: 1 steps, 1 wrong: still here, {answer:?}");
        sbi::shutdown(true);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
