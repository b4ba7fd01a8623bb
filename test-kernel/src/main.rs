//! Proves the library, and the machine under it, against the rules of the H extension (docs/rules.md), one named test each.
//!
//! The one idea: every rule is seen twice, by single instructions (`raw`) that show what this machine does, and through the
//! library, whose answers have to agree. The program starts in HS-mode under an SBI firmware, prints a line for each test
//! and a closing line, and powers the machine off.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arena;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod csr;
#[cfg(target_os = "none")]
mod deviation;
#[cfg(target_os = "none")]
mod forms;
#[cfg(target_os = "none")]
mod global;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod harness;
#[cfg(target_os = "none")]
mod library;
#[cfg(target_os = "none")]
mod oracle;
#[cfg(target_os = "none")]
mod raw;
#[cfg(target_os = "none")]
mod storm;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
mod tests;
#[cfg(target_os = "none")]
mod text;
#[cfg(target_os = "none")]
mod trap;

#[cfg(target_os = "none")]
mod kernel {
    use core::arch::asm;
    use core::panic::PanicInfo;

    use crate::console::println;
    use crate::deviation::Machine;
    use crate::global::Global;
    use crate::harness::Runner;
    use crate::text::Text;
    use crate::{boot, tests, trap};

    /// What the last panic said.
    static PANIC: Global<Text> = Global::new(Text::new());

    /// What the last panic said, once.
    pub fn take_panic() -> Text {
        PANIC.replace(Text::new())
    }

    /// Rust's entry, from `boot`.
    pub extern "C" fn main(_hart: usize, device_tree: *const u8) -> ! {
        let satp = boot::set_up();
        // SAFETY: the firmware passes its device tree, which nothing changes or moves.
        let tree = unsafe { dtoolkit::fdt::Fdt::from_raw(device_tree) };
        let fail = tree.is_ok_and(|tree| boot_arguments_ask_to_fail(&tree));
        match trap::catch(|| run(satp, fail)) {
            Ok(()) => {}
            Err(trap) => println!("test-kernel: ended by {trap:?} {}", take_panic().as_str()),
        }
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::NoReason);
        loop {
            core::hint::spin_loop();
        }
    }

    /// Whether the boot arguments hold the word `self-test-fail`: one test more, which has to be reported as failed.
    fn boot_arguments_ask_to_fail(tree: &dtoolkit::fdt::Fdt<'_>) -> bool {
        let Some(chosen) = tree.chosen() else {
            return false;
        };
        matches!(chosen.bootargs(), Ok(Some(text)) if text.split_whitespace().any(|word| word == "self-test-fail"))
    }

    fn run(satp: u64, fail: bool) {
        println!("\n");
        let machine = Machine::probe(satp);
        machine.print();
        let mut runner = Runner::new(&machine, satp);
        for section in tests::SECTIONS {
            runner.run(section);
        }
        if fail {
            runner.run(tests::selftest::MUST_FAIL);
        }
        runner.close();
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        PANIC.set(Text::format(format_args!("{info}")));
        if !trap::is_caught() {
            println!("test-kernel: {info}");
            sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::SystemFailure);
        }
        loop {
            // SAFETY: the trap handler ends the innermost `catch` here.
            unsafe { asm!("ebreak") };
        }
    }
}

#[cfg(target_os = "none")]
use kernel::{main, take_panic};

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("test-kernel runs on riscv64gc-unknown-none-elf: see `cargo xtask test`");
}
