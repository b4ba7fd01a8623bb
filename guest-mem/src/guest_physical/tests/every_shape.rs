//! Copies that come to the end of what the host maps: of every size, at every alignment of both sides, with the end at every
//! byte.
//!
//! The one idea: pages and slots end at page boundaries, so a copy is moved across one boundary until each of its bytes has
//! been the first beyond it. All frames, and all of the host's buffer, are compared with what they have to be after each copy.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::access::AccessKind;
use crate::csr::GMode;
use crate::fault::{AccessError, FaultKind};
use crate::guest_memory::GuestMemory;

const BASE: u64 = 0x8000_0000;
const PAGE: usize = PAGE_SIZE as usize;
const BOUNDARY: u64 = BASE + PAGE_SIZE;

/// The longest copy.
const LONGEST: usize = 300;
/// Bytes of the host's buffer on either side of the longest copy.
const CANARY: usize = 16;

/// Which copy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Copy {
    Read,
    Write,
    Fill,
}

/// What comes after the first page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// No slot, and none after it.
    EndOfSlots,
    /// No slot, but one after it.
    Hole,
    /// A page of the slot that the host does not have.
    AbsentPage,
    /// A page of the slot that is not to be written.
    ReadOnlyPage,
    /// A slot that is not to be written.
    ReadOnlySlot,
    /// A device that is passed through.
    Device,
    /// A device that is emulated.
    Emulated,
    /// A page of the slot, which the host has before the first.
    Page,
    /// A slot that adjoins.
    Slot,
}

const ALL: [Next; 9] = [
    Next::EndOfSlots,
    Next::Hole,
    Next::AbsentPage,
    Next::ReadOnlyPage,
    Next::ReadOnlySlot,
    Next::Device,
    Next::Emulated,
    Next::Page,
    Next::Slot,
];

impl Next {
    /// How a copy that goes beyond the boundary has to end.
    fn refusal(self, copy: Copy) -> Option<FaultKind> {
        let writes = copy != Copy::Read;
        let access = if writes {
            AccessKind::Store
        } else {
            AccessKind::Load
        };
        let unresolved = FaultKind::GuestPage {
            access,
            implicit: false,
        };
        match self {
            Self::EndOfSlots | Self::Hole => Some(FaultKind::NoSlot),
            Self::AbsentPage => Some(unresolved),
            Self::ReadOnlyPage => writes.then_some(unresolved),
            Self::ReadOnlySlot => writes.then_some(FaultKind::ReadOnlySlot),
            Self::Device => Some(FaultKind::DeviceMemory),
            Self::Emulated => Some(FaultKind::Trapped),
            Self::Page | Self::Slot => None,
        }
    }

    /// The frames of the first page and of the next, whether that is the guest's or not: an overrun of the first lands in the
    /// frame after it.
    fn frames(self) -> [usize; 2] {
        match self {
            Self::Page => [2, 0],
            _ => [1, 2],
        }
    }
}

const FRAMES: usize = 4;

/// What every byte of the frames is before a copy. The period is no multiple of a word.
fn guest_byte(at: usize) -> u8 {
    (at % 251) as u8 ^ 0x80
}

/// What every byte of the host's buffer is before a copy.
fn host_byte(at: usize) -> u8 {
    (at % 241) as u8
}

/// One copy of `len` bytes, of which those from `beyond` on lie beyond the boundary.
#[derive(Clone, Copy, Debug)]
struct Shape {
    len: usize,
    /// Where the host's bytes begin, modulo 8.
    host: usize,
    beyond: usize,
}

/// Copies of every kind, of those shapes that `takes` wants, to a boundary with `next` behind it. Answers how many.
fn copies(next: Next, takes: impl Fn(Shape) -> bool) -> u64 {
    let frames = Frames::new(FRAMES);
    let [first, second] = next.frames();
    let pages = absent(2);
    let host_pages = match next {
        Next::ReadOnlyPage => [
            HostPage::Writable(frames.page(first)),
            HostPage::ReadOnly(frames.page(second)),
        ],
        Next::Page => [first, second].map(|index| HostPage::Writable(frames.page(index))),
        _ => [HostPage::Writable(frames.page(first)), HostPage::Absent],
    };
    for (entry, page) in pages.iter().zip(host_pages) {
        // SAFETY: the frames outlive the memory.
        unsafe { entry.set(page) };
    }
    let logs = [AtomicU64::new(0), AtomicU64::new(0)];
    let paged = matches!(next, Next::AbsentPage | Next::ReadOnlyPage | Next::Page);
    let linear = |at: u64, frame: usize| {
        // SAFETY: one page of the frames, which outlive the memory; nobody else accesses them while a copy runs.
        unsafe { Slot::linear(Gpa::new(at), PAGE_SIZE, frames.page(frame)) }
    };
    let first_slot = if paged {
        Slot::paged(Gpa::new(BASE), &pages)
    } else {
        linear(BASE, first)
    };
    let next_slot = match next {
        Next::Hole => Some(linear(BOUNDARY + PAGE_SIZE, 3)),
        Next::ReadOnlySlot => Some(linear(BOUNDARY, second).read_only()),
        Next::Slot => Some(linear(BOUNDARY, second)),
        Next::Emulated => Some(Slot::trapped(Gpa::new(BOUNDARY), PAGE_SIZE)),
        Next::Device => {
            let registers = frames.page(second);
            // SAFETY: as above; memory bears any access.
            Some(unsafe { Slot::device(Gpa::new(BOUNDARY), PAGE_SIZE, registers) })
        }
        _ => None,
    };
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    for (slot, log) in [Some(first_slot), next_slot]
        .into_iter()
        .flatten()
        .zip(&logs)
    {
        let slot = slot.with_dirty_log(slice::from_ref(log));
        memory.add(slot, &mut NoGStage).unwrap();
        memory.start_logging(slot.base(), &mut NoGStage).unwrap();
    }
    let mut reader = memory.reader(0).unwrap();

    let bytes = FRAMES * PAGE;
    // SAFETY: the frames, one after another; no slice of them lives while a copy runs.
    let guest = || unsafe { slice::from_raw_parts_mut(frames.start().as_ptr(), bytes) };
    let untouched: Vec<u8> = (0..bytes).map(guest_byte).collect();
    guest().copy_from_slice(&untouched);
    // Words, so that an offset modulo 8 is an alignment.
    let mut words = [0u64; (LONGEST + 8 + 2 * CANARY).div_ceil(8)];
    // SAFETY: every word is 8 bytes; the words are used by this slice alone from here on.
    let buffer =
        unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), size_of_val(&words)) };
    let host_untouched: Vec<u8> = (0..buffer.len()).map(host_byte).collect();
    buffer.copy_from_slice(&host_untouched);
    let mut expected = untouched.clone();
    let mut host_expected = host_untouched.clone();

    let mut count = 0;
    for shape in (1..=LONGEST).flat_map(of_len).filter(|&shape| takes(shape)) {
        for copy in [Copy::Read, Copy::Write, Copy::Fill] {
            // A fill has no host's side.
            if copy == Copy::Fill && shape.host != 0 {
                continue;
            }
            let Shape { len, host, beyond } = shape;
            let at = Gpa::new(BOUNDARY - beyond as u64);
            let host = CANARY + host..CANARY + host + len;
            let view = reader.guard();
            let result = match copy {
                Copy::Read => view.read(at, &mut buffer[host.clone()]),
                Copy::Write => view.write(at, &buffer[host.clone()]),
                Copy::Fill => view.fill(at, 0x5a, len),
            };
            drop(view);

            let refusal = next.refusal(copy).filter(|_| beyond < len);
            let completed = if refusal.is_some() { beyond } else { len };
            let ended = result
                .map_err(|AccessError { completed, fault }| (completed, fault.kind, fault.gpa));
            let wanted = refusal.map_or(Ok(()), |kind| {
                Err((completed, kind, Some(Gpa::new(BOUNDARY))))
            });
            assert_eq!(ended, wanted, "{next:?} {copy:?} {shape:?}");

            // The bytes before the boundary, and those beyond it that were copied.
            let start = first * PAGE + PAGE - beyond;
            let before = completed.min(beyond);
            let parts = [
                (start..start + before, 0..before),
                (
                    second * PAGE..second * PAGE + completed - before,
                    before..completed,
                ),
            ];
            for (in_guest, in_copy) in parts.clone() {
                let in_host = host.start + in_copy.start..host.start + in_copy.end;
                match copy {
                    Copy::Read => host_expected[in_host].copy_from_slice(&untouched[in_guest]),
                    Copy::Write => expected[in_guest].copy_from_slice(&host_untouched[in_host]),
                    Copy::Fill => expected[in_guest].fill(0x5a),
                }
            }
            assert!(
                *guest() == *expected,
                "{next:?} {copy:?} {shape:?}: the guest's side"
            );
            assert!(
                *buffer == *host_expected,
                "{next:?} {copy:?} {shape:?}: the host's side"
            );
            for (in_guest, _) in parts {
                guest()[in_guest.clone()].copy_from_slice(&untouched[in_guest.clone()]);
                expected[in_guest.clone()].copy_from_slice(&untouched[in_guest]);
            }
            buffer.copy_from_slice(&host_untouched);
            host_expected.copy_from_slice(&host_untouched);

            let dirty = |some: bool, page: u64| u64::from(some && copy != Copy::Read) << page;
            let (first_dirty, next_dirty) = (before > 0, completed > before);
            let marked = [&logs[0], &logs[1]].map(|log| log.swap(0, Ordering::Relaxed));
            let to_be_marked = if paged {
                [dirty(first_dirty, 0) | dirty(next_dirty, 1), 0]
            } else {
                [dirty(first_dirty, 0), dirty(next_dirty, 0)]
            };
            assert_eq!(
                marked, to_be_marked,
                "{next:?} {copy:?} {shape:?}: the dirty log"
            );
            count += 1;
        }
    }
    count
}

/// Every shape of `len` bytes, those that end at the boundary included.
fn of_len(len: usize) -> impl Iterator<Item = Shape> {
    (0..=len).flat_map(move |beyond| (0..8).map(move |host| Shape { len, host, beyond }))
}

#[test]
#[cfg_attr(miri, ignore = "seven million copies")]
fn every_copy_that_meets_the_end_of_a_page_or_slot_at_any_byte_is_exact() {
    let shapes: u64 = (1..=LONGEST as u64).map(|len| len + 1).sum();
    for next in ALL {
        // Eight alignments of the host's side for reads and writes.
        assert_eq!(copies(next, |_| true), 17 * shapes, "{next:?}");
    }
}
