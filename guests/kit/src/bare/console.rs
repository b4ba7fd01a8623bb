//! `print!` and `println!` through SBI: the debug console where there is one, the legacy call
//! elsewhere.
//!
//! The one idea: text is gathered in a small buffer, so that one call carries one piece of a line.
//! Guests map their own memory one to one, so a pointer is a guest-physical address.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

use super::sbi;

const UNKNOWN: u8 = 0;
const LEGACY: u8 = 1;
const DEBUG_CONSOLE: u8 = 2;

static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Whether the firmware has the debug console extension.
pub fn has_debug_console() -> bool {
    if KIND.load(Ordering::Relaxed) == UNKNOWN {
        let kind = if sbi::has(sbi_spec::dbcn::EID_DBCN) {
            DEBUG_CONSOLE
        } else {
            LEGACY
        };
        KIND.store(kind, Ordering::Relaxed);
    }
    KIND.load(Ordering::Relaxed) == DEBUG_CONSOLE
}

struct Buffer {
    bytes: [u8; 128],
    len: usize,
}

impl Buffer {
    fn flush(&mut self) {
        let mut rest = &self.bytes[..self.len];
        if has_debug_console() {
            while !rest.is_empty() {
                let written = sbi::console_write(rest.len() as u64, rest.as_ptr() as u64);
                if written.error != 0 || written.value == 0 || written.value > rest.len() {
                    break;
                }
                rest = &rest[written.value..];
            }
        }
        for &byte in rest {
            sbi::legacy_putchar(byte);
        }
        self.len = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// What the macros call.
pub fn print(text: fmt::Arguments<'_>) {
    let mut buffer = Buffer {
        bytes: [0; 128],
        len: 0,
    };
    // Writing to the buffer cannot fail.
    let _ = buffer.write_fmt(text);
    buffer.flush();
}

/// Prints.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::print!("{}\n", format_args!($($text)*)) };
}
