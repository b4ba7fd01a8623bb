//! What xtask sets up when it is missing: the bare-metal target of the compiler ([`toolchain`]) and packages of
//! Debian ([`debian`], [`apt`]), unpacked below `target/tools` ([`once`]). [`boards`] are device trees from there.
//!
//! Nothing outside `target/` is changed, except that rustup is asked for the target. No step needs root.

pub mod apt;
pub mod boards;
pub mod debian;
pub mod spike;
pub mod toolchain;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use crate::{progress, workspace};

/// The folder of everything that is fetched.
pub fn tools_dir() -> PathBuf {
    workspace::target_dir().join("tools")
}

/// The folder `target/tools/NAME`, which `fill` makes the first time: it fills a folder of another name, so that a
/// folder of this name is always complete. Two xtasks do not get into each other's way.
pub fn once(
    name: &str,
    message: &str,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let tools = tools_dir();
    let folder = tools.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let lock = File::create(tools.join("lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        progress::say("waiting for another xtask that is setting up");
        flock(&lock, FlockOperation::LockExclusive)?;
    }
    if !folder.is_dir() {
        let partial = tools.join(format!("{name}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir(&partial)?;
        progress::step(message, || fill(&partial))?;
        fs::rename(&partial, &folder)?;
    }
    Ok(folder)
}

/// Unpacks into `folder` the package files that `fetch` gets with a private apt; that apt's folder, which `fetch` is
/// given, is removed afterwards.
pub fn unpack_packages(
    folder: &Path,
    fetch: impl FnOnce(&Path) -> anyhow::Result<Vec<PathBuf>>,
) -> anyhow::Result<()> {
    let apt_folder = folder.join("apt");
    fs::create_dir(&apt_folder)?;
    apt::unpack(&fetch(&apt_folder)?, folder)?;
    Ok(fs::remove_dir_all(&apt_folder)?)
}

/// The library folders of an unpacked package tree, as the dynamic loader wants them.
pub fn library_path(folder: &Path) -> anyhow::Result<OsString> {
    let folders = libraries(folder)?;
    Ok(std::env::join_paths(folders)?)
}

/// The folders `lib/TRIPLET` and `usr/lib/TRIPLET` of an unpacked package tree.
fn libraries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for parent in [folder.join("usr/lib"), folder.join("lib")] {
        let Ok(entries) = fs::read_dir(&parent) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("-linux-gnu"))
            {
                found.push(path);
            }
        }
    }
    Ok(found)
}
