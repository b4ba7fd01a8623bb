//! Anything a hypervisor may do with a guest, in any order, against a plain array of bytes: accesses in all four spaces,
//! page-table edits, G-stage changes, slots that come and go, logging.
//!
//! The idea to hold: the [`Oracle`](oracle::Oracle) judges each *byte* of an access by itself, from what was asked of it so
//! far; the library has to stop at the first byte that the oracle refuses, for the same reason, with the same bytes moved and
//! the same pages in the dirty log.
#![no_main]

mod action;
mod oracle;
mod stage;
mod world;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

/// Actions of one run.
const LIMIT: usize = 400;

// Read one action after another until the bytes end: the derived form for a list would ask before each whether to go on,
// and any bytes would make a short run.
fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(kind) = bytes.arbitrary() else { return };
    let mut actions = Vec::new();
    while !bytes.is_empty()
        && actions.len() < LIMIT
        && let Ok(action) = bytes.arbitrary()
    {
        actions.push(action);
    }
    world::run(kind, &actions);
});
