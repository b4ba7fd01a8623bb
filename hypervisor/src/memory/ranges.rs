//! A short list of memory ranges, sorted and apart from each other.
//!
//! The one idea: a range that is added joins those that it touches. So no byte is in the list twice, however often a device
//! tree names it, and no frame gets two owners.

use super::frames::Range;

/// At most `N` ranges. They are sorted, and between two of them is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSet<const N: usize> {
    ranges: [Range; N],
    len: usize,
}

impl<const N: usize> RangeSet<N> {
    /// An empty list.
    pub const fn new() -> Self {
        Self {
            ranges: [Range { start: 0, end: 0 }; N],
            len: 0,
        }
    }

    /// Adds a range. Returns `false`, and changes nothing, if there is no room for it.
    pub fn insert(&mut self, range: Range) -> bool {
        if range.is_empty() {
            return true;
        }
        let ranges = &mut self.ranges[..];
        // The ranges from `first` up to `last` touch the new one.
        let first = ranges[..self.len].partition_point(|other| other.end < range.start);
        let last = ranges[..self.len].partition_point(|other| other.start <= range.end);
        if first < last {
            ranges[first] = Range {
                start: range.start.min(ranges[first].start),
                end: range.end.max(ranges[last - 1].end),
            };
            ranges.copy_within(last..self.len, first + 1);
            self.len -= last - first - 1;
            return true;
        }
        if self.len == N {
            return false;
        }
        ranges.copy_within(first..self.len, first + 1);
        ranges[first] = range;
        self.len += 1;
        true
    }

    /// Adds a range, for a list that must not lose one. If there is no room, the nearest range grows over the gap between
    /// the two. Returns the bytes of that gap, 0 if there was room.
    pub fn cover(&mut self, range: Range) -> u64 {
        if N == 0 || self.insert(range) {
            return 0;
        }
        let at = self
            .as_slice()
            .partition_point(|other| other.end < range.start);
        let below = at.checked_sub(1).map(|below| Range {
            start: self.ranges[below].end,
            end: range.start,
        });
        let above = self.as_slice().get(at).map(|above| Range {
            start: range.end,
            end: above.start,
        });
        let gap = below
            .into_iter()
            .chain(above)
            .min_by_key(Range::len)
            .unwrap_or_default();
        self.insert(Range {
            start: range.start.min(gap.start),
            end: range.end.max(gap.end),
        });
        gap.len()
    }

    /// The ranges, lowest first.
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges[..self.len]
    }

    /// Whether one of the ranges shares a byte with `range`.
    pub fn touches(&self, range: Range) -> bool {
        self.as_slice()
            .iter()
            .any(|other| other.start < range.end && range.start < other.end)
    }
}

impl<const N: usize> Default for RangeSet<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    fn set<const N: usize>(ranges: &[(u64, u64)]) -> RangeSet<N> {
        let mut set = RangeSet::new();
        for &(start, end) in ranges {
            assert!(set.insert(range(start, end)));
        }
        set
    }

    #[test]
    fn ranges_are_sorted_and_those_that_touch_are_joined() {
        for (ranges, expected) in [
            (&[(4, 6), (1, 2)][..], &[(1, 2), (4, 6)][..]),
            (&[(1, 2), (2, 3)], &[(1, 3)]),
            (&[(2, 3), (1, 2)], &[(1, 3)]),
            (&[(1, 9), (3, 4)], &[(1, 9)]),
            (&[(3, 4), (1, 9)], &[(1, 9)]),
            (&[(1, 2), (4, 5), (7, 8), (2, 7)], &[(1, 8)]),
            (
                &[(1, 2), (4, 5), (9, 10), (3, 6)],
                &[(1, 2), (3, 6), (9, 10)],
            ),
            (&[(5, 5), (7, 6)], &[]),
        ] {
            let expected = expected.iter().map(|&(start, end)| range(start, end));
            assert!(
                set::<8>(ranges).as_slice().iter().copied().eq(expected),
                "{ranges:?}"
            );
        }
    }

    #[test]
    fn a_full_list_refuses_a_range_that_touches_none() {
        let mut set = set::<2>(&[(1, 2), (4, 5)]);
        let before = set;
        assert!(!set.insert(range(7, 8)));
        assert_eq!(set, before);
        assert!(set.insert(range(5, 7)), "this one joins");
    }

    #[test]
    fn a_list_that_must_lose_nothing_grows_over_the_nearest_gap() {
        for (added, gap, expected) in [
            ((60, 70), 5, [(10, 20), (40, 70)]),
            ((0, 2), 8, [(0, 20), (40, 55)]),
            ((23, 30), 3, [(10, 30), (40, 55)]),
            ((30, 38), 2, [(10, 20), (30, 55)]),
            ((12, 15), 0, [(10, 20), (40, 55)]),
        ] {
            let mut set = set::<2>(&[(10, 20), (40, 55)]);
            assert_eq!(set.cover(range(added.0, added.1)), gap, "{added:?}");
            let expected = expected.map(|(start, end)| range(start, end));
            assert_eq!(set.as_slice(), expected, "{added:?}");
        }
    }
}
