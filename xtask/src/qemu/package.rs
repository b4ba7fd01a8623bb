//! QEMU from Debian's packages, unpacked under `target/tools` and run from there.
//!
//! The one idea: the versions that users get replace each other when installed; unpacked they live side by side. One of the
//! machine's own release takes what else it needs from the machine. One of another release is unpacked with all that it depends
//! on, its C library included, and run by that library's own loader ([`start`]).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::setup::apt::Apt;
use crate::setup::debian::Release;
use crate::setup::{self, library_path};

/// The program.
pub const PROGRAM: &str = "qemu-system-riscv64";

/// A QEMU that a release of Debian has.
pub struct Package {
    /// Folder below `target/tools`.
    folder: &'static str,
    /// What the user is told.
    title: &'static str,
    /// The version that it has, or the beginning of it.
    pub series: &'static str,
    /// Whether the tests run on it in full, or in their short form.
    pub is_tested_in_full: bool,
    packages: &'static [&'static str],
    /// The release of which it is: the number, and the suite.
    release: (Option<u32>, &'static str),
    /// A suite beside that one.
    backports: Option<&'static str>,
}

/// The packages of a QEMU from 8 on.
const PACKAGES: &[&str] = &[
    "qemu-system-riscv",
    "qemu-system-common",
    "qemu-system-data",
    "opensbi",
];

/// Every QEMU that users of Debian get, in the order of testing.
pub const ALL: [Package; 4] = [
    Package {
        folder: "qemu-10.0",
        title: "QEMU 10.0.2 of Debian 12's backports",
        series: "10.0.2",
        is_tested_in_full: true,
        packages: PACKAGES,
        release: (Some(12), "bookworm"),
        backports: Some("bookworm-backports"),
    },
    Package {
        folder: "qemu-trixie",
        title: "QEMU 10.0.13 of Debian 13",
        series: "10.0",
        is_tested_in_full: true,
        packages: PACKAGES,
        release: (Some(13), "trixie"),
        backports: None,
    },
    Package {
        folder: "qemu-7.2",
        title: "QEMU 7.2 of Debian 12",
        series: "7.2",
        is_tested_in_full: false,
        packages: &[
            "qemu-system-misc",
            "qemu-system-common",
            "qemu-system-data",
            "opensbi",
        ],
        release: (Some(12), "bookworm"),
        backports: None,
    },
    Package {
        folder: "qemu-sid",
        title: "QEMU 11.1 of Debian sid",
        series: "11.1",
        is_tested_in_full: false,
        packages: PACKAGES,
        release: (None, "sid"),
        backports: None,
    },
];

impl Package {
    /// The package to run guests with on this machine: the newest of its release.
    pub fn preferred(release: &Release) -> anyhow::Result<&'static Self> {
        if matches!(release.number, Some(..=11)) {
            bail!("{release} has no package of a QEMU that is new enough");
        }
        let own = ALL.iter().find(|package| package.is_of(release));
        // A release that is newer than this list: its own QEMU is asked for under the name of sid's.
        Ok(own.unwrap_or(&ALL[ALL.len() - 1]))
    }

    fn is_of(&self, release: &Release) -> bool {
        let (number, suite) = self.release;
        match release.number {
            Some(_) => release.number == number,
            None => release.codename.as_deref() == Some(suite),
        }
    }

    /// The folder with the unpacked package; fetched when it is not there.
    pub fn unpacked(&self, release: &Release) -> anyhow::Result<PathBuf> {
        let message = format!(
            "fetching {} and unpacking it under target/ (nothing is installed)",
            self.title
        );
        setup::once(self.folder, &message, |folder| {
            setup::unpack_packages(folder, |apt| {
                let more_suites: Vec<_> = self.backports.into_iter().collect();
                if self.is_of(release) {
                    return Apt::for_this_machine(apt, release, &more_suites)?
                        .download_missing(self.packages, self.backports);
                }
                let suites = [&[self.release.1], &more_suites[..]].concat();
                Apt::for_other_release(apt, release, &suites)?
                    .download_with_dependencies(self.packages)
            })
        })
        .with_context(|| format!("cannot fetch {}", self.title))
    }
}

/// How an unpacked program is started.
pub struct Start {
    /// What is started.
    pub program: PathBuf,
    /// The first arguments.
    pub arguments: Vec<OsString>,
    /// What it is told by its environment.
    pub environment: Vec<(&'static str, OsString)>,
}

/// How the QEMU in the unpacked `folder` is started: where a C library lies beside it, by that library's loader.
pub fn start(folder: &Path) -> anyhow::Result<Start> {
    let qemu = folder.join("usr/bin").join(PROGRAM);
    let libraries = library_path(folder)?;
    let mut environment = Vec::new();
    let modules = std::env::split_paths(&libraries)
        .map(|path| path.join("qemu"))
        .find(|path| path.is_dir());
    if let Some(modules) = modules {
        environment.push(("QEMU_MODULE_DIR", modules.into_os_string()));
    }
    let (program, mut arguments) = match loader(&libraries) {
        Some(loader) => {
            let arguments = vec![
                "--library-path".into(),
                libraries,
                "--argv0".into(),
                PROGRAM.into(),
                qemu.into_os_string(),
            ];
            (loader, arguments)
        }
        None => {
            environment.push(("LD_LIBRARY_PATH", libraries));
            (qemu, Vec::new())
        }
    };
    for data in ["usr/share/qemu", "usr/lib/riscv64-linux-gnu/opensbi"] {
        arguments.extend(["-L".into(), folder.join(data).into_os_string()]);
    }
    Ok(Start {
        program,
        arguments,
        environment,
    })
}

/// The loader of the C library in one of these folders.
fn loader(libraries: &OsString) -> Option<PathBuf> {
    let is_loader = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("ld-linux") && name.contains(".so")
    };
    std::env::split_paths(libraries)
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(is_loader)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(number: Option<u32>, codename: &str) -> Release {
        Release {
            number,
            codename: Some(codename.to_owned()),
        }
    }

    #[test]
    fn each_release_runs_guests_on_the_newest_qemu_of_its_own() {
        let preferred = |release: &Release| Package::preferred(release).unwrap().series;
        assert_eq!(preferred(&release(Some(12), "bookworm")), "10.0.2");
        assert_eq!(preferred(&release(Some(13), "trixie")), "10.0");
        assert_eq!(preferred(&release(None, "sid")), "11.1");
        assert!(Package::preferred(&release(Some(11), "bullseye")).is_err());
    }

    #[test]
    fn a_qemu_with_its_own_c_library_is_started_by_that_ones_loader() {
        let folder = std::env::temp_dir().join(format!("guest-mem-xtask-{}", std::process::id()));
        let libraries = folder.join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(libraries.join("qemu")).unwrap();
        let own = start(&folder).unwrap();
        assert_eq!(own.program, folder.join("usr/bin").join(PROGRAM));
        let names = |start: &Start| start.environment.iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(names(&own), ["QEMU_MODULE_DIR", "LD_LIBRARY_PATH"]);

        let loader = libraries.join("ld-linux-x86-64.so.2");
        fs::write(&loader, "").unwrap();
        let foreign = start(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(foreign.program, loader);
        assert_eq!(foreign.arguments[0], "--library-path");
        assert!(foreign.arguments.contains(&own.program.into_os_string()));
        // What it starts itself, and other programs, keep the machine's libraries.
        assert_eq!(names(&foreign), ["QEMU_MODULE_DIR"]);
    }
}
