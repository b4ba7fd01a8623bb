//! The serial port and the interrupt controller, by every load and store of RV64.
//!
//! The one idea: the hypervisor answers these accesses by decoding the instruction that trapped, so
//! each form (width, sign, compressed, registers) must put the right bytes into the right register.
//! The divisor latch and the scratch register hold known bytes for it. While the divisor latch is
//! open nothing is printed: firmware may be using the same port.
//!
//! A wide access to byte-wide registers means one of two things: each byte lane its own register (a
//! bus of 8-bit parts, the hypervisor), or one register, zero-extended (QEMU). Both are accepted, a
//! mixture is not.

use core::arch::asm;

use guest_kit::trap::{catch, cause, interrupt, taken};
use guest_kit::{csr_set, wait_until};

use crate::report::Report;

const UART: u64 = 0x1000_0000;
const IER: u64 = 1;
const IIR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const SCR: u64 = 7;

const DLAB: u8 = 0x80;
const IER_THRE: u8 = 0x02;
const IIR_THRE: u8 = 0x02;
const MCR_LOOP: u8 = 0x10;

/// `sstatus.FS` = Initial.
const FLOATING_POINT_ON: u64 = 1 << 13;

const PLIC: u64 = 0x0c00_0000;
const UART_SOURCE: u64 = 10;

/// A Goldfish clock, and its registers.
const RTC: u64 = 0x0010_1000;
const RTC_SOURCE: u64 = 11;
const RTC_TIME_LOW: u64 = 0x00;
const RTC_TIME_HIGH: u64 = 0x04;
const RTC_ALARM_LOW: u64 = 0x08;
const RTC_ALARM_HIGH: u64 = 0x0c;
const RTC_IRQ_ENABLED: u64 = 0x10;
const RTC_CLEAR_INTERRUPT: u64 = 0x1c;
/// Where no device is.
const NOWHERE: u64 = 0x0d00_0000;
/// 2024-01-01, in nanoseconds since 1970.
const RTC_2024: u64 = 1_704_067_200_000_000_000;

fn get(register: u64) -> u8 {
    // SAFETY: a load from a device register.
    unsafe { ((UART + register) as *const u8).read_volatile() }
}

fn set(register: u64, value: u8) {
    // SAFETY: a store to a device register.
    unsafe { ((UART + register) as *mut u8).write_volatile(value) };
}

/// One load of the UART by the instruction named, with the address in a0 (or sp) and the result in
/// a1.
macro_rules! load {
    ($option:literal, $instruction:literal) => {{
        let value: u64;
        // SAFETY: a load from a device register; sp is back before anything else runs.
        unsafe {
            asm!(
                "mv t6, sp",
                "mv sp, a0",
                ".option push",
                concat!(".option ", $option),
                $instruction,
                ".option pop",
                "mv sp, t6",
                in("a0") UART, out("a1") value, out("t6") _,
            );
        }
        value
    }};
}

/// One store of a1 to the UART by the instruction named, with the address in a0 (or sp).
macro_rules! store {
    ($option:literal, $instruction:literal, $value:expr) => {
        // SAFETY: a store to device registers that hold what is written; sp is back before anything
        // else runs.
        unsafe {
            asm!(
                "mv t6, sp",
                "mv sp, a0",
                ".option push",
                concat!(".option ", $option),
                $instruction,
                ".option pop",
                "mv sp, t6",
                in("a0") UART, in("a1") $value, out("t6") _,
            );
        }
    };
}

/// How wide accesses behave: the registers as bytes, and whether each lane is its own.
struct Registers {
    bytes: [u8; 8],
    lanes: bool,
}

impl Registers {
    fn read() -> Self {
        let bytes = core::array::from_fn(|register| get(register as u64));
        let word = load!("norvc", "lwu a1, 0(a0)");
        let joined = u64::from_le_bytes(bytes) & 0xffff_ffff;
        Self {
            bytes,
            lanes: word == joined,
        }
    }

    /// What a load of `width` bytes must give.
    fn expected(&self, width: u32, signed: bool) -> u64 {
        let all = if self.lanes {
            u64::from_le_bytes(self.bytes)
        } else {
            self.bytes[0].into()
        };
        let shift = 64 - 8 * width;
        if signed {
            ((all << shift) as i64 >> shift) as u64
        } else {
            all << shift >> shift
        }
    }
}

fn loads(report: &mut Report<'_>) {
    let zcb = report.machine.has("zcb");
    let line_control = get(LCR);
    set(LCR, DLAB | 3);
    let divisor = [get(0), get(1)];
    set(0, 0xa5);
    set(1, 0xc3);
    set(SCR, 0x96);
    let registers = Registers::read();
    let plain = [
        ("lb", 1, true, load!("norvc", "lb a1, 0(a0)")),
        ("lbu", 1, false, load!("norvc", "lbu a1, 0(a0)")),
        ("lh", 2, true, load!("norvc", "lh a1, 0(a0)")),
        ("lhu", 2, false, load!("norvc", "lhu a1, 0(a0)")),
        ("lw", 4, true, load!("norvc", "lw a1, 0(a0)")),
        ("lwu", 4, false, load!("norvc", "lwu a1, 0(a0)")),
        ("ld", 8, false, load!("norvc", "ld a1, 0(a0)")),
        ("c.lw", 4, true, load!("rvc", "c.lw a1, 0(a0)")),
        ("c.ld", 8, false, load!("rvc", "c.ld a1, 0(a0)")),
        ("c.lwsp", 4, true, load!("rvc", "c.lwsp a1, 0(sp)")),
        ("c.ldsp", 8, false, load!("rvc", "c.ldsp a1, 0(sp)")),
    ];
    let compact = zcb.then(|| {
        [
            ("c.lbu", 1, false, load!("arch, +zcb", "c.lbu a1, 0(a0)")),
            ("c.lhu", 2, false, load!("arch, +zcb", "c.lhu a1, 0(a0)")),
            ("c.lh", 2, true, load!("arch, +zcb", "c.lh a1, 0(a0)")),
        ]
    });
    let discarded: u64;
    // SAFETY: a load whose result goes nowhere.
    unsafe { asm!("lw x0, 0({})", "mv {}, x0", in(reg) UART, out(reg) discarded) };
    set(0, divisor[0]);
    set(1, divisor[1]);
    set(LCR, line_control);

    let compact = compact.iter().flatten().copied();
    for (name, width, signed, value) in plain.into_iter().chain(compact) {
        let expected = registers.expected(width, signed);
        let facts = format_args!("{name:6} gives {value:#x}");
        report.step(
            "a load from the serial port is answered",
            value == expected,
            facts,
        );
    }
    report.step(
        "a load into x0",
        discarded == 0,
        format_args!("x0 stays {discarded}"),
    );
    if !zcb {
        report.skip("loads of Zcb", "the ISA string does not list it");
    }
    let meaning = if registers.lanes {
        "a byte lane for each register"
    } else {
        "one register, zero-extended"
    };
    report.step(
        "a byte load finds what a byte store left",
        registers.bytes[0] == 0xa5 && registers.bytes[7] == 0x96,
        format_args!("wide accesses mean {meaning}"),
    );
}

fn stores(report: &mut Report<'_>) {
    let zcb = report.machine.has("zcb");
    let line_control = get(LCR);
    let modem_control = get(MCR);
    set(LCR, DLAB | 3);
    let divisor = [get(0), get(1)];
    let lanes = Registers::read().lanes;
    let mut seen = [("", false); 12];
    let mut len = 0;
    let mut check = |name, width: usize, value: u64| {
        let bytes = value.to_le_bytes();
        let right = get(0) == bytes[0]
            && (!lanes || width < 2 || get(1) == bytes[1])
            && (!lanes || width < 8 || get(SCR) == bytes[7]);
        seen[len] = (name, right);
        len += 1;
        set(0, 0);
        set(1, 0);
        set(SCR, 0);
    };
    // As registers: DLL, DLM, FCR (FIFO on), LCR (latch open), MCR, LSR, MSR, SCR.
    let value = |tag: u64| (tag ^ 0xff) << 56 | 0x83_01_00_00 | (tag + 1) << 8 | tag;
    store!("norvc", "sb a1, 0(a0)", value(0x21));
    check("sb", 1, value(0x21));
    store!("norvc", "sh a1, 0(a0)", value(0x32));
    check("sh", 2, value(0x32));
    store!("norvc", "sw a1, 0(a0)", value(0x43));
    check("sw", 4, value(0x43));
    store!("norvc", "sd a1, 0(a0)", value(0x54));
    check("sd", 8, value(0x54));
    store!("rvc", "c.sw a1, 0(a0)", value(0x65));
    check("c.sw", 4, value(0x65));
    store!("rvc", "c.sd a1, 0(a0)", value(0x76));
    check("c.sd", 8, value(0x76));
    store!("rvc", "c.swsp a1, 0(sp)", value(0x87));
    check("c.swsp", 4, value(0x87));
    store!("rvc", "c.sdsp a1, 0(sp)", value(0x98));
    check("c.sdsp", 8, value(0x98));
    if zcb {
        store!("arch, +zcb", "c.sb a1, 0(a0)", value(0xa9));
        check("c.sb", 1, value(0xa9));
        store!("arch, +zcb", "c.sh a1, 0(a0)", value(0xba));
        check("c.sh", 2, value(0xba));
    }
    // SAFETY: a store to a device register.
    unsafe { asm!("sb x0, 0({})", in(reg) UART) };
    check("sb x0", 1, 0);
    set(MCR, modem_control);
    set(0, divisor[0]);
    set(1, divisor[1]);
    set(LCR, line_control);

    for (name, right) in &seen[..len] {
        report.step(
            "a store to the serial port arrives",
            *right,
            format_args!("{name}"),
        );
    }
    if !zcb {
        report.skip("stores of Zcb", "the ISA string does not list it");
    }
}

/// What the transmitter sends in loopback mode comes back, and interrupts by way of the interrupt
/// controller.
fn interrupts(report: &mut Report<'_>, hart: u64) {
    let modem_control = get(MCR);
    set(MCR, MCR_LOOP);
    set(0, b'L');
    let back = get(0);
    set(MCR, modem_control);
    report.step(
        "the serial port loops back",
        back == b'L',
        format_args!("{:?}", char::from(back)),
    );

    // Each hart's M-mode has a context before that of its S-mode.
    let context = 2 * hart + 1;
    let word = |offset: u64| (PLIC + offset) as *mut u32;
    let priority = word(4 * UART_SOURCE);
    let enable = word(0x2000 + 0x80 * context);
    let threshold = word(0x20_0000 + 0x1000 * context);
    let claim = word(0x20_0004 + 0x1000 * context);
    let before = taken(interrupt::EXTERNAL);
    // SAFETY: stores to device registers, and CSR bits that only decide whether interrupts come.
    unsafe {
        priority.write_volatile(1);
        enable.write_volatile(1 << UART_SOURCE);
        threshold.write_volatile(0);
        csr_set!("sie", 1u64 << interrupt::EXTERNAL);
        csr_set!("sstatus", 2u64);
    }
    set(IER, 0);
    set(IER, IER_THRE);
    let ticks = report.machine.timebase_frequency;
    let came = wait_until(ticks, || taken(interrupt::EXTERNAL) > before);
    // SAFETY: loads and stores of device registers; claim and complete are each one access.
    let (source, reason, again) = unsafe {
        let source = claim.read_volatile();
        let reason = get(IIR) & 0x0f;
        set(IER, 0);
        claim.write_volatile(source);
        let again = claim.read_volatile();
        enable.write_volatile(0);
        (source, reason, again)
    };
    report.step(
        "its interrupt comes through the interrupt controller",
        came && u64::from(source) == UART_SOURCE && reason == IIR_THRE && again == 0,
        format_args!("claimed {source}, reason {reason:#x}, then {again}"),
    );
}

fn get_clock(register: u64) -> u64 {
    // SAFETY: a load from a device register.
    u64::from(unsafe { ((RTC + register) as *const u32).read_volatile() })
}

fn set_clock(register: u64, value: u64) {
    // SAFETY: a store to a device register.
    unsafe { ((RTC + register) as *mut u32).write_volatile(value as u32) };
}

fn time_of_day() -> u64 {
    let low = get_clock(RTC_TIME_LOW);
    get_clock(RTC_TIME_HIGH) << 32 | low
}

/// The clock's alarm as a hart's interrupt.
struct Alarm {
    enable: *mut u32,
    claim: *mut u32,
}

impl Alarm {
    /// Routes it to this hart, and lets it come.
    fn new(hart: u64) -> Self {
        let context = 2 * hart + 1;
        let word = |offset: u64| (PLIC + offset) as *mut u32;
        let enable = word(0x2000 + 0x80 * context);
        // SAFETY: stores to device registers, and a CSR bit that only decides whether interrupts
        // come.
        unsafe {
            word(4 * RTC_SOURCE).write_volatile(1);
            enable.write_volatile(1 << RTC_SOURCE);
            word(0x20_0000 + 0x1000 * context).write_volatile(0);
            csr_set!("sstatus", 2u64);
        }
        Self {
            enable,
            claim: word(0x20_0004 + 0x1000 * context),
        }
    }

    /// Sets it to go off in so many nanoseconds; gives when that is.
    fn set(&self, nanoseconds: u64) -> u64 {
        // SAFETY: only decides whether interrupts come. The handler clears it.
        unsafe { csr_set!("sie", 1u64 << interrupt::EXTERNAL) };
        let due = time_of_day() + nanoseconds;
        set_clock(RTC_IRQ_ENABLED, 1);
        set_clock(RTC_ALARM_HIGH, due >> 32);
        set_clock(RTC_ALARM_LOW, due);
        due
    }

    /// Ends its interrupt, and gives the source that has interrupted.
    fn end(&self) -> u32 {
        // SAFETY: loads and stores of device registers; claim and complete are each one access.
        unsafe {
            let source = self.claim.read_volatile();
            set_clock(RTC_IRQ_ENABLED, 0);
            set_clock(RTC_CLEAR_INTERRUPT, 1);
            self.claim.write_volatile(source);
            source
        }
    }

    /// Lets it interrupt this hart no more.
    fn turn_off(self) {
        // SAFETY: a store to a device register.
        unsafe { self.enable.write_volatile(0) };
    }
}

/// The real-time clock goes on as `time` does, and its alarm interrupts.
fn clock(report: &mut Report<'_>, hart: u64) {
    let ticks = report.machine.timebase_frequency;
    let before = time_of_day();
    wait_until(ticks / 50, || false);
    let passed = (time_of_day() - before) / 1_000_000;
    report.step(
        "the real-time clock goes on, from the time of day",
        before > RTC_2024 && (20..20_000).contains(&passed),
        format_args!("{} s since 1970, {passed} ms in 20", before / 1_000_000_000),
    );

    let taken_before = taken(interrupt::EXTERNAL);
    let alarm = Alarm::new(hart);
    let due = alarm.set(5_000_000);
    let came = wait_until(10 * ticks, || taken(interrupt::EXTERNAL) > taken_before);
    let late = time_of_day().wrapping_sub(due);
    let source = alarm.end();
    report.step(
        "its alarm interrupts when it is due",
        came && u64::from(source) == RTC_SOURCE && late < 1 << 63,
        format_args!("claimed {source}, {} ms late", late / 1_000_000),
    );
    r88_an_access_to_nothing_takes_no_interrupt_away(report, &alarm);
    alarm.turn_off();
}

/// An alarm goes off while this hart makes an access that nobody answers: the hypervisor looks at
/// the clock for that access, and has to tell of the interrupt although the access fails.
fn r88_an_access_to_nothing_takes_no_interrupt_away(report: &mut Report<'_>, alarm: &Alarm) {
    const ROUNDS: u32 = 16;
    let millisecond = report.machine.timebase_frequency / 1000;
    let (mut refused, mut came) = (0, 0);
    for round in 0..ROUNDS {
        let taken_before = taken(interrupt::EXTERNAL);
        alarm.set(1_000_000);
        // Nothing here leaves the guest until the alarm is due.
        wait_until(millisecond + millisecond / 8, || false);
        // SAFETY: the accesses trap and are stepped over.
        let trap = unsafe {
            match round % 2 {
                0 => catch(|| asm!("ld {}, 0({})", out(reg) _, in(reg) NOWHERE)).1,
                _ => catch(|| asm!("sd zero, 0({})", in(reg) NOWHERE)).1,
            }
        };
        refused += u32::from(trap.is_some());
        let is_here = || taken(interrupt::EXTERNAL) > taken_before;
        came += u32::from(wait_until(100 * millisecond, is_here));
        alarm.end();
    }
    report.step(
        "an alarm that goes off beside an access to nothing interrupts",
        came == ROUNDS && (refused == ROUNDS || !report.machine.under_hypervisor),
        format_args!("{came} of {ROUNDS}, {refused} accesses refused"),
    );
}

/// Accesses that no register of a device can answer one by one: the hypervisor refuses them.
fn refused(report: &mut Report<'_>) {
    if !report.machine.under_hypervisor {
        report.skip("an atomic or floating-point access", "the bus takes them");
        return;
    }
    let word = UART + MCR;
    // SAFETY: the accesses trap and are stepped over; floating point is on for the one that needs
    // it.
    let (atomic, floating_point) = unsafe {
        csr_set!("sstatus", FLOATING_POINT_ON);
        (
            catch(|| asm!("amoadd.w zero, zero, ({})", in(reg) word)).1,
            catch(|| asm!("flw ft0, 0({})", in(reg) word, out("ft0") _)).1,
        )
    };
    for (claim, trap, cause) in [
        (
            "an atomic add to the serial port is refused",
            atomic,
            cause::STORE_ACCESS,
        ),
        (
            "a floating-point load is, too",
            floating_point,
            cause::LOAD_ACCESS,
        ),
    ] {
        match trap {
            Some(trap) => {
                let right = trap.cause == cause && trap.value == word;
                report.step(claim, right, format_args!("{trap}"));
            }
            None => report.step(claim, false, format_args!("no trap")),
        }
    }
}

/// The chapter.
pub fn visit(report: &mut Report<'_>, hart: u64) {
    report.chapter("Devices: emulated from the trapped instruction");
    loads(report);
    stores(report);
    interrupts(report, hart);
    clock(report, hart);
    refused(report);
}
