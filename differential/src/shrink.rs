//! How a case that fails is made small.

use crate::case::Case;
use crate::choices::Offer;

/// Takes back choices of a case that `fails` for as long as it still fails: no choice that is left can be taken back alone.
pub fn shrink(case: Case, offer: &Offer, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut small = Case {
        kept: case.choices(offer).taken,
        ..case
    };
    loop {
        let before = small.kept;
        for bit in (0..u32::BITS).rev().map(|bit| 1 << bit) {
            let smaller = Case {
                kept: small.kept & !bit,
                ..small
            };
            if smaller.kept != small.kept && fails(&smaller) {
                small = smaller;
            }
        }
        if small.kept == before {
            return small;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_shrinks_to_the_choices_that_make_it_fail() {
        let offer = Offer::ALL;
        let mut shrunk = 0;
        for number in 0..1000 {
            let case = Case::new(7, number);
            let taken = case.choices(&offer).taken;
            let needed = taken & 0b1000_1001;
            if needed.count_ones() == 3 {
                let small = shrink(case, &offer, |case| case.kept & needed == needed);
                assert_eq!(small.kept, needed);
                shrunk += 1;
            }
        }
        assert!(shrunk > 0);
    }

    #[test]
    fn taking_a_choice_back_leaves_the_others() {
        let offer = Offer::ALL;
        for number in 0..1000 {
            let case = Case::new(3, number);
            let all = case.choices(&offer);
            for bit in 0..u32::BITS {
                let kept = !(1 << bit);
                let without = Case { kept, ..case }.choices(&offer);
                assert_eq!(without.taken, all.taken & kept);
                assert!(
                    without
                        .edits
                        .iter()
                        .zip(&all.edits)
                        .all(|(one, other)| one.is_none() || one == other)
                );
            }
        }
    }
}
