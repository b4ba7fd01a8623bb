//! The compiler for the bare-metal target: rustup's with the target added, else a Debian compiler that builds the
//! target's `core` and `alloc` from source.
//!
//! The second way is for machines that reach a Debian mirror but not rustup's server. Debian 12 packages a recent
//! compiler for its browsers, with the library sources; rustup's toolchain gives the linker.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::apt::Apt;
use super::debian::Release;
use crate::process;
use crate::progress;
use crate::workspace::{self, TARGET};

/// The compiler packages of Debian: compiler, cargo, library sources.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Where they are unpacked, below `target/tools`.
const FOLDER: &str = "rust-web";

/// A compiler that can build for the bare-metal target.
pub enum Toolchain {
    /// The one that runs xtask.
    Own,
    /// Debian's, unpacked in this folder.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds one; sets it up when it is missing.
    pub fn resolve() -> anyhow::Result<Self> {
        if own_has_target()? {
            return Ok(Self::Own);
        }
        let unpacked = super::tools_dir().join(FOLDER);
        if unpacked.is_dir() {
            return Ok(Self::Debian(unpacked));
        }
        progress::say(&format!(
            "adding the target {TARGET} to the Rust toolchain: `rustup target add {TARGET}`"
        ));
        let added = process::run(Command::new("rustup").args(["target", "add", TARGET]));
        match added {
            Ok(()) if own_has_target()? => Ok(Self::Own),
            Ok(()) => bail!(
                "rustup added {TARGET}, but to another toolchain than the one that runs xtask"
            ),
            Err(error) => {
                progress::say(&format!("{error:#}"));
                fetch().map(Self::Debian).with_context(|| {
                    format!("no Rust library for {TARGET}: run `rustup target add {TARGET}` where its server can be reached")
                })
            }
        }
    }

    /// A `cargo` for the target, and the folder that it builds into.
    pub fn cargo(&self) -> anyhow::Result<(Command, PathBuf)> {
        match self {
            Self::Own => Ok((workspace::cargo(), workspace::target_dir())),
            Self::Debian(folder) => debian_cargo(folder),
        }
    }
}

/// Whether the compiler that runs xtask has the target's library.
fn own_has_target() -> anyhow::Result<bool> {
    let text = process::output(rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
    Ok(Path::new(text.trim()).is_dir())
}

/// The compiler beside the cargo that runs xtask.
fn rustc() -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.current_dir(workspace::root());
    rustc
}

/// Unpacks Debian's compiler.
fn fetch() -> anyhow::Result<PathBuf> {
    let release = Release::of_this_machine()
        .context("this is not Debian, whose compiler xtask could take instead")?;
    super::once(
        FOLDER,
        "unpacking Debian's compiler and library sources under target/ instead",
        |folder| {
            super::unpack_packages(folder, |apt| {
                Apt::for_this_machine(apt, &release, &[])?.download_missing(&PACKAGES, None)
            })?;
            check_version(folder)
        },
    )
}

/// Refuses an unpacked compiler that is older than the workspace asks for: only Debian's security suite, which a
/// machine should have but may lack, has a recent one.
fn check_version(folder: &Path) -> anyhow::Result<()> {
    let mut rustc = Command::new(folder.join("usr/bin/rustc"));
    let text = process::output(
        rustc
            .arg("--version")
            .env("LD_LIBRARY_PATH", super::library_path(folder)?),
    )?;
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let recent = minor_version(&text)
        .zip(minor_version(&format!("rustc {wanted}")))
        .is_some_and(|(has, wants)| has >= wants);
    ensure!(
        recent,
        "Debian's is {}, older than {wanted}: is its security suite among apt's sources?",
        text.trim()
    );
    Ok(())
}

/// The `N` of `rustc 1.N.M`.
fn minor_version(text: &str) -> Option<u32> {
    text.strip_prefix("rustc 1.")?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Debian's cargo, set to build the library too and to link with the linker of rustup's toolchain.
fn debian_cargo(folder: &Path) -> anyhow::Result<(Command, PathBuf)> {
    let sysroot = process::output(rustc().args(["--print", "sysroot"]))?;
    let host = process::output(rustc().args(["--print", "host-tuple"]))?;
    let linker = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host.trim())
        .join("bin/rust-lld");
    let target_dir = workspace::target_dir().join("build-std");
    let programs = folder.join("usr/bin");
    let mut cargo = Command::new(programs.join("cargo"));
    cargo
        .current_dir(workspace::root())
        .arg("-Zbuild-std=core,alloc")
        // Settings that rustup and the outer cargo have made for their own toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO")
        .env("LD_LIBRARY_PATH", super::library_path(folder)?)
        .env("RUSTC", programs.join("rustc"))
        // What lets a stable compiler accept `-Zbuild-std`.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_RISCV64GC_UNKNOWN_NONE_ELF_LINKER", linker)
        .env("CARGO_TARGET_DIR", &target_dir);
    Ok((cargo, target_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(
            minor_version("rustc 1.96.0 (abc 2026-05-01) (built from a source tarball)"),
            Some(96)
        );
        assert_eq!(minor_version("rustc 1.88"), Some(88));
        assert_eq!(minor_version("gcc 12"), None);
    }
}
