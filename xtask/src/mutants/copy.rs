//! A copy of the workspace under `target/`, in which one file at a time is wrong.
//!
//! The one idea: the user's own tree is never written, and what the copy is built into is its own too, so that a run that is
//! interrupted leaves nothing behind that matters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::mutant::Mutant;
use crate::artifacts;
use crate::loom;
use crate::process;
use crate::setup::toolchain::Toolchain;
use crate::workspace::{self, TARGET};

/// Folders that are no part of the sources.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// What makes cargo build no more anew than a mutant changes, optimized builds included.
const INCREMENTAL: [(&str, &str); 1] = [("CARGO_INCREMENTAL", "1")];

/// The copy.
pub struct Copy {
    root: PathBuf,
    target_dir: PathBuf,
}

impl Copy {
    /// Makes it, or brings it up to date.
    pub fn make() -> anyhow::Result<Self> {
        let folder = workspace::target_dir().join("mutants");
        let copy = Self {
            root: folder.join("tree"),
            target_dir: folder.join("target"),
        };
        mirror(workspace::root(), &copy.root)?;
        Ok(copy)
    }

    /// Runs `test` while the copy is `mutant`.
    pub fn with<T>(
        &self,
        mutant: &Mutant,
        test: impl FnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let file = self.root.join(mutant.folder()).join(mutant.file);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        fs::write(&file, mutated(&text, mutant)?)?;
        let result = test(self);
        fs::write(&file, text)?;
        result
    }

    /// Builds the library's unit tests; gives the program.
    pub fn build_library_tests(&self) -> anyhow::Result<PathBuf> {
        self.build_tests(workspace::cargo().arg("test"), "target")
    }

    /// The same for loom.
    pub fn build_tests_in_every_order(&self) -> anyhow::Result<PathBuf> {
        let mut cargo = workspace::cargo();
        cargo.arg("test");
        loom::build_for_loom(&mut cargo);
        self.build_tests(&mut cargo, "loom")
    }

    /// Builds the tests as cargo was told, in a folder beside the copy.
    fn build_tests(&self, cargo: &mut Command, folder: &str) -> anyhow::Result<PathBuf> {
        cargo.args(["--quiet", "--package", "guest-mem", "--lib"]);
        cargo.args(["--no-run", "--message-format", "json"]);
        cargo
            .env("CARGO_TARGET_DIR", self.target_dir.with_file_name(folder))
            .envs(INCREMENTAL);
        let messages = process::output(cargo.current_dir(&self.root))?;
        let program = executable(&messages).context("cargo named no test program")?;
        Ok(self.root.join(program))
    }

    /// Builds a bare-metal program, the test kernel or the hypervisor; gives its ELF file.
    pub fn build(&self, program: &str) -> anyhow::Result<PathBuf> {
        let (mut cargo, _) = Toolchain::resolve()?.cargo()?;
        cargo
            .args(artifacts::BUILD)
            .args(["--quiet", "--package", program, "--bin", program]);
        cargo
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .envs(INCREMENTAL);
        process::output(cargo.current_dir(&self.root))?;
        Ok(self.target_dir.join(TARGET).join("release").join(program))
    }

    /// Where the copy's tests run.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The program in cargo's messages, one JSON object a line, of which one has a path here.
fn executable(messages: &str) -> Option<&str> {
    let (_, rest) = messages.split_once("\"executable\":\"")?;
    rest.split_once('"').map(|(program, _)| program)
}

/// Makes `to` hold what `from` holds. A file that is the same is not touched, for cargo's sake.
fn mirror(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let copy = to.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !LEFT_OUT.iter().any(|&left_out| name == left_out) {
                mirror(&entry.path(), &copy)?;
            }
        } else if kind.is_file() {
            let contents = fs::read(entry.path())?;
            if fs::read(&copy).ok().as_ref() != Some(&contents) {
                fs::write(&copy, contents)?;
            }
        }
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// The text of `mutant`'s file as it is in the mutant.
pub fn mutated(text: &str, mutant: &Mutant) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    for (from, to) in mutant.edits {
        let found = text.matches(from).count();
        ensure!(
            found == 1,
            "mutant `{}`: {} has {found} places like `{from}`, not one",
            mutant.name,
            mutant.file
        );
        text = text.replacen(from, to, 1);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::mutant::Caught;

    const MUTANT: Mutant = Mutant {
        name: "less is more",
        file: "lib.rs",
        edits: &[("a < b", "a > b")],
        caught: Caught::OnHost,
    };

    #[test]
    fn an_edit_that_does_not_fit_exactly_once_is_refused() {
        assert_eq!(mutated("if a < b {}", &MUTANT).unwrap(), "if a > b {}");
        for text in ["if a <= b {}", "a < b && a < b"] {
            assert!(mutated(text, &MUTANT).is_err(), "{text}");
        }
    }

    #[test]
    fn the_test_program_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/deps/guest_mem-1\",\"fresh\":true}\n";
        assert_eq!(executable(messages), Some("/t/deps/guest_mem-1"));
        assert_eq!(executable("{\"executable\":null}"), None);
    }
}
