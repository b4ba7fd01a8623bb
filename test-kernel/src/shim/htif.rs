//! HTIF: how a program prints and ends a run by two words that a host reads and writes.
//!
//! The one idea: a word for the host with bit 0 set ends the run, and there are machines whose tracer looks at nothing else
//! (CVA6's). A byte goes out by a system call that the host serves, `write`, whose word is the address of the request, an even
//! number; the console's own command has the byte in its lowest bits, and is for hosts that take words and do not answer the
//! call (QEMU before 8.0). Where nobody takes a word the program falls silent, and its end is told all the same.

use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence,
};

use super::waiting::Waiting;

/// The console's device, with its command to print a byte.
const PRINT: u64 = 0x0101 << 48;

/// The system call, by its number, and the file that is written to.
const WRITE: u64 = 64;
const STANDARD_OUTPUT: u64 = 1;

/// The two words.
pub trait Words {
    /// The word for the host; 0 if it took the last.
    fn tohost(&self) -> u64;
    /// Gives the host a word.
    fn set_tohost(&self, word: u64);
    /// The word from the host; 0 if there is none.
    fn fromhost(&self) -> u64;
    /// Takes that word away.
    fn clear_fromhost(&self);
}

/// A system call and its arguments, which the host reads, and writes its result into. Physical memory, of which the host may read
/// more than the call has.
#[repr(C, align(64))]
struct Request([AtomicU64; 8]);

/// A host that may be there.
pub struct Htif<W> {
    words: W,
    waiting: Waiting,
    request: Request,
    byte: AtomicU8,
    /// Whether the host has the request.
    is_called: AtomicBool,
    /// Whether it ever answered one.
    answers: AtomicBool,
    /// Whether it takes words without an answer.
    wants_commands: AtomicBool,
}

impl<W: Words> Htif<W> {
    /// By these words.
    pub const fn new(words: W) -> Self {
        Self {
            words,
            waiting: Waiting::new(),
            request: Request([const { AtomicU64::new(0) }; 8]),
            byte: AtomicU8::new(0),
            is_called: AtomicBool::new(false),
            answers: AtomicBool::new(false),
            wants_commands: AtomicBool::new(false),
        }
    }

    /// Prints a byte, if the host takes it. One hart at a time.
    pub fn print(&self, byte: u8) {
        if !self.wants_commands.load(Relaxed) {
            if self.is_free() {
                return self.call(byte);
            }
            if self.words.tohost() != 0 || self.answers.load(Relaxed) {
                return;
            }
            // It took the word, maybe just now: that is worth a whole wait for the answer.
            self.waiting.renew();
            if self.is_free() {
                return self.call(byte);
            }
            self.waiting.renew();
            self.wants_commands.store(true, Relaxed);
            self.command(self.byte.load(Relaxed));
        }
        self.command(byte);
    }

    /// Whether the host has answered the last call, waiting for it.
    fn is_free(&self) -> bool {
        let answered = || {
            let answered = self.words.fromhost() != 0;
            if answered {
                self.words.clear_fromhost();
            }
            answered
        };
        if self.is_called.load(Relaxed) {
            if !self.waiting.until(answered) {
                return false;
            }
            self.is_called.store(false, Relaxed);
            self.answers.store(true, Relaxed);
        }
        self.words.tohost() == 0
    }

    /// Asks the host to write the byte.
    fn call(&self, byte: u8) {
        self.byte.store(byte, Relaxed);
        let arguments = [WRITE, STANDARD_OUTPUT, self.byte.as_ptr() as u64, 1];
        for (word, argument) in self.request.0.iter().zip(arguments) {
            word.store(argument, Relaxed);
        }
        self.is_called.store(true, Relaxed);
        // The host finds the request when it finds its address.
        fence(SeqCst);
        self.words.set_tohost((&raw const self.request) as u64);
    }

    /// Prints by the console's command, whose answers are thrown away.
    fn command(&self, byte: u8) {
        if self.is_taken() {
            self.words.set_tohost(PRINT | u64::from(byte));
        }
    }

    /// Whether the host has taken the last word, waiting for it.
    fn is_taken(&self) -> bool {
        self.waiting.until(|| {
            if self.words.fromhost() != 0 {
                self.words.clear_fromhost();
            }
            self.words.tohost() == 0
        })
    }

    /// Tells the host that the run is over, whether or not it took what came before: once. A host that is just about to take
    /// that may miss it.
    pub fn end(&self, code: u8) {
        self.is_taken();
        self.words.set_tohost(u64::from(code) << 1 | 1);
    }
}

#[cfg(test)]
mod tests;
