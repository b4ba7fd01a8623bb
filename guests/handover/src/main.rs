//! A guest that reads every register at its first instruction, and says whether it holds what
//! firmware hands over.
//!
//! The one idea: the same program runs on bare firmware. There it proves that the firmware's column
//! of R71 is true, here that the hypervisor's is. Three lives of a hart begin: the boot hart's,
//! that of a hart that is started, and that of one that was suspended without its registers.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod expected;
#[cfg(target_os = "none")]
mod found;

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::{AtomicBool, Ordering};

    use guest_kit::machine::Machine;
    use guest_kit::steps::Steps;
    use guest_kit::{csr_set, csr_write, println, sbi, wait_until};
    use sbi_spec::hsm::suspend_type::NON_RETENTIVE;
    use sbi_spec::hsm::{EID_HSM, HART_SUSPEND, hart_state};

    use crate::expected::{self, Life};
    use crate::found::{self, Found};

    /// What the second hart finds in `a1`, in either life.
    const STARTED: u64 = 0x0123_4567_89ab_cdef;
    const RESUMED: u64 = 0xfedc_ba98_7654_3210;

    /// Whether the second hart was suspended already.
    static HAS_SUSPENDED: AtomicBool = AtomicBool::new(false);

    /// The running account.
    struct Report {
        under_hypervisor: bool,
        steps: Steps,
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("handover", device_tree) };
        let mut report = Report {
            under_hypervisor: machine.under_hypervisor,
            steps: Steps::default(),
        };
        let patience = 10 * machine.timebase_frequency;
        let boot = device_tree as u64;
        judge(&mut report, Life::Booted, found::of(hart), boot);
        if machine.harts > 1 {
            let second = u64::from(hart == 0);
            sbi::hart_start(second, found::entry(second_main), STARTED);
            wait_until(patience, || found::of(second).is_some());
            judge(&mut report, Life::Started, found::of(second), STARTED);

            let suspended = || sbi::hart_status(second).value == hart_state::SUSPENDED;
            let slept = wait_until(patience, suspended);
            found::forget(second);
            sbi::send_ipi(1 << second, 0);
            wait_until(patience, || found::of(second).is_some());
            let found = found::of(second).filter(|_| slept);
            judge(&mut report, Life::Resumed, found, RESUMED);
        }
        report.steps.end("handover")
    }

    extern "C" fn second_main(_hart: u64, _opaque: u64) -> ! {
        if !HAS_SUSPENDED.swap(true, Ordering::SeqCst) {
            // SAFETY: this hart uses none of them, and only wakes by the interrupt: `sstatus.SIE`
            // is clear.
            unsafe {
                csr_write!("scounteren", 0u64);
                csr_write!("sscratch", 1u64);
                csr_set!("sie", 2u64);
            }
            let arguments = [
                NON_RETENTIVE.into(),
                found::entry(second_main),
                RESUMED,
                0,
                0,
            ];
            sbi::call(EID_HSM, HART_SUSPEND, arguments);
        }
        loop {
            core::hint::spin_loop();
        }
    }

    fn judge(report: &mut Report, life: Life, found: Option<Found>, opaque: u64) {
        let Some(found) = found else {
            report.steps.step(
                false,
                "the hart comes",
                format_args!("{life:?}: it did not"),
            );
            return;
        };
        println!("{life:?}:");
        r71_a0_and_a1_say_what_the_sbi_defines(report, &found, opaque);
        r71_floating_point_starts_on_and_with_zeroes(report, &found);
        r71_each_csr_starts_as_firmware_hands_it_over(report, &found, life);
    }

    /// The number in a0 found the place where the others are stored.
    fn r71_a0_and_a1_say_what_the_sbi_defines(report: &mut Report, found: &Found, opaque: u64) {
        let others = found.x.iter().enumerate();
        let left = others
            .filter(|&(index, &value)| index != 11 && value != 0)
            .count();
        report.steps.step(
            found.x[11] == opaque && (left == 0 || !report.under_hypervisor),
            "a0 and a1 are the SBI's, the hypervisor leaves nothing in other registers",
            format_args!("a1 {:#x}, others not 0: {left}", found.x[11]),
        );
    }

    /// Firmware that writes single-precision zeroes leaves boxed ones.
    fn r71_floating_point_starts_on_and_with_zeroes(report: &mut Report, found: &Found) {
        const BOX: u64 = 0xffff_ffff << 32;
        let boxed = if report.under_hypervisor { 0 } else { BOX };
        let wrong = found.f.iter().find(|&&value| value != 0 && value != boxed);
        report.steps.step(
            wrong.is_none(),
            "floating-point registers hold zero",
            format_args!("f0 {:#x}", wrong.unwrap_or(&found.f[0])),
        );
    }

    fn r71_each_csr_starts_as_firmware_hands_it_over(
        report: &mut Report,
        found: &Found,
        life: Life,
    ) {
        let entry = found::entry(second_main);
        let (mut count, mut wrong) = (0, 0);
        for (number, value) in found.csrs() {
            count += 1;
            if !expected::is_right(number, value, entry, life, report.under_hypervisor) {
                wrong += 1;
                println!(
                    "        csr {number:#x} {} is {value:#x}",
                    expected::name(number)
                );
            }
        }
        report.steps.step(
            wrong == 0 && count > 10,
            "each CSR that can be read holds what firmware hands over, or what R71 says",
            format_args!("{count} can be read, {wrong} hold something else"),
        );
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
