//! Whole runs, as a user makes them: the tour, guests that misbehave, thousands of hostile ones, and Debian's Linux up to its
//! first line of userspace.

use super::tally::Tally;
use super::target::ALL_FEATURES;
use crate::guest::linux;
use crate::qemu::Qemu;
use crate::run::{Expected, Plan};
use crate::size::ByteSize;
use crate::{artifacts, cli, progress};

/// A processor with few extensions, of which the guest must not find one.
const VECTOR: &str = "rv64,h=true,v=true";

/// A processor with most extensions that a QEMU knows which has no name for all.
const MOST_FEATURES: &str = "rv64,h=true,v=true,Zfh=true,zbkb=true,zbkc=true,zbkx=true,zknd=true,zkne=true,zknh=true,\
                             zksed=true,zksh=true,zkr=true,svinval=true,svnapot=true,svpbmt=true";

/// Hostile guests on each number of harts.
const HOSTILE_GUESTS: u64 = 1000;

/// How the hypervisor ends a guest that can do nothing any more but fault.
const LOST: Expected = Expected {
    end: Some("faults at its own trap vector for ever"),
    userspace_harts: None,
    steps: false,
    series: None,
    may_quit: false,
};

/// How it ends a guest in which no hart runs any more.
const STOPPED: Expected = Expected {
    end: Some("every hart has stopped"),
    ..LOST
};

/// The hypervisor gives a guest what the specification says and lives on until the guest shuts down.
const SURVIVES: Expected = Expected {
    end: Some(Expected::SHUTDOWN),
    steps: true,
    ..LOST
};

/// The guests that misbehave, and what must come of them.
const MISBEHAVING: [(&str, Expected); 6] = [
    ("lost-vector", LOST),
    ("lost-table", LOST),
    ("lost-inside", LOST),
    ("all-stopped", STOPPED),
    ("bad-arguments", SURVIVES),
    ("random-code", SURVIVES),
];

/// Runs them on `qemu`.
pub fn run(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tour = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
    one("run tour", Plan::new(&tour)?, qemu, &mut tally);
    // A machine with a vector unit, which the guest must not find.
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

    let extensions = artifacts::build_extensions_guest()?;
    let (all, since) = ALL_FEATURES;
    let most = match qemu.major_version() {
        Some(major) if major >= since => all,
        _ => MOST_FEATURES,
    };
    for cpu in [most, VECTOR] {
        let options = cli::Run {
            guest: extensions.clone(),
            memory: Some(ByteSize::mebibytes(64)),
            machine: cli::Machine {
                cpu: Some(cpu.into()),
                ..machine.clone()
            },
            ..tour.clone()
        };
        one(
            &format!("run extensions --cpu {cpu}"),
            Plan::new(&options)?.expecting(SURVIVES),
            qemu,
            &mut tally,
        );
    }

    for harts in [1, 2] {
        let options = cli::Run {
            guest: "hostile".into(),
            count: Some(HOSTILE_GUESTS),
            harts: Some(harts),
            ..tour.clone()
        };
        let name = format!("run hostile --count {HOSTILE_GUESTS} --harts {harts}");
        one(&name, Plan::new(&options)?, qemu, &mut tally);
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

/// One run; what its console showed is printed only if it failed.
fn one(name: &str, plan: Plan, qemu: &Qemu, tally: &mut Tally) {
    let mut screen = Vec::new();
    let message = format!("{name}, on QEMU {}", qemu.version);
    match progress::step(&message, || plan.unattended().carry_out(qemu, &mut screen)) {
        Ok(()) => tally.pass_aloud(name),
        Err(error) => {
            println!("{}", String::from_utf8_lossy(&screen));
            println!("test {name} ... FAILED: {error:#}");
            tally.fail(name, &format!("{error:#}"));
        }
    }
}
