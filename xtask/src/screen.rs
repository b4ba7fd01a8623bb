//! Standard output, which a thread can keep back: what runs side by side is shown one after the other.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};

thread_local! {
    /// What this thread has kept back so far, if it does.
    static KEPT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to standard output, or keeps it back.
pub struct Screen;

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        KEPT.with_borrow_mut(|kept| match kept {
            Some(kept) => kept.write(bytes),
            None => io::stdout().write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        if is_kept_back() {
            Ok(())
        } else {
            io::stdout().flush()
        }
    }
}

/// Whether this thread keeps back what it writes.
pub fn is_kept_back() -> bool {
    KEPT.with_borrow(Option::is_some)
}

/// Runs `body` and gives what it wrote, too.
pub fn keep_back<R>(body: impl FnOnce() -> R) -> (R, Vec<u8>) {
    KEPT.set(Some(Vec::new()));
    let result = body();
    (result, KEPT.take().unwrap_or_default())
}

/// Shows a line, or keeps it back.
pub fn line(text: fmt::Arguments) {
    let is_kept = KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) => writeln!(kept, "{text}").is_ok(),
        None => false,
    });
    if !is_kept && let Err(error) = writeln!(io::stdout(), "{text}") {
        give_up(&error);
    }
}

/// Shows what was kept back.
pub fn release(bytes: &[u8]) {
    if let Err(error) = Screen.write_all(bytes) {
        give_up(&error);
    }
}

/// Ends xtask, since nobody can see any more what it finds: its reader has gone, as `head` goes, or its disk is full. Children end
/// with it.
fn give_up(error: &io::Error) -> ! {
    // Standard error may be gone, too.
    let _ = writeln!(
        io::stderr(),
        "xtask: cannot print to standard output: {error}"
    );
    std::process::exit(1)
}

/// `println!` to the [`Screen`].
macro_rules! show {
    () => { $crate::screen::line(format_args!("")) };
    ($($text:tt)*) => { $crate::screen::line(format_args!($($text)*)) };
}
pub(crate) use show;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_back_is_given_to_the_thread_that_wrote_it() {
        let (sum, text) = keep_back(|| {
            show!("one");
            let other = std::thread::spawn(is_kept_back).join().unwrap();
            show!("{}", other);
            1 + 1
        });
        assert_eq!((sum, &text[..]), (2, &b"one\nfalse\n"[..]));
        assert!(!is_kept_back());
    }
}
