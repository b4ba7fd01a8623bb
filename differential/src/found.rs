//! Cases at which something once disagreed.

use crate::case::Case;

/// What every run begins with, so that none of it comes back unseen. What a case is depends on the modes and registers that
/// a machine offers: on other machines than those that disagreed these are random cases like others.
pub const FOUND: [Case; 12] = [
    // A walk for a copy that refuses for the page where the access refuses for the update of A (R55): QEMU 10.0, under
    // firmware and without.
    found(20261122, 216570, 0x0228_2053),
    found(20261122, 216570, 0x022c_2053),
    found(20261122, 391922, 0x00a8_2042),
    found(20261122, 391922, 0x00ac_2042),
    found(101, 238394, 0x00ac_2042),
    // A shadow stack whose 64 KiB encoding is reserved (R53): QEMU 10.0 with every feature, without firmware.
    found(20261122, 59468, 0x010c_0000),
    found(53, 5298, 0x008c_1008),
    found(101, 248056, 0x040c_3008),
    // A copy that sets D and leaves the store to the hardware, which reports a load's fault (R67): QEMU 7.2.
    found(20261122, 35641, 0x0088_5010),
    found(20261122, 64794, 0x0108_1010),
    found(20261122, 82993, 0x0090_1010),
    // The first with all its choices.
    found(20261122, 35641, u32::MAX),
];

const fn found(seed: u64, number: u64, kept: u32) -> Case {
    Case { seed, number, kept }
}
