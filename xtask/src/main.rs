//! `cargo xtask`: builds, runs and tests the workspace, doing its own set-up and saying what it does.
//!
//! The idea to hold: every command is a short list of steps over the modules below, each of which knows one
//! concept. Whatever is fetched or made lands under `target/`; nothing outside the repository is changed, except
//! that rustup is asked for the bare-metal target.

mod arguments;
mod artifacts;
mod bench;
mod cli;
mod elf_check;
mod evidence;
mod fuzz;
mod guest;
mod jump_image;
mod linking;
mod loom;
mod miri;
mod mutants;
mod nightly;
mod process;
mod progress;
mod qemu;
mod rules;
mod run;
mod screen;
mod setup;
mod size;
mod test;
mod workspace;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;

use crate::elf_check::Elsewhere;
use crate::screen::show;

fn main() -> ExitCode {
    match command(cli::Xtask::parse()) {
        Ok(code) => code,
        Err(error) => {
            complain(format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says why it ends, but does not wait for ever for somebody who reads it.
fn complain(error: String) {
    let (done, said) = mpsc::channel();
    std::thread::spawn(move || {
        eprintln!("{error}");
        // Nobody waits any more if that took too long.
        let _ = done.send(());
    });
    let _ = said.recv_timeout(Duration::from_secs(2));
}

fn command(xtask: cli::Xtask) -> anyhow::Result<ExitCode> {
    match xtask.command {
        cli::Command::Setup => {
            setup_all()?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Build {
            jump_image,
            arguments,
        } => {
            artifacts::build_all()?;
            if jump_image || arguments.is_some() {
                for image in artifacts::build_images(jump_image, arguments.as_deref())? {
                    progress::say(&format!("wrote {}", image.display()));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::CheckElf {
            elf,
            allow_elsewhere,
        } => {
            let elsewhere = if allow_elsewhere {
                Elsewhere::Allowed
            } else {
                Elsewhere::Forbidden
            };
            let entries = elf_check::check(&std::fs::read(&elf)?, elsewhere)?;
            show!(
                "{}: the {entries} entries of the exception table are right",
                elf.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Rules { check } => {
            rules::run(if check {
                rules::Mode::Check
            } else {
                rules::Mode::Write
            })?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Run(options) => run::run(&options),
        cli::Command::Test(options) => test::run(&options),
        cli::Command::Bench(options) => bench::run(&options),
        cli::Command::Fuzz(options) => fuzz::run(&options),
        cli::Command::Linking(machine) => linking::run(&machine),
        cli::Command::Loom => loom::run(),
        cli::Command::Miri(options) => miri::run(&options),
        cli::Command::Mutants(options) => mutants::run(&options),
        cli::Command::Evidence => evidence::run(),
    }
}

/// Sets up all that the other commands would; what only some of the tests need may be missing.
fn setup_all() -> anyhow::Result<()> {
    setup::toolchain::Toolchain::resolve()?;
    for qemu in qemu::resolve::for_testing(None)? {
        match qemu {
            Ok((qemu, _)) => progress::say(&format!("QEMU {} is ready", qemu.version)),
            Err(reason) => progress::say(&format!("skipped: {reason}")),
        }
    }
    match setup::spike::Spike::get() {
        Ok(_) => progress::say(&format!("{} is ready", setup::spike::Spike::name())),
        Err(error) => progress::say(&format!("skipped: {error:#}")),
    }
    match guest::linux::Files::get(None, None) {
        Ok(_) => progress::say("Debian's riscv64 kernel and busybox are ready"),
        Err(error) => progress::say(&format!("skipped: {error:#}")),
    }
    match guest::userland::Userland::get() {
        Ok(Some(_)) => progress::say("Debian's riscv64 bash, coreutils and perl are ready"),
        Ok(None) => {
            progress::say("skipped: Debian's riscv64 programs, on a machine without Debian")
        }
        Err(error) => progress::say(&format!("skipped: {error:#}")),
    }
    Ok(())
}
