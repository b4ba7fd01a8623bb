//! The measurements for people (tables) and for programs (JSON).

use crate::screen::show;
use std::fmt::Write;

use super::budgets::Outcome;
use super::lines::{Measurement, Measurements};

/// Nanoseconds in a tick of QEMU's `virt` machine.
const TICK: f64 = 100.0;

/// The paths of copies, in the order of the tables, and their column heads.
const PATHS: [&str; 9] = [
    "baseline-gva",
    "gva-hook",
    "gva-scoped",
    "gva-walk",
    "baseline-gpa",
    "gpa-hlv-hook",
    "gpa-hlv-scoped",
    "gpa-direct",
    "limit",
];

/// The copies: operation and shape of each table.
const COPIES: [(&str, &str); 6] = [
    ("read", "aligned"),
    ("write", "aligned"),
    ("read", "misaligned"),
    ("write", "misaligned"),
    ("read", "crossing"),
    ("write", "crossing"),
];

/// Prints the tables.
pub fn print(instructions: &Measurements, ticks: &Measurements) {
    for (operation, shape) in COPIES {
        show!("\n{operation}, {shape}: instructions a call");
        copies(instructions, operation, shape, |value, _| {
            format!("{value:.0}")
        });
        show!("\n{operation}, {shape}: nanoseconds a call");
        copies(ticks, operation, shape, |value, _| {
            format!("{:.0}", value * TICK)
        });
        show!("\n{operation}, {shape}: times as fast as the baseline of its space (*: slower)");
        copies(ticks, operation, shape, |value, baseline| {
            let mark = if value > baseline { "*" } else { "" };
            format!("{:.1}{mark}", baseline / value)
        });
    }
    show!("\nother operations: instructions and nanoseconds a call");
    for Measurement { key, value } in &instructions.0 {
        if !is_copy(&key.operation) {
            let name = format!("{} {} {} {}", key.operation, key.path, key.size, key.shape);
            let time = ticks
                .get(&key.operation, &key.path, key.size, &key.shape)
                .map_or("-".into(), |ticks| format!("{:.0}", ticks * TICK));
            show!("{name:44} {value:>9.1} {time:>9}");
        }
    }
    show!("\nseveral harts at once: nanoseconds a call of the slowest");
    for Measurement { key, value } in only_in(ticks, instructions) {
        let name = format!("{} {} {}", key.operation, key.path, key.size);
        show!("{name:44} {:>19.0}", value * TICK);
    }
}

/// The measurements that the other run does not have.
fn only_in<'m>(
    of: &'m Measurements,
    other: &'m Measurements,
) -> impl Iterator<Item = &'m Measurement> {
    let is_there = |it: &&Measurement| {
        let key = &it.key;
        other
            .get(&key.operation, &key.path, key.size, &key.shape)
            .is_none()
    };
    of.0.iter().filter(is_there)
}

fn is_copy(operation: &str) -> bool {
    COPIES.iter().any(|(copy, _)| *copy == operation)
}

/// The byte loop of the path's space; the limit is compared with that of guest-physical addresses.
fn baseline_of(path: &str) -> &'static str {
    if path.contains("gva") {
        "baseline-gva"
    } else {
        "baseline-gpa"
    }
}

fn copies(of: &Measurements, operation: &str, shape: &str, cell: impl Fn(f64, f64) -> String) {
    let heads = PATHS.map(|path| format!(" {path:>14}")).concat();
    show!("{:>8}{heads}", "bytes");
    let mut sizes: Vec<_> =
        of.0.iter()
            .filter(|it| it.key.operation == operation && it.key.shape == shape)
            .map(|it| it.key.size)
            .collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let cells = PATHS.map(|path| {
            let value = of.get(operation, path, size, shape);
            let baseline = of.get(operation, baseline_of(path), size, shape);
            let text = match (value, baseline) {
                (Some(value), Some(baseline)) => cell(value, baseline),
                _ => "-".into(),
            };
            format!(" {text:>14}")
        });
        show!("{size:>8}{}", cells.concat());
    }
}

/// Prints the budgets.
pub fn print_budgets(outcomes: &[Outcome]) {
    show!(
        "\n{:44} {:>9} {:>9}",
        "budgets, instructions a call",
        "allowed",
        "measured"
    );
    for outcome in outcomes {
        let measured = outcome.measured.map_or("-".into(), |it| format!("{it:.1}"));
        let verdict = match (outcome.is_met(), outcome.asserted) {
            (true, true) => "held",
            (true, false) => "met, not asserted",
            (false, true) => "EXCEEDED",
            (false, false) => "not met yet",
        };
        show!(
            "{:44} {:>9.1} {measured:>9} {verdict}",
            outcome.name,
            outcome.allowed
        );
    }
}

/// All numbers.
pub fn json(
    qemu: &str,
    instructions: &Measurements,
    ticks: &Measurements,
    outcomes: &[Outcome],
) -> String {
    let mut text = format!("{{\n  \"qemu\": \"{qemu}\",\n  \"measurements\": [");
    let mut separator = "";
    for Measurement { key, value } in &instructions.0 {
        let nanoseconds = ticks
            .get(&key.operation, &key.path, key.size, &key.shape)
            .map_or("null".into(), |ticks| format!("{:.1}", ticks * TICK));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{separator}\n    {{\"operation\": \"{}\", \"path\": \"{}\", \"size\": {}, \"shape\": \"{}\", \
             \"instructions\": {value:.2}, \"nanoseconds\": {nanoseconds}}}",
            key.operation, key.path, key.size, key.shape
        );
        separator = ",";
    }
    for Measurement { key, value } in only_in(ticks, instructions) {
        let _ = write!(
            text,
            "{separator}\n    {{\"operation\": \"{}\", \"path\": \"{}\", \"size\": {}, \"shape\": \"{}\", \
             \"instructions\": null, \"nanoseconds\": {:.1}}}",
            key.operation,
            key.path,
            key.size,
            key.shape,
            value * TICK
        );
        separator = ",";
    }
    text.push_str("\n  ],\n  \"budgets\": [");
    separator = "";
    for outcome in outcomes {
        let measured = outcome
            .measured
            .map_or("null".into(), |it| format!("{it:.2}"));
        let _ = write!(
            text,
            "{separator}\n    {{\"name\": \"{}\", \"allowed\": {:.2}, \"measured\": {measured}, \"asserted\": {}}}",
            outcome.name, outcome.allowed, outcome.asserted
        );
        separator = ",";
    }
    text.push_str("\n  ]\n}\n");
    text
}
