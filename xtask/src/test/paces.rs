//! What guests cost under the hypervisor beside the same guest on the bare machine: remote fences (R82), and pasted input (R83).
//!
//! The one idea: the same program runs on both, one after the other. Where it can it tells a cost in turns of a loop of its own,
//! so that what else the host has to do is in both numbers. A host that has to do too much is asked again, twice.

use std::fmt;
use std::sync::LazyLock;

use anyhow::{Context, ensure};

use super::end_to_end::{Stepping, carry_out, checked};
use super::tally::Tally;
use crate::cli;
use crate::qemu::Qemu;
use crate::qemu::session::Paste;
use crate::run::Plan;
use crate::screen::show;

/// How often a pair of runs is made, until one is good.
const ATTEMPTS: u32 = 3;

/// What `rewrites` measures: a cost under the hypervisor may be so many times the bare one, in hundredths. While the other hart
/// runs, the emulator's own work is most of it (docs/performance.md).
const FENCES: [(&str, u64); 4] = [
    ("fence.i, other hart asleep", 250),
    ("sfence.vma, other hart asleep", 250),
    ("fence.i, other hart running", 400),
    ("sfence.vma, other hart running", 400),
];

/// Instructions of guest, hypervisor and firmware together, at most. While the other hart runs, it counts too.
const INSTRUCTIONS: [(&str, u64); 3] = [
    ("an empty call", 400),
    ("fence.i, other hart asleep", 1600),
    ("sfence.vma, other hart asleep", 1700),
];

/// Slices of a run that counts instructions.
const COUNTED_SLICES: &str = "slices=20";

/// Bytes that are pasted.
const PASTED: usize = 20_000;

/// A paste under the hypervisor may take so many times as long as on the bare machine, in hundredths. The guest does nothing but
/// the two accesses a byte, each an exit, so this is not the ratio of a kernel (docs/performance.md); 16 bytes a slow tick would
/// be forty times the bare machine's time.
const PASTE: u64 = 4000;

/// What is pasted: text of all printable characters, no piece of it like another.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + ((state >> 16) % 95) as u8
    };
    (0..PASTED).map(|_| next()).collect()
});

/// Runs the pairs on `qemu`.
pub fn run(qemu: &Qemu, machine: &cli::Machine, tally: &mut Tally) -> anyhow::Result<()> {
    rewrites(qemu, machine, tally)?;
    counted_rewrites(qemu, machine, tally)?;
    pasted(qemu, machine, tally)
}

/// R82: remote fences, in turns of the guest's loop.
fn rewrites(qemu: &Qemu, machine: &cli::Machine, tally: &mut Tally) -> anyhow::Result<()> {
    const NAME: &str = "r82 run rewrites, and with --bare";
    pair(
        NAME,
        qemu,
        tally,
        || Ok(Stepping::new("rewrites", 2).plan(machine)?.1),
        || Ok(Stepping::new("rewrites", 2).bare().plan(machine)?.1),
        |under_hypervisor, bare| {
            let mut ratios = Vec::new();
            for (kind, limit) in FENCES {
                let (here, there) = (cost(under_hypervisor, kind)?, cost(bare, kind)?);
                ratios.push(Ratio {
                    of: kind,
                    here: here.turns,
                    there: there.turns,
                    limit,
                });
            }
            Ok(ratios)
        },
    )
}

/// R82: remote fences, in instructions.
fn counted_rewrites(qemu: &Qemu, machine: &cli::Machine, tally: &mut Tally) -> anyhow::Result<()> {
    let stepping = Stepping::new("rewrites", 2).appending(COUNTED_SLICES.into());
    let plan = stepping.plan(machine)?.1.counting_instructions();
    checked(
        "r82 run rewrites, instructions",
        plan,
        qemu,
        tally,
        |result, screen| {
            let found = result?;
            for (kind, budget) in INSTRUCTIONS {
                let count = cost(screen, kind)?.instructions;
                ensure!(
                    count <= budget,
                    "{kind} takes {count} instructions; {budget} are allowed"
                );
            }
            Ok(found)
        },
    );
    Ok(())
}

/// R83: a paste.
fn pasted(qemu: &Qemu, machine: &cli::Machine, tally: &mut Tally) -> anyhow::Result<()> {
    let argument = format!("bytes={PASTED}");
    let plan = |stepping: Stepping| -> anyhow::Result<Plan> {
        let (_, plan) = stepping.appending(argument.clone()).plan(machine)?;
        Ok(plan.pasting(Paste {
            cue: "pasted: ready",
            text: &TEXT,
        }))
    };
    pair(
        "r83 run pasted, and with --bare",
        qemu,
        tally,
        || plan(Stepping::new("pasted", 2)),
        || plan(Stepping::new("pasted", 2).bare()),
        |under_hypervisor, bare| {
            Ok(vec![Ratio {
                of: "a paste",
                here: paste(under_hypervisor, &TEXT)?,
                there: paste(bare, &TEXT)?,
                limit: PASTE,
            }])
        },
    )
}

/// A cost under the hypervisor and on the bare machine.
struct Ratio {
    of: &'static str,
    here: u64,
    there: u64,
    /// In hundredths.
    limit: u64,
}

impl Ratio {
    fn hundredths(&self) -> u64 {
        self.here * 100 / self.there.max(1)
    }

    fn check(&self) -> anyhow::Result<()> {
        let limit = self.limit;
        ensure!(
            self.hundredths() <= limit,
            "{self}, and {limit} are allowed"
        );
        Ok(())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            of, here, there, ..
        } = self;
        let ratio = self.hundredths();
        write!(f, "{of}: {here}, bare {there}, {ratio} hundredths")
    }
}

/// Runs both, compares what their screens tell, and does it again if a ratio is too large. What is wrong otherwise is wrong at
/// once.
fn pair(
    name: &str,
    qemu: &Qemu,
    tally: &mut Tally,
    under_hypervisor: impl Fn() -> anyhow::Result<Plan>,
    bare: impl Fn() -> anyhow::Result<Plan>,
    compare: impl Fn(&str, &str) -> anyhow::Result<Vec<Ratio>>,
) -> anyhow::Result<()> {
    for attempt in 1..=ATTEMPTS {
        let (there, bare_screen) = carry_out(name, bare()?, qemu);
        let (here, screen) = carry_out(name, under_hypervisor()?, qemu);
        let ratios = there
            .context("on the bare machine")
            .and(here)
            .and_then(|_| compare(&screen, &bare_screen));
        let slow = match &ratios {
            Ok(ratios) => ratios.iter().find_map(|ratio| ratio.check().err()),
            Err(_) => None,
        };
        match (ratios, slow) {
            (Ok(ratios), None) => {
                let told: Vec<_> = ratios.iter().map(Ratio::to_string).collect();
                show!("{name}: {}", told.join("; "));
                tally.pass_aloud(name);
                return Ok(());
            }
            (Ok(_), Some(error)) if attempt < ATTEMPTS => show!("{name}, once more: {error:#}"),
            (Ok(_), Some(error)) | (Err(error), _) => {
                show!("{bare_screen}{screen}");
                show!("test {name} ... FAILED: {error:#}");
                tally.fail(name, &format!("{error:#}"));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What the guest says of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    turns: u64,
    instructions: u64,
}

/// The numbers in `rewrites: cost of KIND: N turns, N instructions`.
fn cost(screen: &str, kind: &str) -> anyhow::Result<Cost> {
    let begin = format!("rewrites: cost of {kind}: ");
    let line = screen.lines().find_map(|line| line.strip_prefix(&begin));
    let line = line.with_context(|| format!("the guest does not tell the cost of {kind}"))?;
    let mut numbers = line.trim_end().split(", ");
    let mut number = |unit: &str| numbers.next()?.strip_suffix(unit)?.parse().ok();
    Option::zip(number(" turns"), number(" instructions"))
        .map(|(turns, instructions)| Cost {
            turns,
            instructions,
        })
        .with_context(|| format!("cannot be read: {line}"))
}

/// How long a paste of `text` took, in microseconds, of `pasted: N bytes, digest N, in N microseconds`.
fn paste(screen: &str, text: &[u8]) -> anyhow::Result<u64> {
    let begin = format!(
        "pasted: {} bytes, digest {:#x}, in ",
        text.len(),
        digest(text)
    );
    let line = screen.lines().find_map(|line| line.strip_prefix(&begin));
    let line = line.context("not what was pasted arrived")?;
    let time = line.trim_end().strip_suffix(" microseconds");
    time.and_then(|time| time.parse().ok())
        .with_context(|| format!("cannot be read: {line}"))
}

/// FNV-1a.
fn digest(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |digest, &byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_read_as_the_guest_tells_it() {
        let screen = "x\r\nrewrites: cost of a: 12 turns, 345 instructions\r\nrewrites: cost of b: 1 turns\n";
        let expected = Cost {
            turns: 12,
            instructions: 345,
        };
        assert_eq!(cost(screen, "a").unwrap(), expected);
        assert!(cost(screen, "b").is_err());
        assert!(cost(screen, "c").is_err());
    }

    #[test]
    fn r83_a_paste_counts_only_if_all_of_it_arrived() {
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        let screen = "pasted: 1 bytes, digest 0xaf63dc4c8601ec8c, in 77 microseconds\r\n";
        assert_eq!(paste(screen, b"a").unwrap(), 77);
        assert!(paste(screen, b"b").is_err());
        assert!(paste(screen, b"aa").is_err());
    }

    #[test]
    fn r83_what_is_pasted_has_no_key_of_qemus() {
        assert_eq!(TEXT.len(), PASTED);
        assert!(TEXT.iter().all(|byte| (b' '..=b'~').contains(byte)));
    }

    #[test]
    fn r82_a_ratio_above_its_limit_is_no_good() {
        let ratio = |here, there| Ratio {
            of: "it",
            here,
            there,
            limit: 250,
        };
        assert!(ratio(250, 100).check().is_ok());
        assert!(ratio(251, 100).check().is_err());
        assert!(ratio(1, 0).check().is_ok());
        assert!(ratio(9, 0).check().is_err());
    }
}
