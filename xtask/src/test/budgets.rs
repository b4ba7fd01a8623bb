//! The budgets of guest accesses in instructions, each a test: they are exact under QEMU's `-icount`.

use super::tally::Tally;
use crate::bench::{self, Measure};
use crate::qemu::resolve;
use crate::screen::show;
use crate::{artifacts, cli, progress};

/// Counts on the QEMU that guests run on: instructions are the same on every one without quirks.
pub fn run(machine: &cli::Machine) -> anyhow::Result<Tally> {
    let program = artifacts::build_bench()?;
    let named = machine
        .qemu
        .as_deref()
        .filter(|_| !machine.has_every_qemu());
    let qemu = resolve::for_running(named)?;
    let message = format!("bench, instructions, on QEMU {}", qemu.version);
    let mut tally = Tally::default();
    let measured = progress::step(&message, || {
        bench::measure_on(&qemu, &program, Measure::Instructions, machine)
    });
    match measured {
        Ok(instructions) => {
            for outcome in bench::check_budgets(&instructions) {
                let name = format!("budget of {}", outcome.name);
                match outcome.failure() {
                    Some(reason) => {
                        show!("test {name} ... FAILED: {reason}");
                        tally.fail(&name, &reason);
                    }
                    None if outcome.asserted => tally.pass_aloud(&name),
                    None => {}
                }
            }
        }
        Err(error) => tally.fail("bench", &format!("{error:#}")),
    }
    Ok(tally)
}
