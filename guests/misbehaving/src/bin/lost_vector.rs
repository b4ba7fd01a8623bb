//! Jumps to memory that is not there, with a trap vector that is not there either.
//!
//! Expected: the hypervisor ends this guest, for it can do nothing any more but fault at its own trap vector, and the host
//! goes on. On bare firmware it hangs the hart.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::arch::asm;

    use guest_kit::{csr_write, println};

    /// Where nothing is, guest-physical.
    const HOLE: u64 = 0x0d00_0000;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!(
            "lost-vector: jumps to {HOLE:#x} with stvec {:#x}; expects to be ended",
            HOLE + 0x1000
        );
        // SAFETY: this guest ends here, in one way or another.
        unsafe {
            csr_write!("stvec", HOLE + 0x1000);
            asm!("jr {}", in(reg) HOLE, options(noreturn));
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
