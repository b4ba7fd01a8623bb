//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Builds, runs and tests guest-mem and its hypervisor; sets up by itself what is missing.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
pub struct Xtask {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Build the hypervisor (with the tour guest inside) and the test kernel for the bare-metal target
    Build,
    /// Boot a guest in the hypervisor, on QEMU
    Run(Run),
    /// Run every test, on this machine and on the RISC-V target; the last line is the total
    Test(Test),
}

/// Which QEMU to use, and what it starts.
#[derive(Args)]
pub struct Machine {
    /// The qemu-system-riscv64 to use; without it, the one of PATH, else (on Debian) a package unpacked under target/
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// SBI firmware image to use in place of the OpenSBI that comes with QEMU
    #[arg(long, value_name = "PATH")]
    pub bios: Option<PathBuf>,
    /// End an unattended run after so many seconds (it then fails)
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Options of `run`.
#[derive(Args)]
pub struct Run {
    /// `tour` (the guided tour), `linux` (Debian's kernel with a busybox userland), or a file with an S-mode guest
    /// (Linux Image, flat binary or ELF)
    #[arg(default_value = "tour")]
    pub guest: PathBuf,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `test`.
#[derive(Args)]
pub struct Test {
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}
