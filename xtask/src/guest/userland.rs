//! A userland that nobody here compiled: Debian's bash, coreutils and perl with its glibc, what they are to compute, and what
//! must come out.
//!
//! The one idea: busybox is linked statically and asks the kernel for the time. A dynamically linked program asks the vDSO, which
//! reads `time` in U-mode, and dies where firmware or hypervisor does not let it. Every result but the clock's readings is a
//! function of known inputs, so that it is computed here a second time, and only a digest of all of them has to be told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use sha2::{Digest, Sha256};

use super::cpio::Archive;
use super::linux::SUITE;
use crate::setup;
use crate::setup::apt::Apt;
use crate::setup::debian::Release;

/// The packages; what they depend on comes with them.
const PACKAGES: [&str; 4] = ["libc6", "bash", "coreutils", "perl-base"];

/// The programs that the guest runs, and the loader that starts each of them.
const PROGRAMS: [&str; 5] = ["bash", "cat", "date", "perl", "sha256sum"];
const LOADER: &str = "ld-linux-riscv64-lp64d.so.1";

/// What is computed: how often the clock is read, how long the sum is, how many children are made, and the memory that is
/// touched by all harts together.
const READINGS: u64 = 10;
const TERMS: u64 = 20_000;
const CHILDREN: u64 = 4;
const MEMORY: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// A multiplier that makes a page's number into bytes.
const SPREAD: u64 = 2_654_435_761;

/// The digest of the results.
pub type Results = [u8; 32];

/// How the line with the digest begins.
const LINE: &str = "guest-mem: userland, digest of its results: ";

/// Where the guest finds the workload.
const WORKLOAD: &str = "workload";

/// Files that are put into an initramfs: where they go, and where they are.
pub struct Userland(BTreeMap<String, PathBuf>);

impl Userland {
    /// Debian's packages; `None` on a machine that does not run Debian.
    pub fn get() -> anyhow::Result<Option<Self>> {
        let Some(release) = Release::of_this_machine() else {
            return Ok(None);
        };
        let message = "fetching Debian's riscv64 bash, coreutils and perl into target/ (nothing is installed)";
        let folder = setup::once("userland-riscv64", message, |folder| {
            let unpacked = folder.join("packages");
            fs::create_dir(&unpacked)?;
            setup::unpack_packages(&unpacked, |apt| {
                let apt = Apt::for_architecture(apt, &release, "riscv64", SUITE)?;
                apt.download_missing(&PACKAGES, None)
            })?;
            for (name, path) in needed_files(&unpacked)? {
                let kept = folder.join(name);
                fs::create_dir_all(kept.parent().context("each file is in a folder")?)?;
                fs::copy(path, kept)?;
            }
            Ok(fs::remove_dir_all(&unpacked)?)
        })?;
        let mut files = BTreeMap::new();
        for parent in ["bin", "lib"] {
            let entries = fs::read_dir(folder.join(parent))
                .with_context(|| format!("remove {} to have it fetched again", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = format!("{parent}/{}", entry.file_name().to_string_lossy());
                files.insert(name, entry.path());
            }
        }
        Ok(Some(Self(files)))
    }

    /// Adds the files and the workload.
    pub fn add_to(&self, archive: &mut Archive) -> anyhow::Result<()> {
        for folder in ["debian", "debian/bin", "lib"] {
            archive.directory(folder);
        }
        for (name, path) in &self.0 {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            // The loader and the libraries are looked for in /lib; the programs leave busybox's /bin alone.
            match name.strip_prefix("bin/") {
                Some(program) => archive.program(&format!("debian/bin/{program}"), &bytes),
                None => archive.program(name, &bytes),
            }
        }
        archive.program(WORKLOAD, workload().as_bytes());
        Ok(())
    }
}

/// The programs and every library that one of them needs: the name to keep it by, and where it is in the unpacked packages.
fn needed_files(unpacked: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let libraries = unpacked.join("usr/lib/riscv64-linux-gnu");
    let mut files = BTreeMap::new();
    let mut todo = vec![(format!("lib/{LOADER}"), libraries.join(LOADER))];
    for program in PROGRAMS {
        let path = unpacked.join("usr/bin").join(program);
        todo.push((format!("bin/{program}"), path));
    }
    while let Some((name, path)) = todo.pop() {
        if files.contains_key(&name) {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("no {name} in the packages"))?;
        for library in needed_libraries(&bytes).with_context(|| name.clone())? {
            let path = libraries.join(&library);
            todo.push((format!("lib/{library}"), path));
        }
        files.insert(name, path);
    }
    Ok(files)
}

/// The names of the libraries that an ELF file asks the loader for.
fn needed_libraries(file: &[u8]) -> anyhow::Result<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    let sections = header.sections(LittleEndian, file)?;
    let Some((entries, strings)) = sections.dynamic(LittleEndian, file)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(LittleEndian, file, strings)?;
    let mut names = Vec::new();
    for entry in entries {
        if entry.d_tag.get(LittleEndian) == DT_NEEDED {
            let name = entry.string(LittleEndian, strings)?;
            names.push(String::from_utf8(name.to_owned())?);
        }
    }
    Ok(names)
}

/// The part of the init script that runs the workload on each hart at the same time, shows what came out, and its digest.
pub fn init_script() -> String {
    format!(
        "\
harts=$(nproc)
for hart in $(seq 0 $((harts - 1))); do
    taskset -c $hart /debian/bin/bash /{WORKLOAD} $hart $harts > /tmp/hart.$hart 2>&1 &
done
wait
cat /tmp/hart.*
echo \"{LINE}$(cat /tmp/hart.* | /debian/bin/sha256sum)\"
"
    )
}

/// What one hart does, as a script for bash: `workload HART HARTS`. Whatever it prints goes to the digest.
fn workload() -> String {
    // The clock's readings are not known, but each comes after the one before it, and has nine digits behind its seconds.
    // A `date` that dies ends the row.
    format!(
        "\
PATH=/debian/bin
hart=$1 harts=$2
last=0 readings=0
while (( readings < {READINGS} )); do
    nanoseconds=$(date +%s.%N)
    [[ $nanoseconds =~ ^[0-9]+\\.[0-9]{{9}}$ ]] || break
    now=$((10#${{nanoseconds/./}}))
    (( now > last )) || break
    last=$now readings=$((readings + 1))
done
echo \"hart $hart: clock, readings in order: $readings\"

perl -e '
    my $sum = 0;
    for my $term (1 .. {TERMS}) {{ $sum += sqrt($term) * 1.5 / ($term + 0.25) }}
    printf \"hart %d: floating point, a sum: %s\\n\", $ARGV[0], unpack \"H16\", pack \"d>\", $sum;
    my ($memory, $hash) = (\"\", 0);
    my $pages = {MEMORY} / {PAGE} / $ARGV[1];
    $pages = int $pages;
    vec($memory, $pages * {PAGE} - 1, 8) = 0;
    for my $page (0 .. $pages - 1) {{
        my $value = $page * {SPREAD} & 0xffffffff;
        substr($memory, $page * {PAGE} + $page % 4093, 4, pack \"N\", $value);
    }}
    for my $page (0 .. $pages - 1) {{
        my $value = unpack \"N\", substr $memory, $page * {PAGE} + $page % 4093, 4;
        $hash = ($hash * 31 + $value) & 0xffffffff;
    }}
    printf \"hart %d: memory, %d pages: %08x\\n\", $ARGV[0], $pages, $hash;
' $hart $harts

for child in {{1..{CHILDREN}}}; do
    printf 'child %d of hart %d\\n' $child $hart | sha256sum > /tmp/child.$hart.$child &
done
wait
for child in {{1..{CHILDREN}}}; do
    echo \"hart $hart: child $child: $(cat /tmp/child.$hart.$child)\"
done
"
    )
}

/// What the workload prints on so many harts.
fn output(harts: u32) -> String {
    let mut text = String::new();
    for hart in 0..harts {
        let mut line = |rest: std::fmt::Arguments<'_>| {
            writeln!(text, "hart {hart}: {rest}").expect("a string takes any text");
        };
        line(format_args!("clock, readings in order: {READINGS}"));
        line(format_args!(
            "floating point, a sum: {:016x}",
            sum().to_bits()
        ));
        let pages = MEMORY / PAGE / u64::from(harts);
        line(format_args!(
            "memory, {pages} pages: {:08x}",
            hash_of_memory(pages)
        ));
        for child in 1..=CHILDREN {
            let digest = Sha256::digest(format!("child {child} of hart {hart}\n"));
            line(format_args!("child {child}: {}  -", hexadecimal(&digest)));
        }
    }
    text
}

/// The digest that must come out on so many harts.
pub fn expected(harts: u32) -> Results {
    Sha256::digest(output(harts)).into()
}

/// The digest that `line` tells, if it is the line that does.
pub fn results_of_line(line: &str) -> Option<Results> {
    let (_, rest) = line.split_once(LINE)?;
    let digits = rest.get(..64)?;
    let mut results = Results::default();
    for (index, byte) in results.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(results)
}

/// Square root, product, quotient and sum are exact but for one rounding each, so they agree on every machine.
fn sum() -> f64 {
    (1..=TERMS).fold(0.0, |sum, term| {
        let term = term as f64;
        sum + term.sqrt() * 1.5 / (term + 0.25)
    })
}

/// What is read back of memory in which each page has its own value at its own place.
fn hash_of_memory(pages: u64) -> u64 {
    (0..pages).fold(0, |hash, page| {
        (hash * 31 + ((page * SPREAD) & 0xffff_ffff)) & 0xffff_ffff
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a digest that is not the expected one.
pub fn judge(expected: Results, seen: Option<Results>) -> anyhow::Result<()> {
    let seen = seen.context("Debian's userland did not come to the digest of its results")?;
    ensure!(
        seen == expected,
        "the results of Debian's userland are wrong: their digest is {}, not {}",
        hexadecimal(&seen),
        hexadecimal(&expected)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_digest_is_read_from_its_line_alone() {
        let digits = "0123456789abcdef".repeat(4);
        let results = results_of_line(&format!("[  1.2] x{LINE}{digits}  -")).unwrap();
        assert_eq!(results[..4], [0x01, 0x23, 0x45, 0x67]);
        for line in [
            String::new(),
            format!("{LINE}  -"),
            format!("{LINE}{}", &digits[1..]),
            format!("{LINE}z{}", &digits[1..]),
            init_script(),
        ] {
            assert_eq!(results_of_line(&line), None, "{line}");
        }
    }

    #[test]
    fn only_the_expected_digest_is_good() {
        let [one, two] = [1, 2].map(expected);
        assert!(judge(two, Some(two)).is_ok());
        assert!(judge(two, Some(one)).is_err());
        assert!(judge(two, None).is_err());
    }

    /// The same script with this machine's bash, coreutils and perl.
    #[test]
    fn what_is_expected_is_what_the_workload_prints() {
        let folder =
            std::env::temp_dir().join(format!("guest-mem-workload.{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let script = workload()
            .replace("PATH=/debian/bin\n", "")
            .replace("/tmp/", &format!("{}/", folder.display()));
        let mut printed = String::new();
        for hart in ["0", "1", "2"] {
            let mut bash = Command::new("bash");
            bash.args(["-c", &script, "workload", hart, "3"]);
            let output = bash.output().unwrap();
            printed += &String::from_utf8_lossy(&output.stdout);
            printed += &String::from_utf8_lossy(&output.stderr);
        }
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(printed, output(3));
    }
}
