//! The machine's console: what the hypervisor says, and what its guest's UART says, on one line discipline.
//!
//! The one idea: a message of the hypervisor always starts at the left edge, also when the guest is in the middle of a line.
//! It goes through the firmware: the debug console extension (DBCN) where there is one, the legacy calls on older firmware.
//!
//! Of the guests of a [`series`](crate::series) nothing is shown: only their first line is kept, for who judges them.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use sbi_rt::Physical;
use spin::Mutex;

static DEBUG_CONSOLE: AtomicBool = AtomicBool::new(false);
static CONSOLE: Mutex<Console> = Mutex::new(Console::new(0));

struct Console {
    column: usize,
    kept: Option<FirstLine>,
}

/// The first line of what a guest says, as far as there is room for it.
#[derive(Clone, Copy, Debug)]
pub struct FirstLine {
    bytes: [u8; 160],
    len: usize,
    complete: bool,
}

impl FirstLine {
    const EMPTY: Self = Self {
        bytes: [0; 160],
        len: 0,
        complete: false,
    };

    fn push(&mut self, bytes: &[u8]) {
        if self.complete {
            return;
        }
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or(bytes);
        self.complete = line.len() < bytes.len();
        let room = &mut self.bytes[self.len..];
        let taken = line.len().min(room.len());
        room[..taken].copy_from_slice(&line[..taken]);
        self.len += taken;
    }

    /// The line, if it came to its end.
    pub fn text(&self) -> Option<&str> {
        let text = core::str::from_utf8(&self.bytes[..self.len]).ok()?;
        self.complete.then_some(text.trim_end())
    }
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
    const fn new(column: usize) -> Self {
        Self { column, kept: None }
    }

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
    let mut console = CONSOLE.lock();
    match &mut console.kept {
        Some(line) => line.push(bytes),
        None => console.put(bytes),
    }
}

/// From here on keeps a guest's first line, and shows nothing.
pub fn keep_first_line() {
    CONSOLE.lock().kept = Some(FirstLine::EMPTY);
}

/// The first line of the guest since [`keep_first_line`], if that is known and nobody is at the console just now.
pub fn first_line() -> Option<FirstLine> {
    CONSOLE.try_lock()?.kept
}

/// Shows one character of progress.
pub fn dot() {
    CONSOLE.lock().put(b".");
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

/// Says something that no level of `log` keeps back.
pub fn say(arguments: fmt::Arguments<'_>) {
    message(&mut CONSOLE.lock(), arguments);
}

/// Says the last words of a hart that panics: the lock may be its own, so it is not waited for.
pub fn last_words(arguments: fmt::Arguments<'_>) {
    for _ in 0..1_000_000 {
        if let Some(mut console) = CONSOLE.try_lock() {
            return message(&mut console, arguments);
        }
        core::hint::spin_loop();
    }
    message(&mut Console::new(1), arguments);
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
