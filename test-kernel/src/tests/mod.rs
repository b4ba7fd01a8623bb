//! The tests, by section of the rules.

pub mod access;
pub mod copies;
pub mod entries;
pub mod faults;
pub mod fences;
pub mod forms;
pub mod selftest;
pub mod shapes;
pub mod switching;
pub mod traps;
pub mod walks;
pub mod window;

use crate::harness::Case;

/// Every section, in order.
pub const SECTIONS: &[&[Case]] = &[
    selftest::CASES,
    access::CASES,
    shapes::CASES,
    copies::CASES,
    traps::CASES,
    faults::CASES,
    forms::CASES,
    switching::CASES,
    fences::CASES,
    window::CASES,
    walks::CASES,
    entries::CASES,
];
