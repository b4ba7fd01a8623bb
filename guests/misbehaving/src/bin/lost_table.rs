//! Turns translation on with a page table where no memory is.
//!
//! Expected: the very next fetch cannot be translated, because the table cannot be read: an access fault, and another at
//! the trap vector, and so on. The hypervisor ends this guest. On bare firmware it hangs the hart.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::{csr_write, println, sbi};

    /// Where nothing is, guest-physical.
    const HOLE: u64 = 0x0d00_0000;

    const MODE_SV39: u64 = 8 << 60;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!("lost-table: turns on a page table at {HOLE:#x}; expects to be ended");
        // SAFETY: this guest ends here, in one way or another.
        unsafe { csr_write!("satp", MODE_SV39 | HOLE >> 12) };
        println!("lost-table: 1 steps, 1 wrong: still here");
        sbi::shutdown(true);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
