//! `cargo xtask bench linux`: Linux under the hypervisor against the same kernel on the bare machine.
//!
//! The idea to hold: both run on the same QEMU with the same harts and memory, in turns, and what counts is the ratio of the
//! medians; what the hypervisor says of its exits shows where the difference comes from.

use std::time::{Duration, Instant};

use crate::qemu::{Qemu, resolve};
use crate::run::{Found, Plan};
use crate::screen::show;
use crate::{cli, progress};

/// The command.
pub fn run(options: &cli::Bench) -> anyhow::Result<()> {
    let qemu = resolve::for_running(options.machine.qemu.as_deref())?;
    let (mut under_hypervisor, mut bare) = (Vec::new(), Vec::new());
    let mut exits = None;
    for round in 1..=options.rounds {
        for (is_bare, times) in [(false, &mut under_hypervisor), (true, &mut bare)] {
            let name = if is_bare {
                "bare"
            } else {
                "under the hypervisor"
            };
            let message = format!("Linux {name}, {round} of {}", options.rounds);
            let (time, found) = progress::step(&message, || one(options, &qemu, is_bare))?;
            times.push(time);
            exits = exits.or(found.exits);
        }
    }
    let (under_hypervisor, bare) = (median(under_hypervisor), median(bare));
    show!(
        "Linux, QEMU's start to power-off, median of {}: {:.1} s under the hypervisor, {:.1} s bare, ratio {:.2}",
        options.rounds,
        under_hypervisor.as_secs_f64(),
        bare.as_secs_f64(),
        under_hypervisor.as_secs_f64() / bare.as_secs_f64()
    );
    if let Some(exits) = exits {
        show!("exits: {exits}");
    }
    Ok(())
}

/// One boot up to the first line of userspace, and power-off: its time and what it found.
fn one(options: &cli::Bench, qemu: &Qemu, bare: bool) -> anyhow::Result<(Duration, Found)> {
    let plan = Plan::boot_of_linux(&cli::Run {
        guest: "linux".into(),
        smoke: true,
        bare,
        kernel: options.kernel.clone(),
        busybox: options.busybox.clone(),
        machine: options.machine.clone(),
        ..cli::Run::default()
    })?;
    let start = Instant::now();
    let found = plan.carry_out(qemu, &mut std::io::sink())?;
    Ok((start.elapsed(), found))
}

/// The median; of an even number, the longer of the two in the middle.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let seconds = |list: &[u64]| list.iter().map(|&it| Duration::from_secs(it)).collect();
        assert_eq!(median(seconds(&[7, 5, 90, 6, 5])), Duration::from_secs(6));
        assert_eq!(median(seconds(&[3])), Duration::from_secs(3));
    }
}
