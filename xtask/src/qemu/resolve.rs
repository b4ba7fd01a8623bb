//! Which QEMU runs: the one that the user names, the one of `PATH`, else the release's package unpacked under `target/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;

/// The program.
const PROGRAM: &str = "qemu-system-riscv64";

/// A QEMU that can be started.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    /// What an unpacked, not installed QEMU needs to find its parts.
    environment: Vec<(&'static str, OsString)>,
    arguments: Vec<OsString>,
    /// What it says its version is, such as `10.0.2`.
    pub version: String,
}

impl Qemu {
    /// The command, without arguments of a machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn at(program: PathBuf) -> anyhow::Result<Self> {
        let mut qemu = Self {
            program,
            environment: Vec::new(),
            arguments: Vec::new(),
            version: String::new(),
        };
        let text = process::output(qemu.command().arg("--version"))?;
        qemu.version =
            parse_version(&text).with_context(|| format!("no QEMU: it says `{}`", text.trim()))?;
        Ok(qemu)
    }
}

/// The QEMU to run guests with.
pub fn resolve(named: Option<&Path>) -> anyhow::Result<Qemu> {
    if let Some(program) = named {
        return Qemu::at(program.to_owned())
            .with_context(|| format!("--qemu {}", program.display()));
    }
    match find_in_path(PROGRAM) {
        Some(program) => Qemu::at(program),
        None => bail!("no {PROGRAM} in PATH: install it, or pass `--qemu PATH`"),
    }
}

/// The first executable file called `name` in `PATH`.
fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The version in the first line of `qemu --version`.
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.lines().next()?.split_once("QEMU emulator version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_qemu_says() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright ...";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("bash: no such command"), None);
    }
}
