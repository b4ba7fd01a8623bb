//! An emulated Goldfish real-time clock: the time of day in nanoseconds since 1970, and one alarm.
//!
//! The one idea: the device does not run by itself. It is told what time it is before each access and on each tick, and its
//! alarm goes off then. Registers: "Goldfish RTC" in the Android emulator's `GOLDFISH-VIRTUAL-HARDWARE.TXT`.

use guest_mem::Width;

use super::Mmio;

/// Bytes of guest-physical address space.
pub const WINDOW: u64 = 0x1000;

/// Offsets of the registers, 32 bits each.
pub mod register {
    /// The low half of the time. Reading it keeps the high half for the next read.
    pub const TIME_LOW: u64 = 0x00;
    /// The high half of the time at the last read of the low half.
    pub const TIME_HIGH: u64 = 0x04;
    /// The low half of the alarm's time. Writing it sets the alarm.
    pub const ALARM_LOW: u64 = 0x08;
    /// The high half of the alarm's time. Written before the low half.
    pub const ALARM_HIGH: u64 = 0x0c;
    /// Whether the alarm interrupts.
    pub const IRQ_ENABLED: u64 = 0x10;
    /// A write takes the alarm back.
    pub const CLEAR_ALARM: u64 = 0x14;
    /// Whether an alarm is set and has not gone off.
    pub const ALARM_STATUS: u64 = 0x18;
    /// A write ends the interrupt.
    pub const CLEAR_INTERRUPT: u64 = 0x1c;
}

/// The clock. Times are in nanoseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Default)]
pub struct Rtc {
    /// The host's time.
    host: u64,
    /// What the guest has set the clock forward by.
    ahead: u64,
    time_high: u32,
    alarm: u64,
    alarm_is_set: bool,
    interrupt_enabled: bool,
    interrupt_pending: bool,
}

impl Rtc {
    /// A clock without an alarm.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells it the host's time. The alarm goes off if it is due.
    pub fn set_host_time(&mut self, nanoseconds: u64) {
        self.host = nanoseconds;
        if self.alarm_is_set && self.alarm <= self.time() {
            self.alarm_is_set = false;
            self.interrupt_pending = true;
        }
    }

    /// Whether it has to be told the time although nobody accesses it.
    pub fn has_alarm(&self) -> bool {
        self.alarm_is_set
    }

    /// Whether the interrupt line is asserted.
    pub fn interrupt_pending(&self) -> bool {
        self.interrupt_enabled && self.interrupt_pending
    }

    fn time(&self) -> u64 {
        self.host.wrapping_add(self.ahead)
    }

    fn set_time(&mut self, time: u64) {
        self.ahead = time.wrapping_sub(self.host);
    }
}

/// `value` with one half replaced.
fn with_half(value: u64, half: u32, shift: u32) -> u64 {
    value & !(u64::from(u32::MAX) << shift) | u64::from(half) << shift
}

/// Only aligned 32-bit accesses reach a register; others read as zero and are ignored.
impl Mmio for Rtc {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        if width != Width::Word {
            return 0;
        }
        let value = match offset {
            register::TIME_LOW => {
                self.time_high = (self.time() >> 32) as u32;
                self.time() as u32
            }
            register::TIME_HIGH => self.time_high,
            register::ALARM_LOW => self.alarm as u32,
            register::ALARM_HIGH => (self.alarm >> 32) as u32,
            register::IRQ_ENABLED => self.interrupt_enabled.into(),
            register::ALARM_STATUS => self.alarm_is_set.into(),
            _ => 0,
        };
        u64::from(value)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        if width != Width::Word {
            return;
        }
        let half = value as u32;
        match offset {
            register::TIME_LOW => self.set_time(with_half(self.time(), half, 0)),
            register::TIME_HIGH => self.set_time(with_half(self.time(), half, 32)),
            register::ALARM_LOW => {
                self.alarm = with_half(self.alarm, half, 0);
                self.alarm_is_set = true;
                self.set_host_time(self.host);
            }
            register::ALARM_HIGH => self.alarm = with_half(self.alarm, half, 32),
            register::IRQ_ENABLED => self.interrupt_enabled = half & 1 != 0,
            register::CLEAR_ALARM => self.alarm_is_set = false,
            register::CLEAR_INTERRUPT => self.interrupt_pending = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::register::*;
    use super::*;

    /// 2026-11-30 in nanoseconds; both halves are used.
    const NOW: u64 = 0x18bc_d3e1_f000_0001;

    fn get(rtc: &mut Rtc, offset: u64) -> u64 {
        rtc.read(offset, Width::Word)
    }

    fn set(rtc: &mut Rtc, offset: u64, value: u64) {
        rtc.write(offset, Width::Word, value);
    }

    fn clock() -> Rtc {
        let mut rtc = Rtc::new();
        rtc.set_host_time(NOW);
        rtc
    }

    fn set_alarm(rtc: &mut Rtc, time: u64) {
        set(rtc, ALARM_HIGH, time >> 32);
        set(rtc, ALARM_LOW, time & 0xffff_ffff);
    }

    #[test]
    fn the_two_halves_of_the_time_belong_together() {
        let mut rtc = clock();
        rtc.set_host_time(0x1_ffff_ffff);
        assert_eq!(get(&mut rtc, TIME_LOW), 0xffff_ffff);
        rtc.set_host_time(0x2_0000_0000);
        assert_eq!(get(&mut rtc, TIME_HIGH), 1, "of the read of the low half");
        assert_eq!(get(&mut rtc, TIME_LOW), 0);
        assert_eq!(get(&mut rtc, TIME_HIGH), 2);
    }

    #[test]
    fn a_clock_that_the_guest_sets_goes_on_from_there() {
        let mut rtc = clock();
        for time in [0x7_1234_5678_u64, 5] {
            set(&mut rtc, TIME_HIGH, time >> 32);
            set(&mut rtc, TIME_LOW, time & 0xffff_ffff);
            rtc.set_host_time(rtc.host + 1000);
            assert_eq!(get(&mut rtc, TIME_LOW), (time & 0xffff_ffff) + 1000);
            assert_eq!(get(&mut rtc, TIME_HIGH), time >> 32);
        }
    }

    #[test]
    fn an_alarm_interrupts_once_when_it_is_due() {
        let mut rtc = clock();
        set(&mut rtc, IRQ_ENABLED, 1);
        set_alarm(&mut rtc, NOW + 500);
        assert_eq!((get(&mut rtc, ALARM_STATUS), rtc.has_alarm()), (1, true));
        rtc.set_host_time(NOW + 499);
        assert!(!rtc.interrupt_pending());
        rtc.set_host_time(NOW + 500);
        assert!(rtc.interrupt_pending());
        assert_eq!((get(&mut rtc, ALARM_STATUS), rtc.has_alarm()), (0, false));
        set(&mut rtc, CLEAR_INTERRUPT, 1);
        rtc.set_host_time(NOW + 1000);
        assert!(!rtc.interrupt_pending());
    }

    #[test]
    fn an_alarm_in_the_past_goes_off_at_once_and_one_taken_back_never() {
        let mut rtc = clock();
        set_alarm(&mut rtc, NOW - 1);
        assert!(!rtc.interrupt_pending(), "it is not enabled");
        set(&mut rtc, IRQ_ENABLED, 1);
        assert!(rtc.interrupt_pending(), "it has gone off");
        set(&mut rtc, CLEAR_INTERRUPT, 0);
        set_alarm(&mut rtc, NOW + 1);
        set(&mut rtc, CLEAR_ALARM, 0);
        rtc.set_host_time(NOW + 2);
        assert!(!rtc.interrupt_pending());
    }

    #[test]
    fn other_widths_and_places_reach_nothing() {
        let mut rtc = clock();
        for (offset, width) in [
            (TIME_LOW, Width::Byte),
            (TIME_LOW, Width::Double),
            (TIME_LOW + 2, Width::Word),
            (0x20, Width::Word),
            (WINDOW - 4, Width::Word),
        ] {
            rtc.write(offset, width, 7);
            assert_eq!(rtc.read(offset, width), 0, "{offset:#x}");
        }
        assert_eq!(get(&mut rtc, TIME_LOW), NOW & 0xffff_ffff);
    }
}
