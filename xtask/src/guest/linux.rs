//! Debian's riscv64 kernel and busybox, from its packages or from files that the user names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::setup;
use crate::setup::apt::Apt;
use crate::setup::debian::Release;

/// The guest's kernel command line, before what `--append` adds.
pub const COMMAND_LINE: &str = "console=ttyS0 earlycon=sbi";

/// The packages, and the suite that has both for riscv64.
const PACKAGES: [&str; 2] = ["debian-installer-13-netboot-riscv64", "busybox-static"];
pub(super) const SUITE: &str = "trixie";

/// The two files that make a Linux guest.
pub struct Files {
    /// The kernel's `Image`.
    pub kernel: PathBuf,
    /// Busybox, statically linked.
    pub busybox: PathBuf,
}

impl Files {
    /// The files that are named; those that are not come from Debian's packages.
    pub fn get(kernel: Option<&Path>, busybox: Option<&Path>) -> anyhow::Result<Self> {
        let files = match (kernel, busybox) {
            (Some(kernel), Some(busybox)) => Self {
                kernel: kernel.to_owned(),
                busybox: busybox.to_owned(),
            },
            _ => {
                let fetched = fetch().context(
                    "no Debian kernel and busybox for riscv64: pass a Linux `Image` with `--kernel` and a static \
                     riscv64 busybox with `--busybox`",
                )?;
                Self {
                    kernel: kernel.map_or(fetched.kernel, Path::to_owned),
                    busybox: busybox.map_or(fetched.busybox, Path::to_owned),
                }
            }
        };
        Ok(files)
    }
}

/// Fetches the packages, keeps the two files.
fn fetch() -> anyhow::Result<Files> {
    let release = Release::of_this_machine()
        .context("xtask takes them from Debian's packages, and this machine does not run Debian")?;
    let message =
        "fetching Debian's riscv64 kernel and busybox into target/ (nothing is installed)";
    let folder = setup::once("linux-riscv64", message, |folder| {
        let unpacked = folder.join("packages");
        fs::create_dir(&unpacked)?;
        setup::unpack_packages(&unpacked, |apt| {
            Apt::for_architecture(apt, &release, "riscv64", SUITE)?.download(&PACKAGES)
        })?;
        let kernel = find(&unpacked, &|path| path.ends_with("riscv64/linux"))?
            .context("no kernel in the package")?;
        fs::rename(kernel, folder.join("linux"))?;
        let busybox = find(&unpacked, &|path| path.ends_with("bin/busybox"))?
            .context("no busybox in the package")?;
        fs::rename(busybox, folder.join("busybox"))?;
        Ok(fs::remove_dir_all(&unpacked)?)
    })?;
    let files = Files {
        kernel: folder.join("linux"),
        busybox: folder.join("busybox"),
    };
    ensure!(
        files.kernel.is_file() && files.busybox.is_file(),
        "remove {} to have them fetched again",
        folder.display()
    );
    Ok(files)
}

/// The first file below `folder`, in no order, that is `wanted`.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
