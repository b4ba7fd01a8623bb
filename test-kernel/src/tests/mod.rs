//! The tests, by section of the rules.

pub mod access;
pub mod selftest;

use crate::harness::Case;

/// Every section, in order.
pub const SECTIONS: &[&[Case]] = &[selftest::CASES, access::CASES];
