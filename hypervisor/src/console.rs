//! The machine's console: what the hypervisor says, and what its guest's UART says, on one line discipline.
//!
//! A message of the hypervisor always starts a line, also when the guest is in the middle of one. It goes through the firmware:
//! the debug console extension (DBCN) where there is one, the legacy calls on older firmware.
//!
//! A guest can print the same words. If the operator gave the hypervisor a mark (see [`Operator`](crate::boot::operator::Operator))
//! then each line of a message begins with an ASCII record separator and the mark, which no guest knows (I18). When the guest is
//! over, or the hypervisor panics, what a guest prints is dropped.
//!
//! Of the guests of a [`series`](crate::series) nothing is shown: only their first line is kept, for who judges them.

use core::fmt::{self, Write};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use sbi_rt::Physical;
use spin::{Mutex, MutexGuard, Once};

use crate::boot::operator::LONGEST_MARK;

/// What comes before a mark.
const RECORD_SEPARATOR: u8 = 0x1e;

/// How often the last words of a panic ask for the console, before they do without: much longer than another hart keeps it.
const PATIENCE: u64 = 100_000_000;

static DEBUG_CONSOLE: AtomicBool = AtomicBool::new(false);
static CONSOLE: Mutex<Console> = Mutex::new(Console::new(0));
/// The hart that has the console, as [`this_hart`] gives it; 0 for none.
static OWNER: AtomicUsize = AtomicUsize::new(0);
/// What each line of the hypervisor begins with.
static MARK: Once<Mark> = Once::new();
/// Whether what a guest prints is dropped: the guest is over, or the hypervisor is about to be.
static GUEST_IS_OVER: AtomicBool = AtomicBool::new(false);

/// The mark, in the hypervisor's own memory: that of the device tree may not be mapped later.
struct Mark {
    bytes: [u8; LONGEST_MARK],
    len: usize,
}

impl Mark {
    fn new(mark: &str) -> Self {
        let len = mark.len().min(LONGEST_MARK);
        let mut bytes = [0; LONGEST_MARK];
        bytes[..len].copy_from_slice(&mark.as_bytes()[..len]);
        Self { bytes, len }
    }
}

struct Console {
    column: usize,
    kept: Option<FirstLine>,
}

/// The right to the console.
struct Owned(MutexGuard<'static, Console>);

impl Owned {
    fn new(guard: MutexGuard<'static, Console>) -> Self {
        OWNER.store(this_hart(), Ordering::Relaxed);
        Self(guard)
    }
}

impl Deref for Owned {
    type Target = Console;

    fn deref(&self) -> &Console {
        &self.0
    }
}

impl DerefMut for Owned {
    fn deref_mut(&mut self) -> &mut Console {
        &mut self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        OWNER.store(0, Ordering::Relaxed);
    }
}

fn lock() -> Owned {
    Owned::new(CONSOLE.lock())
}

fn try_lock() -> Option<Owned> {
    CONSOLE.try_lock().map(Owned::new)
}

/// A number of this hart that is no other's and not 0, from its first instruction on.
pub fn this_hart() -> usize {
    let local: usize;
    // SAFETY: reading `tp` has no effect. It is 0 on the first hart until that has its `HartLocal`, to which it points later.
    unsafe {
        core::arch::asm!("mv {}, tp", out(reg) local, options(nomem, nostack, preserves_flags));
    }
    local + 1
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

    /// The line, if it came to its end. It is the guest's: it may hold any character but a line feed.
    pub fn text(&self) -> Option<&str> {
        let text = core::str::from_utf8(&self.bytes[..self.len]).ok()?;
        self.complete.then_some(text.trim_end())
    }
}

/// Finds out what the firmware offers, and makes `log` write here, with `mark` before each line.
pub fn initialize(mark: Option<&str>) {
    if let Some(mark) = mark {
        MARK.call_once(|| Mark::new(mark));
    }
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
                b'\n' => self.column = 0,
                // Not at a carriage return: what stands before it is in the same line still.
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

impl Console {
    /// Begins a line of the hypervisor's own.
    fn put_mark(&mut self) {
        if let Some(mark) = MARK.get() {
            self.put(&[RECORD_SEPARATOR]);
            self.put(&mark.bytes[..mark.len]);
        }
    }
}

/// Text of the hypervisor, marked, with its line ends as a terminal wants them.
impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            if self.column == 0 {
                self.put_mark();
            }
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
    let mut console = lock();
    if GUEST_IS_OVER.load(Ordering::Relaxed) {
        return;
    }
    match &mut console.kept {
        Some(line) => line.push(bytes),
        None => console.put(bytes),
    }
}

/// From here on drops what the guest's harts print: it is over.
pub fn end_of_guest() {
    let _console = lock();
    GUEST_IS_OVER.store(true, Ordering::Relaxed);
}

/// From here on keeps the first line of a new guest, and shows nothing.
pub fn keep_first_line() {
    let mut console = lock();
    console.kept = Some(FirstLine::EMPTY);
    GUEST_IS_OVER.store(false, Ordering::Relaxed);
}

/// The first line of the guest since [`keep_first_line`], if that is known and nobody is at the console just now.
pub fn first_line() -> Option<FirstLine> {
    try_lock()?.kept
}

/// Shows one character of progress.
pub fn dot() {
    let mut console = lock();
    if console.column == 0 {
        console.put_mark();
    }
    console.put(b".");
}

/// What was typed and fetched from the firmware, and not yet taken.
struct Typed {
    bytes: [u8; 16],
    next: usize,
    end: usize,
}

impl Typed {
    const EMPTY: Self = Self {
        bytes: [0; 16],
        next: 0,
        end: 0,
    };

    /// The oldest byte.
    fn take(&mut self) -> Option<u8> {
        let byte = self.bytes[self.next..self.end].first().copied()?;
        self.next += 1;
        Some(byte)
    }

    /// Asks the firmware's debug console for as much as there is room for.
    fn fetch(&mut self) {
        let into = Physical::new(self.bytes.len(), &raw mut self.bytes as usize, 0);
        let read = sbi_rt::console_read(into).into_result().unwrap_or(0);
        // SAFETY: the bytes are initialized; the firmware may have written them, which the compiler did not see.
        self.bytes = unsafe { core::ptr::read_volatile(&raw const self.bytes) };
        self.next = 0;
        self.end = read.min(self.bytes.len());
    }
}

/// A byte that somebody typed, if there is one.
pub fn get() -> Option<u8> {
    static TYPED: Mutex<Typed> = Mutex::new(Typed::EMPTY);
    if DEBUG_CONSOLE.load(Ordering::Relaxed) {
        let mut typed = TYPED.lock();
        if typed.next == typed.end {
            typed.fetch();
        }
        return typed.take();
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
    message(&mut lock(), arguments);
}

/// Says the last words of the hypervisor. If this hart has the console already it panicked while it was printing, and prints
/// without; any other hart gives it back soon, since its guest prints nothing from here on.
pub fn last_words(arguments: fmt::Arguments<'_>) {
    GUEST_IS_OVER.store(true, Ordering::Relaxed);
    if OWNER.load(Ordering::Relaxed) != this_hart() {
        for _ in 0..PATIENCE {
            if let Some(mut console) = try_lock() {
                return message(&mut console, arguments);
            }
            core::hint::spin_loop();
        }
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
            message(&mut lock(), *record.args());
        }
    }

    fn flush(&self) {}
}
