//! QEMU from Debian's packages, unpacked under `target/tools` and run from there.
//!
//! The two series that the project is tested on replace each other when installed; unpacked they live side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::setup::apt::Apt;
use crate::setup::debian::Release;
use crate::setup::{self, library_path};

/// What to fetch for one QEMU.
pub struct Package {
    /// Folder below `target/tools`.
    pub folder: &'static str,
    /// What the user is told.
    pub title: &'static str,
    packages: &'static [&'static str],
    /// A suite beside the machine's own ones.
    suite: Option<&'static str>,
}

/// Debian 12's own QEMU, 7.2.
pub const BOOKWORM: Package = Package {
    folder: "qemu-7.2",
    title: "QEMU 7.2 of Debian 12",
    packages: &[
        "qemu-system-misc",
        "qemu-system-common",
        "qemu-system-data",
        "opensbi",
    ],
    suite: None,
};

/// QEMU 10.0 for Debian 12.
pub const BOOKWORM_BACKPORTS: Package = Package {
    folder: "qemu-10.0",
    title: "QEMU 10.0 of Debian 12's backports",
    packages: &[
        "qemu-system-riscv",
        "qemu-system-common",
        "qemu-system-data",
        "opensbi",
    ],
    suite: Some("bookworm-backports"),
};

/// The QEMU of a release from Debian 13 on.
pub const RELEASE: Package = Package {
    folder: "qemu",
    title: "this Debian release's QEMU",
    packages: &[
        "qemu-system-riscv",
        "qemu-system-common",
        "qemu-system-data",
        "opensbi",
    ],
    suite: None,
};

impl Package {
    /// The package to run guests with on this machine: 8.2 or newer.
    pub fn preferred(release: &Release) -> anyhow::Result<&'static Self> {
        match release.number {
            Some(..=11) => bail!("{release} has no package of a QEMU that is new enough"),
            Some(12) => Ok(&BOOKWORM_BACKPORTS),
            _ => Ok(&RELEASE),
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
                let more_suites: Vec<_> = self.suite.into_iter().collect();
                Apt::for_this_machine(apt, release, &more_suites)?
                    .download_missing(self.packages, self.suite)
            })
        })
        .with_context(|| format!("cannot fetch {}", self.title))
    }
}

/// What the program in the unpacked `folder` must be told to find its libraries and modules.
pub fn environment(folder: &Path) -> anyhow::Result<Vec<(&'static str, std::ffi::OsString)>> {
    let libraries = library_path(folder)?;
    let modules = std::env::split_paths(&libraries)
        .map(|path| path.join("qemu"))
        .find(|path| path.is_dir());
    let mut environment = vec![("LD_LIBRARY_PATH", libraries)];
    if let Some(modules) = modules {
        environment.push(("QEMU_MODULE_DIR", modules.into_os_string()));
    }
    Ok(environment)
}
