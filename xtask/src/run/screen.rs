//! Standard output that somebody may have stopped reading.
//!
//! A write to a full pipe waits for its reader. So a thread of its own writes, and a run waits for that no longer than its
//! time limit allows.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// A screen for a run with a time limit.
pub struct Screen {
    pieces: SyncSender<Vec<u8>>,
    written: Receiver<io::Result<()>>,
    /// `None` for a run that may wait for ever.
    deadline: Option<Instant>,
    is_stuck: bool,
}

impl Screen {
    /// Writes to `to`, and waits for it up to `limit` from now.
    pub fn new(mut to: impl Write + Send + 'static, limit: Option<Duration>) -> Self {
        let (pieces, received) = mpsc::sync_channel::<Vec<u8>>(1);
        let (done, written) = mpsc::channel();
        std::thread::spawn(move || {
            for piece in received {
                let result = to.write_all(&piece).and_then(|()| to.flush());
                if done.send(result).is_err() {
                    break;
                }
            }
        });
        Self {
            pieces,
            written,
            // A limit past the end of time is none.
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            is_stuck: false,
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let result = match self.deadline {
            Some(deadline) => self
                .written
                .recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self
                .written
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        match result {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.is_stuck = true;
                Err(Self::stuck())
            }
            Err(RecvTimeoutError::Disconnected) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn stuck() -> io::Error {
        io::Error::new(
            ErrorKind::TimedOut,
            "no end in time: nobody reads what the run prints (`--timeout` sets the limit)",
        )
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stuck {
            return Err(Self::stuck());
        }
        if self.pieces.send(bytes.to_vec()).is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.wait()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Each piece is written out before the next one is taken.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_screen_that_nobody_reads_ends_the_run_at_its_limit() {
        let (reader, writer) = io::pipe().unwrap();
        let start = Instant::now();
        let mut screen = Screen::new(writer, Some(Duration::from_millis(300)));
        let error = loop {
            if let Err(error) = screen.write(&[b'x'; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(screen.write(b"x").is_err());
        assert!(start.elapsed() < Duration::from_secs(30));
        drop(reader);
    }

    #[test]
    fn what_is_written_is_shown_before_the_write_returns() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut screen = Screen::new(writer, None);
        screen.write_all(b"shown").unwrap();
        drop(screen);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "shown");
    }

    #[test]
    fn a_screen_that_is_gone_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut screen = Screen::new(full, None);
        assert!(screen.write_all(b"x").is_err());
    }
}
