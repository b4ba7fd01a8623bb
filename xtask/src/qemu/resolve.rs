//! Which QEMU runs: the one that the user names, the one of `PATH`, else the release's package unpacked under `target/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::package::{self, Package};
use crate::process;
use crate::setup::debian::Release;

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

    /// The `10` of `10.0.2`.
    pub fn major_version(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }

    fn at(program: PathBuf) -> anyhow::Result<Self> {
        Self {
            program,
            environment: Vec::new(),
            arguments: Vec::new(),
            version: String::new(),
        }
        .ask_version()
    }

    /// The QEMU of a package, unpacked when it is not there yet.
    fn unpacked(package: &Package, release: &Release) -> anyhow::Result<Self> {
        let folder = package.unpacked(release)?;
        let qemu = Self {
            program: folder.join("usr/bin").join(PROGRAM),
            environment: package::environment(&folder)?,
            arguments: vec!["-L".into(), folder.join("usr/share/qemu").into()],
            version: String::new(),
        };
        qemu.ask_version()
            .with_context(|| format!("remove {} to have it fetched again", folder.display()))
    }

    fn ask_version(mut self) -> anyhow::Result<Self> {
        let text = process::output(self.command().arg("--version"))?;
        self.version =
            parse_version(&text).with_context(|| format!("no QEMU: it says `{}`", text.trim()))?;
        Ok(self)
    }
}

/// The QEMU to run guests with.
pub fn for_running(named: Option<&Path>) -> anyhow::Result<Qemu> {
    if let Some(program) = named {
        return Qemu::at(program.to_owned())
            .with_context(|| format!("--qemu {}", program.display()));
    }
    if let Some(program) = find_in_path(PROGRAM) {
        return Qemu::at(program);
    }
    let unpacked = || match Release::of_this_machine() {
        Some(release) => Qemu::unpacked(Package::preferred(&release)?, &release),
        None => bail!("this is not Debian, whose package xtask could take"),
    };
    unpacked().with_context(|| {
        format!("no {PROGRAM} in PATH: install QEMU 8.2 or newer, or pass `--qemu PATH`")
    })
}

/// A QEMU to run the target tests on, or why it cannot be had.
pub type Candidate = Result<Qemu, String>;

/// The QEMUs to run the target tests on: the one that the user names; else the one that guests run on, and on
/// Debian 12 both its own 7.2 and the 10.0 of its backports.
pub fn for_testing(named: Option<&Path>) -> anyhow::Result<Vec<Candidate>> {
    let mut found = vec![for_running(named)?];
    let mut skipped = Vec::new();
    if named.is_none() {
        let release = Release::of_this_machine().filter(|release| release.number == Some(12));
        for (series, package) in [
            ("10.0", &package::BOOKWORM_BACKPORTS),
            ("7.2", &package::BOOKWORM),
        ] {
            if found.iter().any(|qemu| is_of_series(&qemu.version, series)) {
                continue;
            }
            match &release {
                Some(release) => match Qemu::unpacked(package, release) {
                    Ok(qemu) => found.push(qemu),
                    Err(error) => skipped.push(format!("QEMU {series}: {error:#}")),
                },
                None => skipped.push(format!("QEMU {series}: this is not Debian 12, whose package xtask takes; `--qemu PATH` names another")),
            }
        }
    }
    Ok(found
        .into_iter()
        .map(Ok)
        .chain(skipped.into_iter().map(Err))
        .collect())
}

/// Whether `version` is of `series`: `7.2.22` is of `7.2`, `7.20` is not.
fn is_of_series(version: &str, series: &str) -> bool {
    version
        .strip_prefix(series)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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

    #[test]
    fn a_version_is_of_its_series_only() {
        for (version, series, expected) in [
            ("7.2.22", "7.2", true),
            ("7.2", "7.2", true),
            ("7.20.1", "7.2", false),
            ("10.0.2", "7.2", false),
        ] {
            assert_eq!(
                is_of_series(version, series),
                expected,
                "{version} {series}"
            );
        }
    }
}
