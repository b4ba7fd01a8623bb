//! The guided tour: a guest that makes every kind of guest access of the hypervisor really happen, and says what it saw.
//!
//! The one idea: each step states in one line what the specification promises, does it, and is right or wrong. The same
//! program runs on a machine without the hypervisor, where some steps make no sense and say so; what both give must agree.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod code;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod edges;
#[cfg(target_os = "none")]
mod harts;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod refusals;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod reset;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod virtual_memory;

#[cfg(target_os = "none")]
mod tour {
    use guest_kit::machine::Machine;
    use guest_kit::{println, sbi};

    use crate::report::Report;

    /// Where the boot hart comes to Rust.
    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("tour", device_tree) };
        println!();
        println!(
            "tour: a guest on {}: hart {hart} of {}, {} MiB of RAM at {:#x}",
            if machine.under_hypervisor {
                "the hypervisor"
            } else {
                "bare firmware"
            },
            machine.harts,
            (machine.ram.end - machine.ram.start) >> 20,
            machine.ram.start,
        );
        println!("tour: {}", machine.isa);

        let mut report = Report::new(&machine);
        crate::console::visit(&mut report);
        crate::memory::visit(&mut report);
        crate::code::visit(&mut report);
        crate::devices::visit(&mut report, hart);
        crate::timer::visit(&mut report);
        crate::virtual_memory::visit(&mut report, hart);
        crate::harts::visit(&mut report, hart);
        crate::refusals::visit(&mut report);
        let wrong = report.print_table();
        sbi::shutdown(wrong > 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the tour is a guest: `cargo xtask run`");
}
