//! `cargo xtask linking`: the library in programs that are compiled and linked otherwise than this repository's.
//!
//! The library brings assembly with names of its own. With fat LTO all assembly of a program is one file, and a program may
//! have two versions of the library, so the names must not meet (R78). What is shown:
//! - the tour, in the hypervisor, passes at each of several optimization levels, with fat LTO in one codegen unit, and
//!   position-independent;
//! - the test kernel passes without optimization, with every check of the compiler's (R90);
//! - a program with two versions of the library links, and both exception tables are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::artifacts::{self, Form};
use crate::elf_check::{self, Elsewhere};
use crate::qemu::{Qemu, resolve};
use crate::run::Plan;
use crate::screen::show;
use crate::test::{self, tally::Tally, target};
use crate::workspace::{self, TARGET};
use crate::{cli, process, progress};

/// How the hypervisor and the tour are built.
const FORMS: [Form; 5] = [
    Form::fat("0"),
    Form::fat("s"),
    Form::fat("z"),
    Form::fat("3"),
    Form {
        relocation_model: Some("pic"),
        ..Form::fat("2")
    },
];

/// How the test kernel is built: as far from the release profile as can be, and with the library's feature.
const FOR_TESTS: Form = Form {
    checked: true,
    features: Some("guest-mem/fence-guest-accesses"),
    ..Form::fat("0")
};

/// The version of the renamed copy.
const NEXT: &str = "0.2.7";

/// The program with both.
const TWO_VERSIONS: &str = include_str!("two_versions.rs");

/// The command.
pub fn run(machine: &cli::Machine) -> anyhow::Result<ExitCode> {
    let qemu = resolve::for_running(machine.qemu.as_deref())?;
    let mut tally = Tally::default();
    let mut claim = |name: &str, result: anyhow::Result<()>| match result {
        Ok(()) => tally.pass_aloud(name),
        Err(error) => {
            show!("test {name} ... FAILED: {error:#}");
            tally.fail(name, &format!("{error:#}"));
        }
    };
    for lto in ["off", "fat"] {
        let name = format!("r78: two versions of the library in one program, lto = {lto}");
        claim(&name, progress::step(&name, || two_versions(lto)));
    }
    for form in FORMS {
        let name = format!("r78: the tour, {form}");
        claim(&name, progress::step(&name, || tour(&form, &qemu, machine)));
    }
    let name = format!("r90: the test kernel, {FOR_TESTS}");
    claim(&name, progress::step(&name, || test_kernel(&qemu, machine)));
    Ok(test::end(&tally))
}

/// Builds the hypervisor with the tour, and runs it.
fn tour(form: &Form, qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<()> {
    let hypervisor = artifacts::build_hypervisor_as(form)?;
    elf_check::check(&fs::read(&hypervisor)?, Elsewhere::Forbidden)?;
    let options = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
    let mut screen = Vec::new();
    Plan::new(&options)?
        .in_hypervisor(hypervisor)
        .unattended()
        .carry_out(qemu, &mut screen)
        .map(drop)
        .with_context(|| String::from_utf8_lossy(&screen).into_owned())
}

/// Builds the test kernel, and does the run of it that simulators get, on one hart.
fn test_kernel(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<()> {
    let kernel = artifacts::build_test_kernel_as(&FOR_TESTS)?;
    elf_check::check(&fs::read(&kernel)?, Elsewhere::Allowed)?;
    let mut screen = Vec::new();
    let tally = target::run_alone(qemu, &kernel, machine, &mut screen)?;
    ensure!(
        tally.passed > 0 && tally.failed == 0,
        "{}",
        String::from_utf8_lossy(&screen)
    );
    Ok(())
}

/// Links the program with two versions, and checks both of its exception tables.
fn two_versions(lto: &str) -> anyhow::Result<()> {
    let folder = workspace::target_dir().join("linking");
    let next = folder.join("guest-mem-next");
    let source = workspace::root().join("guest-mem");
    copy(&source.join("src"), &next.join("src"))?;
    write(
        &next.join("Cargo.toml"),
        &manifest(
            "guest-mem-next",
            NEXT,
            "zerocopy = { version = \"0.8\", features = [\"derive\"] }",
        ),
    )?;
    let program = folder.join("two-versions");
    let dependencies =
        format!("guest-mem = {{ path = {source:?} }}\nguest-mem-next = {{ path = {next:?} }}");
    let mut text = manifest("two-versions", "0.0.0", &dependencies);
    text += &format!("\n[workspace]\n\n[profile.release]\npanic = \"abort\"\nlto = \"{lto}\"\n");
    write(&program.join("Cargo.toml"), &text)?;
    write(&program.join("src/main.rs"), TWO_VERSIONS)?;
    // The versions of dependencies that the workspace has, so that nothing is resolved anew.
    fs::copy(
        workspace::root().join("Cargo.lock"),
        program.join("Cargo.lock"),
    )?;

    let (mut cargo, target_dir) = artifacts::cargo()?;
    cargo
        .args(artifacts::BUILD)
        .arg("--manifest-path")
        .arg(program.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir.join("linking"));
    process::output(&mut cargo)?;
    let elf = target_dir
        .join("linking")
        .join(TARGET)
        .join("release/two-versions");
    let file = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let versions = elf_check::versions(&file)?;
    ensure!(
        versions.len() == 2,
        "the program has the units of {versions:?}"
    );
    elf_check::check(&file, Elsewhere::Forbidden)?;
    Ok(())
}

/// The manifest of a package.
fn manifest(name: &str, version: &str, dependencies: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\npublish = false\n\n\
         [features]\nfence-guest-accesses = []\n\n[dependencies]\n{dependencies}\n"
    )
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder)?;
    // An unchanged file keeps its time, and cargo what it has built.
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a folder of text files.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            write(&to, &fs::read_to_string(&from)?)?;
        }
    }
    Ok(())
}
