//! Measures what guest accesses cost: the library beside the byte loop that it replaces and beside the machine's own copy.
//!
//! The one idea: one line a measurement, `bench OPERATION PATH SIZE SHAPE VALUE CALLS`, where VALUE for CALLS calls is in the
//! unit that the first line names; the last line says how many there are. Boot arguments choose:
//!
//! - `instructions`, the unit under firmware without another word: they mean something under QEMU's `-icount shift=0` with
//!   one hart;
//! - `time`: ticks of `time`;
//! - `cycles`, the unit without firmware: for simulators and real cores;
//! - `small`: few rows in less than two million cycles, and `full`: all of them. Without firmware and without either the run
//!   is small, since the simulators that have no boot arguments are slow.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod baseline;
#[cfg(target_os = "none")]
mod copies;
#[cfg(target_os = "none")]
mod harts;
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
    use test_kernel::{boot, machine, panic, println, trap};

    use crate::measure::{Bench, Measure, cycle};
    use crate::memory::Guest;
    use crate::{copies, harts, single, slots, window};

    /// Rust's entry, from `boot`.
    // SAFETY: no other program part defines a function of this name; `boot` calls it with these arguments.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(_hart: usize, device_tree: *const u8) -> ! {
        boot::set_up();
        // SAFETY: the firmware passes its device tree, a machine without one its own or null, which nothing changes or moves.
        unsafe { boot::keep_arguments(device_tree) };
        let standalone = machine::is_standalone();
        let measure = if boot::asked_for("time") {
            Measure::Time
        } else if boot::asked_for("cycles") || standalone && !boot::asked_for("instructions") {
            Measure::Cycles
        } else {
            Measure::Instructions
        };
        let small = boot::is_small();
        let result = trap::catch(|| run(measure, small));
        if let Err(trap) = result {
            println!("bench: ended by {trap:?} {}", panic::take().as_str());
        }
        boot::power_off(result.is_ok())
    }

    fn run(measure: Measure, small: bool) {
        println!("\nbench: {measure}");
        let bench = Bench::new(measure, small);
        let guest = Guest::load(small);
        copies::run(&bench, &guest);
        single::run(&bench, &guest);
        window::run(&bench, &guest);
        slots::run(&bench, &guest);
        if measure == Measure::Time {
            harts::run(&bench, &guest);
        }
        if measure == Measure::Cycles {
            println!("bench: {} cycles since reset", cycle());
        }
        println!("bench: {} lines", bench.lines());
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("bench runs on riscv64gc-unknown-none-elf: see `cargo xtask bench`");
}
