//! The device trees of real boards, from the package that Debian's kernel for riscv64 has them in.
//!
//! They are test input for the hypervisor's parser, and no part of this repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::apt::Apt;
use super::debian::Release;

/// The variable that tells the host tests the folder.
pub const VARIABLE: &str = "GUEST_MEM_BOARD_DEVICE_TREES";

/// The package that depends on the newest kernel's, and the suite with the most boards.
const PACKAGE: &str = "linux-image-riscv64";
const SUITE: &str = "sid";

/// The folder with the trees, one folder a vendor. Fetches them the first time.
pub fn device_trees() -> anyhow::Result<PathBuf> {
    let release = Release::of_this_machine()
        .context("they come from Debian's packages, and this machine does not run Debian")?;
    let message = "fetching the device trees of Debian's riscv64 boards into target/";
    super::once("board-device-trees", message, |folder| {
        let unpacked = folder.join("packages");
        fs::create_dir(&unpacked)?;
        super::unpack_packages(&unpacked, |apt| {
            let apt = Apt::for_architecture(apt, &release, "riscv64", SUITE)?;
            let image = apt.dependency(PACKAGE, "linux-image-")?;
            let base = apt.dependency(&image, "linux-base-")?;
            apt.download(&[&base])
        })?;
        // `linux-image-VERSION/VENDOR/BOARD.dtb`; the same stands below `modules` once more.
        for entry in fs::read_dir(unpacked.join("usr/lib"))? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("linux-image-")
            {
                move_content(&entry.path(), folder)?;
            }
        }
        fs::remove_dir_all(&unpacked)?;
        ensure!(
            fs::read_dir(folder)?.next().is_some(),
            "no device trees in the package"
        );
        Ok(())
    })
}

fn move_content(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
