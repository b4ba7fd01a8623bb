//! The machine's memory itself: the frame allocator, the heap, and tables reached through the identity map.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::Spa;
use guest_mem::guest_physical::PageEntry;
use spin::{Mutex, Once};
use talc::TalcLock;
use talc::source::Manual;

use super::frames::{FRAME, FrameAllocator, Range};
use super::page_table::{FrameMemory, MapError, TableMemory};

/// Bytes of the heap: guest device tree, parsed bundle, and the objects of one guest.
const HEAP_BYTES: u64 = 4 << 20;

/// What was free at boot: everything that frames can be made of.
static RAM: Once<Vec<Range>> = Once::new();

static FRAMES: Mutex<FrameAllocator> = Mutex::new(FrameAllocator::new());

#[global_allocator]
static HEAP: TalcLock<Mutex<()>, Manual> = TalcLock::new(Manual);

/// Gives the allocator the machine's free memory, and the heap its part of it.
///
/// # Safety
///
/// Called once, before anything allocates. Nobody else owns or uses the memory in `free` outside `taken`, and it stays
/// mapped at its own addresses for good.
///
/// # Errors
///
/// Too little memory for a heap.
pub unsafe fn initialize(free: &[Range], taken: &[Range]) -> Result<(), MapError> {
    let (heap, ram) = {
        let mut frames = FRAMES.lock();
        for &range in free {
            frames.add(range);
        }
        for &range in taken {
            frames.reserve(range);
        }
        let ram = frames.clone();
        (frames.allocate(HEAP_BYTES / FRAME, FRAME), ram)
    };
    let heap = heap.ok_or(MapError::OutOfMemory)?;
    let base = heap.value() as *mut u8;
    // SAFETY: the frames were just allocated and never come back, and they are reached at their own address.
    let claimed = unsafe { HEAP.lock().claim(base, HEAP_BYTES as usize) };
    assert!(claimed.is_some(), "the heap takes its memory");
    RAM.call_once(|| ram.free_ranges().copied().collect());
    Ok(())
}

/// Bytes of memory that nobody owns.
pub fn free_bytes() -> u64 {
    FRAMES.lock().free_bytes()
}

/// Consecutive zeroed frames, aligned to `alignment` bytes.
pub fn allocate_zeroed(frames: u64, alignment: u64) -> Option<Spa> {
    let start = FRAMES.lock().allocate(frames, alignment)?;
    // SAFETY: the frames belong to this call alone, and memory is reached at its own address.
    unsafe { core::ptr::write_bytes(start.value() as *mut u8, 0, (frames * FRAME) as usize) };
    Some(start)
}

/// Entries without a page, which live as long as the machine: too many for the heap.
pub fn allocate_page_entries(len: usize) -> Option<&'static [PageEntry]> {
    let layout = Layout::array::<PageEntry>(len).ok()?;
    let frames = (layout.size() as u64).div_ceil(FRAME).max(1);
    let start = FRAMES.lock().allocate(frames, FRAME)?.value() as *mut PageEntry;
    for index in 0..len {
        // SAFETY: within the frames just allocated, which are this call's alone and aligned.
        unsafe { start.add(index).write(PageEntry::absent()) };
    }
    // SAFETY: `len` initialized entries in frames that never come back and have no other owner.
    Some(unsafe { core::slice::from_raw_parts(start, len) })
}

/// Page tables in the machine's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostTables;

impl HostTables {
    fn entry(at: Spa) -> &'static AtomicU64 {
        // SAFETY: `PageTable` asks for addresses inside tables that `allocate_table` gave it: frames that stay tables for
        // good, 8-byte aligned entries, accessed by atomics only (and by the hardware's walker).
        unsafe { AtomicU64::from_ptr(at.value() as *mut u64) }
    }
}

impl HostTables {
    /// Reads an aligned entry of a table that a walk found, if it lies in RAM.
    pub fn load(&self, at: Spa) -> Option<u64> {
        let in_ram = RAM
            .get()?
            .iter()
            .any(|range| range.start <= at.value() && at.value() < range.end);
        // All of RAM that is not the firmware's is mapped; its ranges end at page boundaries.
        (in_ram && at.is_aligned_to(8)).then(|| Self::entry(at).load(Ordering::Acquire))
    }
}

// SAFETY: frames never come back to the allocator, and all of RAM is mapped at its own addresses.
unsafe impl FrameMemory for HostTables {
    fn allocate_frame(&mut self) -> Option<Spa> {
        allocate_zeroed(1, FRAME)
    }

    fn host_page(&self, frame: Spa) -> NonNull<u8> {
        NonNull::new(frame.value() as *mut u8).expect("no RAM is at address 0")
    }
}

impl TableMemory for HostTables {
    fn allocate_table(&mut self, bytes: u64) -> Option<Spa> {
        allocate_zeroed(bytes / FRAME, bytes)
    }

    fn read_entry(&self, at: Spa) -> u64 {
        Self::entry(at).load(Ordering::Relaxed)
    }

    fn write_entry(&mut self, at: Spa, entry: u64) {
        Self::entry(at).store(entry, Ordering::Release);
    }
}
