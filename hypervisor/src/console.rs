//! The machine's console: what the hypervisor says, and what its guest's UART says, on one line discipline.
//!
//! The one idea: a message of the hypervisor always starts at the left edge, also when the guest is in the middle of a line.
//! It goes through the firmware: the debug console extension (DBCN) where there is one, the legacy calls on older firmware.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use sbi_rt::Physical;
use spin::Mutex;

static DEBUG_CONSOLE: AtomicBool = AtomicBool::new(false);
static CONSOLE: Mutex<Console> = Mutex::new(Console { column: 0 });

struct Console {
    column: usize,
}

/// Finds out what the firmware offers, and makes `log` write here.
pub fn initialize() {
    let offered = sbi_rt::probe_extension(sbi_rt::Console).is_available();
    DEBUG_CONSOLE.store(offered, Ordering::Relaxed);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Console {
    fn put(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.column = 0,
                _ => self.column += 1,
            }
        }
        let mut rest = bytes;
        while DEBUG_CONSOLE.load(Ordering::Relaxed) && !rest.is_empty() {
            // Physical and virtual addresses are the same: the host runs on an identity map.
            let written =
                sbi_rt::console_write(Physical::new(rest.len(), rest.as_ptr() as usize, 0));
            match written.into_result() {
                Ok(count) if count > 0 => rest = &rest[count.min(rest.len())..],
                _ => break,
            }
        }
        for &byte in rest {
            #[expect(deprecated, reason = "firmware of SBI 1.0 has no other console")]
            sbi_rt::legacy::console_putchar(byte.into());
        }
    }
}

/// Text with its line ends as a terminal wants them.
impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.put(line.as_bytes());
                    self.put(b"\r\n");
                }
                None => self.put(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Writes bytes as they are: a guest's output.
pub fn put_guest(bytes: &[u8]) {
    CONSOLE.lock().put(bytes);
}

/// A byte that somebody typed, if there is one.
pub fn get() -> Option<u8> {
    if DEBUG_CONSOLE.load(Ordering::Relaxed) {
        let mut byte = 0_u8;
        let read = sbi_rt::console_read(Physical::new(1, &raw mut byte as usize, 0));
        // SAFETY: `byte` is initialized; the firmware may have written it, which the compiler did not see.
        let byte = unsafe { core::ptr::read_volatile(&raw const byte) };
        return matches!(read.into_result(), Ok(1)).then_some(byte);
    }
    #[expect(deprecated, reason = "firmware of SBI 1.0 has no other console")]
    let byte = sbi_rt::legacy::console_getchar();
    u8::try_from(byte).ok()
}

fn message(console: &mut Console, arguments: fmt::Arguments<'_>) {
    if console.column != 0 {
        console.put(b"\r\n");
    }
    // `Console` never fails.
    let _ = writeln!(console, "hypervisor: {arguments}");
}

/// Says the last words of a hart that panics: the lock may be its own, so it is not waited for.
pub fn last_words(arguments: fmt::Arguments<'_>) {
    for _ in 0..1_000_000 {
        if let Some(mut console) = CONSOLE.try_lock() {
            return message(&mut console, arguments);
        }
        core::hint::spin_loop();
    }
    message(&mut Console { column: 1 }, arguments);
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            message(&mut CONSOLE.lock(), *record.args());
        }
    }

    fn flush(&self) {}
}
