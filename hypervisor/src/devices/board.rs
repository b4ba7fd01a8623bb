//! The devices of one guest, wired together: the interrupt lines of serial port and clock end at the interrupt controller.
//!
//! The one idea: after everything that may move a line, the line is driven anew; who runs the vCPUs asks for the outputs
//! and is told which of them changed, because the hart that has to be kicked is not always the one that made the access.

use guest_mem::{Gpa, Width};

use super::Mmio;
use super::bus::{Bus, BusError};
use super::finisher::{self, Finish};
use super::plic::{self, Plic};
use super::rtc::{self, Rtc};
use super::uart::{self, Uart};

/// Where the devices are, in guest-physical addresses, and which sources they interrupt on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Base of the interrupt controller.
    pub plic: Gpa,
    /// Base of the serial port.
    pub uart: Gpa,
    /// The serial port's source number.
    pub uart_source: u32,
    /// Base of the test finisher.
    pub finisher: Gpa,
    /// Base of the real-time clock.
    pub rtc: Gpa,
    /// The clock's source number.
    pub rtc_source: u32,
}

impl Wiring {
    /// The addresses that QEMU's `virt` machine uses, which guests with wired-in addresses expect.
    pub const VIRT: Self = Self {
        plic: Gpa::new(0x0c00_0000),
        uart: Gpa::new(0x1000_0000),
        uart_source: 10,
        finisher: Gpa::new(0x0010_0000),
        rtc: Gpa::new(0x0010_1000),
        rtc_source: 11,
    };
}

#[derive(Clone, Copy, Debug)]
enum Device {
    Plic,
    Uart,
    Finisher,
    Rtc,
}

/// One guest's devices.
pub struct Board<Output> {
    bus: Bus<Device>,
    plic: Plic,
    uart: Uart<Output>,
    uart_source: u32,
    /// A typed byte that the serial port had no room for yet.
    waiting: Option<u8>,
    rtc: Rtc,
    rtc_source: u32,
    finish: Option<Finish>,
    /// The guest has read the last byte that the serial port held.
    drained: bool,
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
        bus.add(wiring.finisher, finisher::WINDOW, Device::Finisher)?;
        bus.add(wiring.rtc, rtc::WINDOW, Device::Rtc)?;
        Ok(Self {
            bus,
            plic: Plic::new(plic::contexts(harts)),
            uart: Uart::new(output),
            uart_source: wiring.uart_source,
            waiting: None,
            rtc: Rtc::new(),
            rtc_source: wiring.rtc_source,
            finish: None,
            drained: false,
            harts: harts.min(64),
            reported: 0,
        })
    }

    /// Answers a guest's load, zero-extended; `None` if no device is there.
    pub fn read(&mut self, gpa: Gpa, width: Width) -> Option<u64> {
        let (device, offset) = self.bus.find(gpa, width)?;
        let held_input = self.uart.holds_input();
        let value = match device {
            Device::Plic => self.plic.read(offset, width),
            Device::Uart => self.uart.read(offset, width),
            Device::Finisher => 0,
            Device::Rtc => self.rtc.read(offset, width),
        };
        self.drained |= held_input && !self.uart.holds_input();
        self.drive_lines();
        Some(value)
    }

    /// Takes a guest's store; `None` if no device is there.
    pub fn write(&mut self, gpa: Gpa, width: Width, value: u64) -> Option<()> {
        let (device, offset) = self.bus.find(gpa, width)?;
        match device {
            Device::Plic => self.plic.write(offset, width, value),
            Device::Uart => self.uart.write(offset, width, value),
            Device::Finisher => self.finish = finisher::finish(offset, width, value),
            Device::Rtc => self.rtc.write(offset, width, value),
        }
        self.drive_lines();
        Some(())
    }

    /// Whether the guest has read the last byte that the serial port held, since this was asked last: then it is ready for more.
    pub fn take_drained(&mut self) -> bool {
        core::mem::take(&mut self.drained)
    }

    /// Gives the serial port what was typed: whatever `next` yields, until the port is full. Answers whether it
    /// took anything.
    pub fn type_in(&mut self, mut next: impl FnMut() -> Option<u8>) -> bool {
        let mut took_any = false;
        while let Some(byte) = self.waiting.take().or_else(&mut next) {
            if !self.uart.push_input(byte) {
                self.waiting = Some(byte);
                break;
            }
            took_any = true;
        }
        self.drive_lines();
        took_any
    }

    /// The next typed byte, for a guest that asks its firmware for it: what the serial port holds comes before what `next`
    /// yields, so that each byte is given once and in order, to the console that asks first (I19).
    pub fn typed(&mut self, next: impl FnOnce() -> Option<u8>) -> Option<u8> {
        let held = self.uart.take_input().or_else(|| self.waiting.take());
        self.drive_lines();
        held.or_else(next)
    }

    /// Whether the external interrupt of the guest's hart number `hart` is asserted.
    pub fn external_interrupt(&self, hart: usize) -> bool {
        let context = plic::supervisor_context(hart);
        self.plic.external_interrupt(context)
    }

    /// How the guest has asked to be ended since the last call.
    pub fn take_finish(&mut self) -> Option<Finish> {
        self.finish.take()
    }

    /// Whether an access at `gpa` wants to know the time, or an alarm does.
    pub fn wants_time(&self, gpa: Option<Gpa>) -> bool {
        let is_rtc = |gpa| {
            let found = self.bus.find(gpa, Width::Byte);
            matches!(found, Some((Device::Rtc, _)))
        };
        self.rtc.has_alarm() || gpa.is_some_and(is_rtc)
    }

    /// Tells the clock the time, in nanoseconds since 1970.
    pub fn set_time(&mut self, nanoseconds: u64) {
        self.rtc.set_host_time(nanoseconds);
        self.drive_lines();
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
        let alarm = self.rtc.interrupt_pending();
        self.plic.set_line(self.rtc_source, alarm);
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
        let enable = PLIC + layout::ENABLE + 3 * layout::ENABLE_STRIDE;
        store(&mut board, enable, Width::Word, 1 << source);
        store(&mut board, UART + register::IER, Width::Byte, 1);
        board
    }

    /// Somebody types.
    fn type_in<Output: FnMut(u8)>(board: &mut Board<Output>, text: &[u8]) {
        let mut bytes = text.iter().copied();
        board.type_in(|| bytes.next());
        assert_eq!(bytes.next(), None, "more than the test wants to hold back");
    }

    fn read_data<Output: FnMut(u8)>(board: &mut Board<Output>) -> Option<u8> {
        let status = board.read(Gpa::new(UART + register::LSR), Width::Byte)?;
        let data = board.read(Gpa::new(UART + register::DATA), Width::Byte)?;
        (status & 1 != 0).then_some(data as u8)
    }

    #[test]
    fn the_last_byte_that_is_read_asks_for_more_once() {
        let mut board = board();
        assert_eq!(read_data(&mut board), None);
        assert!(!board.take_drained(), "there was nothing");
        board
            .write(Gpa::new(UART + register::FCR), Width::Byte, 1)
            .unwrap();
        type_in(&mut board, b"ab");
        assert_eq!(read_data(&mut board), Some(b'a'));
        assert!(!board.take_drained(), "there is one more");
        assert_eq!(read_data(&mut board), Some(b'b'));
        assert!(board.take_drained());
        assert!(!board.take_drained());
    }

    #[test]
    fn i19_a_firmware_read_that_finds_nothing_takes_nothing_away() {
        let mut board = board();
        assert_eq!(board.typed(|| None), None);
        type_in(&mut board, b"x");
        assert!(board.external_interrupt(1), "the driver still listens");
        assert_eq!(read_data(&mut board), Some(b'x'));
    }

    #[test]
    fn i19_each_typed_byte_goes_once_and_in_order_to_who_asks() {
        let mut board = board();
        // The FIFO is off: one byte in the receiver, one that waits, the rest is not fetched.
        let mut line = b"abcdef".iter().copied();
        let mut seen = Vec::new();
        for firmware in [true, false, false, true, true, false, true] {
            board.type_in(|| line.next());
            seen.extend(if firmware {
                board.typed(|| line.next())
            } else {
                read_data(&mut board)
            });
        }
        assert_eq!(seen, b"abcdef");
    }

    #[test]
    fn i19_what_firmware_read_is_not_there_for_the_driver() {
        let mut board = board();
        type_in(&mut board, b"x");
        assert_eq!(board.typed(|| None), Some(b'x'));
        assert_eq!(read_data(&mut board), None);
        // The interrupt was on its way already; when it is completed, no other follows.
        let claim = Gpa::new(PLIC + layout::CONTEXT + 3 * layout::CONTEXT_STRIDE + layout::CLAIM);
        assert_eq!(board.read(claim, Width::Word), Some(10));
        board.write(claim, Width::Word, 10).unwrap();
        assert!(!board.external_interrupt(1));
    }

    #[test]
    fn i19_what_loops_back_was_not_typed() {
        let mut board = board();
        store(&mut board, UART + register::MCR, Width::Byte, 0x10);
        store(&mut board, UART + register::DATA, Width::Byte, 0x5a);
        type_in(&mut board, b"x");
        assert_eq!(board.typed(|| None), Some(b'x'));
        assert_eq!(board.typed(|| None), None);
        assert_eq!(read_data(&mut board), Some(0x5a));
    }

    #[test]
    fn input_interrupts_the_listening_hart_until_it_is_read_and_completed() {
        let mut board = board();
        assert_eq!(board.take_changed_interrupts(), 0);
        type_in(&mut board, b"x");
        assert!(!board.external_interrupt(0) && board.external_interrupt(1));
        assert_eq!(board.take_changed_interrupts(), 0b10);
        assert_eq!(board.take_changed_interrupts(), 0, "told once");

        let claim = Gpa::new(PLIC + layout::CONTEXT + 3 * layout::CONTEXT_STRIDE + layout::CLAIM);
        assert_eq!(board.read(claim, Width::Word), Some(10));
        assert_eq!(board.take_changed_interrupts(), 0b10);
        let data = Gpa::new(UART + register::DATA);
        assert_eq!(board.read(data, Width::Byte), Some(u64::from(b'x')));
        board.write(claim, Width::Word, 10).unwrap();
        assert!(
            !board.external_interrupt(1),
            "the line fell before completion"
        );

        type_in(&mut board, b"y");
        assert_eq!(board.read(claim, Width::Word), Some(10));
        board.write(claim, Width::Word, 10).unwrap();
        assert!(board.external_interrupt(1), "nobody read the byte");
    }

    #[test]
    fn i17_contexts_are_numbered_as_on_the_virt_machine() {
        let source = u64::from(Wiring::VIRT.uart_source);
        for context in 0..4 {
            let ignore: fn(u8) = |_| {};
            let mut board = Board::new(Wiring::VIRT, 2, ignore).unwrap();
            store(&mut board, PLIC + 4 * source, Width::Word, 1);
            let enable = PLIC + layout::ENABLE + context * layout::ENABLE_STRIDE;
            store(&mut board, enable, Width::Word, 1 << source);
            store(&mut board, UART + register::IER, Width::Byte, 1);
            type_in(&mut board, b"x");
            let interrupted = [0, 1].map(|hart| board.external_interrupt(hart));
            assert_eq!(interrupted, [context == 1, context == 3], "{context}");
        }
    }

    #[test]
    fn the_clock_interrupts_through_the_controller() {
        let mut board = board();
        let rtc = Wiring::VIRT.rtc;
        let source = u64::from(Wiring::VIRT.rtc_source);
        assert!(board.wants_time(Some(rtc)) && !board.wants_time(Some(Gpa::new(UART))));
        board.set_time(1000);
        store(&mut board, PLIC + 4 * source, Width::Word, 1);
        let enable = PLIC + layout::ENABLE + layout::ENABLE_STRIDE;
        store(&mut board, enable, Width::Word, 1 << source);
        for (register, value) in [
            (rtc::register::IRQ_ENABLED, 1),
            (rtc::register::ALARM_LOW, 2000),
        ] {
            store(&mut board, rtc.value() + register, Width::Word, value);
        }
        assert!(board.wants_time(None) && !board.external_interrupt(0));
        board.set_time(2000);
        assert!(board.external_interrupt(0) && !board.external_interrupt(1));
        assert_eq!(board.take_changed_interrupts(), 1);
    }

    #[test]
    fn i17_the_finisher_ends_the_guest_and_reads_as_zero() {
        let mut board = board();
        let finisher = Wiring::VIRT.finisher;
        assert_eq!(board.read(finisher, Width::Word), Some(0));
        assert_eq!(board.take_finish(), None);
        store(&mut board, finisher.value(), Width::Word, 0x5555);
        assert_eq!(board.take_finish(), Some(Finish::PowerOff));
        assert_eq!(board.take_finish(), None, "told once");
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
