//! Bad pointers, lengths, masks and numbers to every SBI call.
//!
//! Expected: each call comes back with an error of the SBI specification (the legacy calls: with an
//! error, or with the fault that the guest's own load at the pointer would get), nothing is
//! printed, nobody hangs. Each call prints a line only if it is wrong. Meant for the hypervisor:
//! other firmware gives other errors.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guest_kit::machine::Machine;
    use guest_kit::trap::{catch, cause, interrupt};
    use guest_kit::{csr_clear, csr_set, println, sbi};
    use sbi_spec::{base, dbcn, hsm, legacy, pmu, rfnc, spi, srst};

    const SUCCESS: isize = 0;
    const NOT_SUPPORTED: isize = -2;
    const INVALID_PARAM: isize = -3;
    const INVALID_ADDRESS: isize = -5;

    /// Bits of a register above a `uint32_t`, which no function may look at (R84): as a sign
    /// extension has them, and others.
    const ABOVE: [u64; 3] = [0xffff_ffff << 32, 1 << 32, 0xdead_beef << 32];

    /// Where nothing is, guest-physical.
    const HOLE: u64 = 0x0d00_0000;
    const UART: u64 = 0x1000_0000;

    #[derive(Default)]
    struct Account {
        calls: u32,
        wrong: u32,
    }

    impl Account {
        fn call(
            &mut self,
            extension: usize,
            function: usize,
            arguments: [u64; 5],
            expected: &[isize],
        ) {
            let (answer, trap) = catch(|| sbi::call(extension, function, arguments));
            let error = answer.error as isize;
            self.calls += 1;
            if trap.is_some() || !expected.contains(&error) {
                self.wrong += 1;
                println!(
                    "bad-arguments: {extension:#x}/{function} {arguments:x?}: error {error}, {trap:?}; expected {expected:?}"
                );
            }
        }

        /// A legacy call whose first argument is a pointer that cannot be read.
        fn legacy_pointer(&mut self, extension: usize, pointer: u64) {
            let (error, trap) = catch(|| sbi::legacy_call(extension, [pointer, 0, 4096, 0]));
            let refused = match trap {
                Some(trap) => {
                    let fault = matches!(trap.cause, cause::LOAD_ACCESS | cause::LOAD_PAGE);
                    fault && trap.value.wrapping_sub(pointer) < 8
                }
                None => error < 0,
            };
            self.calls += 1;
            if !refused {
                self.wrong += 1;
                println!("bad-arguments: legacy {extension} {pointer:#x}: {error}, {trap:?}");
            }
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("bad-arguments", device_tree) };
        println!("bad-arguments: expects an error from each call, and to end by itself");
        let mut account = Account::default();
        console(&mut account, &machine);
        harts(&mut account, &machine);
        high_bits(&mut account);
        nothing(&mut account, &machine);
        fences(&mut account);
        others(&mut account);
        legacy_calls(&mut account);
        println!(
            "bad-arguments: {} steps, {} wrong",
            account.calls, account.wrong
        );
        // The reset itself, too, is asked for with high bits.
        let arguments = [
            ABOVE[0] | u64::from(srst::RESET_TYPE_SHUTDOWN),
            ABOVE[2] | u64::from(account.wrong > 0),
            0,
            0,
            0,
        ];
        account.call(srst::EID_SRST, srst::SYSTEM_RESET, arguments, &[]);
        sbi::shutdown(true);
    }

    fn console(account: &mut Account, machine: &Machine) {
        let end = machine.ram.end;
        let pointers = [
            0,
            HOLE,
            UART,
            end,
            end - 1,
            1 << 41,
            1 << 56,
            u64::MAX - 4095,
            u64::MAX,
        ];
        for pointer in pointers {
            for len in [2, 4096, 1 << 32, u64::MAX] {
                for function in [dbcn::CONSOLE_WRITE, dbcn::CONSOLE_READ] {
                    let arguments = [len, pointer, 0, 0, 0];
                    account.call(dbcn::EID_DBCN, function, arguments, &[INVALID_PARAM]);
                }
            }
        }
        // From RAM on: the length alone, and the high half alone, are bad.
        let start = machine.ram.start;
        let all = end - start;
        for arguments in [
            [all + 1, start, 0, 0, 0],
            [u64::MAX, start, 0, 0, 0],
            [4, start, 1, 0, 0],
            [4, start, 1 << 32, 0, 0],
            [4, start, 1 << 63, 0, 0],
            [4, start, u64::MAX, 0, 0],
            // No machine has such addresses, not even for nothing (R85).
            [0, start, 1, 0, 0],
            [0, 0, 1 << 32, 0, 0],
            [0, HOLE, 1 << 63, 0, 0],
            [0, 0, u64::MAX, 0, 0],
        ] {
            for function in [dbcn::CONSOLE_WRITE, dbcn::CONSOLE_READ] {
                account.call(dbcn::EID_DBCN, function, arguments, &[INVALID_PARAM]);
            }
        }
        account.call(dbcn::EID_DBCN, 3, [0; 5], &[NOT_SUPPORTED]);
    }

    fn harts(account: &mut Account, machine: &Machine) {
        let past = machine.harts as u64;
        for hart in [past, 64, 1 << 32, u64::MAX] {
            let arguments = [hart, machine.ram.start, 0, 0, 0];
            account.call(hsm::EID_HSM, hsm::HART_START, arguments, &[INVALID_PARAM]);
            account.call(
                hsm::EID_HSM,
                hsm::HART_GET_STATUS,
                arguments,
                &[INVALID_PARAM],
            );
        }
        if machine.harts > 1 {
            for entry in [0, HOLE, UART, machine.ram.end, 1 << 41, u64::MAX - 1] {
                let arguments = [1, entry, 0, 0, 0];
                account.call(hsm::EID_HSM, hsm::HART_START, arguments, &[INVALID_ADDRESS]);
            }
        }
        // Suspend types: reserved, and non-retentive with an entry in a hole.
        for kind in [1, 0x1000_0000 - 1, 0x8000_0001, 0xffff_ffff] {
            let expected = [INVALID_PARAM, NOT_SUPPORTED];
            account.call(
                hsm::EID_HSM,
                hsm::HART_SUSPEND,
                [kind, HOLE, 0, 0, 0],
                &expected,
            );
        }
        let expected = [INVALID_ADDRESS, NOT_SUPPORTED];
        account.call(
            hsm::EID_HSM,
            hsm::HART_SUSPEND,
            [0x8000_0000, HOLE, 0, 0, 0],
            &expected,
        );
        for (mask, base) in [
            (1 << 63, 0),
            (1, past),
            (1, u64::MAX - 1),
            (u64::MAX, 1 << 40),
        ] {
            account.call(
                spi::EID_SPI,
                spi::SEND_IPI,
                [mask, base, 0, 0, 0],
                &[INVALID_PARAM],
            );
        }
    }

    /// Functions with `uint32_t` arguments do the same whatever the upper half of the register
    /// holds.
    fn high_bits(account: &mut Account) {
        // SAFETY: the interrupt is pending, and ends each suspension, but is not taken:
        // `sstatus.SIE` is clear.
        unsafe { csr_set!("sie", 1u64 << interrupt::SOFTWARE) };
        for high in ABOVE {
            for (kind, entry, expected) in [
                (1, HOLE, [INVALID_PARAM, NOT_SUPPORTED]),
                (0x8000_0000, HOLE, [INVALID_ADDRESS, NOT_SUPPORTED]),
                (0, 0, [SUCCESS, SUCCESS]),
            ] {
                sbi::send_ipi(1, 0);
                let arguments = [high | kind, entry, 0, 0, 0];
                account.call(hsm::EID_HSM, hsm::HART_SUSPEND, arguments, &expected);
            }
            for (kind, reason) in [(3, 0), (0, 2)] {
                let arguments = [high | kind, high | reason, 0, 0, 0];
                account.call(
                    srst::EID_SRST,
                    srst::SYSTEM_RESET,
                    arguments,
                    &[INVALID_PARAM],
                );
            }
            // A `uint8_t`: prints a line end.
            account.call(
                dbcn::EID_DBCN,
                dbcn::CONSOLE_WRITE_BYTE,
                [high | 0xab_cd00 | u64::from(b'\n'), 0, 0, 0, 0],
                &[SUCCESS],
            );
        }
        // SAFETY: as above.
        unsafe {
            csr_clear!("sip", 1u64 << interrupt::SOFTWARE);
            csr_clear!("sie", 1u64 << interrupt::SOFTWARE);
        }
    }

    /// No bytes and no harts are none wherever they are said to be.
    fn nothing(account: &mut Account, machine: &Machine) {
        let end = machine.ram.end;
        for pointer in [0, HOLE, UART, end - 1, end, end + 1, 1 << 56, u64::MAX] {
            for function in [dbcn::CONSOLE_WRITE, dbcn::CONSOLE_READ] {
                let arguments = [0, pointer, 0, 0, 0];
                account.call(dbcn::EID_DBCN, function, arguments, &[SUCCESS]);
            }
        }
        for base in [0, 1, machine.harts as u64, 64, 1 << 40, u64::MAX - 1] {
            let arguments = [0, base, 0, 4096, 0];
            account.call(spi::EID_SPI, spi::SEND_IPI, arguments, &[SUCCESS]);
            for function in rfnc::REMOTE_FENCE_I..=rfnc::REMOTE_SFENCE_VMA_ASID {
                account.call(rfnc::EID_RFNC, function, arguments, &[SUCCESS]);
            }
        }
    }

    fn fences(account: &mut Account) {
        for function in rfnc::REMOTE_FENCE_I..=rfnc::REMOTE_SFENCE_VMA_ASID {
            let arguments = [1, 1 << 20, 0, 4096, 0];
            account.call(rfnc::EID_RFNC, function, arguments, &[INVALID_PARAM]);
            // Any range of virtual addresses may be fenced; whether one that wraps is an error is
            // left open.
            for (start, size) in [(u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
                let expected = [SUCCESS, INVALID_ADDRESS];
                account.call(rfnc::EID_RFNC, function, [1, 0, start, size, 0], &expected);
            }
        }
        // A guest without the H extension has no guests to fence for.
        for function in rfnc::REMOTE_HFENCE_GVMA_VMID..=rfnc::REMOTE_HFENCE_VVMA {
            account.call(
                rfnc::EID_RFNC,
                function,
                [1, 0, 0, 4096, 0],
                &[NOT_SUPPORTED],
            );
        }
    }

    fn others(account: &mut Account) {
        for (kind, reason) in [(3, 0), (0xffff_ffff, 0), (0, 2), (0, 0xdfff_ffff)] {
            let arguments = [kind, reason, 0, 0, 0];
            account.call(
                srst::EID_SRST,
                srst::SYSTEM_RESET,
                arguments,
                &[INVALID_PARAM],
            );
        }
        let nobody = [0x0a00_0000 - 1, 0x4141_4141, u32::MAX as usize, usize::MAX];
        for extension in nobody {
            account.call(extension, 0, [u64::MAX; 5], &[NOT_SUPPORTED]);
        }
        account.call(base::EID_BASE, 99, [0; 5], &[NOT_SUPPORTED]);
        // With or without the extension there is no counter 99 of that kind.
        for function in 0..3 {
            let expected = [SUCCESS, NOT_SUPPORTED, INVALID_PARAM];
            account.call(pmu::EID_PMU, function, [u64::MAX; 5], &expected);
        }
    }

    fn legacy_calls(account: &mut Account) {
        for pointer in [HOLE, 1 << 41, 1 << 60, u64::MAX - 7] {
            for extension in [
                legacy::LEGACY_SEND_IPI,
                legacy::LEGACY_REMOTE_FENCE_I,
                legacy::LEGACY_REMOTE_SFENCE_VMA,
                legacy::LEGACY_REMOTE_SFENCE_VMA_ASID,
            ] {
                account.legacy_pointer(extension, pointer);
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
