//! Whole runs, as a user makes them: the tour, and Debian's Linux up to its first line of userspace.

use crate::guest::linux;
use crate::qemu::Qemu;
use crate::run::Plan;
use crate::{cli, progress};

use super::tally::Tally;

/// Runs them on `qemu`.
pub fn run(qemu: &Qemu, machine: &cli::Machine) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tour = cli::Run {
        guest: "tour".into(),
        machine: machine.clone(),
        ..cli::Run::default()
    };
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
            Ok(_) => one(&name, &smoke, qemu, &mut tally)?,
            Err(error) => tally.skip(&name, &format!("{error:#}")),
        }
    }
    Ok(tally)
}

/// One run; what its console showed is printed only if it failed.
fn one(name: &str, options: &cli::Run, qemu: &Qemu, tally: &mut Tally) -> anyhow::Result<()> {
    let plan = Plan::new(options)?;
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
