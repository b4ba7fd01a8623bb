//! What a driver sees of the serial port.

use alloc::vec::Vec;

use super::registers::offset::*;
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
