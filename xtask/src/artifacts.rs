//! The bare-metal programs of the workspace: what is built, in which order, and where the ELF files land.
//!
//! The order matters once: the hypervisor embeds the tour guest, whose path its build script reads from
//! [`TOUR_ELF_VARIABLE`].

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments;
use crate::jump_image;
use crate::process;
use crate::setup::toolchain::Toolchain;
use crate::workspace::TARGET;

/// The environment variable through which the hypervisor's build learns of the guest to embed.
const TOUR_ELF_VARIABLE: &str = "GUEST_MEM_TOUR_ELF";

/// How a bare-metal program is built.
pub const BUILD: [&str; 4] = ["build", "--release", "--target", TARGET];

/// The profile of [`Form`]s, and its folder. One for all of them: what runs on the host is built once.
const LINKING: &str = "linking";

/// Another way to compile and link than the release profile's.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Cargo's `opt-level`.
    pub opt_level: &'static str,
    /// rustc's `relocation-model`.
    pub relocation_model: Option<&'static str>,
    /// Whether debug assertions and overflows are checked.
    pub checked: bool,
    /// Features, as cargo takes them.
    pub features: Option<&'static str>,
}

impl Form {
    /// Fat LTO, in one codegen unit.
    pub const fn fat(opt_level: &'static str) -> Self {
        Self {
            opt_level,
            relocation_model: None,
            checked: false,
            features: None,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "opt-level {}, fat LTO, one codegen unit", self.opt_level)?;
        if let Some(model) = self.relocation_model {
            write!(f, ", relocation-model {model}")?;
        }
        if self.checked {
            f.write_str(", with debug assertions and overflow checks")?;
        }
        match self.features {
            Some(features) => write!(f, ", feature {features}"),
            None => Ok(()),
        }
    }
}

/// As [`build_hypervisor`], in another form.
pub fn build_hypervisor_as(form: &Form) -> anyhow::Result<PathBuf> {
    let tour = build_as("tour", None, form)?.join("tour");
    Ok(build_as("hypervisor", Some(&tour), form)?.join("hypervisor"))
}

/// As [`build_test_kernel`], in another form.
pub fn build_test_kernel_as(form: &Form) -> anyhow::Result<PathBuf> {
    Ok(build_as("test-kernel", None, form)?.join("test-kernel"))
}

/// Builds a package in another form; gives the folder of its programs.
fn build_as(package: &str, tour: Option<&Path>, form: &Form) -> anyhow::Result<PathBuf> {
    let (mut cargo, target_dir) = cargo()?;
    cargo.args(["build", "--target", TARGET]);
    cargo.args(["--package", package, "--bin", package]);
    cargo.args(["--profile", LINKING]);
    for setting in [
        "inherits=\"release\"".into(),
        "lto=\"fat\"".into(),
        "codegen-units=1".into(),
        match form.opt_level.parse::<u8>() {
            Ok(level) => format!("opt-level={level}"),
            Err(_) => format!("opt-level=\"{}\"", form.opt_level),
        },
        format!("debug-assertions={}", form.checked),
        format!("overflow-checks={}", form.checked),
    ] {
        cargo.args(["--config", &format!("profile.{LINKING}.{setting}")]);
    }
    if let Some(model) = form.relocation_model {
        cargo.args([
            "--config",
            &format!("target.{TARGET}.rustflags=[\"-Crelocation-model={model}\"]"),
        ]);
    }
    if let Some(features) = form.features {
        cargo.args(["--features", features]);
    }
    if let Some(tour) = tour {
        cargo.env(TOUR_ELF_VARIABLE, tour);
    }
    process::output(&mut cargo)?;
    Ok(target_dir.join(TARGET).join(LINKING))
}

/// A `cargo` for the target, and the folder that it builds into.
pub fn cargo() -> anyhow::Result<(Command, PathBuf)> {
    Toolchain::resolve()?.cargo()
}

/// Builds every bare-metal program.
pub fn build_all() -> anyhow::Result<()> {
    build_hypervisor()?;
    build_test_kernel()?;
    build_misbehaving_guests()?;
    build_hostile_guest()?;
    build_extensions_guest()?;
    for guest in STEPPING_GUESTS {
        build_guest(guest)?;
    }
    Ok(())
}

/// Builds the tour guest, then the hypervisor around it; gives the hypervisor's ELF file.
pub fn build_hypervisor() -> anyhow::Result<PathBuf> {
    let tour = build("tour", None)?.join("tour");
    Ok(build("hypervisor", Some(&tour))?.join("hypervisor"))
}

/// Builds the test kernel; gives its ELF file.
pub fn build_test_kernel() -> anyhow::Result<PathBuf> {
    Ok(build("test-kernel", None)?.join("test-kernel"))
}

/// The programs that run without firmware, and elsewhere.
const TO_TAKE_ELSEWHERE: [&str; 3] = ["test-kernel", "differential", "bench"];

/// Builds these programs, with a jump from the start of RAM and boot arguments as wished; gives their ELF files, which stand
/// beside cargo's own.
pub fn build_images(jump: bool, arguments: Option<&str>) -> anyhow::Result<Vec<PathBuf>> {
    let folder = build("test-kernel", None)?;
    let image = |name| image_of(&folder.join(name), jump, arguments);
    TO_TAKE_ELSEWHERE.into_iter().map(image).collect()
}

/// Writes a program's image beside it.
pub fn image_of(program: &Path, jump: bool, arguments: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut name = program.as_os_str().to_owned();
    let mut image = fs::read(program)?;
    if let Some(arguments) = arguments {
        image = arguments::put(&image, arguments)?;
        name.push("-arguments");
    }
    if jump {
        image = jump_image::add_jump(&image)?;
        name.push("-jump");
    }
    name.push(".elf");
    // Another test may be about to load the same file: it sees the old one or the new one, whole.
    let mut partial = name.clone();
    partial.push(format!(
        ".{}.{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::write(&partial, image)?;
    fs::rename(&partial, &name)?;
    Ok(name.into())
}

/// Builds the differential test; gives its ELF file.
pub fn build_differential() -> anyhow::Result<PathBuf> {
    Ok(build("test-kernel", None)?.join("differential"))
}

/// Builds the bench; gives its ELF file.
pub fn build_bench() -> anyhow::Result<PathBuf> {
    Ok(build("test-kernel", None)?.join("bench"))
}

/// Builds the guests that misbehave; gives the folder of their ELF files.
pub fn build_misbehaving_guests() -> anyhow::Result<PathBuf> {
    build("misbehaving", None)
}

/// Builds the guest that tries ISA extensions; gives its ELF file.
pub fn build_extensions_guest() -> anyhow::Result<PathBuf> {
    Ok(build("extensions", None)?.join("extensions"))
}

/// The guests of one program whose last line counts their steps.
pub const STEPPING_GUESTS: [&str; 5] = ["handover", "pasted", "rewrites", "sbi-tests", "wakes"];

/// Builds one of them; gives its ELF file.
pub fn build_guest(name: &str) -> anyhow::Result<PathBuf> {
    Ok(build(name, None)?.join(name))
}

/// Builds the hostile guest; gives its ELF file.
pub fn build_hostile_guest() -> anyhow::Result<PathBuf> {
    Ok(build("hostile", None)?.join("hostile"))
}

/// Builds a package; gives the folder of its programs.
fn build(package: &str, tour: Option<&Path>) -> anyhow::Result<PathBuf> {
    let (mut cargo, target_dir) = cargo()?;
    cargo.args(BUILD).args(["--package", package]);
    if let Some(tour) = tour {
        cargo.env(TOUR_ELF_VARIABLE, tour);
    }
    process::run(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release"))
}
