//! Writes to each page of its RAM behind its own image, so that all of it needs a frame of the machine.
//!
//! Expected: the machine has all that the guest was promised, however large the files are that it was loaded from.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::machine::Machine;
    use guest_kit::{println, sbi};

    const PAGE: u64 = 4096;

    unsafe extern "C" {
        static __image_end: u8;
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, device_tree: *const u8) -> ! {
        println!("all-memory: uses all of its RAM; expects that there is as much");
        // SAFETY: the firmware's a1, and nothing has been written there yet.
        let machine = unsafe { Machine::from_device_tree(device_tree) };
        let Some(machine) = machine else {
            println!("all-memory: 1 steps, 1 wrong: no device tree");
            sbi::shutdown(true);
        };
        let pages = || (&raw const __image_end as u64..machine.ram.end).step_by(PAGE as usize);
        for page in pages() {
            // SAFETY: RAM behind this program, which nothing else uses; the device tree is not read any more.
            unsafe { (page as *mut u64).write_volatile(page) };
        }
        // SAFETY: as above.
        let wrong = pages().filter(|&page| unsafe { (page as *const u64).read_volatile() } != page);
        println!(
            "all-memory: {} steps, {} wrong",
            pages().count(),
            wrong.count()
        );
        sbi::shutdown(false);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
