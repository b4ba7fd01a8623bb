//! The bare-metal programs of the workspace: what is built, in which order, and where the ELF files land.
//!
//! The order matters once: the hypervisor embeds the tour guest, whose path its build script reads from
//! [`TOUR_ELF_VARIABLE`].

use std::fs;
use std::path::{Path, PathBuf};

use crate::arguments;
use crate::jump_image;
use crate::process;
use crate::setup::toolchain::Toolchain;
use crate::workspace::TARGET;

/// The environment variable through which the hypervisor's build learns of the guest to embed.
const TOUR_ELF_VARIABLE: &str = "GUEST_MEM_TOUR_ELF";

/// How a bare-metal program is built.
pub const BUILD: [&str; 4] = ["build", "--release", "--target", TARGET];

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
pub const STEPPING_GUESTS: [&str; 3] = ["handover", "sbi-tests", "wakes"];

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
    let (mut cargo, target_dir) = Toolchain::resolve()?.cargo()?;
    cargo.args(BUILD).args(["--package", package]);
    if let Some(tour) = tour {
        cargo.env(TOUR_ELF_VARIABLE, tour);
    }
    process::run(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release"))
}
