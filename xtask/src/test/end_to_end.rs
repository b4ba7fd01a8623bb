//! Whole runs, as a user makes them: the tour, guests that misbehave, and Debian's Linux up to its first line of userspace.

use crate::guest::linux;
use crate::qemu::Qemu;
use crate::run::Plan;
use crate::{artifacts, cli, progress};

use super::tally::Tally;

/// The guests that misbehave, each with what must be said of its end. One that ends by itself has judged what it got.
const MISBEHAVING: [(&str, &str); 4] = [
    ("lost-vector", "faults at its own trap vector for ever"),
    ("lost-table", "faults at its own trap vector for ever"),
    ("bad-arguments", "shutdown"),
    ("random-code", "shutdown"),
];

/// Runs them on `qemu`.
pub fn run(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tour = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
    one("run tour", Plan::new(&tour)?, qemu, &mut tally)?;
    let guests = artifacts::build_misbehaving_guests()?;
    for (name, end) in MISBEHAVING {
        let options = cli::Run {
            guest: guests.join(name),
            ..tour.clone()
        };
        let plan = Plan::new(&options)?.expecting(end);
        one(&format!("run {name}"), plan, qemu, &mut tally)?;
    }

    let files = linux::Files::get(None, None);
    for harts in [1, 2] {
        let name = format!("run linux --smoke --harts {harts}");
        let smoke = cli::Run {
            guest: "linux".into(),
            smoke: true,
            harts: Some(harts),
            ..tour.clone()
        };
        match &files {
            Ok(_) => one(&name, Plan::new(&smoke)?, qemu, &mut tally)?,
            Err(error) => tally.skip(&name, &format!("{error:#}")),
        }
    }
    Ok(tally)
}

/// One run; what its console showed is printed only if it failed.
fn one(name: &str, plan: Plan, qemu: &Qemu, tally: &mut Tally) -> anyhow::Result<()> {
    let mut screen = Vec::new();
    match progress::step(&format!("{name}, on QEMU {}", qemu.version), || {
        plan.carry_out(qemu, &mut screen)
    }) {
        Ok(()) => tally.pass_aloud(name),
        Err(error) => {
            println!("{}", String::from_utf8_lossy(&screen));
            println!("test {name} ... FAILED: {error:#}");
            tally.fail(name, &format!("{error:#}"));
        }
    }
    Ok(())
}
