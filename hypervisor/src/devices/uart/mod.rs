//! An emulated 16550A serial port: eight byte-wide registers in a row, as `ns16550a` with `reg-shift` 0.
//!
//! The one idea: the line is infinitely fast. A byte written to the transmitter has left before the store retires, so the
//! transmitter is always empty, and what remains of it is the *latch* that says "it became empty and nobody has asked yet".
//! Register and bit names are those of the data sheet (TL16C550C).

pub mod registers;

use alloc::collections::VecDeque;

use guest_mem::Width;

use super::Mmio;
use registers::{Fcr, IIR_FIFOS_ENABLED, Ier, Interrupt, Lcr, Lsr, Mcr, Msr, offset as register};

/// Bytes of guest-physical address space that the registers take.
pub const WINDOW: u64 = 8;

/// Bytes that the receiver holds while its FIFO is on.
const FIFO_DEPTH: usize = 16;

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

    /// Takes the oldest byte that arrived on the line and was not read: for firmware, which reads the same port as the driver.
    /// What loops back never was on the line.
    pub fn take_input(&mut self) -> Option<u8> {
        if self.mcr.contains(Mcr::LOOP) {
            return None;
        }
        self.received.pop_front()
    }

    /// Whether the receiver holds a byte.
    pub fn holds_input(&self) -> bool {
        !self.received.is_empty()
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
mod tests;
