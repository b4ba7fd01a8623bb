//! The shape of one injected fault: how long the copy is, how its two buffers are aligned, and where it is refused.
//!
//! The one idea: what refuses lies at a multiple of 8 (a page's end) or of 4 (a granule of physical memory protection), and
//! the copy is moved so that any byte of it comes to lie there. The alignment on the guest's side follows from that byte, so
//! that all bytes, all sizes and all alignments of the host's side are all there is.

/// The longest copy of all sizes up to it.
const SHORT: usize = 300;

/// Longer ones, for the bodies of 512 bytes that the scoped form has.
const LONG: [usize; 3] = [520, 777, LONGEST];

/// The longest copy.
pub const LONGEST: usize = 1100;

/// Sizes that together take every branch of every routine, each with one less and one more: head, body and tail, from where
/// merging begins, a batch, a body of four batches, and both with singles after them.
pub const BRANCHES: [usize; 24] = [
    1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 23, 47, 48, 49, 63, 64, 65, 127, 136, 200, 255, 256, 257, 300,
];

/// Bytes from which on `hart::riscv64` merges doubles instead of copying narrower elements.
const MERGED_FROM: usize = 48;

/// Every size, the shortest first.
pub fn sizes() -> impl Iterator<Item = usize> {
    (1..=SHORT).chain(LONG)
}

/// One copy that is refused somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes asked for.
    pub len: usize,
    /// Where the host's buffer begins, modulo 8.
    pub host: usize,
    /// The first byte that is refused.
    pub fault: usize,
}

impl Shape {
    /// Every shape of `len` bytes.
    pub fn of_len(len: usize) -> impl Iterator<Item = Self> {
        (0..len).flat_map(move |fault| (0..8).map(move |host| Self { len, host, fault }))
    }

    /// How many bytes are copied if the guest refuses them from the address `refused` on: all before the element that is
    /// refused. That is `fault`, unless it lies in the middle of a naturally aligned element, of as many bytes as fit both
    /// addresses together, all of which is asked for.
    pub fn copied(&self, refused: u64) -> usize {
        let start = refused - self.fault as u64;
        let common = 1 << ((self.host as u64 ^ start) | 8).trailing_zeros();
        if common < 8 && self.len >= MERGED_FROM {
            self.fault
        } else {
            self.before_element(refused, common)
        }
    }

    /// As [`copied`](Self::copied), for a fill: there is no host address to fit.
    pub fn filled(&self, refused: u64) -> usize {
        self.before_element(refused, 8)
    }

    fn before_element(&self, refused: u64, width: u64) -> usize {
        let start = refused - self.fault as u64;
        let element = refused & !(width - 1);
        if element >= start && element + width <= start + self.len as u64 {
            (element - start) as usize
        } else {
            self.fault
        }
    }
}
