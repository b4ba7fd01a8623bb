//! An emulated 16550A serial port: eight byte-wide registers in a row, as `ns16550a` with `reg-shift` 0.
//!
//! The one idea: the line is infinitely fast. A byte written to the transmitter has left before the store retires, so the
//! transmitter is always empty, and what remains of it is the *latch* that says "it became empty and nobody has asked yet".
//! Register and bit names are those of the data sheet (TL16C550C).

use alloc::collections::VecDeque;

use bitflags::bitflags;
use guest_mem::Width;

use super::Mmio;

/// Bytes of guest-physical address space that the registers take.
pub const WINDOW: u64 = 8;

/// Bytes that the receiver holds while its FIFO is on.
const FIFO_DEPTH: usize = 16;

/// Register offsets. Two registers share an offset where one is only read and the other only written, or by `LCR.DLAB`.
pub mod register {
    /// RBR when read, THR when written, DLL while DLAB is set.
    pub const DATA: u64 = 0;
    /// IER, or DLM while DLAB is set.
    pub const IER: u64 = 1;
    /// IIR, when read.
    pub const IIR: u64 = 2;
    /// FCR, when written.
    pub const FCR: u64 = 2;
    /// LCR.
    pub const LCR: u64 = 3;
    /// MCR.
    pub const MCR: u64 = 4;
    /// LSR.
    pub const LSR: u64 = 5;
    /// MSR.
    pub const MSR: u64 = 6;
    /// SCR.
    pub const SCR: u64 = 7;
}

bitflags! {
    /// Interrupt enable register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Ier: u8 {
        const RECEIVED_DATA = 1 << 0;
        const TRANSMITTER_EMPTY = 1 << 1;
        const LINE_STATUS = 1 << 2;
        const MODEM_STATUS = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RECEIVER = 1 << 1;
        const TRIGGER = 0b11 << 6;
    }

    /// Line control register; what is not named here has no effect on a line without noise.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Lcr: u8 {
        const DIVISOR_LATCH_ACCESS = 1 << 7;
        const _ = !0;
    }

    /// Modem control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Lsr: u8 {
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const TRANSMITTER_HOLDING_EMPTY = 1 << 5;
        const TRANSMITTER_EMPTY = 1 << 6;
    }

    /// Modem status register: the lines in the high half, "changed since last read" in the low half.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Msr: u8 {
        const DELTA_CTS = 1 << 0;
        const DELTA_DSR = 1 << 1;
        const TRAILING_EDGE_RI = 1 << 2;
        const DELTA_DCD = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        const DELTAS = 0x0f;
        const LINES = 0xf0;
    }
}

/// IIR: both FIFOs are on.
const IIR_FIFOS_ENABLED: u8 = 0xc0;

/// What IIR reports, highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Interrupt {
    LineStatus = 0b0110,
    ReceivedData = 0b0100,
    /// Fewer bytes than the trigger level wait. Time passes between any two loads of a guest, so it is due at once.
    CharacterTimeout = 0b1100,
    TransmitterEmpty = 0b0010,
    ModemStatus = 0b0000,
    None = 0b0001,
}

/// The serial port; `Output` takes each byte that the guest transmits.
pub struct Uart<Output> {
    output: Output,
    received: VecDeque<u8>,
    ier: Ier,
    fcr: Fcr,
    lcr: Lcr,
    mcr: Mcr,
    overrun: bool,
    msr: Msr,
    scratch: u8,
    divisor: [u8; 2],
    /// The transmitter became empty, or its interrupt was enabled while empty, and IIR has not reported it since.
    transmitter_empty_latch: bool,
}

impl<Output: FnMut(u8)> Uart<Output> {
    /// A port just after reset, with a peer that is ready (CTS, DSR and DCD asserted).
    pub fn new(output: Output) -> Self {
        Self {
            output,
            received: VecDeque::with_capacity(FIFO_DEPTH),
            ier: Ier::empty(),
            fcr: Fcr::empty(),
            lcr: Lcr::empty(),
            mcr: Mcr::empty(),
            overrun: false,
            msr: Msr::CTS | Msr::DSR | Msr::DCD,
            scratch: 0,
            divisor: [0; 2],
            transmitter_empty_latch: false,
        }
    }

    /// A byte arrives on the line. `false` if the receiver is full or loops back: the byte is not taken, offer it later.
    pub fn push_input(&mut self, byte: u8) -> bool {
        let taken = !self.mcr.contains(Mcr::LOOP) && self.received.len() < self.receiver_depth();
        if taken {
            self.received.push_back(byte);
        }
        taken
    }

    /// Whether the interrupt line is asserted.
    pub fn interrupt_pending(&self) -> bool {
        self.interrupt() != Interrupt::None
    }

    fn receiver_depth(&self) -> usize {
        if self.fcr.contains(Fcr::ENABLE) {
            FIFO_DEPTH
        } else {
            1
        }
    }

    /// Waiting bytes from which on the receiver asks for attention by RDA.
    fn trigger_level(&self) -> usize {
        if !self.fcr.contains(Fcr::ENABLE) {
            return 1;
        }
        match self.fcr.intersection(Fcr::TRIGGER).bits() >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    fn interrupt(&self) -> Interrupt {
        if self.ier.contains(Ier::LINE_STATUS) && self.overrun {
            return Interrupt::LineStatus;
        }
        if self.ier.contains(Ier::RECEIVED_DATA) && !self.received.is_empty() {
            return if self.received.len() >= self.trigger_level() {
                Interrupt::ReceivedData
            } else {
                Interrupt::CharacterTimeout
            };
        }
        if self.ier.contains(Ier::TRANSMITTER_EMPTY) && self.transmitter_empty_latch {
            return Interrupt::TransmitterEmpty;
        }
        if self.ier.contains(Ier::MODEM_STATUS) && self.msr.intersects(Msr::DELTAS) {
            return Interrupt::ModemStatus;
        }
        Interrupt::None
    }

    fn divisor_latch_access(&self) -> bool {
        self.lcr.contains(Lcr::DIVISOR_LATCH_ACCESS)
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        match offset {
            register::DATA if self.divisor_latch_access() => self.divisor[0],
            register::DATA => self.received.pop_front().unwrap_or(0),
            register::IER if self.divisor_latch_access() => self.divisor[1],
            register::IER => self.ier.bits(),
            register::IIR => self.read_iir(),
            register::LCR => self.lcr.bits(),
            register::MCR => self.mcr.bits(),
            register::LSR => self.read_lsr(),
            register::MSR => {
                let msr = self.msr;
                self.msr.remove(Msr::DELTAS);
                msr.bits()
            }
            register::SCR => self.scratch,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        match offset {
            register::DATA if self.divisor_latch_access() => self.divisor[0] = value,
            register::DATA => self.transmit(value),
            register::IER if self.divisor_latch_access() => self.divisor[1] = value,
            register::IER => self.write_ier(Ier::from_bits_truncate(value)),
            register::FCR => self.write_fcr(Fcr::from_bits_truncate(value)),
            register::LCR => self.lcr = Lcr::from_bits_retain(value),
            register::MCR => self.write_mcr(Mcr::from_bits_truncate(value)),
            register::SCR => self.scratch = value,
            // LSR and MSR are written by factory tests only.
            _ => {}
        }
    }

    /// Reading IIR clears the transmitter's interrupt if, and only if, it is the one reported.
    fn read_iir(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == Interrupt::TransmitterEmpty {
            self.transmitter_empty_latch = false;
        }
        let fifos = if self.fcr.contains(Fcr::ENABLE) {
            IIR_FIFOS_ENABLED
        } else {
            0
        };
        interrupt as u8 | fifos
    }

    fn read_lsr(&mut self) -> u8 {
        let mut lsr = Lsr::TRANSMITTER_HOLDING_EMPTY | Lsr::TRANSMITTER_EMPTY;
        lsr.set(Lsr::DATA_READY, !self.received.is_empty());
        lsr.set(Lsr::OVERRUN, self.overrun);
        self.overrun = false;
        lsr.bits()
    }

    fn transmit(&mut self, byte: u8) {
        if !self.mcr.contains(Mcr::LOOP) {
            (self.output)(byte);
        } else if self.received.len() < self.receiver_depth() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
        self.transmitter_empty_latch = true;
    }

    fn write_ier(&mut self, ier: Ier) {
        let newly_enabled = ier.difference(self.ier);
        if newly_enabled.contains(Ier::TRANSMITTER_EMPTY) {
            self.transmitter_empty_latch = true;
        }
        self.ier = ier;
    }

    fn write_fcr(&mut self, fcr: Fcr) {
        let toggled = fcr.symmetric_difference(self.fcr).contains(Fcr::ENABLE);
        if toggled || fcr.contains(Fcr::CLEAR_RECEIVER) {
            self.received.clear();
        }
        // Without ENABLE the other bits are not programmed.
        self.fcr = if fcr.contains(Fcr::ENABLE) {
            fcr & (Fcr::ENABLE | Fcr::TRIGGER)
        } else {
            Fcr::empty()
        };
    }

    fn write_mcr(&mut self, mcr: Mcr) {
        self.mcr = mcr;
        let lines = if mcr.contains(Mcr::LOOP) {
            let mut lines = Msr::empty();
            lines.set(Msr::CTS, mcr.contains(Mcr::RTS));
            lines.set(Msr::DSR, mcr.contains(Mcr::DTR));
            lines.set(Msr::RI, mcr.contains(Mcr::OUT1));
            lines.set(Msr::DCD, mcr.contains(Mcr::OUT2));
            lines
        } else {
            Msr::CTS | Msr::DSR | Msr::DCD
        };
        let before = self.msr & Msr::LINES;
        let changed = before.symmetric_difference(lines);
        let mut deltas = self.msr & Msr::DELTAS;
        deltas.set(
            Msr::DELTA_CTS,
            changed.contains(Msr::CTS) || deltas.contains(Msr::DELTA_CTS),
        );
        deltas.set(
            Msr::DELTA_DSR,
            changed.contains(Msr::DSR) || deltas.contains(Msr::DELTA_DSR),
        );
        deltas.set(
            Msr::DELTA_DCD,
            changed.contains(Msr::DCD) || deltas.contains(Msr::DELTA_DCD),
        );
        // RI counts only when it ends.
        let ring_ended = before.difference(lines).contains(Msr::RI);
        deltas.set(
            Msr::TRAILING_EDGE_RI,
            ring_ended || deltas.contains(Msr::TRAILING_EDGE_RI),
        );
        self.msr = lines | deltas;
    }
}

/// A wide access is one byte access for each byte lane, lowest address first, as a bus of 8-bit peripherals makes of it.
/// Lanes past the last register read as zero and ignore what is written.
impl<Output: FnMut(u8)> Mmio for Uart<Output> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        (0..width.bytes() as u64).fold(0, |value, lane| {
            let byte = self.read_register(offset.saturating_add(lane));
            value | u64::from(byte) << (8 * lane)
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        for (lane, byte) in (0..width.bytes() as u64).zip(value.to_le_bytes()) {
            self.write_register(offset.saturating_add(lane), byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::register::*;
    use super::*;

    fn get<Output: FnMut(u8)>(uart: &mut Uart<Output>, offset: u64) -> u8 {
        uart.read(offset, Width::Byte) as u8
    }

    fn set<Output: FnMut(u8)>(uart: &mut Uart<Output>, offset: u64, value: u8) {
        uart.write(offset, Width::Byte, u64::from(value));
    }

    #[test]
    fn what_is_transmitted_comes_out_in_order() {
        let mut out = Vec::new();
        let mut uart = Uart::new(|byte| out.push(byte));
        for byte in *b"hello" {
            set(&mut uart, DATA, byte);
            assert_eq!(get(&mut uart, LSR), 0x60, "the transmitter is empty again");
        }
        drop(uart);
        assert_eq!(out, b"hello");
    }

    #[test]
    fn the_fifo_takes_sixteen_bytes_and_gives_them_back_in_order() {
        let mut uart = Uart::new(|_| {});
        set(&mut uart, FCR, 0x01);
        let taken = (0..20).filter(|&byte| uart.push_input(byte)).count();
        assert_eq!(taken, 16);
        for byte in 0..16 {
            assert_eq!(get(&mut uart, LSR), 0x61);
            assert_eq!(get(&mut uart, DATA), byte);
        }
        assert_eq!(get(&mut uart, LSR), 0x60);
        assert_eq!(get(&mut uart, DATA), 0);
    }

    #[test]
    fn without_the_fifo_one_byte_waits() {
        let mut uart = Uart::new(|_| {});
        assert!(uart.push_input(1));
        assert!(!uart.push_input(2));
        assert_eq!(get(&mut uart, DATA), 1);
        assert!(uart.push_input(2));
    }

    #[test]
    fn received_data_interrupts_from_the_trigger_level_on_and_times_out_below_it() {
        let levels = [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)];
        for (fcr, level) in levels {
            let mut uart = Uart::new(|_| {});
            set(&mut uart, FCR, fcr);
            set(&mut uart, IER, 0x01);
            assert_eq!(get(&mut uart, IIR), 0xc1);
            for count in 1..=16 {
                assert!(uart.push_input(0));
                let expected = if count >= level { 0xc4 } else { 0xcc };
                assert_eq!(get(&mut uart, IIR), expected, "fcr {fcr:#x} count {count}");
                assert!(uart.interrupt_pending());
            }
        }
    }

    #[test]
    fn nothing_interrupts_that_is_not_enabled() {
        let mut uart = Uart::new(|_| {});
        uart.push_input(1);
        set(&mut uart, DATA, 1);
        set(&mut uart, MCR, 0x1f);
        assert!(!uart.interrupt_pending());
        assert_eq!(get(&mut uart, IIR), 0x01);
    }

    #[test]
    fn enabling_the_transmitter_interrupt_raises_it_and_reading_iir_takes_it_back() {
        let mut uart = Uart::new(|_| {});
        set(&mut uart, IER, 0x02);
        assert!(uart.interrupt_pending());
        assert_eq!(get(&mut uart, IIR), 0x02);
        assert!(!uart.interrupt_pending());
        assert_eq!(get(&mut uart, IIR), 0x01);

        set(&mut uart, IER, 0x02);
        assert!(!uart.interrupt_pending(), "it was enabled already");
        set(&mut uart, IER, 0x00);
        set(&mut uart, IER, 0x02);
        assert_eq!(get(&mut uart, IIR), 0x02, "enabled anew");

        set(&mut uart, DATA, b'x');
        assert_eq!(get(&mut uart, IIR), 0x02, "empty again after a byte");
    }

    #[test]
    fn iir_reports_by_priority_and_only_the_reported_transmitter_interrupt_is_cleared() {
        let mut uart = Uart::new(|_| {});
        set(&mut uart, FCR, 0x01);
        set(&mut uart, MCR, 0x10);
        for _ in 0..17 {
            set(&mut uart, DATA, 7);
        }
        set(&mut uart, IER, 0x0f);
        assert_eq!(get(&mut uart, IIR), 0xc6, "line status: overrun");
        assert_eq!(get(&mut uart, LSR) & 0x02, 0x02);
        assert_eq!(get(&mut uart, LSR) & 0x02, 0, "reading LSR clears it");
        assert_eq!(get(&mut uart, IIR), 0xc4, "received data");
        set(&mut uart, FCR, 0x03);
        assert_eq!(get(&mut uart, IIR), 0xc2, "transmitter empty");
        assert_eq!(get(&mut uart, IIR), 0xc0, "modem status");
        get(&mut uart, MSR);
        assert_eq!(get(&mut uart, IIR), 0xc1, "none");
    }

    #[test]
    fn loopback_connects_transmitter_to_receiver_and_modem_control_to_modem_status() {
        let mut out = Vec::new();
        let mut uart = Uart::new(|byte| out.push(byte));
        set(&mut uart, MCR, 0x10);
        get(&mut uart, MSR);
        set(&mut uart, DATA, 0x5a);
        assert!(!uart.push_input(1), "the line is disconnected");
        assert_eq!(get(&mut uart, DATA), 0x5a);
        // MCR (DTR, RTS, OUT1, OUT2) to MSR (lines and deltas).
        let pairs = [
            (0x12, 0x11),
            (0x11, 0x23),
            (0x14, 0x42),
            (0x18, 0x8c),
            (0x1a, 0x91),
            (0x1f, 0xf2),
        ];
        for (mcr, msr) in pairs {
            set(&mut uart, MCR, mcr);
            assert_eq!(get(&mut uart, MSR), msr, "MCR {mcr:#x}");
        }
        assert_eq!(get(&mut uart, MSR), 0xf0, "reading MSR clears the deltas");
        set(&mut uart, MCR, 0);
        assert_eq!(get(&mut uart, MSR) & 0xf0, 0xb0);
        drop(uart);
        assert!(out.is_empty());
    }

    /// The questions a 8250-family driver asks to tell a 16550A from its relatives.
    #[test]
    fn a_probing_driver_sees_a_16550a() {
        let mut uart = Uart::new(|_| {});
        for (written, read) in [(0x00, 0x00), (0x0f, 0x0f), (0x40, 0x00), (0xff, 0x0f)] {
            set(&mut uart, IER, written);
            assert_eq!(get(&mut uart, IER), read);
        }
        set(&mut uart, IER, 0);
        assert_eq!(get(&mut uart, IIR), 0x01, "no FIFO yet");
        set(&mut uart, FCR, 0x01);
        assert_eq!(get(&mut uart, IIR) & 0xc0, 0xc0);
        // No 64-byte FIFO, with or without DLAB; no enhanced feature register behind LCR 0xbf.
        for lcr in [0x00, 0x80, 0xbf] {
            set(&mut uart, LCR, lcr);
            set(&mut uart, FCR, 0x21);
            assert_eq!(get(&mut uart, IIR), 0xc1);
        }
        set(&mut uart, LCR, 0x03);
        assert_eq!(get(&mut uart, LCR), 0x03);
    }

    #[test]
    fn the_divisor_hides_data_and_ier_while_dlab_is_set() {
        let mut uart = Uart::new(|_| panic!("nothing is transmitted"));
        set(&mut uart, IER, 0x05);
        set(&mut uart, LCR, 0x83);
        set(&mut uart, DATA, 0x34);
        set(&mut uart, IER, 0x12);
        assert_eq!(get(&mut uart, DATA), 0x34);
        assert_eq!(get(&mut uart, IER), 0x12);
        set(&mut uart, LCR, 0x03);
        assert_eq!(get(&mut uart, IER), 0x05);
    }

    #[test]
    fn a_wide_access_is_its_byte_lanes() {
        let mut uart = Uart::new(|_| {});
        uart.write(LCR, Width::Byte, 0x83);
        uart.write(DATA, Width::Half, 0xbeef);
        uart.write(SCR, Width::Byte, 0xa5);
        uart.write(MCR, Width::Byte, 0x03);
        assert_eq!(uart.read(DATA, Width::Half), 0xbeef);
        assert_eq!(uart.read(DATA, Width::Word), 0x8301_beef);
        assert_eq!(uart.read(DATA, Width::Double), 0xa5b0_6003_8301_beef);
    }

    #[test]
    fn what_lies_past_the_registers_reads_as_zero_and_ignores_writes() {
        let mut uart = Uart::new(|_| panic!("nothing is transmitted"));
        for width in Width::ALL {
            for offset in [8, 9, 0x100, u64::MAX] {
                uart.write(offset, width, u64::MAX);
                assert_eq!(uart.read(offset, width), 0, "{offset:#x} {width:?}");
            }
        }
        uart.write(SCR, Width::Double, u64::MAX);
        assert_eq!(uart.read(SCR, Width::Double), 0xff);
    }
}
