//! Time: the counter runs, and the timer interrupts.

use guest_kit::trap::{interrupt, taken};
use guest_kit::{csr_set, csr_write, now, sbi, wait_until};

use crate::report::Report;

/// The chapter.
pub fn visit(report: &mut Report<'_>) {
    report.chapter("Time: the counter and the timer");
    let second = report.machine.timebase_frequency;
    // SAFETY: these bits only decide whether interrupts come.
    let listen = || unsafe {
        csr_set!("sie", 1u64 << interrupt::TIMER);
        csr_set!("sstatus", 2u64);
    };

    let before = taken(interrupt::TIMER);
    let start = now();
    sbi::set_timer(start + second / 100);
    listen();
    let came = wait_until(second, || taken(interrupt::TIMER) > before);
    let waited = (now() - start) * 1_000_000 / second;
    sbi::set_timer(u64::MAX);
    report.step(
        "a timer set by SBI interrupts, and not too early",
        came && waited >= 10_000,
        format_args!("10000 us asked, {waited} us waited"),
    );

    if !report.machine.has("sstc") {
        report.skip("stimecmp", "the ISA string does not list Sstc");
        return;
    }
    let before = taken(interrupt::TIMER);
    let start = now();
    // SAFETY: stimecmp, by number, only decides when the timer interrupt is pending.
    unsafe { csr_write!("0x14d", start + second / 100) };
    listen();
    let came = wait_until(second, || taken(interrupt::TIMER) > before);
    let waited = (now() - start) * 1_000_000 / second;
    // SAFETY: as above.
    unsafe { csr_write!("0x14d", u64::MAX) };
    report.step(
        "so does stimecmp, which no hypervisor sees",
        came && waited >= 10_000,
        format_args!("10000 us asked, {waited} us waited"),
    );
}
