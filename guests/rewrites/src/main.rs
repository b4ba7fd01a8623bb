//! A guest that rewrites code and page tables all the time and asks for remote fences, as a just-in-time compiler makes the kernel
//! do whose process has run on several harts: each fence works, and what it costs.
//!
//! The one idea: a cost is told in turns of a loop of registers that the same hart runs in between, so that the costs of the same
//! program under the hypervisor and on the bare machine can be compared, whatever else the host has to do. The shortest of
//! many slices counts. With `-icount` the instructions count: those of the guest, the hypervisor and the firmware together.
//! `slices=N` on the command line says how many slices.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod paging;

#[cfg(target_os = "none")]
mod guest {
    use core::arch::asm;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use guest_kit::machine::Machine;
    use guest_kit::trap::interrupt;
    use guest_kit::{csr_clear, csr_read, csr_write, entry, now, println, sbi, wait_until};

    use crate::paging;

    /// Slices of each kind where the command line says nothing, rounds of a slice, and turns of the loop beside each. A slice is
    /// shorter than what a busy host gives to QEMU at once.
    const SLICES: u64 = 200;
    const ROUNDS: u64 = 5;
    const TURNS: u64 = 10_000;

    const SOFTWARE: u64 = 1 << interrupt::SOFTWARE;

    /// Whether the second hart is here, and whether it is to run and not to sleep.
    static IS_HERE: AtomicBool = AtomicBool::new(false);
    static RUNS: AtomicBool = AtomicBool::new(false);
    /// The first hart's questions, and the second hart's answers: the number of the newest, what the code must give and the page must
    /// show by then, and how often they did not.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    static ANSWERED: AtomicU64 = AtomicU64::new(0);
    static VALUE: AtomicU64 = AtomicU64::new(0);
    static FRAME: AtomicU64 = AtomicU64::new(0);
    static STALE: AtomicU64 = AtomicU64::new(0);

    struct Report {
        steps: u32,
        wrong: u32,
    }

    impl Report {
        fn step(&mut self, right: bool, claim: &str, facts: core::fmt::Arguments<'_>) {
            self.steps += 1;
            self.wrong += u32::from(!right);
            let mark = if right { "  ok   " } else { "  WRONG" };
            println!("{mark} {claim}: {facts}");
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::from_device_tree(device_tree) };
        let Some(machine) = machine else {
            println!("rewrites: the device tree cannot be read");
            sbi::shutdown(true);
        };
        paging::build(machine.ram.start);
        // SAFETY: built for the gigabyte that this runs in.
        unsafe { paging::turn_on() };

        let second = u64::from(hart == 0);
        sbi::hart_start(second, entry::second_hart_entry(second_main), hart);
        let patience = 10 * machine.timebase_frequency;
        let is_here = wait_until(patience, || IS_HERE.load(Ordering::SeqCst));
        let mut report = Report { steps: 0, wrong: 0 };
        report.step(
            is_here,
            "the second hart starts",
            format_args!("hart {second}"),
        );

        let mut writer = Writer {
            second,
            slices: machine.argument("slices").unwrap_or(SLICES).max(1),
            patience,
            pause: machine.timebase_frequency / 1000,
            value: 0,
            frame: 0,
            stale: 0,
            unanswered: 0,
        };
        writer.cost("an empty call", |_| {
            sbi::base(sbi_spec::base::GET_SBI_SPEC_VERSION);
        });
        r82_once_a_fence_returns_both_harts_see_what_is_new(&mut report, &mut writer);
        println!("rewrites: {} steps, {} wrong", report.steps, report.wrong);
        sbi::shutdown(report.wrong > 0);
    }

    /// Costs of fences, with questions to the second hart in between.
    fn r82_once_a_fence_returns_both_harts_see_what_is_new(
        report: &mut Report,
        writer: &mut Writer,
    ) {
        for (runs, rewriting, remapping) in [
            (
                false,
                "fence.i, other hart asleep",
                "sfence.vma, other hart asleep",
            ),
            (
                true,
                "fence.i, other hart running",
                "sfence.vma, other hart running",
            ),
        ] {
            RUNS.store(runs, Ordering::SeqCst);
            writer.cost(rewriting, Writer::rewrite);
            writer.cost(remapping, Writer::remap);
        }
        report.step(
            writer.unanswered == 0,
            "a hart that sleeps or runs answers after each slice of fences",
            format_args!(
                "{} answers, {} missing",
                ANSWERED.load(Ordering::SeqCst),
                writer.unanswered
            ),
        );
        let stale = STALE.load(Ordering::SeqCst);
        report.step(
            writer.stale == 0 && stale == 0,
            "once a remote fence returns, both harts run new code and see new pages",
            format_args!("{} old ones here, {stale} there", writer.stale),
        );
    }

    /// A loop of so many turns.
    fn turn(turns: u64) {
        // SAFETY: changes the register alone.
        unsafe {
            asm!("1: addi {n}, {n}, -1", "bnez {n}, 1b", n = inout(reg) turns => _, options(nostack));
        }
    }

    /// The first hart.
    struct Writer {
        second: u64,
        slices: u64,
        /// Ticks of `time` until an answer is missed.
        patience: u64,
        /// Ticks in which the second hart falls asleep again.
        pause: u64,
        value: u64,
        frame: u64,
        /// Old code and old pages that were seen here.
        stale: u64,
        unanswered: u64,
    }

    impl Writer {
        /// Measures slices of rounds, and says what came of it.
        fn cost(&mut self, kind: &str, round: impl Fn(&mut Self)) {
            let (mut shortest, mut turns, mut fewest) = (u64::MAX, u64::MAX, u64::MAX);
            for _ in 0..self.slices {
                self.ask();
                let instructions = csr_read!("instret");
                let start = now();
                for _ in 0..ROUNDS {
                    round(self);
                }
                let middle = now();
                fewest = fewest.min(csr_read!("instret") - instructions);
                turn(TURNS);
                let end = now();
                shortest = shortest.min(middle - start);
                turns = turns.min(end - middle);
            }
            let cost = shortest * TURNS / turns.max(1) / ROUNDS;
            println!(
                "rewrites: cost of {kind}: {cost} turns, {} instructions",
                fewest / ROUNDS
            );
        }

        /// Rewrites the code, fences on both harts, and runs it.
        fn rewrite(&mut self) {
            self.value = (self.value + 1) % paging::VALUES;
            paging::touch();
            paging::write_function(self.value);
            // SAFETY: a fence changes no state that Rust knows of.
            unsafe { asm!("fence.i") };
            sbi::remote_fence_i(1 << self.second);
            self.stale += u64::from(paging::call_function() != self.value);
        }

        /// Gives a page another frame, fences on both harts, and reads it.
        fn remap(&mut self) {
            self.frame = 1 - self.frame;
            paging::touch();
            let page = paging::remap(self.frame);
            // SAFETY: a fence changes no state that Rust knows of.
            unsafe { asm!("sfence.vma {}, zero", in(reg) page) };
            sbi::remote_sfence_vma(1 << self.second, page, 4096);
            self.stale += u64::from(paging::shown_frame() != self.frame);
        }

        /// Asks the second hart for what it sees, and lets it go back to what it was at.
        fn ask(&mut self) {
            VALUE.store(self.value, Ordering::SeqCst);
            FRAME.store(self.frame, Ordering::SeqCst);
            let number = ASKED.fetch_add(1, Ordering::SeqCst) + 1;
            sbi::send_ipi(1 << self.second, 0);
            let is_answered = || ANSWERED.load(Ordering::SeqCst) == number;
            self.unanswered += u64::from(!wait_until(self.patience, is_answered));
            wait_until(self.pause, || false);
        }
    }

    extern "C" fn second_main(_hart: u64, _: u64) -> ! {
        // SAFETY: the table was built before this hart was started. Interrupts stay off: what is enabled only wakes.
        unsafe {
            paging::turn_on();
            csr_clear!("sstatus", 2u64);
            csr_write!("sie", SOFTWARE);
        }
        let mut value = 0;
        IS_HERE.store(true, Ordering::SeqCst);
        loop {
            let asked = ASKED.load(Ordering::SeqCst);
            if asked != ANSWERED.load(Ordering::SeqCst) {
                let expected = VALUE.load(Ordering::SeqCst);
                // There is no code before the first was written.
                if expected != 0 || value != 0 {
                    value = paging::call_function();
                }
                let is_new =
                    value == expected && paging::shown_frame() == FRAME.load(Ordering::SeqCst);
                STALE.fetch_add(u64::from(!is_new), Ordering::SeqCst);
                ANSWERED.store(asked, Ordering::SeqCst);
            } else if RUNS.load(Ordering::SeqCst) {
                paging::touch();
            } else {
                // SAFETY: has no effect on memory; the interrupt is taken back, and looked at by its question.
                unsafe {
                    asm!("wfi", options(nostack));
                    csr_clear!("sip", SOFTWARE);
                }
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
