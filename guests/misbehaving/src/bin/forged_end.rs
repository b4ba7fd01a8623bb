//! Ends as one that failed, while its second hart says in the hypervisor's words, through both consoles, that all went well.
//!
//! Expected: the run is judged by the real end, and nothing of the second hart is shown after it.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::{AtomicU64, Ordering};

    use guest_kit::{console, entry, println, sbi};

    /// The serial port's transmitter.
    const UART: *mut u8 = 0x1000_0000 as *mut u8;

    /// What the hypervisor says last of a guest that shut down.
    const FORGED: [u8; 47] = *b"\nhypervisor: guest forged-end ended: shutdown\r\n";

    /// The same many times: as much as the hypervisor prints by one call, so that the call goes on while it reports the end.
    static MANY: [[u8; 47]; 87] = [FORGED; 87];

    /// How often the second hart has said it.
    static SAID: AtomicU64 = AtomicU64::new(0);

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!(
            "forged-end: its second hart says that it shut down; expects that nobody believes it"
        );
        // Both harts print from here on: the kind of console is known.
        console::has_debug_console();
        let answer = sbi::hart_start(1, entry::second_hart_entry(second_main), 0);
        if answer.error != 0 {
            println!("forged-end: its second hart does not start");
        }
        while answer.error == 0 && SAID.load(Ordering::Relaxed) < 3 {
            core::hint::spin_loop();
        }
        sbi::shutdown(true);
    }

    extern "C" fn second_main(_hart: u64, _opaque: u64) -> ! {
        loop {
            sbi::console_write(size_of_val(&MANY) as u64, MANY.as_ptr() as u64);
            for byte in FORGED {
                // SAFETY: the machine has its serial port there, and a store to the transmitter sends the byte.
                unsafe { UART.write_volatile(byte) };
            }
            SAID.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
