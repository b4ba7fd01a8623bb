//! One run of QEMU: its console is shown as it comes, watched line by line, and ended in time.
//!
//! The machine always powers off through SBI, which ends QEMU with exit code 0 whatever happened: the caller judges
//! a run by the lines that it saw.

use std::cell::Cell;
use std::io::{Read, Stdin, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios};

use crate::process;

/// Who is at the guest's console.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// xtask's own standard input, most often a person at a terminal.
    User,
    /// Nobody.
    Unattended,
    /// Nobody, and what is pasted once the guest asks for it.
    Pasted(Paste),
}

/// What is pasted at a guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paste {
    /// The line that asks for it.
    pub cue: &'static str,
    /// The text, without QEMU's own key, Ctrl-A.
    pub text: &'static [u8],
}

/// A paste on its way.
struct Pasting {
    paste: Paste,
    /// Where it goes, until the guest asks for it.
    input: Option<ChildStdin>,
    /// The thread that writes, and then keeps the input open for as long as this is there.
    writer: Option<JoinHandle<ChildStdin>>,
}

impl Pasting {
    fn new(console: Console, child: &mut Child) -> Option<Self> {
        let Console::Pasted(paste) = console else {
            return None;
        };
        Some(Self {
            paste,
            input: child.stdin.take(),
            writer: None,
        })
    }

    /// Begins on the line that asks for it. QEMU takes as much at a time as the guest has room for.
    fn watch(&mut self, line: &str) {
        if line.contains(self.paste.cue)
            && let Some(mut input) = self.input.take()
        {
            let text = self.paste.text;
            self.writer = Some(std::thread::spawn(move || {
                // If QEMU has ended, its exit code tells.
                let _ = input.write_all(text);
                input
            }));
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The machine powered off, or the user quit.
    ByItself,
    /// QEMU failed: it says why on standard error.
    Failed,
    /// The time limit passed and xtask ended QEMU.
    TimedOut,
}

/// Pieces of the console that wait to be shown, at most: then QEMU waits.
const WAITING: usize = 64;

/// Ends the child on every path out of [`run`], and then puts the terminal back that it may have left raw.
struct Guard {
    child: Child,
    _terminal: Option<Terminal<Stdin>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // An error means that the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of a terminal, which it has again when this is dropped.
struct Terminal<T: AsFd> {
    terminal: T,
    settings: Termios,
}

impl<T: AsFd> Terminal<T> {
    /// Takes note of them; `None` for what is no terminal.
    fn new(terminal: T) -> Option<Self> {
        let settings = rustix::termios::tcgetattr(&terminal).ok()?;
        Some(Self { terminal, settings })
    }
}

impl<T: AsFd> Drop for Terminal<T> {
    fn drop(&mut self) {
        // There is nobody to tell if the terminal is gone.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.settings);
    }
}

/// Runs QEMU to its end, or to `limit`; shows its console on `screen` and gives each finished line of it to `watch`.
pub fn run(
    command: Command,
    console: Console,
    limit: Option<Duration>,
    screen: &mut dyn Write,
    mut watch: impl FnMut(&str),
) -> anyhow::Result<Ended> {
    let ended = run_until(command, console, limit, screen, |line| {
        watch(line);
        ControlFlow::Continue(())
    })?;
    Ok(ended.expect("nobody ended it"))
}

/// The same, unless `watch` has seen enough and ends it; then it did not end, and the answer is `None`.
pub fn run_until(
    mut command: Command,
    console: Console,
    limit: Option<Duration>,
    screen: &mut dyn Write,
    mut watch: impl FnMut(&str) -> ControlFlow<()>,
) -> anyhow::Result<Option<Ended>> {
    let is_enough = Cell::new(false);
    let terminal = match console {
        Console::User => Terminal::new(std::io::stdin()),
        Console::Unattended | Console::Pasted(_) => None,
    };
    match console {
        // QEMU gives the terminal its settings back on SIGTERM, not on SIGKILL.
        Console::User => process::end_with_xtask(&mut command, Signal::TERM),
        Console::Unattended => {
            command.stdin(Stdio::null());
            process::end_with_xtask(&mut command, Signal::KILL);
        }
        Console::Pasted(_) => {
            command.stdin(Stdio::piped());
            process::end_with_xtask(&mut command, Signal::KILL);
        }
    }
    let program = command.get_program().to_owned();
    let child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let mut child = Guard {
        child,
        _terminal: terminal,
    };
    let mut pasting = Pasting::new(console, &mut child.child);
    let mut watch = |line: &str| {
        if let Some(pasting) = &mut pasting {
            pasting.watch(line);
        }
        is_enough.set(is_enough.get() || watch(line).is_break());
    };
    let pieces = read_in_background(
        child
            .child
            .stdout
            .take()
            .expect("standard output is a pipe"),
    );
    // A limit past the end of time is none.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut lines = Lines::default();
    loop {
        let piece = match deadline {
            Some(deadline) => {
                pieces.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match piece {
            Ok(piece) => {
                screen.write_all(&piece)?;
                screen.flush()?;
                lines.push(&piece, &mut watch);
                if is_enough.get() {
                    end(&mut child.child, console);
                    return Ok(None);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                lines.finish(&mut watch);
                end(&mut child.child, console);
                return Ok(Some(Ended::TimedOut));
            }
        }
    }
    lines.finish(&mut watch);
    let status = child.child.wait()?;
    Ok(Some(if status.success() {
        Ended::ByItself
    } else {
        Ended::Failed
    }))
}

/// Ends QEMU: where it owns the terminal, first in the way that lets it give the terminal back.
fn end(child: &mut Child, console: Console) {
    if console == Console::User
        && let Some(pid) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        for _ in 0..20 {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let _ = child.kill();
}

/// Reads `source` to its end on a thread of its own, so that waiting for it can have a limit.
fn read_in_background(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// A line longer than this is given out in parts: a guest that never ends its line takes no memory of ours.
    const LONGEST: usize = 64 * 1024;

    fn push(&mut self, piece: &[u8], watch: &mut impl FnMut(&str)) {
        for &byte in piece {
            match byte {
                b'\n' => self.finish(watch),
                _ => self.unfinished.push(byte),
            }
            if self.unfinished.len() >= Self::LONGEST {
                self.finish(watch);
            }
        }
    }

    fn finish(&mut self, watch: &mut impl FnMut(&str)) {
        if !self.unfinished.is_empty() {
            watch(String::from_utf8_lossy(&self.unfinished).trim_end_matches('\r'));
            self.unfinished.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        let mut watch = |line: &str| seen.push(line.to_owned());
        for piece in ["on", "e\r\ntw", "o\n\nlast"] {
            lines.push(piece.as_bytes(), &mut watch);
        }
        lines.finish(&mut watch);
        assert_eq!(seen, ["one", "two", "last"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut count = 0;
        Lines::default().push(&vec![b'x'; 2 * Lines::LONGEST], &mut |_| count += 1);
        assert_eq!(count, 2);
    }

    #[test]
    fn a_run_that_does_not_end_is_ended_at_its_limit() {
        let start = Instant::now();
        let limit = Some(Duration::from_millis(200));
        let mut seen = Vec::new();
        let ended = run(
            shell("echo begun; exec sleep 60"),
            Console::Unattended,
            limit,
            &mut std::io::sink(),
            |line| seen.push(line.to_owned()),
        );
        assert_eq!(ended.unwrap(), Ended::TimedOut);
        assert_eq!(seen, ["begun"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_run_that_has_shown_enough_is_ended_there() {
        let start = Instant::now();
        let mut seen = Vec::new();
        let ended = run_until(
            shell("echo one; echo two; echo three; exec sleep 60"),
            Console::Unattended,
            None,
            &mut std::io::sink(),
            |line| {
                seen.push(line.to_owned());
                match line {
                    "two" => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            },
        );
        assert_eq!(ended.unwrap(), None);
        assert_eq!(seen, ["one", "two"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_paste_arrives_whole_and_not_before_it_is_asked_for() {
        let paste = Paste {
            cue: "ready",
            text: &[b'x'; 100_000],
        };
        let mut seen = Vec::new();
        let ended = run(
            // Nothing to read yet; then all of it, and an input that stays open behind it.
            shell(
                "if timeout 0.3 head -c 1 | grep -q x; then echo early; fi; echo ready; head -c 100000 | wc -c; \
                 timeout 0.3 cat; echo $?",
            ),
            Console::Pasted(paste),
            Some(Duration::from_secs(60)),
            &mut std::io::sink(),
            |line| seen.push(line.trim().to_owned()),
        );
        assert_eq!(ended.unwrap(), Ended::ByItself);
        assert_eq!(seen, ["ready", "100000", "124"]);
    }

    #[test]
    fn a_terminal_that_was_left_raw_is_put_back() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::{LocalModes, tcgetattr, tcsetattr};

        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let is_raw = || {
            let modes = tcgetattr(&terminal).unwrap().local_modes;
            !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
        };
        let kept = Terminal::new(&terminal).unwrap();
        let mut raw = tcgetattr(&terminal).unwrap();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).unwrap();
        assert!(is_raw());
        drop(kept);
        assert!(!is_raw());
        assert!(Terminal::new(std::io::pipe().unwrap().0).is_none());
    }

    /// A console that never ends, and how much of it was read.
    struct Endless(Arc<AtomicUsize>);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.fetch_add(buffer.len(), Ordering::Relaxed);
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_console_that_is_not_shown_fills_no_memory() {
        let count = Arc::new(AtomicUsize::new(0));
        let pieces = read_in_background(Endless(count.clone()));
        assert!(pieces.recv().is_ok());
        std::thread::sleep(Duration::from_millis(300));
        // One was taken, and one waits for its place.
        assert!(count.load(Ordering::Relaxed) <= (WAITING + 2) * 4096);
    }

    #[test]
    fn a_limit_past_the_end_of_time_is_none() {
        let ended = run(
            shell("exit 0"),
            Console::Unattended,
            Some(Duration::MAX),
            &mut std::io::sink(),
            |_| (),
        );
        assert_eq!(ended.unwrap(), Ended::ByItself);
    }

    #[test]
    fn a_failing_qemu_is_told_from_one_that_powered_off() {
        for (script, expected) in [("exit 0", Ended::ByItself), ("exit 1", Ended::Failed)] {
            assert_eq!(
                run(
                    shell(script),
                    Console::Unattended,
                    None,
                    &mut std::io::sink(),
                    |_| ()
                )
                .unwrap(),
                expected
            );
        }
    }
}
