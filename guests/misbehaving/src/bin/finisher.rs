//! Ends itself by the test finisher, and as failed. Before that it tries what the finisher does not know.
//!
//! Expected: the hypervisor ends this guest, and nothing else: the run goes on to its closing lines. On bare firmware QEMU exits
//! with the code.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::{println, sbi};

    const FINISHER: u64 = 0x0010_0000;
    /// Failed, with code 7.
    const FAIL: u32 = 7 << 16 | 0x3333;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!("finisher: stores 7 << 16 | 0x3333 to {FINISHER:#x}; expects to be ended");
        let register = FINISHER as *mut u32;
        // SAFETY: a device register, which nothing depends on.
        let read = unsafe {
            for harmless in [0, 1, 0x5554, 0xffff] {
                register.write_volatile(harmless);
            }
            let read = register.read_volatile();
            register.write_volatile(FAIL);
            read
        };
        println!("finisher: 1 steps, 1 wrong: still here, it reads as {read:#x}");
        sbi::shutdown(true);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
