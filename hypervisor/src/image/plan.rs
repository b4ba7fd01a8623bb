//! Where everything of a guest goes before its first instruction.
//!
//! The one idea: the kernel says where it wants to be, and device tree and initial RAM disk go right above it, where boot loaders
//! put them: a kernel that uses less than all of RAM (`mem=`) still reaches them, and a boot loader that moves itself to the top
//! of RAM does not overwrite them. A plan with an overlap, or with a byte outside RAM, cannot be made.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use guest_mem::Gpa;

use super::kernel::{Format, Kernel};

/// Bytes kept for the device tree. Being its alignment too, the tree never crosses a 2 MiB boundary, which Linux's early
/// mapping asks for.
pub const DEVICE_TREE_ROOM: u64 = 0x1_0000;

/// Bytes kept free above a kernel that does not say how much memory it uses beyond its file. Less where RAM has not so much.
const UNKNOWN_MEMORY: u64 = 32 << 20;

/// A kernel has its memory to the end of such a granule: Linux reserves its own in whole pages of 2 MiB, and takes no initial RAM
/// disk that lies in the last one.
const KERNEL_GRANULE: u64 = 2 << 20;

/// What goes to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many zero bytes.
    Zero(u64),
}

impl Content<'_> {
    /// Its length in bytes, never 0 inside a plan.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zero(len) => *len,
        }
    }

    /// Whether it is no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Content and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it begins.
    pub gpa: Gpa,
    /// What goes there.
    pub content: Content<'a>,
}

/// Everything that is in guest RAM at the start. All ranges lie inside RAM and none overlaps another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan<'a> {
    /// Where the boot hart begins.
    pub entry: Gpa,
    /// Where the device tree is to be written, [`DEVICE_TREE_ROOM`] bytes at most.
    pub device_tree: Gpa,
    /// The initial RAM disk, first byte and one past the last.
    pub initrd: Option<Range<u64>>,
    pieces: Vec<Piece<'a>>,
}

/// Why a guest cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// A part of the kernel is not inside RAM.
    OutsideRam {
        /// Where the part begins.
        gpa: Gpa,
        /// Its length in bytes.
        len: u64,
    },
    /// Two parts of the kernel share bytes.
    KernelOverlap {
        /// Where one of them begins.
        gpa: Gpa,
    },
    /// What is to be loaded besides the kernel does not fit above it.
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// The bytes it needs.
        len: u64,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideRam { gpa, len } => {
                write!(
                    f,
                    "the kernel wants {len:#x} bytes at {gpa:#x}, outside RAM"
                )
            }
            Self::KernelOverlap { gpa } => {
                write!(f, "two parts of the kernel overlap at {gpa:#x}")
            }
            Self::NoRoom { what, len } => {
                write!(f, "no room in guest RAM for {len:#x} bytes of {what}")
            }
        }
    }
}

impl<'a> LoadPlan<'a> {
    /// Finds a place for everything in RAM of `ram_len` bytes at `ram_base`.
    pub fn new(
        kernel: &Kernel<'a>,
        initrd: Option<&'a [u8]>,
        ram_base: Gpa,
        ram_len: u64,
    ) -> Result<Self, PlanError> {
        // RAM past the top of the address space is none.
        let ram_end = ram_base.value().saturating_add(ram_len);
        let mut pieces = Vec::new();
        let kernel_ranges = place_kernel(kernel, ram_base.value()..ram_end, &mut pieces)?;
        let floor = kernel_ranges
            .last()
            .map_or(ram_base.value(), |last| last.end);

        let initrd = initrd.filter(|bytes| !bytes.is_empty());
        let len = initrd.map_or(0, |bytes| bytes.len() as u64);
        let device_tree = place_device_tree(kernel.format, floor, len, ram_end)?;
        let initrd = match initrd {
            Some(bytes) => {
                let start = device_tree + DEVICE_TREE_ROOM;
                pieces.push(Piece {
                    gpa: Gpa::new(start),
                    content: Content::Bytes(bytes),
                });
                Some(start..start + len)
            }
            None => None,
        };
        Ok(Self {
            entry: kernel.entry,
            device_tree: Gpa::new(device_tree),
            initrd,
            pieces,
        })
    }

    /// How many bytes have to be in memory before the guest begins: what is not zero, and the device tree's room.
    pub fn bytes(&self) -> u64 {
        let of = |piece: &Piece<'_>| match piece.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zero(_) => 0,
        };
        let pieces: u64 = self.pieces.iter().map(of).sum();
        pieces.saturating_add(DEVICE_TREE_ROOM)
    }

    /// What to write where, the device tree excepted: its contents depend on this plan.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'a>> + '_ {
        self.pieces.iter().copied()
    }
}

/// Checks the kernel's segments and adds their pieces; gives their ranges, sorted.
fn place_kernel<'a>(
    kernel: &Kernel<'a>,
    ram: Range<u64>,
    pieces: &mut Vec<Piece<'a>>,
) -> Result<Vec<Range<u64>>, PlanError> {
    let mut ranges = Vec::new();
    for segment in &kernel.segments {
        let (gpa, len) = (segment.gpa, segment.memory_len);
        let file_len = segment.bytes.len() as u64;
        let end = gpa
            .checked_add(len)
            .filter(|end| gpa.value() >= ram.start && end.value() <= ram.end && file_len <= len)
            .ok_or(PlanError::OutsideRam { gpa, len })?;
        ranges.push(gpa.value()..end.value());
        let zero_from = Gpa::new(gpa.value() + file_len);
        let parts = [
            (gpa, Content::Bytes(segment.bytes)),
            (zero_from, Content::Zero(len - file_len)),
        ];
        pieces.extend(
            parts
                .into_iter()
                .filter(|(_, content)| !content.is_empty())
                .map(|(gpa, content)| Piece { gpa, content }),
        );
    }
    ranges.sort_by_key(|range| range.start);
    match ranges.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(PlanError::KernelOverlap {
            gpa: Gpa::new(pair[1].start),
        }),
        None => Ok(ranges),
    }
}

/// Where the device tree goes, above a kernel that ends at `floor`, so that an initial RAM disk of `initrd` bytes fits behind it.
fn place_device_tree(
    format: Format,
    floor: u64,
    initrd: u64,
    ram_end: u64,
) -> Result<u64, PlanError> {
    let place = |gap: u64, alignment| {
        let start = floor.checked_add(gap)?;
        let start = start.checked_next_multiple_of(alignment)?;
        let end = start.checked_add(DEVICE_TREE_ROOM)?;
        Some((start, ram_end.checked_sub(end)?))
    };
    let largest_gap = match format {
        Format::Flat => UNKNOWN_MEMORY,
        // Their headers say how much memory they use.
        Format::LinuxImage | Format::Elf => 0,
    };
    let gaps = (0..5).map(|halvings| largest_gap >> halvings).chain([0]);
    let places = gaps
        .map(|gap| place(gap, KERNEL_GRANULE))
        // Where RAM ends before that, right behind the kernel.
        .chain([place(0, DEVICE_TREE_ROOM)]);
    let mut what = ("device tree", DEVICE_TREE_ROOM);
    for (start, rest) in places.flatten() {
        if rest >= initrd {
            return Ok(start);
        }
        what = ("initial RAM disk", initrd);
    }
    let (what, len) = what;
    Err(PlanError::NoRoom { what, len })
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use guest_mem::address::PAGE_SIZE;

    use super::super::kernel::tests::{RAM_BASE, elf_file, linux_image};
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn plan<'a>(
        file: &'a [u8],
        initrd: Option<&'a [u8]>,
        ram_len: u64,
    ) -> Result<LoadPlan<'a>, PlanError> {
        let kernel = Kernel::parse(file, RAM_BASE).unwrap();
        LoadPlan::new(&kernel, initrd, RAM_BASE, ram_len)
    }

    /// Every range of a plan, with the device tree's.
    fn ranges(plan: &LoadPlan<'_>) -> Vec<Range<u64>> {
        let tree = plan.device_tree.value();
        let mut ranges: Vec<_> = plan
            .pieces()
            .map(|piece| piece.gpa.value()..piece.gpa.value() + piece.content.len())
            .collect();
        ranges.push(tree..tree + DEVICE_TREE_ROOM);
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    #[test]
    fn a_linux_guest_has_kernel_bss_initrd_and_device_tree_in_that_order() {
        let file = linux_image(2 * MIB, 0x5000, 0);
        let initrd = vec![7; 5000];
        let plan = plan(&file, Some(&initrd), 64 * MIB).unwrap();
        assert_eq!(plan.entry, Gpa::new(0x8020_0000));
        assert_eq!(plan.device_tree, Gpa::new(0x8040_0000));
        assert_eq!(plan.initrd, Some(0x8041_0000..0x8041_0000 + 5000));
        let piece = |gpa, content| Piece {
            gpa: Gpa::new(gpa),
            content,
        };
        let expected = [
            piece(0x8020_0000, Content::Bytes(&file)),
            piece(0x8020_0080, Content::Zero(0x5000 - 128)),
            piece(0x8041_0000, Content::Bytes(&initrd)),
        ];
        assert!(plan.pieces().eq(expected));
        assert_eq!(plan.bytes(), 128 + 5000 + DEVICE_TREE_ROOM);
    }

    #[test]
    fn no_two_ranges_overlap_and_all_lie_in_ram_for_every_size_that_fits() {
        let file = linux_image(2 * MIB, 0x5000, 0);
        let initrd = vec![7; 0x8001];
        let mut fitted = 0;
        for ram_len in (2 * MIB..3 * MIB).step_by(PAGE_SIZE as usize) {
            let Ok(plan) = plan(&file, Some(&initrd), ram_len) else {
                assert_eq!(fitted, 0, "more RAM never fits less");
                continue;
            };
            fitted += 1;
            let ranges = ranges(&plan);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(ranges[0].start >= RAM_BASE.value());
            assert!(ranges.last().unwrap().end <= RAM_BASE.value() + ram_len);
            assert!(plan.device_tree.is_aligned_to(DEVICE_TREE_ROOM));
        }
        assert!(fitted > 100);
    }

    #[test]
    fn i17_what_is_loaded_lies_low_whatever_the_size_of_ram() {
        let linux = linux_image(2 * MIB, 30 * MIB, 0);
        let flat = vec![0x13; 5 * MIB as usize];
        let initrd = vec![7; MIB as usize];
        // In whole granules, or right behind the kernel if RAM ends.
        let granules = plan(&linux, None, 128 * MIB).unwrap().device_tree;
        assert!(granules.is_aligned_to(KERNEL_GRANULE));
        // (kernel, RAM, the highest end): Linux with `mem=64M`; a boot loader that moves to the top and clears what is behind it.
        for (file, ram_len, gap, end) in [
            (&linux[..], 128 * MIB, 0, 64 * MIB),
            (&linux, 1 << 40, 0, 64 * MIB),
            (&flat, 128 * MIB, 32 * MIB, 64 * MIB),
            (&flat, 1 << 40, 32 * MIB, 64 * MIB),
            // With little RAM the gap shrinks, and in the end is none.
            (&flat, 32 * MIB, 16 * MIB, 32 * MIB),
            (&flat, 8 * MIB + 128 * KIB, 0, 8 * MIB + 128 * KIB),
        ] {
            let plan = plan(file, Some(&initrd), ram_len).unwrap();
            let kernel_end = match file.len() == flat.len() {
                true => 7 * MIB,
                false => 32 * MIB,
            };
            let tree = plan.device_tree.value() - RAM_BASE.value();
            assert!(tree >= kernel_end + gap && tree <= kernel_end + gap + 2 * MIB);
            let initrd = plan.initrd.unwrap();
            assert_eq!(initrd.start % PAGE_SIZE, 0);
            assert!(initrd.end - RAM_BASE.value() <= end, "{ram_len:#x}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let file = linux_image(2 * MIB, 0x5000, 0);
        let initrd = vec![0; MIB as usize];
        let error = |ram_len| plan(&file, Some(&initrd), ram_len).unwrap_err();
        let gpa = Gpa::new(0x8020_0000);
        let len = 0x5000;
        assert_eq!(error(MIB), PlanError::OutsideRam { gpa, len });
        assert_eq!(error(2 * MIB + 0x4fff), PlanError::OutsideRam { gpa, len });
        let no_room = |what, len| PlanError::NoRoom { what, len };
        let tree = no_room("device tree", DEVICE_TREE_ROOM);
        assert_eq!(error(2 * MIB + 0x5000), tree);
        assert_eq!(error(3 * MIB), no_room("initial RAM disk", MIB));
        assert!(plan(&file, Some(&initrd), 4 * MIB).is_ok());
    }

    #[test]
    fn elf_segments_outside_ram_or_over_each_other_are_refused() {
        let load = |segments: &[(u64, u64, &[u8], u64)]| {
            let file = elf_file(segments[0].0, segments);
            plan(&file, None, 64 * MIB).map(|_| ())
        };
        for (paddr, memsz) in [
            (0x7fff_ffff, 4),
            (0x8400_0000, 4),
            (0x83ff_ffff, 4),
            (0, 4),
            (u64::MAX - 1, 4),
            (0x8000_0000, u64::MAX),
        ] {
            let gpa = Gpa::new(paddr);
            let answer = load(&[(0x8000_0000, paddr, b"abcd", memsz)]);
            assert_eq!(answer, Err(PlanError::OutsideRam { gpa, len: memsz }));
        }
        let first = (0x8020_1000, 0x8020_1000, &b""[..], 0x1000);
        let second = (0x8020_0000, 0x8020_0000, &b"abcd"[..], 0x1001);
        let gpa = Gpa::new(0x8020_1000);
        assert_eq!(
            load(&[first, second]),
            Err(PlanError::KernelOverlap { gpa })
        );
        let second = (0x8020_0000, 0x8020_0000, &b"abcd"[..], 0x1000);
        assert_eq!(load(&[first, second]), Ok(()));
    }

    #[test]
    fn ram_at_the_top_of_the_address_space_does_not_wrap() {
        let file = [0; 16];
        let base = Gpa::new(u64::MAX - 4 * MIB);
        let kernel = Kernel::parse(&file, base).unwrap();
        let plan = LoadPlan::new(&kernel, None, base, u64::MAX).unwrap();
        assert!(plan.device_tree > kernel.entry);
    }
}
