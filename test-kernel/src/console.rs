//! The console: what the test command reads. SBI's first putchar call is there on every firmware, however old.

use core::fmt::{self, Write};

/// Text goes out by this function, byte by byte.
struct Console(fn(u8));

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(self.0);
        Ok(())
    }
}

/// Prints formatted text.
pub fn write(text: fmt::Arguments<'_>) {
    write_to(
        |byte| {
            #[expect(deprecated, reason = "SBI 1.0 firmware has no debug console")]
            sbi_rt::legacy::console_putchar(usize::from(byte));
        },
        text,
    );
}

/// Prints formatted text by a function that prints a byte.
pub fn write_to(print: fn(u8), text: fmt::Arguments<'_>) {
    // The console never fails; a `Display` that does has nowhere to tell it.
    let _ = Console(print).write_fmt(text);
}

/// Prints without an end of line.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::write(format_args!($($text)*)) };
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)+) => { $crate::console::write(format_args!("{}\n", format_args!($($text)+))) };
}

pub use crate::{print, println};
