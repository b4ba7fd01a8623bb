//! Whole runs, as a user makes them: the tour, what a hart starts with and what wakes it, RustSBI's own tests, guests that
//! misbehave, thousands of hostile ones, and Debian's Linux with programs of its userland.

use std::fs;

use anyhow::{bail, ensure};

use super::paces;
use super::tally::Tally;
use super::target::{self, ALL_FEATURES};
use crate::guest::linux;
use crate::qemu::{CPU, Qemu};
use crate::run::{Expected, Found, Plan};
use crate::screen::show;
use crate::size::ByteSize;
use crate::{artifacts, cli, progress, workspace};

/// A processor with few extensions and the vector unit.
const VECTOR: &str = "rv64,h=true,v=true";

/// A processor with what a profile demands and no more; QEMU has that model from version 10 on.
const PROFILE: &str = "rva23s64";

/// A processor on which the guest chooses who updates A and D bits; QEMU has both names from version 10 on.
const CHOOSES_AD_UPDATES: &str = "rv64,h=true,svade=true,svadu=true";

/// A processor whose supervisor has no timer of its own.
const NO_SSTC: &str = "rv64,h=true,sstc=false";

/// A processor with most extensions that a QEMU knows which has no name for all.
const MOST_FEATURES: &str = "rv64,h=true,v=true,Zfh=true,zbkb=true,zbkc=true,zbkx=true,zknd=true,zkne=true,zknh=true,\
                             zksed=true,zksh=true,zkr=true,svinval=true,svnapot=true,svpbmt=true";

/// Seconds within which a run of a mutant has to end.
const SHORT_RUN: u64 = 60;

/// Hostile guests on one hart, and on two, where each takes twice the time.
const HOSTILE_GUESTS: [u64; 2] = [1400, 600];
/// The same on a QEMU that is much like another one.
const HOSTILE_GUESTS_AGAIN: [u64; 2] = [300, 150];

/// An initial RAM disk that is larger than what the hypervisor keeps for itself.
const LARGE_INITRD: ByteSize = ByteSize::mebibytes(300);

/// How the hypervisor ends a guest that can do nothing any more but fault.
const LOST: Expected = Expected {
    end: Some("faults at its own trap vector for ever"),
    userspace_harts: None,
    userland: None,
    steps: false,
    extensions: false,
    series: None,
    may_quit: false,
};

/// How it ends a guest in which no hart runs any more.
const STOPPED: Expected = Expected {
    end: Some("every hart has stopped"),
    ..LOST
};

/// How it ends a guest that says by the test finisher that it failed.
const FAILED: Expected = Expected {
    end: Some("shutdown after a system failure"),
    ..LOST
};

/// The hypervisor gives a guest what the specification says and lives on until the guest shuts down.
const SURVIVES: Expected = Expected {
    end: Some(Expected::SHUTDOWN),
    steps: true,
    ..LOST
};

/// The guests that misbehave, and what must come of them.
const MISBEHAVING: [(&str, Expected); 7] = [
    ("lost-vector", LOST),
    ("lost-table", LOST),
    ("lost-inside", LOST),
    ("all-stopped", STOPPED),
    ("finisher", FAILED),
    ("bad-arguments", SURVIVES),
    ("random-code", SURVIVES),
];

/// A guest that speaks as the hypervisor, and what must come of its run all the same.
struct Deceiving {
    guest: &'static str,
    /// What the guest must have done, if all is well.
    expected: Expected,
    /// What the verdict must say; `None` if the run is a good one.
    error: Option<&'static str>,
    /// How the last line of the console must begin.
    last: &'static str,
}

const DECEIVING: [Deceiving; 3] = [
    Deceiving {
        guest: "forged-end",
        expected: Expected {
            steps: false,
            ..SURVIVES
        },
        error: Some("the guest ended: shutdown after a system failure"),
        last: "hypervisor: guest forged-end ended: shutdown after a system failure",
    },
    Deceiving {
        guest: "forged-lines",
        expected: SURVIVES,
        error: None,
        last: "hypervisor: guest forged-lines ended: shutdown",
    },
    Deceiving {
        guest: "hidden-panic",
        expected: Expected {
            steps: false,
            ..SURVIVES
        },
        error: Some("the hypervisor panicked: "),
        last: "a drill that the guest asked for",
    },
];

/// Runs them on `qemu`.
pub fn run(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    run_with(HOSTILE_GUESTS, qemu, machine)
}

/// Runs them with fewer hostile guests, on a QEMU that is much like another one.
pub fn run_again(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    run_with(HOSTILE_GUESTS_AGAIN, qemu, machine)
}

fn run_with(
    hostile_guests: [u64; 2],
    qemu: &Qemu,
    machine: &cli::Machine,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tour = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
    one("run tour", Plan::new(&tour)?, qemu, &mut tally);
    // A machine with a vector unit, which the guest gets.
    let vector = cli::Run {
        machine: cli::Machine {
            cpu: Some(VECTOR.into()),
            ..machine.clone()
        },
        ..tour.clone()
    };
    one(
        &format!("run tour --cpu {VECTOR}"),
        Plan::new(&vector)?,
        qemu,
        &mut tally,
    );

    let guests = artifacts::build_misbehaving_guests()?;
    for (name, expected) in MISBEHAVING {
        let options = cli::Run {
            guest: guests.join(name),
            memory: Some(ByteSize::mebibytes(64)),
            ..tour.clone()
        };
        one(
            &format!("run {name}"),
            Plan::new(&options)?.expecting(expected),
            qemu,
            &mut tally,
        );
    }

    let large = workspace::target_dir().join("tmp").join("large-initrd");
    fs::create_dir_all(large.with_file_name(""))?;
    fs::File::create(&large)?.set_len(LARGE_INITRD.0)?;
    let options = cli::Run {
        guest: guests.join("all-memory"),
        initrd: Some(large),
        ..tour.clone()
    };
    let plan = Plan::new(&options)?.expecting(SURVIVES);
    one("r81 run all-memory --initrd 300M", plan, qemu, &mut tally);

    for deceiving in &DECEIVING {
        let options = cli::Run {
            guest: guests.join(deceiving.guest),
            memory: Some(ByteSize::mebibytes(64)),
            drill: true,
            ..tour.clone()
        };
        one_that_deceives(deceiving, Plan::new(&options)?, qemu, &mut tally);
    }

    for stepping in [
        // R71: the same program shows what the firmware hands over, and what the hypervisor does.
        Stepping::new("handover", 2).bare(),
        Stepping::new("handover", 1),
        Stepping::new("handover", 2),
        Stepping::new("handover", 2).on(most_features(qemu)),
        // RustSBI's own tests.
        Stepping::new("sbi-tests", 1),
        Stepping::new("sbi-tests", 2),
        Stepping::new("sbi-tests", 4),
        // R72, also where the guest's timer is the hypervisor's.
        Stepping::new("wakes", 2),
        Stepping::new("wakes", 2).on(NO_SSTC),
    ] {
        let (name, plan) = stepping.plan(machine)?;
        one(&name, plan, qemu, &mut tally);
    }
    paces::run(qemu, machine, &mut tally)?;

    let profile = has_profile(qemu).then_some(PROFILE);
    for cpu in [most_features(qemu), VECTOR].into_iter().chain(profile) {
        let (name, plan) = extensions(cpu, machine)?;
        one(&name, plan, qemu, &mut tally);
    }
    if let Some((name, plan)) = chosen_ad_updates(qemu, machine)? {
        one(&name, plan, qemu, &mut tally);
    }
    let processors = [(1, most_features(qemu)), (2, CPU)];
    for ((harts, cpu), count) in processors.into_iter().zip(hostile_guests) {
        let (name, plan) = hostile(count, harts, cpu, machine)?;
        one(&name, plan, qemu, &mut tally);
    }

    let files = linux::Files::get(None, None);
    for harts in [1, 2] {
        let name = format!("run linux --smoke --harts {harts}");
        match &files {
            Ok(_) => {
                let options = cli::Run {
                    guest: "linux".into(),
                    smoke: true,
                    harts: Some(harts),
                    ..tour.clone()
                };
                one(&name, Plan::new(&options)?, qemu, &mut tally);
            }
            Err(error) => tally.skip(&name, &format!("{error:#}")),
        }
    }
    Ok(tally)
}

/// Runs the tour, Linux and those of [`short_runs`] on `qemu`.
pub fn run_short(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tour = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
    one("run tour", Plan::new(&tour)?, qemu, &mut tally);
    let runs = short_runs(qemu, machine)?.into_iter();
    for (name, plan) in runs.chain(chosen_ad_updates(qemu, machine)?) {
        one(&name, plan, qemu, &mut tally);
    }
    const LINUX: &str = "run linux --smoke";
    match linux::Files::get(None, None) {
        Ok(_) => {
            let options = cli::Run {
                guest: "linux".into(),
                smoke: true,
                ..tour
            };
            one(LINUX, Plan::new(&options)?, qemu, &mut tally);
        }
        Err(error) => tally.skip(LINUX, &format!("{error:#}")),
    }
    Ok(tally)
}

/// Runs that find out within seconds whether the hypervisor is broken.
pub fn short_runs(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Vec<(String, Plan)>> {
    let machine = cli::Machine {
        timeout: machine.timeout.or(Some(SHORT_RUN)),
        ..machine.clone()
    };
    Ok(vec![
        Stepping::new("handover", 2).plan(&machine)?,
        Stepping::new("wakes", 2).plan(&machine)?,
        hostile(60, 2, CPU, &machine)?,
        hostile(20, 2, VECTOR, &machine)?,
        extensions(most_features(qemu), &machine)?,
        extensions(VECTOR, &machine)?,
    ])
}

/// A run of a guest whose last line counts its steps.
pub(super) struct Stepping {
    guest: &'static str,
    bare: bool,
    harts: u32,
    cpu: &'static str,
    append: Option<String>,
}

impl Stepping {
    pub(super) const fn new(guest: &'static str, harts: u32) -> Self {
        Self {
            guest,
            bare: false,
            harts,
            cpu: CPU,
            append: None,
        }
    }

    pub(super) fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    fn on(self, cpu: &'static str) -> Self {
        Self { cpu, ..self }
    }

    /// With this command line.
    pub(super) fn appending(self, append: String) -> Self {
        let append = Some(append);
        Self { append, ..self }
    }

    /// Its name, and the run.
    pub(super) fn plan(self, machine: &cli::Machine) -> anyhow::Result<(String, Plan)> {
        let Self {
            guest,
            bare,
            harts,
            cpu,
            append,
        } = self;
        let options = cli::Run {
            guest: artifacts::build_guest(guest)?,
            memory: Some(ByteSize::mebibytes(64)),
            harts: Some(harts),
            bare,
            append,
            machine: cli::Machine {
                cpu: Some(cpu.into()),
                ..machine.clone()
            },
            ..cli::Run::default()
        };
        let plan = Plan::new(&options)?.expecting(Expected {
            end: SURVIVES.end.filter(|_| !bare),
            ..SURVIVES
        });
        let bare = if bare { " --bare" } else { "" };
        let name = format!("run {guest}{bare} --harts {harts} --cpu {cpu}");
        Ok((name, plan.unattended()))
    }
}

/// The run of hostile guests.
fn hostile(
    count: u64,
    harts: u32,
    cpu: &str,
    machine: &cli::Machine,
) -> anyhow::Result<(String, Plan)> {
    let options = cli::Run {
        guest: "hostile".into(),
        count: Some(count),
        harts: Some(harts),
        machine: cli::Machine {
            cpu: Some(cpu.into()),
            ..machine.clone()
        },
        ..cli::Run::default()
    };
    let name = format!("run hostile --count {count} --harts {harts} --cpu {cpu}");
    Ok((name, Plan::new(&options)?))
}

/// The run of the guest that tries ISA extensions.
fn extensions(cpu: &str, machine: &cli::Machine) -> anyhow::Result<(String, Plan)> {
    extensions_with(cpu, None, machine)
}

/// The same on a processor with Svade and Svadu, both of which the guest has to find (R74).
fn chosen_ad_updates(
    qemu: &Qemu,
    machine: &cli::Machine,
) -> anyhow::Result<Option<(String, Plan)>> {
    has_profile(qemu)
        .then(|| extensions_with(CHOOSES_AD_UPDATES, Some("chooses-ad-updates=1"), machine))
        .transpose()
}

fn extensions_with(
    cpu: &str,
    append: Option<&str>,
    machine: &cli::Machine,
) -> anyhow::Result<(String, Plan)> {
    let options = cli::Run {
        guest: artifacts::build_extensions_guest()?,
        memory: Some(ByteSize::mebibytes(64)),
        append: append.map(Into::into),
        machine: cli::Machine {
            cpu: Some(cpu.into()),
            ..machine.clone()
        },
        ..cli::Run::default()
    };
    let plan = Plan::new(&options)?.expecting(Expected {
        extensions: true,
        ..SURVIVES
    });
    let plan = plan.unattended();
    Ok((format!("run extensions --cpu {cpu}"), plan))
}

/// Whether QEMU has the processor of the profile.
fn has_profile(qemu: &Qemu) -> bool {
    qemu.major_version().is_some_and(|major| major >= 10)
}

/// The processor with the most extensions.
fn most_features(qemu: &Qemu) -> &'static str {
    match target::has_all_features(qemu) {
        true => ALL_FEATURES.0,
        false => MOST_FEATURES,
    }
}

/// One run; what its console showed is printed only if it failed.
fn one(name: &str, plan: Plan, qemu: &Qemu, tally: &mut Tally) {
    checked(name, plan, qemu, tally, |result, _| result);
}

/// The run of a guest that speaks as the hypervisor: the test passes if the verdict is right.
fn one_that_deceives(deceiving: &Deceiving, plan: Plan, qemu: &Qemu, tally: &mut Tally) {
    let name = format!("i18 run {}", deceiving.guest);
    let plan = plan.expecting(deceiving.expected.clone());
    checked(&name, plan, qemu, tally, |result, screen| {
        match (result, deceiving.error) {
            (Ok(found), None) => ensure!(
                found.counted.is_empty(),
                "what the guest counted was believed"
            ),
            (Ok(_), Some(error)) => bail!("it was believed, and not judged: {error}"),
            (Err(error), None) => bail!("it was believed: {error:#}"),
            (Err(found), Some(error)) => ensure!(
                found.to_string().starts_with(error),
                "it was judged: {found:#}; and not: {error}"
            ),
        }
        let last = screen.lines().last().unwrap_or_default();
        ensure!(
            last.starts_with(deceiving.last),
            "the last line is: {last}; and not: {}",
            deceiving.last
        );
        Ok(Found::default())
    });
}

/// One run, of which `check` says whether it was right by its verdict and by what the screen showed.
pub(super) fn checked(
    name: &str,
    plan: Plan,
    qemu: &Qemu,
    tally: &mut Tally,
    check: impl FnOnce(anyhow::Result<Found>, &str) -> anyhow::Result<Found>,
) {
    let (result, screen) = carry_out(name, plan, qemu);
    match check(result, &screen) {
        Ok(found) => {
            tally.counted.extend(found.counted);
            tally.pass_aloud(name);
        }
        Err(error) => {
            show!("{screen}");
            show!("test {name} ... FAILED: {error:#}");
            tally.fail(name, &format!("{error:#}"));
        }
    }
}

/// One run: its verdict, and what the screen showed.
pub(super) fn carry_out(name: &str, plan: Plan, qemu: &Qemu) -> (anyhow::Result<Found>, String) {
    let mut screen = Vec::new();
    let message = format!("{name}, on QEMU {}", qemu.version);
    let result = progress::step(&message, || plan.unattended().carry_out(qemu, &mut screen));
    (result, String::from_utf8_lossy(&screen).into_owned())
}
