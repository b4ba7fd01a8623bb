//! The nightly compiler, for what stable Rust cannot do: the sanitizers of the fuzz targets, and Miri.
//!
//! The one idea: nightly is asked for only here, and nothing that a user builds depends on it. Where it cannot be had, the step
//! is skipped, with the reason.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{process, progress, workspace};

/// Makes sure that rustup has a nightly compiler with `components`.
pub fn ensure(components: &[&str]) -> anyhow::Result<()> {
    let has_cargo = process::output(command("cargo").arg("--version")).is_ok();
    if !has_cargo {
        progress::say("asking rustup for a nightly compiler, beside the one that is used");
        rustup(&["toolchain", "install", "nightly", "--profile", "minimal"])?;
    }
    if components.is_empty() {
        return Ok(());
    }
    let listed = process::output(Command::new("rustup").args([
        "component",
        "list",
        "--toolchain",
        "nightly",
        "--installed",
    ]))?;
    let missing: Vec<_> = components
        .iter()
        .copied()
        .filter(|component| !listed.lines().any(|line| line.starts_with(component)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress::say(&format!(
        "asking rustup for nightly's {}",
        missing.join(", ")
    ));
    rustup(
        &[
            &["component", "add", "--toolchain", "nightly"],
            &missing[..],
        ]
        .concat(),
    )
}

/// `program`, under nightly.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly"])
        .arg(program.as_ref())
        .current_dir(workspace::root())
        // What the cargo that runs xtask has set for its own compiler.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn rustup(arguments: &[&str]) -> anyhow::Result<()> {
    process::output(Command::new("rustup").args(arguments))
        .map(drop)
        .context("nightly Rust cannot be had")
}
