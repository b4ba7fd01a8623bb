//! The frames of the machine's RAM that nobody has owned yet.
//!
//! The one idea: frames leave this list and never come back to it (those of a guest that is over are in
//! [`returned`](super::returned)), so it is a short list of ranges that only shrinks.

use guest_mem::Spa;

/// Bytes of a frame.
pub const FRAME: u64 = 4096;

/// Free ranges remembered at most. A machine may have 64 ranges of RAM, and 64 reservations in them; each of those, and the
/// image, the bundle and the device tree, cuts a range into two. The rest is for what allocations leave.
const RANGES: usize = 192;

/// A range of machine memory: `[start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Range {
    /// The range of `len` bytes at `start`, or `None` if it runs past the top of the address space.
    pub fn from_len(start: u64, len: u64) -> Option<Self> {
        Some(Self {
            start,
            end: start.checked_add(len)?,
        })
    }

    /// Its bytes.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The smallest range of whole frames around it.
    pub const fn outward(self) -> Self {
        Self {
            start: self.start & !(FRAME - 1),
            end: self.end.saturating_add(FRAME - 1) & !(FRAME - 1),
        }
    }

    /// The largest range of whole frames inside it.
    pub const fn inward(self) -> Self {
        Self {
            start: self.start.saturating_add(FRAME - 1) & !(FRAME - 1),
            end: self.end & !(FRAME - 1),
        }
    }
}

/// The frames that were never handed out.
#[derive(Clone, Debug)]
pub struct FrameAllocator {
    /// The first `len` are there, none of them empty.
    ranges: [Range; RANGES],
    len: usize,
}

impl FrameAllocator {
    /// An allocator that has nothing to give yet.
    pub const fn new() -> Self {
        Self {
            ranges: [Range { start: 0, end: 0 }; RANGES],
            len: 0,
        }
    }

    /// Adds the whole frames of a range of RAM. What finds no room in the list stays unused.
    pub fn add(&mut self, range: Range) {
        let range = range.inward();
        if range.is_empty() {
            return;
        }
        if let Some(slot) = self.ranges.get_mut(self.len) {
            *slot = range;
            self.len += 1;
        }
    }

    /// Takes the range at `index` out of the list; the last one comes in its place.
    fn remove(&mut self, index: usize) -> Range {
        self.len -= 1;
        let range = self.ranges[index];
        self.ranges[index] = self.ranges[self.len];
        range
    }

    /// Takes every frame that `range` touches out of the free memory.
    pub fn reserve(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let taken = range.outward();
        let mut index = 0;
        while index < self.len {
            let free = self.ranges[index];
            if taken.end <= free.start || free.end <= taken.start {
                index += 1;
                continue;
            }
            self.remove(index);
            for rest in [
                Range {
                    start: free.start,
                    end: taken.start.max(free.start),
                },
                Range {
                    start: taken.end.min(free.end),
                    end: free.end,
                },
            ] {
                self.add(rest);
            }
        }
    }

    /// Hands out `frames` consecutive frames that start at a multiple of `alignment` (a power of two, in bytes). Their
    /// contents are whatever was there.
    ///
    /// They come from the smallest range that has them: what an aligned piece leaves before it is used up before the next one
    /// leaves more, so that the list does not run full.
    pub fn allocate(&mut self, frames: u64, alignment: u64) -> Option<Spa> {
        let len = frames.checked_mul(FRAME).filter(|&len| len > 0)?;
        let alignment = alignment.max(FRAME);
        let piece_of = |free: &Range| {
            let start = free.start.checked_next_multiple_of(alignment)?;
            let piece = Range::from_len(start, len)?;
            (piece.end <= free.end).then_some(piece)
        };
        let (index, piece) = self.ranges[..self.len]
            .iter()
            .enumerate()
            .filter_map(|(index, free)| Some((index, piece_of(free)?)))
            .min_by_key(|&(index, _)| self.ranges[index].len())?;
        let free = self.remove(index);
        self.add(Range {
            start: piece.end,
            end: free.end,
        });
        self.add(Range {
            start: free.start,
            end: piece.start,
        });
        Some(Spa::new(piece.start))
    }

    /// The free ranges, in no order.
    pub fn free_ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges[..self.len].iter()
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        self.free_ranges().map(Range::len).sum()
    }
}

impl Default for FrameAllocator {
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

    #[test]
    fn only_whole_frames_are_added() {
        let mut frames = FrameAllocator::new();
        frames.add(range(0x1800, 0x3fff));
        assert_eq!(frames.free_bytes(), 0x1000);
        assert_eq!(frames.allocate(1, FRAME), Some(Spa::new(0x2000)));
        assert_eq!(frames.allocate(1, FRAME), None);
    }

    #[test]
    fn a_frame_that_a_reservation_touches_is_never_handed_out() {
        let mut frames = FrameAllocator::new();
        frames.add(range(0x1000, 0x6000));
        frames.reserve(range(0x2fff, 0x3001));
        let mut seen = std::vec::Vec::new();
        while let Some(frame) = frames.allocate(1, FRAME) {
            seen.push(frame.value());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0x1000, 0x4000, 0x5000]);
    }

    #[test]
    fn a_reservation_may_span_several_ranges_and_cover_them_whole() {
        let mut frames = FrameAllocator::new();
        frames.add(range(0x1000, 0x2000));
        frames.add(range(0x3000, 0x8000));
        frames.reserve(range(0, 0x5000));
        assert_eq!(frames.free_bytes(), 0x3000);
    }

    #[test]
    fn an_aligned_allocation_leaves_the_frames_before_it_free() {
        let mut frames = FrameAllocator::new();
        frames.add(range(0x1000, 0x20000));
        assert_eq!(frames.allocate(4, 0x4000), Some(Spa::new(0x4000)));
        assert_eq!(frames.free_bytes(), 0x1f000 - 0x4000);
        assert_eq!(frames.allocate(4, 0x4000), Some(Spa::new(0x8000)));
    }

    #[test]
    fn single_frames_between_blocks_lose_nothing() {
        const BLOCK: u64 = 512 * FRAME;
        let mut frames = FrameAllocator::new();
        frames.add(range(FRAME, 512 * BLOCK));
        let mut left = frames.free_bytes();
        for _ in 0..200 {
            assert!(frames.allocate(1, FRAME).is_some());
            assert!(frames.allocate(512, BLOCK).is_some());
            left -= FRAME + BLOCK;
            assert_eq!(frames.free_bytes(), left);
        }
    }

    #[test]
    fn the_reservations_of_a_large_machine_lose_nothing() {
        const GIB: u64 = 1 << 30;
        let mut frames = FrameAllocator::new();
        for index in 1..=64 {
            frames.add(range(2 * index * GIB, (2 * index + 1) * GIB));
        }
        for index in 1..=64 {
            let middle = 2 * index * GIB + GIB / 2;
            frames.reserve(range(middle, middle + 1));
        }
        for at in [1, 2, 3] {
            frames.reserve(range(2 * GIB + at * 0x10000, 2 * GIB + at * 0x10000 + 1));
        }
        assert_eq!(frames.free_bytes(), 64 * GIB - 67 * FRAME);
    }

    #[test]
    fn requests_that_cannot_be_met_are_refused() {
        let mut frames = FrameAllocator::new();
        frames.add(range(0x1000, 0x4000));
        for (count, alignment) in [(0, FRAME), (4, FRAME), (u64::MAX, FRAME), (1, 1 << 20)] {
            assert_eq!(
                frames.allocate(count, alignment),
                None,
                "{count} {alignment:#x}"
            );
        }
        assert_eq!(frames.free_bytes(), 0x3000);
    }
}
