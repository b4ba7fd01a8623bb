//! Files of one run: what a user names as an image, and what is made for QEMU to load.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags};

/// Fails unless `path` is a file with an end: a pipe may never say anything, and a device may never end.
pub fn ensure_regular(path: &Path) -> anyhow::Result<u64> {
    let found = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        found.is_file(),
        "{} is not a regular file: an image has to be one",
        path.display()
    );
    Ok(found.len())
}

/// What a file holds that a user named.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    ensure_regular(path)?;
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A file without a name, so that it is gone when xtask is, whatever ended that.
#[derive(Debug)]
pub struct Scratch {
    file: File,
}

impl Scratch {
    /// A file with these bytes, in this folder.
    pub fn new(folder: &Path, bytes: &[u8]) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut file = nameless(folder)
            .with_context(|| format!("cannot make a file in {}", folder.display()))?;
        file.write_all(bytes)
            .with_context(|| format!("cannot write {} bytes for QEMU", bytes.len()))?;
        Ok(Self { file })
    }

    /// Where other programs find it for as long as this exists.
    pub fn path(&self) -> PathBuf {
        let descriptor = self.file.as_raw_fd();
        format!("/proc/{}/fd/{descriptor}", std::process::id()).into()
    }
}

fn nameless(folder: &Path) -> std::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Not every file system has files without a name from the start.
    let path = folder.join(format!("scratch.{}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn folder(name: &str) -> PathBuf {
        let folder = workspace::target_dir().join("tmp").join(name);
        // Of an earlier run, if there was one.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_scratch_file_leaves_nothing_in_its_folder() {
        let folder = folder("scratch");
        let scratch = Scratch::new(&folder, b"bundle").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let path = scratch.path();
        assert_eq!(read(&path).unwrap(), b"bundle");
        drop(scratch);
        assert!(fs::read(&path).is_err());
    }

    #[test]
    fn what_has_no_end_is_no_image() {
        let pipe = folder("pipe").join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/")] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains("is not a regular file"), "{error}");
        }
        let error = read(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(error, "cannot read /nowhere");
    }
}
