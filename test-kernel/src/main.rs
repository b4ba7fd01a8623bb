//! Proves the library, and the machine under it, against the rules of the H extension (docs/rules.md), one named test each.
//!
//! The one idea: every rule is seen twice, by single instructions (`raw`) that show what this machine does, and through the
//! library, whose answers have to agree. The program starts in HS-mode under an SBI firmware, prints a line for each test
//! and a closing line, and powers the machine off.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod kernel {
    use test_kernel::deviation::Machine;
    use test_kernel::harness::{self, Runner};
    use test_kernel::{boot, panic, println, tests, trap};

    /// Rust's entry, from `boot`.
    // SAFETY: no other program part defines a function of this name; `boot` calls it with these arguments.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(_hart: usize, device_tree: *const u8) -> ! {
        let satp = boot::set_up();
        // SAFETY: the firmware passes its device tree, a machine without it its own or null, which nothing changes or moves.
        unsafe { boot::keep_arguments(device_tree) };
        let went_well = trap::catch(|| run(satp)).unwrap_or_else(|trap| {
            println!("test-kernel: ended by {trap:?} {}", panic::take().as_str());
            false
        });
        boot::power_off(went_well)
    }

    /// Answers whether no test failed; if it is asked to, it runs one more, which has to be reported as failed.
    fn run(satp: u64) -> bool {
        println!("\n");
        let begun = harness::cycle();
        let machine = Machine::probe(satp);
        machine.print();
        let mut runner = Runner::new(&machine, satp);
        for section in tests::SECTIONS {
            runner.run(section);
        }
        if boot::asked_for("self-test-fail") {
            runner.run(tests::selftest::MUST_FAIL);
        }
        let went_well = runner.close();
        harness::print_cycles(begun);
        went_well
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("test-kernel runs on riscv64gc-unknown-none-elf: see `cargo xtask test`");
}
