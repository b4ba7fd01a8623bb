//! The machine's memory itself: the frame allocator, the heap, and tables reached through the identity map.
//!
//! The one idea: what is handed out is counted, so that when a guest is over everybody can see that all of it came back.

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_mem::Spa;
use guest_mem::guest_physical::PageEntry;
use spin::{Mutex, Once};
use talc::TalcLock;
use talc::source::Manual;

use super::cache;
use super::frames::{FRAME, FrameAllocator, Range};
use super::page_table::{FrameMemory, MapError, PageSize, TableMemory};
use super::returned::{Overwritten, Returned};

/// Bytes of the heap: guest device tree, parsed bundle, and the objects of one guest.
const HEAP_BYTES: u64 = 4 << 20;

/// Frames of a block.
const BLOCK_FRAMES: u64 = PageSize::Large.bytes() / FRAME;

/// What was free at boot: everything that frames can be made of.
static RAM: Once<Vec<Range>> = Once::new();

static FRAMES: Mutex<Frames> = Mutex::new(Frames {
    never_used: FrameAllocator::new(),
    returned: Returned::new(),
});

/// The frames that nobody owns.
struct Frames {
    never_used: FrameAllocator,
    returned: Returned,
}

impl Frames {
    fn allocate(&mut self, frames: u64, alignment: u64) -> Option<Spa> {
        self.take(frames, alignment)
            .or_else(|| self.never_used.allocate(frames, alignment))
            .or_else(|| self.break_block(frames))
    }

    fn take(&mut self, frames: u64, alignment: u64) -> Option<Spa> {
        match self.returned.take(frames, alignment) {
            Ok(piece) => piece,
            // The host's isolation has failed: nothing that runs here can be trusted any more.
            Err(overwritten) => panic!("{overwritten}"),
        }
    }

    /// A single frame out of a block that came back, when there is no other: the block's other frames are single from then on.
    fn break_block(&mut self, frames: u64) -> Option<Spa> {
        if frames != 1 {
            return None;
        }
        let block = self.take(BLOCK_FRAMES, FRAME)?;
        for frame in 1..BLOCK_FRAMES {
            // SAFETY: a frame of the block, which nobody owns.
            unsafe {
                self.returned
                    .put(Spa::new(block.value() + frame * FRAME), 1)
            };
        }
        Some(block)
    }
}

#[global_allocator]
static HEAP: Heap = Heap {
    memory: TalcLock::new(Manual),
    used: AtomicUsize::new(0),
};

/// The heap, and the bytes of it that are in use.
struct Heap {
    memory: TalcLock<Mutex<()>, Manual>,
    used: AtomicUsize,
}

// SAFETY: every call goes to the allocator as it is.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by this function's contract.
        let start = unsafe { self.memory.alloc(layout) };
        if !start.is_null() {
            self.used.fetch_add(layout.size(), Ordering::Relaxed);
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by this function's contract.
        unsafe { self.memory.dealloc(start, layout) };
    }
}

/// Gives the allocator the machine's free memory, and the heap its part of it.
///
/// # Safety
///
/// Called once, before anything allocates. Nobody else owns or uses the memory in `free` outside `taken` and `loaded`, and it
/// stays mapped at its own addresses for good; that in `loaded` is nobody else's, either, but holds what is needed for now.
///
/// # Errors
///
/// Too little memory for a heap.
pub unsafe fn initialize<'a>(
    free: &[Range],
    taken: impl Iterator<Item = &'a Range>,
    loaded: Range,
) -> Result<(), MapError> {
    let (heap, ram) = {
        let mut frames = FRAMES.lock();
        for &range in free {
            frames.never_used.add(range);
        }
        for &range in taken {
            frames.never_used.reserve(range);
        }
        // What was loaded is given back, see `release_loaded`.
        let ram = frames.never_used.clone();
        frames.never_used.reserve(loaded);
        (frames.allocate(HEAP_BYTES / FRAME, FRAME), ram)
    };
    let heap = heap.ok_or(MapError::OutOfMemory)?;
    let base = heap.value() as *mut u8;
    // SAFETY: the frames were just allocated and never come back, and they are reached at their own address.
    let claimed = unsafe { HEAP.memory.lock().claim(base, HEAP_BYTES as usize) };
    assert!(claimed.is_some(), "the heap takes its memory");
    RAM.call_once(|| ram.free_ranges().copied().collect());
    Ok(())
}

/// Makes free memory of what the loader had put there: the whole frames of `loaded`, as far as they are RAM and not taken. Returns
/// how many bytes that are.
///
/// # Safety
///
/// `loaded` was given to [`initialize`] as that, and nobody uses what is there any more. Called once.
pub unsafe fn release_loaded(loaded: Range) -> u64 {
    let Some(ram) = RAM.get() else {
        return 0;
    };
    let mut frames = FRAMES.lock();
    let before = frames.never_used.free_bytes();
    for range in ram {
        frames.never_used.add(Range {
            start: range.start.max(loaded.start),
            end: range.end.min(loaded.end),
        });
    }
    frames.never_used.free_bytes() - before
}

/// Bytes of memory that nobody owns.
pub fn free_bytes() -> u64 {
    let frames = FRAMES.lock();
    frames.never_used.free_bytes() + frames.returned.bytes()
}

/// Bytes of the heap that are in use.
pub fn heap_bytes() -> usize {
    HEAP.used.load(Ordering::Relaxed)
}

/// Looks at every frame that came back and is free, whether somebody has written to it.
///
/// # Errors
///
/// The first word that somebody wrote.
pub fn check_free_frames() -> Result<(), Overwritten> {
    FRAMES.lock().returned.check()
}

/// Takes back what [`allocate_zeroed`] gave.
///
/// # Safety
///
/// It gave these frames in one piece, and nobody uses them any more, no hart's translations included.
pub unsafe fn free(start: Spa, frames: u64) {
    // SAFETY: by this function's contract; memory is reached at its own address.
    unsafe { FRAMES.lock().returned.put(start, frames) };
}

/// Consecutive zeroed frames, aligned to `alignment` bytes.
pub fn allocate_zeroed(frames: u64, alignment: u64) -> Option<Spa> {
    let start = FRAMES.lock().allocate(frames, alignment)?;
    // SAFETY: the frames belong to this call alone, and memory is reached at its own address.
    unsafe { core::ptr::write_bytes(start.value() as *mut u8, 0, (frames * FRAME) as usize) };
    Some(start)
}

/// Frames for so many entries.
fn page_entry_frames(len: usize) -> Option<u64> {
    let layout = Layout::array::<PageEntry>(len).ok()?;
    Some((layout.size() as u64).div_ceil(FRAME).max(1))
}

/// Entries without a page, for the RAM of a guest: too many for the heap.
pub fn allocate_page_entries(len: usize) -> Option<&'static [PageEntry]> {
    let frames = page_entry_frames(len)?;
    let start = FRAMES.lock().allocate(frames, FRAME)?.value() as *mut PageEntry;
    for index in 0..len {
        // SAFETY: within the frames just allocated, which are this call's alone and aligned.
        unsafe { start.add(index).write(PageEntry::absent()) };
    }
    // SAFETY: `len` initialized entries in frames that have no other owner, and come back only by `free_page_entries`.
    Some(unsafe { core::slice::from_raw_parts(start, len) })
}

/// Takes entries back.
///
/// # Safety
///
/// [`allocate_page_entries`] gave them, and nobody uses them any more.
pub unsafe fn free_page_entries(entries: &'static [PageEntry]) {
    let frames = page_entry_frames(entries.len()).expect("they were allocated");
    // SAFETY: by this function's contract.
    unsafe { free(Spa::new(entries.as_ptr() as u64), frames) };
}

/// Page tables in the machine's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostTables;

impl HostTables {
    /// Reads an aligned entry of a table that a walk found, if it lies in RAM.
    pub fn load(&self, at: Spa) -> Option<u64> {
        let in_ram = RAM
            .get()?
            .iter()
            .any(|range| range.start <= at.value() && at.value() < range.end);
        if !in_ram || !at.is_aligned_to(8) {
            return None;
        }
        // SAFETY: all of RAM that is not the firmware's is mapped; its ranges end at page boundaries. A walk goes through
        // frames of a guest and tables, whose words are written atomically only.
        Some(unsafe { Self::entry(at) }.load(Ordering::Acquire))
    }

    /// The word at `at`.
    ///
    /// # Safety
    ///
    /// `at` is a multiple of 8 in RAM, in a frame that is accessed by atomics only (and by the hardware's walker) for as long
    /// as the answer is used.
    unsafe fn entry<'a>(at: Spa) -> &'a AtomicU64 {
        // SAFETY: by this function's contract, and memory is reached at its own address.
        unsafe { AtomicU64::from_ptr(at.value() as *mut u64) }
    }
}

// SAFETY: a frame is handed out again only after it was freed, and all of RAM is mapped at its own addresses.
unsafe impl FrameMemory for HostTables {
    fn allocate_frame(&mut self) -> Option<Spa> {
        allocate_zeroed(1, FRAME)
    }

    unsafe fn free_frame(&mut self, frame: Spa) {
        // SAFETY: by this function's contract.
        unsafe { free(frame, 1) };
    }

    fn host_page(&self, frame: Spa) -> NonNull<u8> {
        NonNull::new(frame.value() as *mut u8).expect("no RAM is at address 0")
    }

    fn allocate_block(&mut self) -> Option<Spa> {
        allocate_zeroed(BLOCK_FRAMES, PageSize::Large.bytes())
    }

    unsafe fn free_block(&mut self, block: Spa) {
        // SAFETY: by this function's contract.
        unsafe { free(block, BLOCK_FRAMES) };
    }

    fn flush(&self, start: Spa, bytes: u64) {
        cache::flush(start, bytes);
    }

    fn free_frames(&self) -> u64 {
        free_bytes() / FRAME
    }
}

impl TableMemory for HostTables {
    fn allocate_table(&mut self, bytes: u64) -> Option<Spa> {
        allocate_zeroed(bytes / FRAME, bytes)
    }

    unsafe fn free_table(&mut self, table: Spa, bytes: u64) {
        // SAFETY: by this function's contract.
        unsafe { free(table, bytes / FRAME) };
    }

    unsafe fn read_entry(&self, at: Spa) -> u64 {
        // SAFETY: by this function's contract.
        unsafe { Self::entry(at) }.load(Ordering::Relaxed)
    }

    unsafe fn write_entry(&mut self, at: Spa, entry: u64) {
        // SAFETY: by this function's contract.
        unsafe { Self::entry(at) }.store(entry, Ordering::Release);
    }
}
