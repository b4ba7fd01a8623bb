//! `cargo xtask run`: boots a guest in the hypervisor.
//!
//! A run is planned first (what to load, who is at the console, what must be seen) and then carried out the same way
//! for every guest.

mod mark;
mod scratch;
mod screen;
mod verdict;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::evidence::{Group, Long};
use crate::guest::initramfs::{self, Then};
use crate::guest::userland::{self, Userland};
use crate::guest::{Bundle, Series, linux};
use crate::qemu::session::{self, Console, Ended, Paste};
use crate::qemu::{self, Board, Machine, Qemu};
use crate::size::ByteSize;
use crate::{artifacts, cli, progress, workspace};

use mark::{Mark, Unmarked};
use scratch::{Scratch, ensure_regular, read};
use screen::Screen;
pub use verdict::Expected;
use verdict::Seen;

/// What the hypervisor keeps for itself, beside the guest's memory and the bundle.
const HYPERVISOR_MEMORY: ByteSize = ByteSize::mebibytes(256);
/// The largest bundle that QEMU's loader has room for: it goes 512 MiB above the hypervisor, and the machine's device tree 1 GiB
/// above the start of RAM.
const LARGEST_BUNDLE: ByteSize = ByteSize::mebibytes(500);
/// Guest memory and harts where the user names none.
const GUEST_MEMORY: ByteSize = ByteSize::mebibytes(512);
const GUEST_HARTS: u32 = 2;
/// Hostile guests where the user names no number, the seed of the first one, what each has of memory, and of time.
const HOSTILE_GUESTS: u64 = 2000;
const HOSTILE_SEED: u64 = 1;
const HOSTILE_MEMORY: ByteSize = ByteSize::mebibytes(4);
const HOSTILE_MILLISECONDS: u64 = 50;
/// Time limit of an unattended run.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The command.
pub fn run(options: &cli::Run) -> anyhow::Result<ExitCode> {
    let qemu = qemu::resolve::for_running(options.machine.qemu.as_deref())?;
    let plan = Plan::new(options)?;
    let program = if options.bare {
        "the guest itself"
    } else {
        "the hypervisor"
    };
    progress::say(&format!(
        "starting {program} on QEMU {} with {} harts",
        qemu.version, plan.machine.harts
    ));
    let mut screen = Screen::new(std::io::stdout(), plan.limit);
    let result = plan.carry_out(&qemu, &mut screen);
    if options.guest.to_str() == Some("hostile") && options.machine.has_usual_programs() {
        let counted = result.as_ref().ok().map(|found| &found.counted);
        leave_record(options, &qemu, counted)?;
    }
    result.map(|_| ExitCode::SUCCESS)
}

/// Leaves what came of hostile guests for the evidence: what a good run counted.
fn leave_record(
    options: &cli::Run,
    qemu: &Qemu,
    counted: Option<&Vec<(String, u64)>>,
) -> anyhow::Result<()> {
    let count = options.count.unwrap_or(HOSTILE_GUESTS);
    let harts = options.harts.unwrap_or(GUEST_HARTS);
    let seed = options.seed.unwrap_or(HOSTILE_SEED);
    let cpu = options.machine.cpu_option();
    let command = format!("run hostile --count {count} --seed {seed} --harts {harts}{cpu}");
    let group = Group {
        name: format!("{command}, on QEMU {}", qemu.version),
        passed: counted.is_some().into(),
        failed: counted.is_none().into(),
        counted: counted.cloned().unwrap_or_default(),
        ..Group::default()
    };
    Long::Hostile.leave(&command, count, vec![group])
}

/// One run, ready to be started.
pub struct Plan {
    machine: Machine,
    console: Console,
    limit: Option<Duration>,
    expected: Expected,
    /// What the hypervisor's lines begin with; `None` without a hypervisor.
    mark: Option<Mark>,
    /// What QEMU loads and what was made for this run only.
    scratch: Vec<Scratch>,
    /// `instret` counts instructions, and time is made of them.
    counts_instructions: bool,
}

/// What a good run found.
#[derive(Debug, Default)]
pub struct Found {
    /// What it went through: of what, how many.
    pub counted: Vec<(String, u64)>,
    /// Exits by cause, in the hypervisor's words.
    pub exits: Option<String>,
}

impl Plan {
    /// Plans what the options ask for; builds and fetches what it takes.
    pub fn new(options: &cli::Run) -> anyhow::Result<Self> {
        let hostile = options.guest.to_str() == Some("hostile");
        let in_series = options.seed.is_some() || options.count.is_some();
        ensure!(
            hostile || !in_series,
            "--seed and --count go with `run hostile`"
        );
        match options.guest.to_str() {
            Some("tour") => Self::tour(options),
            Some("linux") => Self::linux(options, Self::after_userspace(options)?),
            Some("hostile") => Self::hostile(options),
            _ => Self::file(options),
        }
    }

    fn hostile(options: &cli::Run) -> anyhow::Result<Self> {
        let fixed = !options.bare
            && options.memory.is_none()
            && options.initrd.is_none()
            && options.append.is_none();
        ensure!(
            fixed,
            "the hostile guests take no --bare, --memory, --initrd or --append"
        );
        refuse_linux_options(options)?;
        let count = options.count.unwrap_or(HOSTILE_GUESTS);
        let kernel = artifacts::build_hostile_guest()?;
        let guest = Guest {
            name: "hostile",
            kernel: &kernel,
            initrd: None,
            cmdline: None,
            series: Some(Series {
                count,
                seed: options.seed.unwrap_or(HOSTILE_SEED),
                time_limit: HOSTILE_MILLISECONDS,
            }),
            drill: false,
        };
        let options = cli::Run {
            memory: Some(HOSTILE_MEMORY),
            ..options.clone()
        };
        let mut plan = Self::guest(&options, &guest)?.unattended();
        if options.machine.timeout.is_none() {
            plan.limit = Some(series_limit(count));
        }
        plan.expected = Expected {
            series: Some(count),
            ..Expected::default()
        };
        Ok(plan)
    }

    fn tour(options: &cli::Run) -> anyhow::Result<Self> {
        let fixed = !options.bare
            && options.harts.is_none()
            && options.memory.is_none()
            && options.initrd.is_none()
            && options.append.is_none();
        ensure!(
            fixed,
            "the tour guest takes no --bare, --harts, --memory, --initrd or --append"
        );
        refuse_linux_options(options)?;
        let mark = Mark::random()?;
        let machine = Machine {
            board: Board::Virt,
            cpu: cpu(options),
            harts: GUEST_HARTS,
            memory: ByteSize(GUEST_MEMORY.0 + HYPERVISOR_MEMORY.0),
            kernel: artifacts::build_hypervisor()?,
            initrd: None,
            append: Some(mark.argument()),
            bios: options.machine.bios.clone(),
        };
        let limit = Some(limit(options).unwrap_or(TIMEOUT));
        Ok(Self {
            machine,
            console: Console::Unattended,
            limit,
            expected: Expected {
                end: Some(Expected::SHUTDOWN),
                steps: true,
                ..Expected::default()
            },
            mark: Some(mark),
            scratch: Vec::new(),
            counts_instructions: false,
        })
    }

    /// What Linux does once userspace is up.
    fn after_userspace(options: &cli::Run) -> anyhow::Result<Then> {
        if !options.smoke {
            return Ok(Then::Shell);
        }
        match Userland::get()? {
            Some(programs) => Ok(Then::Programs(programs)),
            None => {
                progress::say("this machine does not run Debian: busybox is all of the userland");
                Ok(Then::PowerOff)
            }
        }
    }

    /// Linux up to the first line of userspace, and nothing after that.
    pub fn boot_of_linux(options: &cli::Run) -> anyhow::Result<Self> {
        Self::linux(options, Then::PowerOff)
    }

    fn linux(options: &cli::Run, then: Then) -> anyhow::Result<Self> {
        ensure!(
            options.initrd.is_none(),
            "`run linux` makes its own initrd; to bring one, run the kernel by its path"
        );
        let files = linux::Files::get(options.kernel.as_deref(), options.busybox.as_deref())?;
        let cmdline = match &options.append {
            Some(more) => format!("{} {more}", linux::COMMAND_LINE),
            None => linux::COMMAND_LINE.to_owned(),
        };
        let initramfs = scratch(&initramfs::make(&read(&files.busybox)?, &then)?)?;
        let guest = Guest {
            name: "linux",
            kernel: &files.kernel,
            initrd: Some(initramfs.path()),
            cmdline: Some(&cmdline),
            series: None,
            drill: options.drill,
        };
        let mut plan = Self::guest(options, &guest)?;
        plan.scratch.push(initramfs);
        if options.smoke {
            plan = plan.unattended();
            plan.expected.userspace_harts = Some(plan.machine.harts);
            plan.expected.userland =
                matches!(then, Then::Programs(_)).then(|| userland::expected(plan.machine.harts));
        }
        Ok(plan)
    }

    fn file(options: &cli::Run) -> anyhow::Result<Self> {
        refuse_linux_options(options)?;
        let name = options
            .guest
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        let guest = Guest {
            name: &name.replace(char::is_control, "?"),
            kernel: &options.guest,
            initrd: options.initrd.clone(),
            cmdline: options.append.as_deref(),
            series: None,
            drill: options.drill,
        };
        Self::guest(options, &guest)
    }

    /// A guest from files, with the user at its console.
    fn guest(options: &cli::Run, guest: &Guest) -> anyhow::Result<Self> {
        let harts = options.harts.unwrap_or(GUEST_HARTS);
        let memory = options.memory.unwrap_or(GUEST_MEMORY);
        ensure!(
            memory.0 > 0 && memory.0.is_multiple_of(4096),
            "--memory is in whole pages of 4 KiB"
        );
        let bios = options.machine.bios.clone();
        let mark = (!options.bare).then(Mark::random).transpose()?;
        let mut scratch = Vec::new();
        for image in [Some(guest.kernel), guest.initrd.as_deref(), bios.as_deref()] {
            image.map(ensure_regular).transpose()?;
        }
        let machine = if options.bare {
            Machine {
                board: Board::Virt,
                cpu: cpu(options),
                harts,
                memory,
                kernel: guest.kernel.to_owned(),
                initrd: guest.initrd.clone(),
                append: guest.cmdline.map(str::to_owned),
                bios,
            }
        } else {
            let bundle = guest.bundle(harts, memory)?;
            let file = self::scratch(&bundle)?;
            let initrd = Some(file.path());
            scratch.push(file);
            Machine {
                board: Board::Virt,
                cpu: cpu(options),
                harts,
                memory: machine_memory(memory, bundle.len() as u64),
                kernel: artifacts::build_hypervisor()?,
                initrd,
                append: mark.as_ref().map(Mark::argument),
                bios,
            }
        };
        // Nobody who could press Ctrl-A X: such a run needs a limit.
        let attended = std::io::stdin().is_terminal() && !workspace::is_ci();
        let limit = limit(options).or((!attended).then_some(TIMEOUT));
        let expected = Expected {
            end: (!options.bare).then_some(Expected::SHUTDOWN),
            may_quit: attended,
            ..Expected::default()
        };
        Ok(Self {
            machine,
            console: Console::User,
            limit,
            expected,
            mark,
            scratch,
            counts_instructions: false,
        })
    }

    /// The same run with no user at the console, and therefore with a limit.
    pub fn unattended(mut self) -> Self {
        if self.console == Console::User {
            self.console = Console::Unattended;
        }
        self.limit = self.limit.or(Some(TIMEOUT));
        self.expected.may_quit = false;
        self
    }

    /// The same run with a paste at the console.
    pub fn pasting(self, paste: Paste) -> Self {
        Self {
            console: Console::Pasted(paste),
            ..self.unattended()
        }
    }

    /// The same run with `instret` and `time` as functions of the instructions: all harts together count, one after the other.
    pub fn counting_instructions(self) -> Self {
        Self {
            counts_instructions: true,
            ..self
        }
    }

    /// Runs it in another hypervisor.
    pub fn in_hypervisor(mut self, hypervisor: PathBuf) -> Self {
        self.machine.kernel = hypervisor;
        self
    }

    /// Expects the guest to end otherwise than the options suggest.
    pub fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// Starts the machine, shows its console on `screen`, and judges what was seen.
    pub fn carry_out(self, qemu: &Qemu, screen: &mut dyn Write) -> anyhow::Result<Found> {
        let mut screen = Unmarked::new(screen, self.mark.as_ref());
        let mut seen = Seen::new(self.mark.clone());
        let mut command = self.machine.command(qemu);
        if self.counts_instructions {
            command.args(["-icount", "shift=0"]);
        }
        let ended = session::run(command, self.console, self.limit, &mut screen, |line| {
            seen.line(line)
        })?;
        screen.finish()?;
        if ended == Ended::TimedOut {
            let seconds = self.limit.unwrap_or_default().as_secs();
            bail!(
                "no end after {seconds} s: QEMU was ended (`--timeout` sets the limit){}",
                seen.newest_guest()
            );
        }
        self.expected.judge(&seen, ended == Ended::Failed)?;
        Ok(Found {
            counted: seen.counted(),
            exits: seen.exits().map(str::to_owned),
        })
    }
}

/// A guest from files.
struct Guest<'a> {
    name: &'a str,
    kernel: &'a Path,
    initrd: Option<PathBuf>,
    cmdline: Option<&'a str>,
    series: Option<Series>,
    drill: bool,
}

impl Guest<'_> {
    /// The guest's bundle.
    fn bundle(&self, harts: u32, memory: ByteSize) -> anyhow::Result<Vec<u8>> {
        let initrd = self.initrd.as_deref();
        let initrd_bytes = initrd.map_or(Ok(0), ensure_regular)?;
        ensure!(
            initrd_bytes < memory.0,
            "an initial RAM disk of {initrd_bytes} bytes does not fit into {} bytes of guest memory (`--memory`)",
            memory.0
        );
        let image_bytes = ensure_regular(self.kernel)?.saturating_add(initrd_bytes);
        ensure!(
            image_bytes <= LARGEST_BUNDLE.0,
            "kernel and initial RAM disk have {image_bytes} bytes; QEMU's loader has room for {}",
            LARGEST_BUNDLE.0
        );
        let kernel = read(self.kernel)?;
        let initrd = initrd.map(read).transpose()?;
        let bundle = Bundle {
            name: self.name,
            harts,
            memory,
            kernel: &kernel,
            initrd: initrd.as_deref(),
            cmdline: self.cmdline,
            series: self.series,
            drill: self.drill,
        };
        Ok(bundle.to_bytes())
    }
}

/// What a machine has whose guest has `guest` bytes, and whose bundle `bundle`: each of the two can be there whole at once.
fn machine_memory(guest: ByteSize, bundle: u64) -> ByteSize {
    let bundle = bundle.next_multiple_of(ByteSize::mebibytes(1).0);
    let own = HYPERVISOR_MEMORY.0.saturating_add(bundle);
    ByteSize(guest.0.saturating_add(own))
}

/// A file for QEMU to load.
fn scratch(bytes: &[u8]) -> anyhow::Result<Scratch> {
    Scratch::new(&workspace::target_dir().join("guests"), bytes)
}

fn cpu(options: &cli::Run) -> String {
    options.machine.cpu.clone().unwrap_or(qemu::CPU.to_owned())
}

fn limit(options: &cli::Run) -> Option<Duration> {
    options.machine.timeout.map(Duration::from_secs)
}

/// Ten times what so many hostile guests may take by their own time, which is not QEMU's.
fn series_limit(count: u64) -> Duration {
    TIMEOUT + Duration::from_millis(count.saturating_mul(10 * HOSTILE_MILLISECONDS))
}

fn refuse_linux_options(options: &cli::Run) -> anyhow::Result<()> {
    let used = options.smoke || options.kernel.is_some() || options.busybox.is_some();
    ensure!(!used, "--smoke, --kernel and --busybox go with `run linux`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_guests_has_a_time_limit() {
        let seconds = |count| series_limit(count).as_secs();
        assert_eq!(seconds(2000), TIMEOUT.as_secs() + 20 * HOSTILE_MILLISECONDS);
        assert!(seconds(u64::MAX) > seconds(u64::MAX / 1000));
    }

    #[test]
    fn r81_a_machine_has_room_for_its_guest_and_for_the_bundle() {
        let guest = ByteSize::mebibytes(512);
        let of = |bundle| machine_memory(guest, bundle).0 - guest.0 - HYPERVISOR_MEMORY.0;
        assert_eq!((of(0), of(1)), (0, 1 << 20));
        assert_eq!(of(300 << 20), 300 << 20);
        assert_eq!(machine_memory(ByteSize(u64::MAX), 1).0, u64::MAX);
    }

    #[test]
    fn r81_images_that_cannot_fit_are_refused_before_they_are_read() {
        let folder = workspace::target_dir().join("tmp");
        std::fs::create_dir_all(&folder).unwrap();
        let sparse = |name: &str, bytes| {
            let path = folder.join(name);
            std::fs::File::create(&path)
                .unwrap()
                .set_len(bytes)
                .unwrap();
            path
        };
        let small = sparse("small-image", 4096);
        let large = sparse("large-image", 1 << 40);
        let refusal = |kernel: &Path, initrd: Option<PathBuf>| {
            let options = cli::Run {
                guest: kernel.to_owned(),
                initrd,
                ..cli::Run::default()
            };
            Plan::new(&options).err().map(|error| error.to_string())
        };
        let error = refusal(&small, Some(large.clone())).unwrap();
        assert!(
            error.contains("does not fit into 536870912 bytes"),
            "{error}"
        );
        let error = refusal(&large, None).unwrap();
        assert!(error.contains("QEMU's loader has room"), "{error}");
    }

    #[test]
    fn options_of_a_series_are_refused_for_any_other_guest() {
        for guest in ["tour", "linux", "vmlinux"] {
            for (seed, count) in [(Some(1), None), (None, Some(1))] {
                let options = cli::Run {
                    guest: guest.into(),
                    seed,
                    count,
                    ..cli::Run::default()
                };
                let refusal = Plan::new(&options).err().map(|error| error.to_string());
                assert_eq!(
                    refusal.as_deref(),
                    Some("--seed and --count go with `run hostile`")
                );
            }
        }
    }
}
