//! The text of docs/evidence.md.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Group, Mutant, Record, Records};
use crate::rules::Count;

const HEAD: &str = "\
# Evidence

What was run to find out whether the layer behaves as the architecture says, and what came of it. `cargo xtask evidence` writes
this file from what the commands below left under `target/evidence`; nothing in it is typed in. Each part names the command
that repeats its figures and the commit on which they were seen. Seeds are fixed: the same commit gives the same cases.
";

/// The document.
pub fn write(records: &Records, rules: &Count) -> String {
    let mut text = HEAD.to_owned();
    line(&mut text, "\n## Rules\n\n`cargo xtask rules`.\n");
    let without = rules.without.join(", ");
    line(
        &mut text,
        &format!(
            "{} of {} [rules](rules.md) have tests that are named for them: {} tests on the host, {} on the target. Without one: \
             {without}; each says why in its entry.",
            rules.with_tests, rules.rules, rules.host, rules.target
        ),
    );
    tests(&mut text, &records.test);
    mutants(&mut text, &records.mutants);
    section(&mut text, "Fuzzing", "fuzz", &records.fuzz.commit);
    counts(&mut text, &records.fuzz);
    section(&mut text, "Miri", "miri", &records.miri.commit);
    counts(&mut text, &records.miri);
    text
}

fn section(text: &mut String, title: &str, command: &str, commit: &str) {
    let command = format!("`cargo xtask {command}`, on commit {commit}");
    line(text, &format!("\n## {title}\n\n{command}.\n"));
}

fn tests(text: &mut String, record: &Record<Group>) {
    section(text, "Tests, by machine", "test", &record.commit);
    line(
        text,
        "| what and where | passed | failed | of these deviate | skipped |",
    );
    line(text, "|---|--:|--:|--:|--:|");
    let mut total = Group::default();
    for group in &record.parts {
        row(text, &group.name, group);
        total.passed += group.passed;
        total.failed += group.failed;
        total.deviations.extend_from_slice(&group.deviations);
        total.skipped.extend_from_slice(&group.skipped);
    }
    row(text, "**all**", &total);

    line(text, "\n### What they went through\n");
    counts(text, record);

    line(text, "\n### Deviations found\n");
    line(
        text,
        "What the machine did that is not what the specification says, as the tests name it; each is probed at boot, and only \
         where the probe finds it does a test accept it. [rules.md](rules.md#h-machines-that-deviate) says more of each.\n",
    );
    list(text, &record.parts, |group| &group.deviations);
    line(text, "\n### Skipped\n");
    list(text, &record.parts, |group| &group.skipped);
}

fn mutants(text: &mut String, record: &Record<Mutant>) {
    section(text, "Mutants", "mutants", &record.commit);
    let all = &record.parts;
    let caught = all.iter().filter(|it| !it.caught_by.is_empty()).count();
    line(
        text,
        &format!(
            "Copies of the library and of the hypervisor, each with one thing wrong: {caught} of {} were caught by a test.\n",
            all.len()
        ),
    );
    line(text, "| what is wrong | caught by |");
    line(text, "|---|---|");
    for mutant in all {
        let by = match mutant.caught_by.split_first() {
            None => "**nothing**".to_owned(),
            Some((first, [])) => format!("`{first}`"),
            Some((first, more)) => format!("`{first}` and {} more", more.len()),
        };
        line(text, &format!("| {} | {by} |", mutant.name));
    }
}

/// A line for each thing that is counted in each group.
fn counts(text: &mut String, record: &Record<Group>) {
    line(text, "| where | how many | of what |");
    line(text, "|---|--:|---|");
    for group in &record.parts {
        for (what, number) in &group.counted {
            line(
                text,
                &format!("| {} | {} | {what} |", group.name, grouped(*number)),
            );
        }
    }
}

/// Each note of the groups once, with the groups that have it.
fn list(text: &mut String, groups: &[Group], notes: impl Fn(&Group) -> &[String]) {
    let mut where_seen = BTreeMap::<&str, Vec<&str>>::new();
    for group in groups {
        for note in notes(group) {
            where_seen.entry(note).or_default().push(&group.name);
        }
    }
    // Notes that were seen in the same places share a heading.
    let mut by_place = BTreeMap::<String, Vec<&str>>::new();
    for (note, mut places) in where_seen {
        places.dedup();
        by_place.entry(places.join("; ")).or_default().push(note);
    }
    for (places, notes) in by_place {
        line(text, &format!("- {places}:"));
        for note in notes {
            line(text, &format!("  - {note}"));
        }
    }
}

fn row(text: &mut String, name: &str, group: &Group) {
    line(
        text,
        &format!(
            "| {name} | {} | {} | {} | {} |",
            group.passed,
            group.failed,
            group.deviations.len(),
            group.skipped.len()
        ),
    );
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

/// A number with a space between its thousands.
fn grouped(number: u64) -> String {
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
    use super::*;

    fn group(name: &str, deviations: &[&str]) -> Group {
        Group {
            name: name.into(),
            passed: 3,
            failed: 1,
            deviations: deviations.iter().map(|&it| it.into()).collect(),
            skipped: vec!["r9: no Sstc".into()],
            counted: vec![("cases".into(), 1_234_567)],
        }
    }

    #[test]
    fn every_figure_of_the_records_is_in_the_document() {
        let commit = || "c0ffee".to_owned();
        let mutant = |name: &str, tests: &[&str]| Mutant {
            name: name.into(),
            caught_by: tests.iter().map(|&it| it.into()).collect(),
        };
        let records = Records {
            test: Record {
                commit: commit(),
                parts: vec![group("A", &["r1: odd"]), group("B", &["r1: odd"])],
            },
            mutants: Record {
                commit: commit(),
                parts: vec![mutant("wrong", &["r2_x", "r3_x"]), mutant("survivor", &[])],
            },
            fuzz: Record {
                commit: commit(),
                parts: vec![group("decode", &[])],
            },
            miri: Record::default(),
        };
        let rules = Count {
            rules: 81,
            with_tests: 74,
            host: 5,
            target: 6,
            without: vec!["R36".into()],
        };
        let text = write(&records, &rules);
        for part in [
            "74 of 81",
            "c0ffee",
            "| A | 3 | 1 | 1 | 1 |",
            "| **all** | 6 | 2 | 2 | 2 |",
            "| B | 1 234 567 | cases |",
            "- A; B:\n  - r1: odd\n",
            "- A; B:\n  - r9: no Sstc\n",
            "| wrong | `r2_x` and 1 more |",
            "| survivor | **nothing** |",
            "1 of 2 were",
            "R36",
            "| decode | 1 234 567 | cases |",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
