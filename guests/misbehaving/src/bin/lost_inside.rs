//! Loses its trap vector behind its own page table, so that it takes every fault itself.
//!
//! Expected: the faults are the VS-stage's and delegated, so the hypervisor sees none of them; it finds on its tick that
//! this guest stands at its trap vector for ever, and ends it. On bare firmware it hangs the hart.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::arch::asm;

    use guest_kit::{csr_write, println};

    const MODE_SV39: u64 = 8 << 60;
    /// A leaf with V, R, W, X, A and D.
    const LEAF: u64 = 0xcf;
    /// The gigabyte that RAM is in.
    const RAM: u64 = 0x8000_0000;
    /// A guest-virtual address that the table does not map.
    const UNMAPPED: u64 = 0x4000_0000;

    /// A root table.
    #[repr(C, align(4096))]
    struct Root([u64; 512]);

    static mut ROOT: Root = Root([0; 512]);

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, _device_tree: *const u8) -> ! {
        println!(
            "lost-inside: moves its trap vector to {UNMAPPED:#x}, unmapped; expects to be ended"
        );
        // SAFETY: nobody else uses the table, and what this code uses stays at its address. This guest ends here, in one
        // way or another.
        unsafe {
            (&raw mut ROOT.0[(RAM >> 30) as usize]).write_volatile(RAM >> 2 | LEAF);
            csr_write!("satp", MODE_SV39 | (&raw const ROOT as u64) >> 12);
            asm!("sfence.vma");
            csr_write!("stvec", UNMAPPED);
            asm!("jr {}", in(reg) UNMAPPED, options(noreturn));
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
