//! A guest that sleeps and is woken, very often.
//!
//! The one idea: every sleep has one reason to end, which comes at another distance from it each
//! time, before the sleep as well. A wake-up that is lost hangs this guest, so its end shows that
//! none was. `wfi` may end without a reason; here it is counted, since a hypervisor whose tick ends
//! it keeps an idle guest busy. `wakes=N` on the command line says how often.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::arch::asm;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use guest_kit::machine::Machine;
    use guest_kit::steps::Steps;
    use guest_kit::trap::interrupt;
    use guest_kit::{csr_clear, csr_read, csr_set, csr_write, entry, now, sbi, wait_until};
    use sbi_spec::hsm::hart_state;

    /// Sleeps of each kind where the command line says nothing.
    const WAKES: u64 = 2_000;
    /// The deadlines lie up to so many ticks of `time` away.
    const FAR: u64 = 400;
    /// Suspensions, each of which ends by an interrupt that is disabled.
    const SUSPENSIONS: u64 = 200;

    const SOFTWARE: u64 = 1 << interrupt::SOFTWARE;
    const TIMER: u64 = 1 << interrupt::TIMER;

    /// Whether the second hart is here: an interrupt that is sent to one that has not started is
    /// lost.
    static IS_HERE: AtomicBool = AtomicBool::new(false);
    /// How often the second hart was woken, and how often it is to be.
    static WOKEN: AtomicU64 = AtomicU64::new(0);
    static GOAL: AtomicU64 = AtomicU64::new(0);
    /// Sleeps of the second hart that ended without a reason.
    static IDLE_ENDS: AtomicU64 = AtomicU64::new(0);
    static RESUMED: AtomicU64 = AtomicU64::new(0);

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("wakes", device_tree) };
        let wakes = machine.argument("wakes").unwrap_or(WAKES);
        let mut report = Steps::default();
        let sstc = machine.has("sstc");
        r72_i12_each_deadline_wakes(&mut report, &machine, "SBI timer", wakes, |deadline| {
            sbi::set_timer(deadline);
        });
        if sstc {
            r72_i12_each_deadline_wakes(&mut report, &machine, "stimecmp", wakes, |deadline| {
                // SAFETY: stimecmp, by number, only decides when the timer interrupt is pending.
                unsafe { csr_write!("0x14d", deadline) };
            });
        }
        r72_a_wait_for_a_store_ends(&mut report, &machine);
        if machine.harts > 1 {
            let second = u64::from(hart == 0);
            GOAL.store(wakes, Ordering::SeqCst);
            sbi::hart_start(second, entry::second_hart_entry(second_main), hart);
            while !IS_HERE.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
            r72_i12_each_interrupt_from_afar_wakes(&mut report, &machine, second, wakes);
            r72_each_interrupt_from_afar_resumes(&mut report, &machine, second);
        }
        report.end("wakes")
    }

    /// Sleeps until `is_over`. Answers how often the sleep ended without that.
    fn sleep(is_over: impl Fn() -> bool) -> u64 {
        let mut ends = 0;
        loop {
            // SAFETY: has no effect on memory.
            unsafe { asm!("wfi", options(nostack)) };
            if is_over() {
                return ends;
            }
            ends += 1;
        }
    }

    /// Whether a timer interrupt came: takes it, if it is pending. `sip` does not say so everywhere
    /// (QEMU 7.2), but the handler of this guest's kit clears the bit of an interrupt in `sie` that
    /// it takes.
    fn timer_came() -> bool {
        // SAFETY: the handler changes nothing that this program relies on.
        unsafe {
            csr_set!("sstatus", 2u64);
            csr_clear!("sstatus", 2u64);
        }
        csr_read!("sie") & TIMER == 0
    }

    /// Whether a software interrupt is pending.
    fn software_came() -> bool {
        csr_read!("sip") & SOFTWARE != 0
    }

    fn r72_i12_each_deadline_wakes(
        report: &mut Steps,
        machine: &Machine,
        name: &str,
        wakes: u64,
        set: impl Fn(u64),
    ) {
        let (mut ends, mut early) = (0, 0);
        let start = now();
        for number in 0..wakes {
            let deadline = now() + number % FAR;
            set(deadline);
            // SAFETY: the interrupt is taken in `timer_came` alone: `sstatus.SIE` is clear.
            unsafe { csr_write!("sie", TIMER) };
            ends += sleep(timer_came);
            early += u64::from(now() < deadline);
            set(u64::MAX);
        }
        let passed = (now() - start) * 1000 / machine.timebase_frequency;
        let idles = ends == 0 || !machine.under_hypervisor;
        report.step(
            early == 0 && idles,
            "each deadline wakes a hart that waits for it, and nothing else does",
            format_args!(
                "{name}: {wakes} in {passed} ms, {early} early, {ends} ends without a reason"
            ),
        );
    }

    /// `wrs.nto` traps as `wfi` does where the machine has it and a hypervisor bounds it; nothing
    /// has to come.
    fn r72_a_wait_for_a_store_ends(report: &mut Steps, machine: &Machine) {
        if !machine.extensions().any(|name| name == "zawrs") {
            return;
        }
        let word = 0u64;
        // SAFETY: a reservation and a wait, which may end at any time.
        unsafe {
            asm!(
                ".option push",
                ".option arch, +a",
                "lr.d {scratch}, ({word})",
                ".option pop",
                ".4byte 0x00d00073",
                word = in(reg) &raw const word,
                scratch = out(reg) _,
                options(nostack),
            );
        }
        report.step(true, "a wait for a store ends", format_args!("wrs.nto"));
    }

    fn r72_i12_each_interrupt_from_afar_wakes(
        report: &mut Steps,
        machine: &Machine,
        second: u64,
        wakes: u64,
    ) {
        // SAFETY: the interrupt is only looked at.
        unsafe { csr_write!("sie", SOFTWARE) };
        let patience = 10 * machine.timebase_frequency;
        let mut ends = 0;
        let mut lost = false;
        for number in 0..wakes {
            sbi::send_ipi(1 << second, 0);
            // It answers with one.
            ends += sleep(software_came);
            // SAFETY: takes the interrupt back.
            unsafe { csr_clear!("sip", SOFTWARE) };
            lost |= !wait_until(patience, || WOKEN.load(Ordering::SeqCst) > number);
            // The next one finds the other hart at another place on its way to sleep.
            for _ in 0..number % FAR {
                core::hint::spin_loop();
            }
        }
        ends += IDLE_ENDS.load(Ordering::SeqCst);
        report.step(
            !lost && (ends == 0 || !machine.under_hypervisor),
            "each interrupt from another hart wakes, and nothing else does",
            format_args!("{wakes} there and back, {ends} ends without a reason"),
        );
    }

    fn r72_each_interrupt_from_afar_resumes(report: &mut Steps, machine: &Machine, second: u64) {
        let patience = 10 * machine.timebase_frequency;
        let suspended = || sbi::hart_status(second).value == hart_state::SUSPENDED;
        let (mut suspensions, mut resumed) = (0, 0);
        for number in 0..SUSPENSIONS {
            suspensions += u64::from(wait_until(patience, suspended));
            sbi::send_ipi(1 << second, 0);
            let done = || RESUMED.load(Ordering::SeqCst) > number;
            resumed += u64::from(wait_until(patience, done));
            if resumed <= number {
                break;
            }
        }
        report.step(
            (suspensions, resumed) == (SUSPENSIONS, SUSPENSIONS),
            "each interrupt resumes a suspended hart that has it disabled, one that is pending already does not",
            format_args!("{suspensions} suspensions, {resumed} resumptions"),
        );
    }

    extern "C" fn second_main(_hart: u64, first: u64) -> ! {
        // SAFETY: only pending bits are looked at.
        unsafe {
            csr_clear!("sstatus", 2u64);
            csr_set!("sie", SOFTWARE);
        }
        IS_HERE.store(true, Ordering::SeqCst);
        for _ in 0..GOAL.load(Ordering::SeqCst) {
            IDLE_ENDS.fetch_add(sleep(software_came), Ordering::SeqCst);
            // SAFETY: takes the interrupt back.
            unsafe { csr_clear!("sip", SOFTWARE) };
            WOKEN.fetch_add(1, Ordering::SeqCst);
            sbi::send_ipi(1 << first, 0);
        }
        // SAFETY: nothing interrupts this hart any more. What comes stays pending from now on.
        unsafe { csr_write!("sie", 0u64) };
        loop {
            sbi::hart_suspend_retentive();
            RESUMED.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
