//! The devices of one guest, wired together: the serial port's interrupt line ends at the interrupt controller.
//!
//! The one idea: after everything that may move a line, the line is driven anew; who runs the vCPUs asks for the outputs
//! and is told which of them changed, because the hart that has to be kicked is not always the one that made the access.

use guest_mem::{Gpa, Width};

use super::Mmio;
use super::bus::{Bus, BusError};
use super::plic::{self, Plic};
use super::uart::{self, Uart};

/// Where the devices are, in guest-physical addresses, and which source the serial port interrupts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Base of the interrupt controller.
    pub plic: Gpa,
    /// Base of the serial port.
    pub uart: Gpa,
    /// The serial port's source number.
    pub uart_source: u32,
}

impl Wiring {
    /// The addresses that QEMU's `virt` machine uses, which guests with wired-in addresses expect.
    pub const VIRT: Self = Self {
        plic: Gpa::new(0x0c00_0000),
        uart: Gpa::new(0x1000_0000),
        uart_source: 10,
    };
}

#[derive(Clone, Copy, Debug)]
enum Device {
    Plic,
    Uart,
}

/// One guest's devices.
pub struct Board<Output> {
    bus: Bus<Device>,
    plic: Plic,
    uart: Uart<Output>,
    uart_source: u32,
    harts: usize,
    /// The external interrupts at the last [`Board::take_changed_interrupts`], a bit a hart.
    reported: u64,
}

impl<Output: FnMut(u8)> Board<Output> {
    /// The devices of a guest with `harts` harts (at most 64), wired as `wiring` says; `output` takes what the guest
    /// transmits.
    pub fn new(wiring: Wiring, harts: usize, output: Output) -> Result<Self, BusError> {
        let mut bus = Bus::new();
        bus.add(wiring.plic, plic::WINDOW, Device::Plic)?;
        bus.add(wiring.uart, uart::WINDOW, Device::Uart)?;
        Ok(Self {
            bus,
            plic: Plic::new(harts),
            uart: Uart::new(output),
            uart_source: wiring.uart_source,
            harts: harts.min(64),
            reported: 0,
        })
    }

    /// Answers a guest's load, zero-extended; `None` if no device is there.
    pub fn read(&mut self, gpa: Gpa, width: Width) -> Option<u64> {
        let (device, offset) = self.bus.find(gpa, width)?;
        let value = match device {
            Device::Plic => self.plic.read(offset, width),
            Device::Uart => self.uart.read(offset, width),
        };
        self.drive_lines();
        Some(value)
    }

    /// Takes a guest's store; `None` if no device is there.
    pub fn write(&mut self, gpa: Gpa, width: Width, value: u64) -> Option<()> {
        let (device, offset) = self.bus.find(gpa, width)?;
        match device {
            Device::Plic => self.plic.write(offset, width, value),
            Device::Uart => self.uart.write(offset, width, value),
        }
        self.drive_lines();
        Some(())
    }

    /// A byte arrives at the serial port. `false` if it was not taken: offer it later.
    pub fn push_input(&mut self, byte: u8) -> bool {
        let taken = self.uart.push_input(byte);
        self.drive_lines();
        taken
    }

    /// Whether the external interrupt of the guest's hart number `hart` is asserted.
    pub fn external_interrupt(&self, hart: usize) -> bool {
        self.plic.external_interrupt(hart)
    }

    /// The harts (a bit each) whose external interrupt is not what it was at the last call.
    pub fn take_changed_interrupts(&mut self) -> u64 {
        let now = (0..self.harts)
            .filter(|&hart| self.external_interrupt(hart))
            .fold(0, |now, hart| now | 1 << hart);
        let changed = now ^ self.reported;
        self.reported = now;
        changed
    }

    fn drive_lines(&mut self) {
        let level = self.uart.interrupt_pending();
        self.plic.set_line(self.uart_source, level);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::devices::plic::layout;
    use crate::devices::uart::registers::offset as register;

    const UART: u64 = Wiring::VIRT.uart.value();
    const PLIC: u64 = Wiring::VIRT.plic.value();

    fn store<Output: FnMut(u8)>(board: &mut Board<Output>, gpa: u64, width: Width, value: u64) {
        board.write(Gpa::new(gpa), width, value).unwrap();
    }

    /// Hart 1 listens to the serial port.
    fn board() -> Board<fn(u8)> {
        let ignore: fn(u8) = |_| {};
        let mut board = Board::new(Wiring::VIRT, 2, ignore).unwrap();
        let source = u64::from(Wiring::VIRT.uart_source);
        store(&mut board, PLIC + 4 * source, Width::Word, 1);
        let enable = PLIC + layout::ENABLE + layout::ENABLE_STRIDE;
        store(&mut board, enable, Width::Word, 1 << source);
        store(&mut board, UART + register::IER, Width::Byte, 1);
        board
    }

    #[test]
    fn input_interrupts_the_listening_hart_until_it_is_read_and_completed() {
        let mut board = board();
        assert_eq!(board.take_changed_interrupts(), 0);
        assert!(board.push_input(b'x'));
        assert!(!board.external_interrupt(0) && board.external_interrupt(1));
        assert_eq!(board.take_changed_interrupts(), 0b10);
        assert_eq!(board.take_changed_interrupts(), 0, "told once");

        let claim = Gpa::new(PLIC + layout::CONTEXT + layout::CONTEXT_STRIDE + layout::CLAIM);
        assert_eq!(board.read(claim, Width::Word), Some(10));
        assert_eq!(board.take_changed_interrupts(), 0b10);
        let data = Gpa::new(UART + register::DATA);
        assert_eq!(board.read(data, Width::Byte), Some(u64::from(b'x')));
        board.write(claim, Width::Word, 10).unwrap();
        assert!(
            !board.external_interrupt(1),
            "the line fell before completion"
        );

        assert!(board.push_input(b'y'));
        assert_eq!(board.read(claim, Width::Word), Some(10));
        board.write(claim, Width::Word, 10).unwrap();
        assert!(board.external_interrupt(1), "nobody read the byte");
    }

    #[test]
    fn what_the_guest_transmits_reaches_the_output() {
        let mut out = Vec::new();
        let mut board = Board::new(Wiring::VIRT, 1, |byte| out.push(byte)).unwrap();
        for byte in *b"ok" {
            store(&mut board, UART, Width::Byte, u64::from(byte));
        }
        drop(board);
        assert_eq!(out, b"ok");
    }

    #[test]
    fn where_no_device_is_nobody_answers() {
        let mut board = board();
        for gpa in [
            0,
            PLIC - 1,
            PLIC + plic::WINDOW,
            UART - 1,
            UART + 8,
            u64::MAX,
        ] {
            let gpa = Gpa::new(gpa);
            assert_eq!(board.read(gpa, Width::Byte), None);
            assert_eq!(board.write(gpa, Width::Byte, 0), None);
        }
        assert_eq!(board.read(Gpa::new(UART + 4), Width::Double), None);
    }
}
