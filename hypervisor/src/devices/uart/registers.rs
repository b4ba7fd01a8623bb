//! The registers of a 16550A: offsets and bits, by the names of its data sheet.

use bitflags::bitflags;

/// Register offsets. Two registers share an offset where one is only read and the other only written, or by `LCR.DLAB`.
pub mod offset {
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
    pub(super) struct Ier: u8 {
        const RECEIVED_DATA = 1 << 0;
        const TRANSMITTER_EMPTY = 1 << 1;
        const LINE_STATUS = 1 << 2;
        const MODEM_STATUS = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RECEIVER = 1 << 1;
        const TRIGGER = 0b11 << 6;
    }

    /// Line control register; what is not named here has no effect on a line without noise.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Lcr: u8 {
        const DIVISOR_LATCH_ACCESS = 1 << 7;
        const _ = !0;
    }

    /// Modem control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Lsr: u8 {
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const TRANSMITTER_HOLDING_EMPTY = 1 << 5;
        const TRANSMITTER_EMPTY = 1 << 6;
    }

    /// Modem status register: the lines in the high half, "changed since last read" in the low half.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Msr: u8 {
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
pub(super) const IIR_FIFOS_ENABLED: u8 = 0xc0;

/// What IIR reports, highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Interrupt {
    LineStatus = 0b0110,
    ReceivedData = 0b0100,
    /// Fewer bytes than the trigger level wait. Time passes between any two loads of a guest, so it is due at once.
    CharacterTimeout = 0b1100,
    TransmitterEmpty = 0b0010,
    ModemStatus = 0b0000,
    None = 0b0001,
}
