//! Judges a run by what was seen on its console: every run ends QEMU with exit code 0 whatever happened.

use std::collections::HashSet;
use std::fmt;

use anyhow::{bail, ensure};

use crate::guest::{initramfs, userland};

/// What must be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Why the guest must have ended, in the hypervisor's words; `None` where nobody says it (no hypervisor).
    pub end: Option<&'static str>,
    /// Userspace must have come up with so many harts.
    pub userspace_harts: Option<u32>,
    /// Debian's userland must have come to these results.
    pub userland: Option<userland::Results>,
    /// The guest must have said that none of its steps went wrong.
    pub steps: bool,
    /// The guest must have tried every extension that is withheld from it.
    pub extensions: bool,
    /// So many guests must have run one after another, and nothing of any of them may be left.
    pub series: Option<u64>,
    /// The user at the console may have quit.
    pub may_quit: bool,
}

impl Expected {
    /// The guest shut down, as a well-behaved one does.
    pub const SHUTDOWN: &'static str = "shutdown";

    /// Judges. What a series came to is printed, for who collects the evidence.
    pub fn judge(&self, seen: &Seen) -> anyhow::Result<()> {
        if let Some(series) = &seen.series {
            println!("{series}, {} panics", seen.panics);
        }
        ensure!(
            seen.panics == 0,
            "the hypervisor panicked{}",
            seen.newest_guest()
        );
        if let Some(expected) = self.userspace_harts {
            match seen.userspace_harts {
                Some(harts) => ensure!(
                    harts == expected,
                    "userspace came up with {harts} harts, not {expected}"
                ),
                None => bail!("the first line of userspace never came"),
            }
        }
        if let Some(expected) = self.userland {
            userland::judge(expected, seen.userland)?;
        }
        if self.steps {
            match seen.steps {
                Some((0, _)) => bail!("the guest took no step"),
                Some((_, wrong)) => ensure!(wrong == 0, "{wrong} steps of the guest went wrong"),
                None => bail!("the guest's report never came"),
            }
        }
        if self.extensions {
            let Some(withheld) = &seen.withheld else {
                bail!("the hypervisor did not say what it withholds");
            };
            for name in withheld {
                ensure!(
                    seen.hidden.contains(name),
                    "{name} is withheld from the guest, which did not try it"
                );
            }
        }
        if let Some(count) = self.series {
            let Some(series) = &seen.series else {
                bail!("the series did not come to its end{}", seen.newest_guest());
            };
            ensure!(
                series.run == count,
                "{} guests ran, not {count}",
                series.run
            );
            ensure!(
                series.wrong == 0,
                "something of a guest was left, or found: {}",
                series.text
            );
        }
        match (self.end, seen.end.as_deref()) {
            (None, _) => Ok(()),
            (Some(expected), Some(end)) if end == expected => Ok(()),
            (Some(_), Some(end)) => bail!("the guest ended: {end}"),
            (Some(_), None) if self.may_quit => Ok(()),
            (Some(_), None) => bail!("the machine ended, and the hypervisor did not say why"),
        }
    }
}

/// What was seen on the console.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    end: Option<String>,
    userspace_harts: Option<u32>,
    userland: Option<userland::Results>,
    steps: Option<(u64, u64)>,
    series: Option<Series>,
    /// Last words of the hypervisor.
    panics: u64,
    /// ISA extensions that the guest is not given, and those that it tried and found hidden.
    withheld: Option<Vec<String>>,
    hidden: HashSet<String>,
    /// The seed of the guest of a series that comes next: each has a dot in the row that its first one began.
    next_seed: Option<u64>,
}

/// What the hypervisor says of a series of guests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Series {
    name: String,
    run: u64,
    wrong: u64,
    exits: u64,
    /// In its words, without the name.
    text: String,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} guests: {}", self.name, self.text)
    }
}

impl Series {
    /// The numbers in `hypervisor: series of NAME: N run, N pages lost, ...; N exits: ...`: none but the first may count.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("hypervisor: series of ")?;
        let (name, text) = rest.split_once(": ")?;
        let (counts, rest) = text.split_once("; ")?;
        let (exits, _) = rest.split_once(" exits: ")?;
        let mut numbers = Vec::new();
        for count in counts.split(", ") {
            numbers.push(count.split(' ').next()?.parse().ok()?);
        }
        let (&run, wrong) = numbers.split_first()?;
        Some(Self {
            name: name.to_owned(),
            run,
            wrong: wrong.iter().sum(),
            exits: exits.parse().ok()?,
            text: text.trim_end().to_owned(),
        })
    }
}

impl Seen {
    /// What the run went through.
    pub fn counted(&self) -> Vec<(String, u64)> {
        let series = self.series.as_ref();
        let guests = series.map(|series| (format!("{} guests", series.name), series.run));
        let exits = series.map(|series| (format!("exits of {} guests", series.name), series.exits));
        guests.into_iter().chain(exits).collect()
    }

    fn newest_seed(&self) -> Option<u64> {
        self.next_seed.map(|next| next.wrapping_sub(1))
    }

    /// Which guest of a series was the last to run, for a run that did not come to its end.
    pub fn newest_guest(&self) -> String {
        match self.newest_seed() {
            Some(seed) => format!(
                " (the last guest had seed {seed}: `cargo xtask run hostile --seed {seed} --count 1`)"
            ),
            None => String::new(),
        }
    }

    /// Takes in one line. Of what is said twice, the hypervisor's last word and the guest's last report count.
    pub fn line(&mut self, line: &str) {
        if let Some(end) = guest_end(line) {
            self.end = Some(end.to_owned());
        }
        self.userspace_harts = initramfs::harts_of_first_line(line).or(self.userspace_harts);
        self.userland = userland::results_of_line(line).or(self.userland);
        self.steps = steps(line).or(self.steps);
        if let Some(names) = line.strip_prefix("hypervisor: withheld from it: ") {
            self.withheld = Some(names.split_whitespace().map(String::from).collect());
        }
        if let Some((name, _)) = line.split_once(": hidden, ") {
            self.hidden
                .extend(name.split_whitespace().last().map(String::from));
        }
        if let Some(seed) = line.strip_prefix("hypervisor: seed ") {
            self.next_seed = seed.trim_end_matches([':', ' ']).parse().ok();
        } else if !line.is_empty() && line.bytes().all(|byte| byte == b'.') {
            let dots = line.len() as u64;
            self.next_seed = self.next_seed.map(|seed| seed.wrapping_add(dots));
        }
        self.panics += u64::from(line.starts_with("hypervisor: panicked at "));
        self.series = Series::parse(line).or(self.series.take());
    }
}

/// The reason in the hypervisor's last line, `hypervisor: guest NAME ended: REASON`.
fn guest_end(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("hypervisor: guest ")?;
    rest.rsplit_once(" ended: ")
        .map(|(_, reason)| reason.trim_end())
}

/// The numbers in the last line of a guest of ours, `NAME: N steps, N wrong`, whatever comes after them.
fn steps(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.split_once(": ")?;
    let (steps, rest) = counts.split_once(" steps, ")?;
    let (wrong, _) = rest.split_once(" wrong")?;
    Some((steps.parse().ok()?, wrong.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Seen {
        let mut seen = Seen::default();
        lines.iter().for_each(|line| seen.line(line));
        seen
    }

    fn shutdown() -> Expected {
        Expected {
            end: Some(Expected::SHUTDOWN),
            ..Expected::default()
        }
    }

    #[test]
    fn the_hypervisor_says_why_a_guest_ended() {
        assert_eq!(
            guest_end("hypervisor: guest tour ended: shutdown"),
            Some("shutdown")
        );
        assert_eq!(guest_end("hypervisor: guest tour is up"), None);
        assert_eq!(guest_end("guest tour ended: shutdown"), None);
    }

    #[test]
    fn only_the_expected_end_is_a_success() {
        for (lines, good) in [
            (&["hypervisor: guest g ended: shutdown"][..], true),
            (&["hypervisor: guest g ended: reset"], false),
            (
                &[
                    "hypervisor: guest g ended: shutdown",
                    "hypervisor: guest g ended: reset",
                ],
                false,
            ),
            (&["all is well"], false),
        ] {
            assert_eq!(shutdown().judge(&seen(lines)).is_ok(), good, "{lines:?}");
        }
        let quits = Expected {
            may_quit: true,
            ..shutdown()
        };
        assert!(quits.judge(&seen(&[])).is_ok());
    }

    #[test]
    fn a_guest_that_reports_steps_must_have_taken_some_and_all_of_them_right() {
        let expected = Expected {
            steps: true,
            ..shutdown()
        };
        for (line, good) in [
            ("tour: 78 steps, 0 wrong", true),
            ("tour: 78 steps, 1 wrong", false),
            (
                "extensions: 60 steps, 0 wrong, 2 that nothing decides",
                true,
            ),
            ("tour: 0 steps, 0 wrong", false),
            ("tour: some steps", false),
        ] {
            let seen = seen(&[line, "hypervisor: guest tour ended: shutdown"]);
            assert_eq!(expected.judge(&seen).is_ok(), good, "{line}");
        }
    }

    #[test]
    fn a_series_is_good_only_if_all_of_it_ran_and_nothing_was_left() {
        let expected = Expected {
            series: Some(50),
            ..Expected::default()
        };
        let rest = "; 99 exits: 9 SBI calls; ended: 3 shutdown, 47 its time is over";
        for (line, good) in [
            ("50 run, 0 pages lost, 0 not clean", true),
            ("50 run, 1 pages lost, 0 not clean", false),
            ("50 run, 0 pages lost, 2 not clean", false),
            ("49 run, 0 pages lost, 0 not clean", false),
            ("many run, 0 pages lost, 0 not clean", false),
        ] {
            let seen = seen(&[&format!("hypervisor: series of hostile: {line}{rest}")]);
            assert_eq!(expected.judge(&seen).is_ok(), good, "{line}");
        }
        assert!(expected.judge(&seen(&[])).is_err());
    }

    #[test]
    fn an_extension_that_is_withheld_must_have_been_tried() {
        let expected = Expected {
            extensions: true,
            ..Expected::default()
        };
        let withheld = "hypervisor: withheld from it: h v zkr";
        let (traps, open) = (
            "  ok    h: hidden, traps",
            "  -     v: hidden, it works; why",
        );
        for (lines, good) in [
            (
                &[withheld, traps, open, "  ok    zkr: hidden, traps"][..],
                true,
            ),
            (&[withheld, traps, open], false),
            (&[traps, open], false),
        ] {
            assert_eq!(expected.judge(&seen(lines)).is_ok(), good, "{lines:?}");
        }
    }

    #[test]
    fn the_guest_that_ran_last_can_be_run_again() {
        let seen = seen(&[
            "hypervisor: seed 101: ",
            "..................................................",
            "hypervisor: seed 151: ",
            "..",
            "hypervisor: FAILED: guest with seed 152: 1 pages lost",
            ".",
        ]);
        assert_eq!(seen.newest_seed(), Some(153));
        let error = Expected {
            series: Some(500),
            ..Expected::default()
        };
        let error = error.judge(&seen).unwrap_err().to_string();
        assert!(error.contains("--seed 153 --count 1"), "{error}");
    }

    #[test]
    fn a_panic_of_the_hypervisor_is_a_failure_whatever_else_was_seen() {
        let lines = [
            "hypervisor: panicked at hypervisor/src/x.rs:1:2:",
            "hypervisor: guest g ended: shutdown",
        ];
        assert!(shutdown().judge(&seen(&lines)).is_err());
        assert!(shutdown().judge(&seen(&lines[1..])).is_ok());
    }

    #[test]
    fn userspace_must_come_up_with_every_hart() {
        let expected = Expected {
            userspace_harts: Some(2),
            ..shutdown()
        };
        let end = "hypervisor: guest linux ended: shutdown";
        assert!(
            expected
                .judge(&seen(&["guest-mem: userspace is up, harts: 2, Linux", end]))
                .is_ok()
        );
        assert!(
            expected
                .judge(&seen(&["guest-mem: userspace is up, harts: 1, Linux", end]))
                .is_err()
        );
        assert!(expected.judge(&seen(&[end])).is_err());
    }
}
