//! Text of bounded length, for reasons that are kept until a test ends.

use core::fmt::{self, Write};

/// Up to 240 bytes of text; what does not fit is cut off.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; 240],
    len: usize,
}

impl Text {
    /// No text.
    pub const fn new() -> Self {
        Self {
            bytes: [0; 240],
            len: 0,
        }
    }

    /// The formatted text.
    pub fn format(text: fmt::Arguments<'_>) -> Self {
        let mut all = Self::new();
        // Cutting off is no error worth reporting.
        let _ = all.write_fmt(text);
        all
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or("text that is not UTF-8")
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let mut fits = text.len().min(room);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}
