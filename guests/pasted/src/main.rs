//! A guest that reads what is pasted at its serial port.
//!
//! The one idea: it sleeps and reads as a kernel's driver does. The port's interrupt wakes the hart; then it reads until the
//! port holds nothing, and tells the interrupt controller. `bytes=N` on the command line says how much is to come. What came is
//! told as a number and a digest, and whoever pasted compares.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::arch::asm;

    use guest_kit::machine::Machine;
    use guest_kit::trap::interrupt;
    use guest_kit::{csr_clear, csr_read, csr_write, now, println, sbi};

    /// The serial port of QEMU's `virt`, a 16550.
    const UART: u64 = 0x1000_0000;
    const RECEIVED: u64 = UART;
    const INTERRUPT_ENABLE: u64 = UART + 1;
    const FIFO_CONTROL: u64 = UART + 2;
    const LINE_STATUS: u64 = UART + 5;
    const DATA_READY: u8 = 1;

    /// Its interrupt controller, for the supervisor of hart n: context 2n + 1.
    const PLIC: u64 = 0x0c00_0000;
    const UART_SOURCE: u64 = 10;

    const EXTERNAL: u64 = 1 << interrupt::EXTERNAL;
    const TIMER: u64 = 1 << interrupt::TIMER;

    /// Seconds without a byte after which none is waited for.
    const PATIENCE: u64 = 20;

    fn store_byte(address: u64, value: u8) {
        // SAFETY: a register of the serial port.
        unsafe { (address as *mut u8).write_volatile(value) };
    }

    fn load_byte(address: u64) -> u8 {
        // SAFETY: a register of the serial port.
        unsafe { (address as *const u8).read_volatile() }
    }

    fn store_word(address: u64, value: u32) {
        // SAFETY: a register of the interrupt controller.
        unsafe { (address as *mut u32).write_volatile(value) };
    }

    fn load_word(address: u64) -> u32 {
        // SAFETY: a register of the interrupt controller.
        unsafe { (address as *const u32).read_volatile() }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::from_device_tree(device_tree) };
        let wanted = machine
            .as_ref()
            .and_then(|machine| machine.argument("bytes"));
        let (Some(machine), Some(wanted)) = (machine, wanted) else {
            println!("pasted: no device tree, or no bytes=N on the command line");
            sbi::shutdown(true);
        };
        let input = r83_all_that_is_pasted_arrives(hart, &machine, wanted);
        let wrong = u32::from(input.count != wanted);
        println!(
            "pasted: {} bytes, digest {:#x}, in {} microseconds",
            input.count,
            input.digest,
            (input.last - input.first) * 1_000_000 / machine.timebase_frequency
        );
        println!("pasted: 1 steps, {wrong} wrong");
        sbi::shutdown(wrong > 0);
    }

    /// Reads until all that is wanted came, or nothing comes any more.
    fn r83_all_that_is_pasted_arrives(hart: u64, machine: &Machine, wanted: u64) -> Input {
        let context = 2 * hart + 1;
        let claim = PLIC + 0x20_0004 + (context << 12);
        store_word(PLIC + 4 * UART_SOURCE, 1);
        store_word(PLIC + 0x2000 + 0x80 * context, 1 << UART_SOURCE);
        store_word(claim - 4, 0);
        // The FIFO with interrupts at 8 bytes, as Linux has it.
        store_byte(FIFO_CONTROL, 0x81);
        store_byte(INTERRUPT_ENABLE, 1);
        // SAFETY: interrupts stay off: what is enabled only wakes.
        unsafe {
            csr_clear!("sstatus", 2u64);
            csr_write!("sie", EXTERNAL | TIMER);
        }
        println!("pasted: ready");

        let patience = PATIENCE * machine.timebase_frequency;
        let mut input = Input::default();
        let mut deadline = now() + patience;
        sbi::set_timer(deadline);
        while input.count < wanted && now() < deadline {
            if csr_read!("sip") & EXTERNAL == 0 {
                // SAFETY: has no effect on memory.
                unsafe { asm!("wfi", options(nostack)) };
                continue;
            }
            let source = load_word(claim);
            let before = input.count;
            while input.count < wanted && load_byte(LINE_STATUS) & DATA_READY != 0 {
                input.take(load_byte(RECEIVED));
            }
            if source != 0 {
                store_word(claim, source);
            }
            if input.count > before {
                deadline = now() + patience;
            }
        }
        input
    }

    /// What came: how much, its FNV-1a, and when.
    #[derive(Default)]
    struct Input {
        count: u64,
        digest: u64,
        first: u64,
        last: u64,
    }

    impl Input {
        fn take(&mut self, byte: u8) {
            self.last = now();
            if self.count == 0 {
                (self.first, self.digest) = (self.last, 0xcbf2_9ce4_8422_2325);
            }
            self.count += 1;
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
