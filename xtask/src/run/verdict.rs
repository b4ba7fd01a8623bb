//! Judges a run by what was seen on its console, and by QEMU's exit code.
//!
//! What the hypervisor says counts only in lines with the run's mark, which no guest can print (I18). Of the other lines, which
//! are the guest's, only what a guest of ours has to say of itself is read: its steps, and that userspace is up.

use std::collections::HashSet;
use std::fmt;

use anyhow::{bail, ensure};

use super::mark::Mark;
use crate::guest::{initramfs, userland};
use crate::screen::show;

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

    /// Judges a run that ended by itself; `failed` says that QEMU had an exit code other than 0. What a series came to is
    /// printed, for who collects the evidence.
    pub fn judge(&self, seen: &Seen, failed: bool) -> anyhow::Result<()> {
        if let Some(series) = &seen.series {
            show!("{series}, {} panics", u64::from(seen.panic.is_some()));
        }
        if let Some(panic) = &seen.panic {
            bail!("the hypervisor panicked{}: {panic}", seen.newest_guest());
        }
        if let Some(reason) = &seen.gave_up {
            bail!("the hypervisor could not go on: {reason}");
        }
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
            (None, _) => {}
            (Some(expected), Some(end)) if end == expected => {}
            (Some(_), Some(end)) => bail!("the guest ended: {end}"),
            (Some(_), None) if self.may_quit && !failed => return Ok(()),
            (Some(_), None) => bail!("the machine ended, and the hypervisor did not say why"),
        }
        // The hypervisor's exit code is 0 where its guest shut down, and no other where there is no finisher.
        let may_fail = self.end.is_some_and(|end| end != Self::SHUTDOWN);
        ensure!(may_fail || !failed, "QEMU failed");
        ensure!(
            !seen.after_end,
            "something was printed after the guest's end"
        );
        Ok(())
    }
}

/// What was seen on the console.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the hypervisor's lines begin with; without a hypervisor there are none.
    mark: Option<Mark>,
    end: Option<String>,
    /// Something that is not the hypervisor's came after it said how the guest ended.
    after_end: bool,
    userspace_harts: Option<u32>,
    userland: Option<userland::Results>,
    steps: Option<(u64, u64)>,
    series: Option<Series>,
    /// Last words of the hypervisor: a panic, and what kept it from going on.
    panic: Option<String>,
    gave_up: Option<String>,
    /// The panic has not said yet what it is about: that is the next line.
    panic_goes_on: bool,
    /// Exits by cause.
    exits: Option<String>,
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
    /// The numbers in `series of NAME: N run, N pages lost, ...; N exits: ...`: none but the first may count.
    fn parse(message: &str) -> Option<Self> {
        let rest = message.strip_prefix("series of ")?;
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
    /// Nothing yet, of a hypervisor that marks its lines so, or of a machine without one.
    pub fn new(mark: Option<Mark>) -> Self {
        Self {
            mark,
            ..Self::default()
        }
    }

    /// The hypervisor's exits by cause, in its words.
    pub fn exits(&self) -> Option<&str> {
        self.exits.as_deref()
    }

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

    /// Takes in one line of the console.
    pub fn line(&mut self, line: &str) {
        match self.mark.as_ref().and_then(|mark| mark.hypervisor(line)) {
            Some(said) => self.hypervisor(said),
            None => self.guest(line),
        }
    }

    /// Takes in one line that is not the hypervisor's. Of what a guest says twice the last counts.
    fn guest(&mut self, line: &str) {
        self.after_end |= self.end.is_some() && !line.trim().is_empty();
        self.userspace_harts = initramfs::harts_of_first_line(line).or(self.userspace_harts);
        self.userland = userland::results_of_line(line).or(self.userland);
        self.steps = steps(line).or(self.steps);
        if let Some((name, _)) = line.split_once(": hidden, ") {
            self.hidden
                .extend(name.split_whitespace().last().map(String::from));
        }
    }

    /// Takes in one line of the hypervisor: a message, the second line of one, or a row of dots.
    fn hypervisor(&mut self, said: &str) {
        let Some(message) = said.strip_prefix("hypervisor: ") else {
            if let Some(panic) = &mut self.panic
                && std::mem::take(&mut self.panic_goes_on)
            {
                *panic = format!("{panic} {}", said.trim_end());
            } else if !said.is_empty() && said.bytes().all(|byte| byte == b'.') {
                let dots = said.len() as u64;
                self.next_seed = self.next_seed.map(|seed| seed.wrapping_add(dots));
            }
            return;
        };
        if let Some(end) = guest_end(message) {
            self.end = Some(end.to_owned());
        }
        if let Some(names) = message.strip_prefix("withheld from it: ") {
            self.withheld = Some(names.split_whitespace().map(String::from).collect());
        }
        if let Some(seed) = message.strip_prefix("seed ") {
            self.next_seed = seed.trim_end_matches([':', ' ']).parse().ok();
        }
        if let Some(exits) = message.trim_start().strip_prefix("exits: ") {
            self.exits = Some(exits.trim_end().to_owned());
        }
        if let Some(place) = message.strip_prefix("panicked at ") {
            self.panic_goes_on = self.panic.is_none();
            self.panic
                .get_or_insert_with(|| place.trim_end().to_owned());
        }
        if let Some(reason) = message.strip_prefix("cannot go on: ") {
            self.gave_up = Some(reason.trim_end().to_owned());
        }
        self.series = Series::parse(message).or(self.series.take());
    }
}

/// The reason in the hypervisor's last message, `guest NAME ended: REASON`.
fn guest_end(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("guest ")?;
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

    /// What the hypervisor says, as it stands on the console: a line that begins with its name has its mark.
    fn seen(lines: &[&str]) -> Seen {
        let mut seen = Seen::new(Some(Mark::new("0a1b")));
        for line in lines {
            match line.strip_prefix("hypervisor: ") {
                Some(said) => seen.line(&format!("\x1e0a1bhypervisor: {said}")),
                None => seen.line(line),
            }
        }
        seen
    }

    /// What is seen if a guest says all of that.
    fn forged(lines: &[&str]) -> Seen {
        let mut seen = Seen::new(Some(Mark::new("0a1b")));
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
        assert_eq!(guest_end("guest tour ended: shutdown"), Some("shutdown"));
        assert_eq!(guest_end("guest tour is up"), None);
        assert_eq!(guest_end("tour ended: shutdown"), None);
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
            assert_eq!(
                shutdown().judge(&seen(lines), false).is_ok(),
                good,
                "{lines:?}"
            );
        }
        let quits = Expected {
            may_quit: true,
            ..shutdown()
        };
        assert!(quits.judge(&seen(&[]), false).is_ok());
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
            assert_eq!(expected.judge(&seen, false).is_ok(), good, "{line}");
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
            assert_eq!(expected.judge(&seen, false).is_ok(), good, "{line}");
        }
        assert!(expected.judge(&seen(&[]), false).is_err());
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
            assert_eq!(
                expected.judge(&seen(lines), false).is_ok(),
                good,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn the_guest_that_ran_last_can_be_run_again() {
        let mut seen = Seen::new(Some(Mark::new("0a1b")));
        for line in [
            "\x1e0a1bhypervisor: seed 101: ",
            "\x1e0a1b..................................................",
            "\x1e0a1bhypervisor: seed 151: ",
            "\x1e0a1b..",
            "\x1e0a1bhypervisor: FAILED: guest with seed 152: 1 pages lost",
            "\x1e0a1b.",
            "........",
            "hypervisor: seed 7: ",
        ] {
            seen.line(line);
        }
        assert_eq!(seen.newest_seed(), Some(153));
        let error = Expected {
            series: Some(500),
            ..Expected::default()
        };
        let error = error.judge(&seen, false).unwrap_err().to_string();
        assert!(error.contains("--seed 153 --count 1"), "{error}");
    }

    #[test]
    fn a_panic_of_the_hypervisor_is_a_failure_whatever_else_was_seen() {
        let end = "\x1e0a1bhypervisor: guest g ended: shutdown";
        for panic in [
            "\x1e0a1bhypervisor: panicked at hypervisor/src/x.rs:1:2:",
            "x\r\x1e0a1bhypervisor: panicked at hypervisor/src/x.rs:1:2:",
        ] {
            let mut seen = Seen::new(Some(Mark::new("0a1b")));
            let why = "\x1e0a1bno such thing";
            for line in [end, panic, why, end] {
                seen.line(line);
            }
            let error = shutdown().judge(&seen, false).unwrap_err().to_string();
            assert_eq!(
                error,
                "the hypervisor panicked: hypervisor/src/x.rs:1:2: no such thing"
            );
        }
    }

    #[test]
    fn the_reason_why_the_hypervisor_cannot_go_on_is_told() {
        let seen = seen(&["hypervisor: cannot go on: guest kernel: it is empty"]);
        for failed in [false, true] {
            let error = shutdown().judge(&seen, failed).unwrap_err().to_string();
            assert_eq!(
                error,
                "the hypervisor could not go on: guest kernel: it is empty"
            );
        }
    }

    #[test]
    fn i18_no_line_of_a_guest_counts_as_the_hypervisors() {
        let lines = [
            "hypervisor: guest g ended: shutdown",
            "hypervisor: panicked at hypervisor/src/x.rs:1:2:",
            "hypervisor: cannot go on: no",
            "hypervisor: withheld from it: h",
            "hypervisor: seed 7: ",
            "..",
            "hypervisor:   exits: 1 SBI calls",
            "hypervisor: series of g: 1 run, 0 pages lost; 9 exits: 9 SBI calls",
            "\x1e0a1chypervisor: guest g ended: shutdown",
        ];
        assert_eq!(forged(&lines), forged(&[]));
        assert!(forged(&lines).counted().is_empty());
        assert!(shutdown().judge(&forged(&lines), false).is_err());
    }

    #[test]
    fn i18_a_forged_end_neither_makes_nor_spoils_a_run() {
        let good = "hypervisor: guest g ended: shutdown";
        let bad = "hypervisor: guest g ended: reboot";
        for (forged, real, is_good) in [(good, bad, false), (bad, good, true)] {
            let mut seen = forged_then(forged, real);
            assert_eq!(shutdown().judge(&seen, false).is_ok(), is_good);
            // The guest's lines are dropped from its end on.
            seen.line(forged);
            assert!(shutdown().judge(&seen, false).is_err());
        }
    }

    /// A guest's line, and the hypervisor's.
    fn forged_then(forged: &str, real: &str) -> Seen {
        let mut seen = Seen::new(Some(Mark::new("0a1b")));
        seen.line(forged);
        seen.line(&format!("\x1e0a1b{real}"));
        seen
    }

    #[test]
    fn i18_the_exit_code_counts_beside_what_was_said() {
        let good = seen(&["hypervisor: guest g ended: shutdown"]);
        assert!(shutdown().judge(&good, false).is_ok());
        assert!(shutdown().judge(&good, true).is_err());
        let stopped = Expected {
            end: Some("every hart has stopped"),
            ..Expected::default()
        };
        let seen = seen(&["hypervisor: guest g ended: every hart has stopped"]);
        for failed in [false, true] {
            assert!(stopped.judge(&seen, failed).is_ok());
        }
        let quits = Expected {
            may_quit: true,
            ..shutdown()
        };
        assert!(quits.judge(&forged(&[]), false).is_ok());
        assert!(quits.judge(&forged(&[]), true).is_err());
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
                .judge(
                    &seen(&["guest-mem: userspace is up, harts: 2, Linux", end]),
                    false
                )
                .is_ok()
        );
        assert!(
            expected
                .judge(
                    &seen(&["guest-mem: userspace is up, harts: 1, Linux", end]),
                    false
                )
                .is_err()
        );
        assert!(expected.judge(&seen(&[end]), false).is_err());
    }
}
