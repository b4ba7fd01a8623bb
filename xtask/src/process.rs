//! Child processes that never outlive xtask.
//!
//! The kernel itself ends a child when xtask ends, whatever ended it (Ctrl-C, `kill -9`, a panic), so no exit path
//! needs clean-up code. The signal is sent when the *thread* that started the child ends: children are started on
//! the main thread, or on one that waits for them.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes `command`'s process receive `signal` when xtask ends.
pub fn end_with_xtask(command: &mut Command, signal: Signal) {
    let xtask = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(signal))?;
        // xtask may have ended before the line above: then this process has been handed to another parent.
        if getppid() == Some(xtask) {
            Ok(())
        } else {
            Err(std::io::Error::other("xtask has ended"))
        }
    };
    // SAFETY: between fork and exec only async-signal-safe code may run. The closure makes two plain system calls
    // and allocates only when xtask is gone and this process is about to end anyway.
    unsafe { command.pre_exec(in_child) };
}

/// Runs a command whose output the user sees; an unsuccessful exit is an error.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    end_with_xtask(command, Signal::KILL);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a command quietly and gives back what it printed; its output is part of the error when it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    end_with_xtask(command, Signal::KILL);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed: {}\n{}{}",
            describe(command),
            output.status,
            text,
            errors.trim_end()
        );
    }
    Ok(text)
}

/// The command as a person would name it: the program and what it is told to do, without options.
fn describe(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let mut arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument == "-o" {
            arguments.next();
        } else if !argument.starts_with('-') {
            name.push(' ');
            name.push_str(&argument);
            break;
        }
    }
    format!("`{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_carries_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo said; echo complained >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("said")
                && error.contains("complained")
                && error.contains("exit status: 3"),
            "{error}"
        );
        let mut command = Command::new("/usr/bin/apt-get");
        command.args(["-o", "Dir::Cache=/x", "--assume-yes", "install", "qemu"]);
        assert_eq!(describe(&command), "`apt-get install`");
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let mut command = Command::new("sleep");
        command.arg("60");
        end_with_xtask(&mut command, Signal::KILL);
        let mut child = std::thread::spawn(move || command.spawn().unwrap())
            .join()
            .unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
