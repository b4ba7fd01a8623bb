//! Leaves something at the start of a line, and makes the hypervisor panic, which its operator allowed (`drill=panic`); its
//! second hart goes on printing, and says that all went well.
//!
//! Expected: the panic is seen for what it is.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::{AtomicU64, Ordering};

    use guest_kit::{console, entry, print, println, sbi};

    /// The SBI's first number for experiments: the hypervisor's drill.
    const DRILL: usize = 0x0800_0000;

    /// How often the second hart has said it.
    static SAID: AtomicU64 = AtomicU64::new(0);

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!("hidden-panic: makes the hypervisor panic; expects that everybody notices");
        // Both harts print from here on: the kind of console is known.
        console::has_debug_console();
        let answer = sbi::hart_start(1, entry::second_hart_entry(second_main), 0);
        while answer.error == 0 && SAID.load(Ordering::Relaxed) < 3 {
            core::hint::spin_loop();
        }
        let answer = sbi::call(DRILL, 0, [0; 5]);
        println!("hidden-panic: 1 steps, 1 wrong: still here, {answer:?}");
        sbi::shutdown(true);
    }

    extern "C" fn second_main(_hart: u64, _opaque: u64) -> ! {
        loop {
            print!("hypervisor: guest hidden-panic ended: shutdown\nx\r");
            SAID.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
