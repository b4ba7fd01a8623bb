//! Which QEMU runs: the one that the user names, the one of `PATH`, else the release's package unpacked under `target/`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::package::{self, PROGRAM, Package};
use crate::process;
use crate::setup::debian::Release;

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
        let start = package::start(&folder)?;
        let qemu = Self {
            program: start.program,
            environment: start.environment,
            arguments: start.arguments,
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
    if named == Some(Path::new(ALL)) {
        bail!("`--qemu {ALL}` is for `cargo xtask test`: name one to run guests on");
    }
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

/// The value of `--qemu` that stands for every QEMU that Debian has.
pub const ALL: &str = "all";

/// How much of the tests runs on a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every test.
    Full,
    /// Every test of the test kernel, on each board and on each processor once; fewer random cases. For a QEMU of the same major
    /// version as one that is tested in full.
    Again,
    /// Those that take seconds.
    Short,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full | Self::Again => "",
            Self::Short => ", in short",
        })
    }
}

/// A QEMU to run the target tests on, with how much of them, or why it cannot be had.
pub type Candidate = Result<(Qemu, Extent), String>;

/// The QEMUs to run the target tests on: the one that the user names; else the one that guests run on and each that a release of
/// Debian has, some of them in short unless the user asks for [`ALL`].
pub fn for_testing(named: Option<&Path>) -> anyhow::Result<Vec<Candidate>> {
    let all_in_full = named.is_some_and(|named| named == Path::new(ALL));
    if let (Some(_), false) = (named, all_in_full) {
        return Ok(vec![Ok((for_running(named)?, Extent::Full))]);
    }
    let mut found = vec![for_running(None)?];
    let mut candidates = vec![Ok((found[0].clone(), Extent::Full))];
    let release = Release::of_this_machine();
    for package in &package::ALL {
        if found.iter().any(|qemu| is_package(&qemu.version, package)) {
            continue;
        }
        let extent = if all_in_full {
            Extent::Full
        } else if package.is_tested_in_full {
            Extent::Again
        } else {
            Extent::Short
        };
        let series = package.series;
        let skipped = |reason: String| Err(format!("QEMU {series} of Debian: {reason}"));
        candidates.push(match &release {
            Some(release) => match Qemu::unpacked(package, release) {
                Ok(qemu) => {
                    found.push(qemu.clone());
                    Ok((qemu, extent))
                }
                Err(error) => skipped(format!("{error:#}")),
            },
            None => skipped(
                "this is not Debian, whose packages xtask takes; `--qemu PATH` names another"
                    .into(),
            ),
        });
    }
    Ok(candidates)
}

/// Whether a QEMU of `version` is the one of the package. That of Debian 13 goes on within its series, past the one of the
/// backports.
fn is_package(version: &str, package: &Package) -> bool {
    let others = package::ALL.iter();
    let is_other = others
        .filter(|other| other.series.len() > package.series.len())
        .any(|other| is_of_series(version, other.series));
    is_of_series(version, package.series) && !is_other
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
    fn each_version_that_debian_has_is_that_of_one_package() {
        for (version, expected) in [
            ("7.2.22", Some("7.2")),
            ("10.0.2", Some("10.0.2")),
            ("10.0.13", Some("10.0")),
            ("10.0.20", Some("10.0")),
            ("11.1.3", Some("11.1")),
            ("9.1.0", None),
        ] {
            let mut packages = package::ALL.iter();
            let of = packages.find(|package| is_package(version, package));
            assert_eq!(of.map(|package| package.series), expected, "{version}");
        }
    }

    #[test]
    fn guests_run_on_one_qemu_and_not_on_all() {
        assert!(for_running(Some(Path::new(ALL))).is_err());
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
