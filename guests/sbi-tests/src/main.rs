//! RustSBI's tests of an SBI implementation, as a guest: nobody here wrote them.
//!
//! The one idea: the tests tell each case to a logger. What is logged as an error is a case that went wrong, and each
//! extension whose last case is a pass is a step.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::{AtomicU32, Ordering};

    use guest_kit::machine::Machine;
    use guest_kit::{println, sbi};
    use log::{Level, LevelFilter, Log, Metadata, Record};
    use sbi_testing::Testing;

    static STEPS: AtomicU32 = AtomicU32::new(0);
    static WRONG: AtomicU32 = AtomicU32::new(0);

    /// Prints each case, and counts.
    struct Account;

    impl Log for Account {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            let mark = match record.level() {
                Level::Error => "  WRONG",
                Level::Warn => "  -    ",
                _ => "  ok   ",
            };
            println!("{mark} {}", record.args());
            STEPS.fetch_add(1, Ordering::SeqCst);
            WRONG.fetch_add(u32::from(record.level() == Level::Error), Ordering::SeqCst);
        }

        fn flush(&self) {}
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("sbi-tests", device_tree) };
        // Nobody else sets a logger.
        let _ = log::set_logger(&Account);
        log::set_max_level(LevelFilter::Trace);
        let passed = Testing {
            hartid: hart as usize,
            hart_mask: (1 << machine.harts) - 1,
            hart_mask_base: 0,
            // Some of the hypervisor's ticks come first.
            delay: machine.timebase_frequency / 10,
        }
        .test();
        let steps = STEPS.load(Ordering::SeqCst);
        let wrong = WRONG.load(Ordering::SeqCst).max(u32::from(!passed));
        println!("sbi-tests: {steps} steps, {wrong} wrong");
        sbi::shutdown(wrong > 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
