//! Measures what guest accesses cost: the library beside the byte loop that it replaces and beside the machine's own copy.
//!
//! The one idea: one line a measurement, `bench OPERATION PATH SIZE SHAPE VALUE CALLS`, where VALUE for CALLS calls is in
//! instructions, or with the boot argument `time` in ticks of `time`. Instructions mean something under QEMU's
//! `-icount shift=0` with one hart; the first line says which it was, the last how many lines there are.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod baseline;
#[cfg(target_os = "none")]
mod copies;
#[cfg(target_os = "none")]
mod limit;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod single;
#[cfg(target_os = "none")]
mod slots;
#[cfg(target_os = "none")]
mod window;

#[cfg(target_os = "none")]
mod program {
    use test_kernel::{boot, panic, println, trap};

    use crate::measure::{Bench, Measure};
    use crate::memory::Guest;
    use crate::{copies, single, slots, window};

    /// Rust's entry, from `boot`.
    // SAFETY: no other program part defines a function of this name; `boot` calls it with these arguments.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(_hart: usize, device_tree: *const u8) -> ! {
        boot::set_up();
        // SAFETY: the firmware passes its device tree, a machine without one its own or null, which nothing changes or moves.
        let time = unsafe { boot::arguments_hold(device_tree, "time") };
        let measure = if time {
            Measure::Time
        } else {
            Measure::Instructions
        };
        let result = trap::catch(|| run(measure));
        if let Err(trap) = result {
            println!("bench: ended by {trap:?} {}", panic::take().as_str());
        }
        boot::power_off(result.is_ok())
    }

    fn run(measure: Measure) {
        println!("\nbench: {measure}");
        let bench = Bench::new(measure);
        let guest = Guest::load();
        copies::run(&bench, &guest);
        single::run(&bench, &guest);
        window::run(&bench, &guest);
        slots::run(&bench, &guest);
        println!("bench: {} lines", bench.lines());
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("bench runs on riscv64gc-unknown-none-elf: see `cargo xtask bench`");
}
