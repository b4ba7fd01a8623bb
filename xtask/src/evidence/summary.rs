//! The text of docs/evidence.md: one page, with machines as columns and what was counted as rows.
//!
//! The long form, with every deviation and every mutant by name, is [`document`](super::document)'s.

use std::fmt::Write;

use super::machines::{self, Machine};
use super::{Group, LONG_FORM, Long, Record, Records};
use crate::rules::Count;

/// A part of the evidence: the command that repeats it, and on which commit it ran.
struct Source<'a> {
    command: &'a str,
    commit: &'a str,
}

/// The document. `commits_since` says how many commits were made after one.
pub fn write(
    records: &Records,
    rules: &Count,
    commits_since: impl Fn(&str) -> Option<u64>,
) -> String {
    let mut page = Page::default();
    page.line("# Evidence\n");
    page.line(&format!(
        "What was run to test the library and the hypervisor, and what was found. `cargo xtask evidence`\n\
         writes this page from the records that the commands below leave under `target/evidence`. It also\n\
         writes the long form, `{LONG_FORM}`, which names every deviation, every skipped test and every\n\
         mutant. Seeds are fixed: the same commit gives the same cases."
    ));
    page.sources(records, commits_since);
    page.rules(rules);
    page.machines("Tests", &records.test.parts);
    page.host(records);
    page.long_runs(&records.long);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn heading(&mut self, title: &str) {
        self.line(&format!("\n## {title}\n"));
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    /// The head of a table: a column of text, then columns of numbers.
    fn head(&mut self, first: &str, others: &[&str]) {
        self.row([first].iter().chain(others).map(|&cell| cell.to_owned()));
        self.line(&format!("|---|{}", "--:|".repeat(others.len())));
    }

    /// Which command repeats each part, on which commit it ran, and how far behind that is.
    fn sources(&mut self, records: &Records, commits_since: impl Fn(&str) -> Option<u64>) {
        self.heading("What was run, and when");
        self.head("command", &["commit", "commits since"]);
        let long = records
            .long
            .iter()
            .filter_map(|(_, record)| record.as_ref());
        let all = [
            source(&records.test),
            source(&records.mutants),
            source(&records.fuzz),
            source(&records.miri),
        ];
        for part in all.into_iter().chain(long.map(source)) {
            let since = commits_since(part.commit);
            self.row([
                format!("`cargo xtask {}`", part.command),
                part.commit.to_owned(),
                since.map_or_else(|| "unknown".to_owned(), |count| count.to_string()),
            ]);
        }
        let missing: Vec<_> = records
            .long
            .iter()
            .filter(|(_, record)| record.is_none())
            .map(|(long, _)| format!("`cargo xtask {}`", long.usual_command()))
            .collect();
        if !missing.is_empty() {
            self.line(&format!("\nNot run:\n\n- {}", missing.join("\n- ")));
        }
    }

    fn rules(&mut self, rules: &Count) {
        self.heading("Rules");
        self.line(&format!(
            "{} of {} [rules](rules.md) have tests named for them: {} on the host, {} on the target. Without\n\
             tests: {}. Each of these says why.",
            rules.with_tests,
            rules.rules,
            rules.host,
            rules.target,
            rules.without.join(", ")
        ));
    }

    /// The machines of `groups` as columns, what was counted on them as rows.
    fn machines(&mut self, title: &str, groups: &[Group]) {
        let all = machines::of(groups);
        self.heading(title);
        for machine in &all {
            self.line(&format!("- {}: `{}`", machine.short, machine.long));
        }
        for letter in ['Q', 'S'] {
            let machines: Vec<_> = all
                .iter()
                .filter(|machine| machine.short.starts_with(letter))
                .collect();
            if !machines.is_empty() {
                self.line("");
                self.table(&machines);
            }
        }
    }

    fn table(&mut self, machines: &[&Machine<'_>]) {
        let heads: Vec<_> = machines.iter().map(|it| it.short.as_str()).collect();
        self.head("what", &heads);
        type Number = fn(&Group) -> u64;
        let sums: [(&str, Number); 4] = [
            ("tests passed", |group| group.passed),
            ("tests failed", |group| group.failed),
            ("tests passed by a listed deviation", |group| {
                group.deviations.len() as u64
            }),
            ("tests skipped", |group| group.skipped.len() as u64),
        ];
        for (what, of) in sums {
            let cell =
                |machine: &&Machine<'_>| grouped(machine.groups.iter().map(|it| of(it)).sum());
            self.row(
                [what.to_owned()]
                    .into_iter()
                    .chain(machines.iter().map(cell)),
            );
        }
        for what in counted_by(
            machines
                .iter()
                .flat_map(|machine| machine.groups.iter().copied()),
        ) {
            let cell = |machine: &&Machine<'_>| {
                count(machine.groups.iter().copied(), what).map_or_else(String::new, grouped)
            };
            self.row(
                [what.to_owned()]
                    .into_iter()
                    .chain(machines.iter().map(cell)),
            );
        }
    }

    /// What needs no machine of its own.
    fn host(&mut self, records: &Records) {
        self.heading("On the host");
        self.head("what", &["passed", "failed"]);
        let tests = machines::on_the_host(&records.test.parts);
        let miri = records.miri.parts.iter();
        for group in tests.chain(miri) {
            self.row([
                group.name.clone(),
                group.passed.to_string(),
                group.failed.to_string(),
            ]);
        }
        let mutants = &records.mutants.parts;
        let survivors: Vec<_> = mutants
            .iter()
            .filter(|mutant| mutant.caught_by.is_none())
            .map(|mutant| mutant.name.as_str())
            .collect();
        let caught = mutants.len() - survivors.len();
        self.row([
            "mutants".into(),
            caught.to_string(),
            survivors.len().to_string(),
        ]);
        for name in survivors {
            self.line(&format!("\nNo test notices: {name}"));
        }
        self.line("");
        self.head("what", &["how many"]);
        let orders = records.test.parts.iter().find(|group| group.name == "loom");
        if let Some(loom) = orders {
            let sum = loom.counted.iter().map(|(_, number)| number).sum();
            self.row([
                "orders of two or three harts tried with loom".into(),
                grouped(sum),
            ]);
        }
        let others =
            machines::on_the_host(&records.test.parts).filter(|group| group.name != "loom");
        for (what, number) in others.flat_map(|group| &group.counted) {
            self.row([what.clone(), grouped(*number)]);
        }
        for group in &records.fuzz.parts {
            let inputs = count([group].into_iter(), "inputs").unwrap_or(0);
            self.row([format!("fuzz inputs, {}", group.name), grouped(inputs)]);
        }
    }

    fn long_runs(&mut self, long: &[(Long, Option<Record<Group>>)]) {
        for (long, record) in long {
            let Some(record) = record else { continue };
            if *long == Long::Loom {
                // The tests' own loom run says the same.
                continue;
            }
            self.machines(
                &format!("Long run: `cargo xtask {}`", record.command),
                &record.parts,
            );
        }
    }
}

fn source<Part>(record: &Record<Part>) -> Source<'_> {
    Source {
        command: &record.command,
        commit: &record.commit,
    }
}

/// What the groups counted, each once, in the order of its first appearance.
fn counted_by<'a>(groups: impl Iterator<Item = &'a Group>) -> Vec<&'a str> {
    let mut all = Vec::<&str>::new();
    for (what, _) in groups.flat_map(|group| &group.counted) {
        if !all.contains(&what.as_str()) {
            all.push(what);
        }
    }
    all
}

/// How many of `what` the groups counted: their sum, or the longest of what is a length.
fn count<'a>(groups: impl Iterator<Item = &'a Group>, what: &str) -> Option<u64> {
    groups
        .flat_map(|group| &group.counted)
        .filter(|(counted, _)| counted == what)
        .map(|&(_, number)| number)
        .reduce(|one, other| {
            if what.ends_with("at the longest") {
                one.max(other)
            } else {
                one + other
            }
        })
}

/// A number with a space between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Mutant;
    use super::*;

    fn group(name: &str, counted: &[(&str, u64)]) -> Group {
        Group {
            name: name.into(),
            passed: 3,
            failed: 1,
            deviations: vec!["r1: odd".into()],
            skipped: vec!["r9: no Sstc".into()],
            counted: counted.iter().map(|&(what, n)| (what.into(), n)).collect(),
        }
    }

    fn record<Part>(command: &str, parts: Vec<Part>) -> Record<Part> {
        Record {
            command: command.into(),
            commit: "c0ffee".into(),
            effort: 0,
            parts,
        }
    }

    fn records() -> Records {
        let mutant = |name: &str, test: Option<&str>| Mutant {
            name: name.into(),
            caught_by: test.map(String::from),
        };
        let longest = "instructions at the longest";
        Records {
            test: record(
                "test",
                vec![
                    group("host", &[]),
                    group("loom", &[("orders: a", 1_000), ("orders: b", 5)]),
                    group(
                        "target, QEMU 10 virt",
                        &[("faults", 1_234_567), (longest, 9)],
                    ),
                    group("differential, QEMU 10 virt", &[(longest, 7), ("faults", 1)]),
                    group("target, QEMU 7 virt", &[("cases", 4)]),
                ],
            ),
            long: vec![
                (Long::Exhaustive, None),
                (
                    Long::Hostile,
                    Some(record(
                        "run hostile --count 9",
                        vec![group("H, on QEMU 10", &[])],
                    )),
                ),
            ],
            mutants: record(
                "mutants",
                vec![mutant("wrong", Some("r2_x")), mutant("survivor", None)],
            ),
            fuzz: record("fuzz", vec![group("decode", &[("inputs", 77)])]),
            miri: record("miri", vec![group("the library's tests", &[])]),
        }
    }

    #[test]
    fn the_page_has_a_column_a_machine() {
        let rules = Count {
            rules: 81,
            with_tests: 74,
            host: 5,
            target: 6,
            without: vec!["R36".into()],
        };
        let text = write(&records(), &rules, |commit| {
            (commit == "c0ffee").then_some(12)
        });
        for part in [
            "74 of 81",
            "| `cargo xtask test` | c0ffee | 12 |",
            "- `cargo xtask test --exhaustive`",
            "- Q1: `QEMU 10 virt`",
            "| what | Q1 | Q2 |",
            "| tests passed | 6 | 3 |",
            "| faults | 1 234 568 |  |",
            "| instructions at the longest | 9 |  |",
            "| cases |  | 4 |",
            "| host | 3 | 1 |",
            "| mutants | 1 | 1 |",
            "No test notices: survivor",
            "tried with loom | 1 005 |",
            "| fuzz inputs, decode | 77 |",
            "## Long run: `cargo xtask run hostile --count 9`",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
