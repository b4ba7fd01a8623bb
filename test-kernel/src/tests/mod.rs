//! The tests, by section of the rules.

pub mod access;
pub mod copies;
pub mod cores;
pub mod disturbed;
pub mod entries;
pub mod exits;
pub mod faults;
pub mod fences;
pub mod fetches;
pub mod forms;
pub mod injection;
pub mod logging;
pub mod memory;
pub mod mistrust;
pub mod operations;
pub mod own_faults;
pub mod races;
pub mod redirected;
pub mod routines;
pub mod selftest;
pub mod shapes;
pub mod standalone;
pub mod superpages;
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
    routines::CASES,
    disturbed::recounted::CASES,
    disturbed::forwarded::CASES,
    injection::CASES,
    injection::interrupts::CASES,
    injection::nested::CASES,
    injection::storms::CASES,
    traps::CASES,
    faults::CASES,
    fetches::CASES,
    forms::CASES,
    switching::CASES,
    fences::CASES,
    window::CASES,
    operations::CASES,
    own_faults::CASES,
    memory::CASES,
    logging::CASES,
    walks::CASES,
    superpages::CASES,
    entries::CASES,
    exits::CASES,
    mistrust::CASES,
    cores::CASES,
    races::edits::CASES,
    races::logging::CASES,
    races::replacing::CASES,
    races::slots::CASES,
    races::tearing::CASES,
    races::unmapping::CASES,
    standalone::CASES,
    redirected::CASES,
];
