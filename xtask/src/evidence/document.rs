//! The long form of the evidence: every part, deviation, skipped test and mutant by name.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::summary::grouped;
use super::{Group, Long, Mutant, Record, Records};
use crate::rules::Count;

const HEAD: &str = "\
# Evidence, in full

The long form of docs/evidence.md. Each part names the command that repeats its figures and the commit on which they were seen.
";

/// The document.
pub fn write(records: &Records, rules: &Count) -> String {
    let mut text = HEAD.to_owned();
    line(&mut text, "\n## Rules\n\n`cargo xtask rules`.\n");
    line(
        &mut text,
        &format!(
            "{} of {} rules have tests that are named for them: {} tests on the host, {} on the target. Without one: \
             {}; the entry of each says why, which `cargo xtask rules --check` checks.",
            rules.with_tests,
            rules.rules,
            rules.host,
            rules.target,
            rules.without.join(", ")
        ),
    );
    tests(&mut text, &records.test);
    line(&mut text, "\n## Long runs");
    for (long, record) in &records.long {
        long_run(&mut text, *long, record.as_ref(), &records.test);
    }
    mutants(&mut text, &records.mutants);
    section(&mut text, "Fuzzing", &records.fuzz);
    counts(&mut text, &records.fuzz.parts);
    section(&mut text, "Miri", &records.miri);
    counts(&mut text, &records.miri.parts);
    text
}

fn section<Part>(text: &mut String, title: &str, record: &Record<Part>) {
    line(text, &format!("\n## {title}\n\n{}.\n", source(record)));
}

/// What repeats a record, and where.
fn source<Part>(record: &Record<Part>) -> String {
    format!(
        "`cargo xtask {}`, on commit {}",
        record.command, record.commit
    )
}

fn tests(text: &mut String, record: &Record<Group>) {
    section(text, "Tests, by machine", record);
    let mut total = table(text, &record.parts);
    total.name = "**all**".to_owned();
    row(text, &total);

    line(text, "\n### What they went through\n");
    counts(text, &record.parts);

    line(text, "\n### Deviations found\n");
    line(
        text,
        "What the machine did that is not what the specification says, as the tests name it; each is probed at boot, and only \
         where the probe finds it does a test accept it. docs/rules.md says more of each.\n",
    );
    list(text, &record.parts, |group| &group.deviations);
    line(text, "\n### Skipped\n");
    list(text, &record.parts, |group| &group.skipped);
}

/// A run beyond those that every change goes through, or that nobody made it.
fn long_run(text: &mut String, long: Long, record: Option<&Record<Group>>, test: &Record<Group>) {
    let title = match long {
        Long::Machines => "The tests on further boards",
        Long::Qemus => "The tests on every QEMU of Debian, in full",
        Long::Simulator => "The tests on Spike alone",
        Long::Exhaustive => "Fault injection with every case",
        Long::Differential => "The differential test with more cases",
        Long::Hostile => "More hostile guests",
        Long::Loom => "Every order of what harts share",
    };
    line(text, &format!("\n### {title}\n"));
    let Some(record) = record else {
        let not_run = format!("Not run: `cargo xtask {}`.", long.usual_command());
        return line(text, &not_run);
    };
    line(text, &format!("{}.\n", source(record)));
    let mut groups = record.parts.clone();
    if long == Long::Machines {
        // What it does beside that is in the table of the tests.
        groups.retain(|group| test.parts.iter().all(|other| other.name != group.name));
    }
    table(text, &groups);
    if groups.iter().any(|group| !group.counted.is_empty()) {
        line(text, "");
        counts(text, &groups);
    }
    if groups.iter().any(|group| !group.deviations.is_empty()) {
        line(text, "\nDeviations found:\n");
        list(text, &groups, |group| &group.deviations);
    }
}

/// A row for each group; answers their sum.
fn table(text: &mut String, groups: &[Group]) -> Group {
    line(
        text,
        "| what and where | passed | failed | of these deviate | skipped |",
    );
    line(text, "|---|--:|--:|--:|--:|");
    let mut total = Group::default();
    for group in groups {
        row(text, group);
        total.passed += group.passed;
        total.failed += group.failed;
        total.deviations.extend_from_slice(&group.deviations);
        total.skipped.extend_from_slice(&group.skipped);
    }
    total
}

fn mutants(text: &mut String, record: &Record<Mutant>) {
    section(text, "Mutants", record);
    let all = &record.parts;
    let caught = all.iter().filter(|it| it.caught_by.is_some()).count();
    line(
        text,
        &format!(
            "Copies of the library and of the hypervisor, each with one thing wrong: {caught} of {} were caught by a test.\n",
            all.len()
        ),
    );
    line(text, "| what is wrong | the first test that failed |");
    line(text, "|---|---|");
    for mutant in all {
        let by = mutant.caught_by.as_ref();
        let by = by.map_or_else(|| "**nothing**".to_owned(), |test| format!("`{test}`"));
        line(text, &format!("| {} | {by} |", mutant.name));
    }
}

/// A line for each thing that is counted in each group.
fn counts(text: &mut String, groups: &[Group]) {
    line(text, "| where | how many | of what |");
    line(text, "|---|--:|---|");
    for group in groups {
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

fn row(text: &mut String, group: &Group) {
    line(
        text,
        &format!(
            "| {} | {} | {} | {} | {} |",
            group.name,
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

    fn record<Part>(command: &str, parts: Vec<Part>) -> Record<Part> {
        Record {
            command: command.into(),
            commit: "c0ffee".into(),
            effort: 0,
            parts,
        }
    }

    #[test]
    fn every_figure_of_the_records_is_in_the_document() {
        let mutant = |name: &str, test: Option<&str>| Mutant {
            name: name.into(),
            caught_by: test.map(String::from),
        };
        let machines = vec![group("A", &[]), group("the spike board", &["r5: even"])];
        let records = Records {
            test: record(
                "test",
                vec![group("A", &["r1: odd"]), group("B", &["r1: odd"])],
            ),
            long: vec![
                (
                    Long::Machines,
                    Some(record("test --machine spike", machines)),
                ),
                (Long::Exhaustive, None),
                (
                    Long::Hostile,
                    Some(record("run hostile --count 9", vec![group("H", &[])])),
                ),
            ],
            mutants: record(
                "mutants",
                vec![mutant("wrong", Some("r2_x")), mutant("survivor", None)],
            ),
            fuzz: record("fuzz --seconds 60", vec![group("decode", &[])]),
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
            "`cargo xtask test`, on commit c0ffee",
            "| A | 3 | 1 | 1 | 1 |",
            "| **all** | 6 | 2 | 2 | 2 |",
            "| B | 1 234 567 | cases |",
            "- A; B:\n  - r1: odd\n",
            "- A; B:\n  - r9: no Sstc\n",
            "`cargo xtask test --machine spike`, on commit",
            "| the spike board | 3 | 1 | 1 | 1 |",
            "- the spike board:\n  - r5: even\n",
            "Not run: `cargo xtask test --exhaustive`",
            "`cargo xtask run hostile --count 9`, on commit",
            "| H | 1 234 567 | cases |",
            "| wrong | `r2_x` |",
            "| survivor | **nothing** |",
            "1 of 2 were",
            "R36",
            "`cargo xtask fuzz --seconds 60`, on commit",
            "| decode | 1 234 567 | cases |",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let a_again = text.matches("| A | 3 |").count();
        assert_eq!(a_again, 1, "what the tests did on other boards, too");
    }
}
