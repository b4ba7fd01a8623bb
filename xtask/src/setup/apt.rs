//! Debian packages through a private apt: fetched and verified as the machine's own apt would do, installed nowhere.
//!
//! The idea to hold: apt is given a state, a cache and a source list of its own, so that its lists and archives land
//! in a folder of ours and no source is left behind. Which site the packages come from is read from the machine's
//! configuration, as are proxies; signatures are checked against the Debian archive keyring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::debian::Release;
use crate::process;

/// The keyring that Debian's package `debian-archive-keyring` installs.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One private apt, in a folder of its own.
pub struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// An apt in `folder` for packages that run on this machine, from its own suites and `more_suites`.
    ///
    /// It sees which packages are installed, so that [`Apt::download_missing`] fetches only the others.
    pub fn for_this_machine(
        folder: &Path,
        release: &Release,
        more_suites: &[&str],
    ) -> anyhow::Result<Self> {
        let sources = machine_sources(folder)?;
        let mut lines: Vec<_> = sources
            .iter()
            .map(|source| source_line(&source.site, &source.suite))
            .collect();
        let main = main_site(&sources, release)?;
        lines.extend(more_suites.iter().map(|suite| source_line(main, suite)));
        Self::new(folder, &lines, &[])
    }

    /// An apt in `folder` for packages of another architecture, which sees no installed package.
    pub fn for_architecture(
        folder: &Path,
        release: &Release,
        architecture: &str,
        suite: &str,
    ) -> anyhow::Result<Self> {
        let sources = machine_sources(folder)?;
        let lines = [source_line(main_site(&sources, release)?, suite)];
        let options = [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            "Dir::State::status=/dev/null".to_owned(),
        ];
        Self::new(folder, &lines, &options)
    }

    /// An apt in `folder` for packages of other releases that run on this machine, whose installed packages do not fit them.
    pub fn for_other_release(
        folder: &Path,
        release: &Release,
        suites: &[&str],
    ) -> anyhow::Result<Self> {
        let sources = machine_sources(folder)?;
        let main = main_site(&sources, release)?;
        let lines: Vec<_> = suites
            .iter()
            .map(|suite| source_line(main, suite))
            .collect();
        let mut options = vec!["Dir::State::status=/dev/null".to_owned()];
        // Of a release and its backports, the latter is asked for.
        if let Some(suite) = suites.last() {
            options.push(format!("APT::Default-Release={suite}"));
        }
        Self::new(folder, &lines, &options)
    }

    fn new(folder: &Path, lines: &[String], options: &[String]) -> anyhow::Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "no {KEYRING}: install the package debian-archive-keyring"
        );
        let mut apt = Self::in_folder(folder)?;
        let list = folder.join("sources.list");
        fs::write(&list, lines.join("\n") + "\n")?;
        apt.options
            .push(format!("Dir::Etc::sourcelist={}", list.display()));
        apt.options
            .push("Dir::Etc::sourceparts=/dev/null".to_owned());
        apt.options.extend_from_slice(options);
        process::output(apt.get().arg("update"))?;
        Ok(apt)
    }

    /// An apt that writes into `folder` only and still reads the machine's own source list.
    fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let (lists, cache) = (folder.join("lists"), folder.join("cache"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let options = vec![
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", cache.display()),
            // The lock of the system's package database is not ours to take, and nothing is installed.
            "Debug::NoLocking=1".to_owned(),
            // Without it apt takes lists that it could not fetch for a warning.
            "APT::Update::Error-Mode=any".to_owned(),
            // Descriptions for software centres, which nothing here reads.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        Ok(Self {
            folder: folder.to_owned(),
            options,
        })
    }

    fn get(&self) -> Command {
        let mut command = self.program("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("LC_ALL", "C").current_dir(&self.folder);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The package that `package` depends on and whose name begins with `prefix` and contains a version.
    pub fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<String> {
        let text = process::output(self.program("apt-cache").args(["depends", package]))?;
        versioned_dependency(&text, prefix)
            .with_context(|| format!("{package} depends on no {prefix}VERSION"))
    }

    /// Fetches `packages` and what they depend on, as far as it is not installed here, preferring `suite`.
    /// Gives the package files.
    pub fn download_missing(
        &self,
        packages: &[&str],
        suite: Option<&str>,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let mut command = self.get();
        command.args([
            "install",
            "--download-only",
            "--reinstall",
            "--no-install-recommends",
            "--assume-yes",
        ]);
        // Where another version of QEMU is installed, apt would have to replace it; nothing of that is carried out.
        command.args(["--allow-downgrades", "--allow-change-held-packages"]);
        if let Some(suite) = suite {
            command.args(["--target-release", suite]);
        }
        process::output(command.args(packages))?;
        package_files(&self.folder.join("cache/archives"))
    }

    /// Fetches `packages` and all that they depend on, whatever is installed here. Gives the package files.
    pub fn download_with_dependencies(&self, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let mut command = self.program("apt-cache");
        command.args(["depends", "--recurse"]);
        for kind in [
            "recommends",
            "suggests",
            "conflicts",
            "breaks",
            "replaces",
            "enhances",
        ] {
            command.arg(format!("--no-{kind}"));
        }
        let listed = process::output(command.args(packages))?;
        let all = packages_in(&listed);
        ensure!(!all.is_empty(), "apt knows none of {}", packages.join(", "));
        self.download(&all)
    }

    /// Fetches `packages` alone. Gives the package files.
    pub fn download(&self, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        process::output(self.get().arg("download").args(packages))?;
        package_files(&self.folder)
    }
}

/// Unpacks package files into `folder`; none of their scripts is run.
pub fn unpack(files: &[PathBuf], folder: &Path) -> anyhow::Result<()> {
    ensure!(!files.is_empty(), "apt fetched no package");
    for file in files {
        process::output(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(file)
                .arg(folder),
        )?;
    }
    Ok(())
}

/// The packages in what `apt-cache depends` lists: each begins a line of its own, virtual ones in angle brackets.
fn packages_in(listed: &str) -> Vec<&str> {
    let is_package = |line: &&str| line.starts_with(|first: char| first.is_ascii_alphanumeric());
    let mut packages: Vec<_> = listed.lines().filter(is_package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Finds a line `  Depends: NAME` of `apt-cache depends` whose name has a digit behind `prefix`.
fn versioned_dependency(text: &str, prefix: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("Depends: "))
        .find(|name| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_owned)
}

fn package_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    Ok(files)
}

/// A suite of Debian that the machine's apt is set to use.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    site: String,
    suite: String,
    codename: String,
}

fn source_line(site: &str, suite: &str) -> String {
    format!("deb [signed-by={KEYRING}] {site} {suite} main")
}

/// The machine's own Debian sources. Its lists may be empty (a container, a fresh machine): then they are fetched
/// into `folder`, which stays ours.
fn machine_sources(folder: &Path) -> anyhow::Result<Vec<Source>> {
    const TARGETS: [&str; 4] = [
        "indextargets",
        "--format",
        "$(SITE)|$(RELEASE)|$(CODENAME)|$(ORIGIN)",
        "Created-By: Packages",
    ];
    let found = process::output(Command::new("apt-get").args(TARGETS))
        .context("xtask fetches packages with apt")?;
    let sources = parse_sources(&found);
    if !sources.is_empty() {
        return Ok(sources);
    }
    let apt = Apt::in_folder(&folder.join("own"))?;
    // One source of several may be out of reach, or not Debian's: what counts is what was found.
    let updated = process::output(apt.get().arg("update"));
    let sources = parse_sources(&process::output(apt.get().args(TARGETS))?);
    if sources.is_empty() {
        updated?;
        bail!("apt is set to use no Debian site");
    }
    Ok(sources)
}

fn parse_sources(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('|').collect();
        let &[site, suite, codename, "Debian"] = &*fields else {
            continue;
        };
        let source = Source {
            site: site.to_owned(),
            suite: suite.to_owned(),
            codename: codename.to_owned(),
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// The site that carries the machine's own release, and with it Debian's other suites.
fn main_site<'a>(sources: &'a [Source], release: &Release) -> anyhow::Result<&'a str> {
    let of_release = |source: &&Source| Some(&source.codename) == release.codename.as_ref();
    let plain = |source: &&Source| !source.codename.contains('-');
    let source = sources
        .iter()
        .find(of_release)
        .or_else(|| sources.iter().find(plain));
    Ok(&source
        .with_context(|| format!("apt is set to use no site of {release}"))?
        .site)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "https://mirror.invalid/security|bookworm-security|bookworm-security|Debian\n\
        https://mirror.invalid/debian|bookworm|bookworm|Debian\n\
        https://mirror.invalid/debian|bookworm|bookworm|Debian\n\
        https://vendor.invalid/apt|nodistro|nodistro|. nodistro\n";

    #[test]
    fn the_site_is_read_from_the_machines_own_sources() {
        let sources = parse_sources(TARGETS);
        assert_eq!(sources.len(), 2);
        let bookworm = Release {
            number: Some(12),
            codename: Some("bookworm".to_owned()),
        };
        assert_eq!(
            main_site(&sources, &bookworm).unwrap(),
            "https://mirror.invalid/debian"
        );
    }

    #[test]
    fn the_packages_that_others_depend_on_are_listed_once_and_virtual_ones_are_left_out() {
        let listed = "qemu-system-riscv\n  Depends: libc6\n |Depends: <qemu>\nlibc6\n<qemu>\n  PreDepends: x\nlibc6\n";
        assert_eq!(packages_in(listed), ["libc6", "qemu-system-riscv"]);
        assert_eq!(packages_in(""), [""; 0]);
    }

    #[test]
    fn the_dependency_with_a_version_is_found() {
        let text = "linux-image-riscv64\n  Depends: linux-base-riscv64\n  Depends: linux-image-7.2.13+deb14-riscv64\n";
        let image = Some("linux-image-7.2.13+deb14-riscv64".to_owned());
        assert_eq!(versioned_dependency(text, "linux-image-"), image);
        assert_eq!(versioned_dependency(text, "linux-base-"), None);
    }

    #[test]
    fn a_machine_without_a_debian_site_is_an_error() {
        let release = Release {
            number: Some(12),
            codename: Some("bookworm".to_owned()),
        };
        assert!(main_site(&parse_sources(""), &release).is_err());
    }
}
