//! What is in memory that nobody has written yet.

use core::fmt;
use core::ops::Range;

use crate::found::{Finding, Place};
use crate::layout::{Layout, PAGE};
use crate::random::Random;
use crate::stamp;

/// Some page that this program has no content in.
pub fn untouched(layout: &Layout, random: &mut Random) -> u64 {
    let below_image = (0x8020_0000 - layout.ram.start) / PAGE;
    let page = random.below(below_image + (layout.free.end - layout.tables.start) / PAGE);
    if page < below_image {
        layout.ram.start + page * PAGE
    } else {
        layout.tables.start + (page - below_image) * PAGE
    }
}

/// Looks for anything but zeroes: in pages that are read first, and in pages of which one word is written first, so that they
/// have to be real.
pub fn look(layout: &Layout, random: &mut Random) -> Result<(), Finding> {
    for round in 0..18 {
        let page = untouched(layout, random);
        if round % 3 != 0 {
            let word = (page + 8 * random.below(512)) as *mut u64;
            // SAFETY: memory that this program does not use.
            unsafe { word.write_volatile(0) };
        }
        for address in (page..page + PAGE).step_by(8) {
            // SAFETY: as above.
            let value = unsafe { (address as *const u64).read_volatile() };
            if value != 0 {
                let place = Place::Memory(address);
                return Err(Finding { place, value });
            }
        }
    }
    Ok(())
}

/// Stamps some pages.
pub fn stamp(layout: &Layout, seed: u64, random: &mut Random) {
    for _ in 0..16 {
        let page = untouched(layout, random);
        for address in (page..page + PAGE).step_by(8) {
            // SAFETY: memory that this program does not use yet.
            unsafe { (address as *mut u64).write_volatile(stamp::of(seed)) };
        }
    }
}

/// Text in memory that this program has no other use for.
pub struct Text {
    place: Range<u64>,
    len: u64,
}

impl Text {
    /// No text yet, in this place.
    pub const fn new(place: Range<u64>) -> Self {
        Self { place, len: 0 }
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            let at = self.place.start + self.len;
            if at >= self.place.end {
                return Err(fmt::Error);
            }
            // SAFETY: memory that this program does not use otherwise.
            unsafe { (at as *mut u8).write_volatile(byte) };
            self.len += 1;
        }
        Ok(())
    }
}
