//! `cargo xtask rules`: lists the tests of each rule of docs/rules.md in docs/rules-tests.md.
//!
//! A test says which rules it proves by how its name begins (`r22_...`, `r20_i1_...`), so the list is found and never kept by
//! hand. In docs/rules.md a rule is a heading of its number alone. A rule without tests says why, in a line `- Untested: ...`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::screen::show;
use crate::workspace;

/// The rules, from the repository's root.
const DOCUMENT: &str = "docs/rules.md";

/// The list of their tests, which this command writes.
const LIST: &str = "docs/rules-tests.md";

/// What begins the line of a rule that says why it has no tests.
const UNTESTED: &str = "- Untested: ";

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

/// What to do with the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bring it up to date.
    Write,
    /// Fail if it is not up to date.
    Check,
}

/// Finds the tests and lists them. Fails if a test names a rule that the document does not have, or if a rule has neither tests
/// nor a reason for that, or both. A check also fails if the list is out of date.
pub fn run(mode: Mode) -> anyhow::Result<()> {
    let tests = find_tests(workspace::root())?;
    let path = workspace::root().join(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let new = list(&document, &tests)?;
    let path = workspace::root().join(LIST);
    if fs::read_to_string(&path).unwrap_or_default() != new {
        match mode {
            Mode::Write => fs::write(&path, &new)?,
            Mode::Check => bail!("{LIST} is out of date: run `cargo xtask rules`"),
        }
    }
    let unexplained = unexplained(&document, &tests);
    ensure!(
        unexplained.is_empty(),
        "{DOCUMENT}: either tests or a line `{UNTESTED}...`, and not both: {}",
        unexplained.join(", ")
    );
    let rules = document.lines().filter_map(rule_of_heading).count();
    show!("{LIST}: {} of {rules} rules have tests", tests.len());
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

/// The list: a heading for each rule that has tests, then its tests, by where they run.
fn list(document: &str, tests: &Tests) -> anyhow::Result<String> {
    let mut missing: BTreeSet<&str> = tests.keys().map(String::as_str).collect();
    let mut new = String::from(
        "# The tests of each rule\n\n\
         `cargo xtask rules` writes this file: a test's name begins with the rules that it proves. *Host* tests run\n\
         with `cargo test` on the model hart. *Target* tests run in the test kernel, or in a guest, on the machine.\n",
    );
    for rule in document.lines().filter_map(rule_of_heading) {
        let Some(tests) = tests.get(rule) else {
            continue;
        };
        ensure!(missing.remove(rule), "{DOCUMENT} has {rule} twice");
        new.push_str(&format!(
            "\n## [{rule}](rules.md#{})\n",
            rule.to_lowercase()
        ));
        for (side, name) in [(Side::Host, "Host"), (Side::Target, "Target")] {
            let names: Vec<_> = tests.iter().filter(|(on, _)| *on == side).collect();
            if !names.is_empty() {
                new.push_str(&format!("\n{name}:\n\n"));
            }
            for (_, test) in names {
                new.push_str(&format!("- `{test}`\n"));
            }
        }
    }
    ensure!(
        missing.is_empty(),
        "tests name rules that {DOCUMENT} does not have: {missing:?}"
    );
    Ok(new)
}

/// The rules that have neither tests nor a reason for that, and those that have both.
fn unexplained<'d>(document: &'d str, tests: &Tests) -> Vec<&'d str> {
    let mut rules = Vec::new();
    let mut in_rule = false;
    for line in document.lines() {
        if line.starts_with('#') {
            let rule = rule_of_heading(line);
            in_rule = rule.is_some();
            rules.extend(rule.map(|rule| (rule, false)));
        } else if in_rule && let Some((_, has_reason)) = rules.last_mut() {
            let reason = line.strip_prefix(UNTESTED);
            *has_reason |= reason.is_some_and(|reason| !reason.trim().is_empty());
        }
    }
    rules
        .into_iter()
        .filter(|(rule, has_reason)| tests.contains_key(*rule) == *has_reason)
        .map(|(rule, _)| rule)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "### R1\nOne.\n- Source: x\n\n### R2\nTwo.\n\n## I\n### I1\nInvariant.\n";

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
    fn the_tests_of_a_rule_are_listed_by_where_they_run() {
        let names = [
            (Side::Target, "r2_b"),
            (Side::Host, "r2_i1_a"),
            (Side::Host, "r2_c"),
        ];
        let new = list(DOCUMENT, &tests(&names)).unwrap();
        let (_, rules) = new.split_once("\n\n## ").unwrap();
        assert_eq!(
            rules,
            "[R2](rules.md#r2)\n\nHost:\n\n- `r2_c`\n- `r2_i1_a`\n\nTarget:\n\n- `r2_b`\n\n\
             ## [I1](rules.md#i1)\n\nHost:\n\n- `r2_i1_a`\n"
        );
    }

    #[test]
    fn a_test_of_a_rule_that_is_not_there_fails() {
        assert!(list(DOCUMENT, &tests(&[(Side::Host, "r3_a")])).is_err());
    }

    #[test]
    fn a_rule_has_either_tests_or_a_reason_for_none() {
        for (entry, test, good) in [
            ("Text.", Some("r1_a"), true),
            ("- Untested: advice", None, true),
            ("Text.", None, false),
            ("- Untested: ", None, false),
            ("- Untested: advice", Some("r1_a"), false),
            ("Text.\n\n## B\n- Untested: of no rule", None, false),
        ] {
            let document = format!("### R1\n{entry}\n\n### R2\nText.\n");
            let names: Vec<_> = [Some("r2_a"), test].into_iter().flatten().collect();
            let names: Vec<_> = names.into_iter().map(|name| (Side::Host, name)).collect();
            let expected: &[&str] = if good { &[] } else { &["R1"] };
            assert_eq!(unexplained(&document, &tests(&names)), expected, "{entry}");
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
        list(&document, &tests).unwrap();
        assert_eq!(unexplained(&document, &tests), [""; 0]);
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
