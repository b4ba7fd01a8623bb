//! Where things are: the repository's root and the folders under `target/` that xtask fills.

use std::path::{Path, PathBuf};

/// The bare-metal target of the hypervisor, the tour guest and the test kernel.
pub const TARGET: &str = "riscv64gc-unknown-none-elf";

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in a folder of the repository")
}

/// Cargo's target folder, absolute (apt takes a relative folder for one below its own).
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs xtask.
pub fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Whether this is an unattended build: no bars, no prompts.
pub fn is_ci() -> bool {
    std::env::var_os("CI")
        .is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}
