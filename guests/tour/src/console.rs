//! Text in guest-physical buffers: the SBI debug console reads them, the legacy console needs none.

use core::cell::UnsafeCell;

use guest_kit::{console, print, sbi};

use crate::report::Report;

const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Pages(UnsafeCell<[u8; 3 * PAGE]>);

// SAFETY: only the boot hart uses them, one reference at a time.
unsafe impl Sync for Pages {}

static PAGES: Pages = Pages(UnsafeCell::new([0; 3 * PAGE]));

/// Writes `len` bytes at `physical` in as many calls as it takes; `None` if a call fails or makes no progress.
fn write_all(len: usize, physical: u64) -> Option<usize> {
    let mut done = 0;
    let mut calls = 0;
    while done < len {
        let answer = sbi::console_write((len - done) as u64, physical + done as u64);
        if answer.error != 0 || answer.value == 0 || answer.value > len - done {
            return None;
        }
        done += answer.value;
        calls += 1;
    }
    Some(calls)
}

/// The chapter.
pub fn visit(report: &mut Report<'_>) {
    report.chapter("Console: buffers at guest-physical addresses");
    let base = PAGES.0.get() as u64;
    if console::has_debug_console() {
        let line = b"        this line lies across a page boundary\n";
        let start = PAGE - 21;
        // SAFETY: the buffer is ours, no other reference to it lives.
        let pages = unsafe { &mut *PAGES.0.get() };
        pages[start..start + line.len()].copy_from_slice(line);
        let calls = write_all(line.len(), base + start as u64);
        report.step(
            "a line that crosses a page is written whole",
            calls.is_some(),
            format_args!("{} bytes", line.len()),
        );

        // Two page boundaries: blanks that overwrite one another on the screen.
        pages.fill(b'\r');
        let start = PAGE - 1;
        let calls = write_all(PAGE + 2, base + start as u64);
        report.step(
            "so is a buffer that touches three pages",
            calls.is_some(),
            format_args!("{} bytes in {} call(s)", PAGE + 2, calls.unwrap_or(0)),
        );

        let nothing = sbi::console_write(0, base);
        report.step(
            "zero bytes are no error",
            nothing.error == 0 && nothing.value == 0,
            format_args!("error {}, value {}", nothing.error as isize, nothing.value),
        );
        let read = sbi::console_read(8, base + PAGE as u64 - 4);
        report.step(
            "reading input into a buffer across a page does not block",
            read.error == 0 && read.value <= 8,
            format_args!("{} bytes were waiting", read.value),
        );
    } else {
        report.skip("the debug console", "the firmware has none");
    }
    print!("        ");
    for byte in *b"this line came byte by byte\n" {
        sbi::legacy_putchar(byte);
    }
    report.step("the legacy console works", true, format_args!("see above"));
}
