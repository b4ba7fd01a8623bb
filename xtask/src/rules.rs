//! `cargo xtask rules`: lists the tests of each rule in docs/rules.md.
//!
//! The one idea: a test says which rules it proves by how its name begins (`r22_...`, `r20_i1_...`), so the list is found and
//! never kept by hand. In the document a rule is a heading of its number alone, and its tests are the line `- Tests: ...`
//! below that. A rule that has none says why, in a line `- Why none: ...`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::screen::show;
use crate::workspace;

/// The document, from the repository's root.
const DOCUMENT: &str = "docs/rules.md";

/// The folders with tests, and where those run.
const FOLDERS: [(&str, Side); 5] = [
    ("guest-mem", Side::Host),
    ("hypervisor", Side::Host),
    ("test-kernel", Side::Target),
    ("guests", Side::Target),
    ("xtask/src/run", Side::Host),
];

/// Where a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Host,
    Target,
}

/// The tests of each rule (`R22`).
type Tests = BTreeMap<String, BTreeSet<(Side, String)>>;

/// What to do with the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bring it up to date.
    Write,
    /// Fail if it is not up to date.
    Check,
}

/// Finds the tests and puts them into the document. Fails if a test names a rule that the document does not have; a check also
/// fails if a rule has no tests and does not say why.
pub fn run(mode: Mode) -> anyhow::Result<()> {
    let tests = find_tests(workspace::root())?;
    let path = workspace::root().join(DOCUMENT);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let new = with_tests(&old, &tests)?;
    if old != new {
        match mode {
            Mode::Write => fs::write(&path, &new)?,
            Mode::Check => bail!("{DOCUMENT} is out of date: run `cargo xtask rules`"),
        }
    }
    let unexplained = unexplained(&new);
    if !unexplained.is_empty() && mode == Mode::Check {
        bail!(
            "{DOCUMENT}: either tests or a line `- Why none: ...`, and not both: {}",
            unexplained.join(", ")
        );
    }
    let (proved, rules) = (tests.len(), new.lines().filter_map(rule_of_heading).count());
    show!("{DOCUMENT}: {proved} of {rules} rules have tests");
    Ok(())
}

/// How many rules and tests there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The rules of the document.
    pub rules: usize,
    /// Those that have tests.
    pub with_tests: usize,
    /// The tests that are named for rules and run on the host.
    pub host: usize,
    /// The same on the target.
    pub target: usize,
    /// The rules without tests.
    pub without: Vec<String>,
}

/// Counts the document's rules and their tests.
pub fn count() -> anyhow::Result<Count> {
    let tests = find_tests(workspace::root())?;
    let text = fs::read_to_string(workspace::root().join(DOCUMENT))?;
    let rules: Vec<_> = text.lines().filter_map(rule_of_heading).collect();
    let distinct: BTreeSet<_> = tests.values().flatten().collect();
    let of = |wanted| distinct.iter().filter(|(side, _)| *side == wanted).count();
    Ok(Count {
        rules: rules.len(),
        with_tests: tests.len(),
        host: of(Side::Host),
        target: of(Side::Target),
        without: rules
            .iter()
            .filter(|rule| !tests.contains_key(**rule))
            .map(|&rule| rule.to_owned())
            .collect(),
    })
}

/// Every test below `root` whose name begins with a rule.
fn find_tests(root: &Path) -> anyhow::Result<Tests> {
    let mut tests = Tests::new();
    for (folder, side) in FOLDERS {
        for file in rust_files(&root.join(folder))? {
            let text = fs::read_to_string(&file)?;
            for name in text.lines().filter_map(function_name) {
                for rule in rules_of(name) {
                    let test = (side, name.to_owned());
                    tests.entry(rule).or_default().insert(test);
                }
            }
        }
    }
    Ok(tests)
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// The name in a line that begins a function.
fn function_name(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest = rest
        .strip_prefix("pub ")
        .unwrap_or(rest)
        .strip_prefix("fn ")?;
    rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .next()
}

/// The rules that a test's name begins with: `r20_i1_the_record_survives` proves R20 and I1.
fn rules_of(name: &str) -> impl Iterator<Item = String> {
    name.split('_')
        .map_while(|word| is_rule(word).then(|| word.to_uppercase()))
}

/// Whether a word is `r` or `i` and a number.
fn is_rule(word: &str) -> bool {
    word.strip_prefix(['r', 'i']).is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The rule of a heading `### R22`.
fn rule_of_heading(line: &str) -> Option<&str> {
    let word = line.strip_prefix("### ")?;
    is_rule(&word.to_lowercase()).then_some(word)
}

/// The document with its lists of tests replaced.
fn with_tests(document: &str, tests: &Tests) -> anyhow::Result<String> {
    let mut missing: BTreeSet<&str> = tests.keys().map(String::as_str).collect();
    let mut rule = None;
    let mut new = String::new();
    for line in document.lines() {
        if line.starts_with('#') {
            rule = rule_of_heading(line);
        }
        match rule {
            Some(rule) if line.starts_with("- Tests:") => {
                ensure!(
                    missing.remove(rule) || !tests.contains_key(rule),
                    "{DOCUMENT} has {rule} twice"
                );
                new.push_str(&tests_line(tests.get(rule)));
            }
            _ => new.push_str(line),
        }
        new.push('\n');
    }
    ensure!(
        missing.is_empty(),
        "tests name rules that {DOCUMENT} does not have: {missing:?}"
    );
    Ok(new)
}

/// The rules that have neither tests nor a reason for that, and those that have both.
fn unexplained(document: &str) -> Vec<&str> {
    let mut rules = Vec::new();
    let mut in_rule = false;
    for line in document.lines() {
        if line.starts_with('#') {
            let rule = rule_of_heading(line);
            in_rule = rule.is_some();
            rules.extend(rule.map(|rule| (rule, false, false)));
        } else if in_rule && let Some((_, has_tests, has_reason)) = rules.last_mut() {
            let tests = line.strip_prefix("- Tests: ");
            *has_tests |= tests.is_some_and(|tests| tests != "none");
            let reason = line.strip_prefix("- Why none: ");
            *has_reason |= reason.is_some_and(|reason| !reason.trim().is_empty());
        }
    }
    rules
        .into_iter()
        .filter(|(_, has_tests, has_reason)| has_tests == has_reason)
        .map(|(rule, ..)| rule)
        .collect()
}

/// The line that lists a rule's tests.
fn tests_line(tests: Option<&BTreeSet<(Side, String)>>) -> String {
    let Some(tests) = tests else {
        return "- Tests: none".into();
    };
    let of = |wanted: Side, name: &str| {
        let names: Vec<_> = tests
            .iter()
            .filter(|(side, _)| *side == wanted)
            .map(|(_, test)| format!("`{test}`"))
            .collect();
        (!names.is_empty()).then(|| format!("{name}: {}", names.join(", ")))
    };
    let sides = [of(Side::Host, "host"), of(Side::Target, "target")];
    let sides: Vec<_> = sides.into_iter().flatten().collect();
    format!("- Tests: {}", sides.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
        ### R1\nOne.\n- Source: x\n- Tests: `gone`\n\n\
        ### R2\nTwo.\n- Tests: none\n\n\
        ## I\n- Tests: of no rule\n### I1\n- Tests: none\n";

    fn tests(names: &[(Side, &str)]) -> Tests {
        let mut tests = Tests::new();
        for (side, name) in names {
            for rule in rules_of(name) {
                tests
                    .entry(rule)
                    .or_default()
                    .insert((*side, (*name).into()));
            }
        }
        tests
    }

    #[test]
    fn the_tests_of_a_rule_are_listed_by_where_they_run_and_stale_ones_go() {
        let names = [
            (Side::Target, "r2_b"),
            (Side::Host, "r2_i1_a"),
            (Side::Host, "r2_c"),
        ];
        let new = with_tests(DOCUMENT, &tests(&names)).unwrap();
        let lines: Vec<_> = new.lines().filter(|line| line.contains("Tests")).collect();
        assert_eq!(
            lines,
            [
                "- Tests: none",
                "- Tests: host: `r2_c`, `r2_i1_a`; target: `r2_b`",
                "- Tests: of no rule",
                "- Tests: host: `r2_i1_a`",
            ]
        );
        assert_eq!(with_tests(&new, &tests(&names)).unwrap(), new);
    }

    #[test]
    fn a_test_of_a_rule_that_is_not_there_fails() {
        assert!(with_tests(DOCUMENT, &tests(&[(Side::Host, "r3_a")])).is_err());
    }

    #[test]
    fn a_rule_has_either_tests_or_a_reason_for_none() {
        for (entry, good) in [
            ("- Tests: host: `r1_a`", true),
            ("- Tests: none\n- Why none: advice", true),
            ("- Tests: none", false),
            ("- Tests: none\n- Why none: ", false),
            ("- Tests: host: `r1_a`\n- Why none: advice", false),
            ("No list.", false),
            ("- Tests: none\n\n## B\n- Why none: of no rule", false),
        ] {
            let document = format!("### R1\n{entry}\n\n### R2\n- Tests: target: `r2_a`\n");
            let expected: &[&str] = if good { &[] } else { &["R1"] };
            assert_eq!(unexplained(&document), expected, "{entry}");
        }
    }

    #[test]
    fn only_names_that_begin_with_a_rule_have_one() {
        for (name, rules) in [
            ("r22_the_address", vec!["R22"]),
            ("r20_i1_the_record", vec!["R20", "I1"]),
            ("the_r22_address", vec![]),
            ("rules_of", vec![]),
            ("r_22", vec![]),
            ("i_am", vec![]),
            ("r2d2_x", vec![]),
        ] {
            assert_eq!(rules_of(name).collect::<Vec<_>>(), rules, "{name}");
        }
    }

    #[test]
    fn function_names_are_found_in_their_first_line() {
        assert_eq!(
            function_name("    pub fn r1_a(t: &mut Test) -> Outcome {"),
            Some("r1_a")
        );
        assert_eq!(function_name("fn r1_b<T>() {"), Some("r1_b"));
        assert_eq!(function_name("// fn r1_c() {"), None);
    }

    #[test]
    fn every_test_of_this_repository_names_a_rule_of_the_document() {
        let document = fs::read_to_string(workspace::root().join(super::DOCUMENT)).unwrap();
        let tests = find_tests(workspace::root()).unwrap();
        assert!(!tests.is_empty());
        with_tests(&document, &tests).unwrap();
    }

    #[test]
    fn the_document_has_every_rule_once_and_in_order() {
        let document = fs::read_to_string(workspace::root().join(super::DOCUMENT)).unwrap();
        let rules: Vec<_> = document.lines().filter_map(rule_of_heading).collect();
        // From there on numbers may be left out.
        for (letter, without_gaps) in [('R', 70), ('I', 11)] {
            let numbers: Vec<u32> = rules
                .iter()
                .filter_map(|rule| rule.strip_prefix(letter)?.parse().ok())
                .collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
            assert!(
                numbers
                    .iter()
                    .copied()
                    .take(without_gaps)
                    .eq(1..=without_gaps as u32)
            );
        }
    }
}
