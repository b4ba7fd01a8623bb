//! The firmware's features (FWFT): each one that the machine's extensions allow can be set, shows,
//! and can be locked.

use core::fmt;

use guest_kit::machine::Machine;
use guest_kit::{println, sbi};
use sbi_spec::fwft::feature_type::{POINTER_MASKING_PMLEN, PTE_AD_HW_UPDATING, SHADOW_STACK};
use sbi_spec::fwft::{EID_FWFT, GET, SET};

use crate::execute;
use crate::paging;
use crate::probe::{Outcome, area};

const NOT_SUPPORTED: isize = -2;
const INVALID_PARAM: isize = -3;
const DENIED: isize = -4;
const DENIED_LOCKED: isize = -14;
const LOCK: u64 = 1;

/// Sets a feature; gives the error.
pub fn set(feature: usize, value: u64, flags: u64) -> isize {
    let arguments = [feature as u64, value, flags, 0, 0];
    sbi::call(EID_FWFT, SET, arguments).error as isize
}

/// The error and the value of a feature.
fn get(feature: usize) -> (isize, u64) {
    let answer = sbi::call(EID_FWFT, GET, [feature as u64, 0, 0, 0, 0]);
    (answer.error as isize, answer.value as u64)
}

/// Tries all of it. `step` is told what was right and what was not.
pub fn r74_each_feature_is_set_shows_and_locks(
    machine: &Machine,
    mut step: impl FnMut(bool, &str, fmt::Arguments<'_>),
) {
    let lists = |wanted: &str| machine.extensions().any(|name| name == wanted);
    let mut expect = |name: &str, seen: (isize, u64), expected: (isize, u64)| {
        step(
            seen == expected,
            name,
            format_args!("{seen:?}, expected {expected:?}"),
        );
    };
    expect("fwft: a reserved feature", get(6), (DENIED, 0));
    expect("fwft: shadow stacks", get(SHADOW_STACK), (NOT_SUPPORTED, 0));

    if lists("ssnpm") {
        let tagged = area(&[0x77]) | 0x55 << 57;
        let load = || execute!("+m", tagged, 0u32, "ld a2, 0(a0)");
        let untagged = load().1.is_some();
        expect(
            "fwft: no pointer is masked at first",
            (untagged.into(), 0),
            (1, 0),
        );
        let error = set(POINTER_MASKING_PMLEN, 7, 0);
        match load() {
            (_, Some(trap)) => println!(
                "  -     fwft: pointers are not masked: {trap}: QEMU before 11.1 forgets henvcfg.PMM (R67)"
            ),
            (value, None) => {
                expect(
                    "fwft: 7 bits of pointers are masked",
                    (error, value),
                    (0, 0x77),
                );
            }
        }
        let shown = get(POINTER_MASKING_PMLEN);
        let enough = (7..=16).contains(&shown.1);
        expect("fwft: and that shows", (shown.0, enough.into()), (0, 1));
        let error = set(POINTER_MASKING_PMLEN, 17, 0);
        expect(
            "fwft: 17 bits cannot be masked",
            (error, 0),
            (INVALID_PARAM, 0),
        );
        let off = (set(POINTER_MASKING_PMLEN, 0, 0), load().1.is_some().into());
        expect("fwft: and none again", off, (0, 1));
    } else {
        expect(
            "fwft: no pointer masking",
            get(POINTER_MASKING_PMLEN),
            (NOT_SUPPORTED, 0),
        );
    }

    if machine.argument("chooses-ad-updates").is_some() {
        let both = lists("svade") && lists("svadu");
        expect(
            "fwft: A and D are for the guest to choose",
            (0, both.into()),
            (0, 1),
        );
    }
    match (lists("svade"), lists("svadu")) {
        (true, true) => {
            let ad = PTE_AD_HW_UPDATING;
            expect("fwft: A and D are the guest's at first", get(ad), (0, 0));
            let updates = |value| {
                let error = set(ad, value, 0);
                (
                    error,
                    matches!(paging::access_without_ad(), Outcome::Works).into(),
                )
            };
            expect(
                "fwft: A and D are updated when asked for",
                updates(1),
                (0, 1),
            );
            expect("fwft: and that shows", get(ad), (0, 1));
            expect("fwft: and not any more", updates(0), (0, 0));
            expect(
                "fwft: a flag that is not there",
                (set(ad, 1, 2), 0),
                (INVALID_PARAM, 0),
            );
            expect(
                "fwft: a value that is not there",
                (set(ad, 2, 0), 0),
                (INVALID_PARAM, 0),
            );
            expect("fwft: a lock", (set(ad, 1, LOCK), 0), (0, 0));
            expect(
                "fwft: a locked feature",
                (set(ad, 0, 0), get(ad).1),
                (DENIED_LOCKED, 1),
            );
        }
        (false, true) => {
            let ad = PTE_AD_HW_UPDATING;
            expect("fwft: A and D are always updated", get(ad), (0, 1));
            expect(
                "fwft: which cannot be turned off",
                (set(ad, 0, 0), get(ad).1),
                (DENIED, 1),
            );
        }
        _ => expect(
            "fwft: no A/D updates",
            get(PTE_AD_HW_UPDATING),
            (NOT_SUPPORTED, 0),
        ),
    }
}
