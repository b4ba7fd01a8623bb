//! Paging in, against a machine of a few frames.

use core::ptr::NonNull;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

use guest_mem::guest_physical::{HostPage, PageEntry};
use guest_mem::{AccessKind, Gpa, GuestMemory, Spa};

use super::{
    BLOCK, BLOCK_PAGES, Fences, GuestRam, PageIn, PageInError, RAM_BASE, SINGLE_FRAMES,
    TABLE_FRAMES,
};
use crate::memory::page_table::{Flags, FrameMemory, PageSize, TableMemory};

/// Machine addresses of frames begin here; those of tables lie far above.
const FRAMES_AT: u64 = 0x10_0000;
const TABLES_AT: u64 = 0x1_0000_0000;

#[derive(Clone)]
#[repr(align(4096))]
struct Frame {
    _bytes: [u8; 4096],
}

struct Machine {
    tables: BTreeMap<u64, u64>,
    next_table: u64,
    frames: NonNull<[Frame]>,
    used: usize,
    tables_left: usize,
    /// No block is in one piece.
    broken: bool,
    given: Rc<RefCell<BTreeSet<Spa>>>,
    /// The entry that was written last.
    newest_entry: Rc<Cell<u64>>,
    /// Frames that memory itself holds as the host stored them.
    flushed: RefCell<BTreeSet<u64>>,
}

impl Machine {
    fn is_flushed(&self, start: u64, bytes: u64) -> bool {
        let flushed = self.flushed.borrow();
        (start..start + bytes)
            .step_by(4096)
            .all(|frame| flushed.contains(&frame))
    }

    /// The host stores to these frames.
    fn store(&self, start: u64, bytes: u64) {
        let mut flushed = self.flushed.borrow_mut();
        flushed.retain(|frame| !(start..start + bytes).contains(frame));
    }
}

impl TableMemory for Machine {
    fn allocate_table(&mut self, bytes: u64) -> Option<Spa> {
        self.tables_left = self.tables_left.checked_sub(1)?;
        let start = self.next_table.next_multiple_of(bytes);
        self.next_table = start + bytes;
        self.given.borrow_mut().insert(Spa::new(start));
        Some(Spa::new(start))
    }
    unsafe fn free_table(&mut self, table: Spa, _: u64) {
        assert!(self.given.borrow_mut().remove(&table), "{table:#x}");
    }
    unsafe fn read_entry(&self, at: Spa) -> u64 {
        self.tables.get(&at.value()).copied().unwrap_or(0)
    }
    unsafe fn write_entry(&mut self, at: Spa, entry: u64) {
        let frame = entry >> 10 << 12;
        let is_leaf = entry & 0b1111 > 1;
        assert!(
            !is_leaf || self.is_flushed(frame, 4096),
            "I20: {frame:#x} shows before it is flushed"
        );
        self.tables.insert(at.value(), entry);
        self.newest_entry.set(entry);
    }
}

// SAFETY: each frame is handed out once, and its memory is leaked.
unsafe impl FrameMemory for Machine {
    fn allocate_frame(&mut self) -> Option<Spa> {
        let index = self.used;
        (index < self.frames.len()).then(|| {
            self.used += 1;
            let frame = Spa::new(FRAMES_AT + 4096 * index as u64);
            self.store(frame.value(), 4096);
            self.given.borrow_mut().insert(frame);
            frame
        })
    }
    unsafe fn free_frame(&mut self, frame: Spa) {
        assert!(self.given.borrow_mut().remove(&frame), "{frame:#x}");
    }
    fn host_page(&self, frame: Spa) -> NonNull<u8> {
        let index = (frame.value() - FRAMES_AT) / 4096;
        // SAFETY: the frame was allocated, so it is one of them.
        unsafe { self.frames.cast::<Frame>().add(index as usize).cast() }
    }
    fn allocate_block(&mut self) -> Option<Spa> {
        let next = FRAMES_AT + 4096 * self.used as u64;
        let start = next.next_multiple_of(BLOCK);
        let index = ((start - FRAMES_AT) / 4096) as usize;
        (!self.broken && index + BLOCK_PAGES <= self.frames.len()).then(|| {
            self.used = index + BLOCK_PAGES;
            self.store(start, BLOCK);
            self.given.borrow_mut().insert(Spa::new(start));
            Spa::new(start)
        })
    }
    unsafe fn free_block(&mut self, block: Spa) {
        assert!(block.is_aligned_to(BLOCK));
        assert!(self.given.borrow_mut().remove(&block), "{block:#x}");
    }
    fn flush(&self, start: Spa, bytes: u64) {
        let frames = (start.value()..start.value() + bytes).step_by(4096);
        self.flushed.borrow_mut().extend(frames);
    }
    fn free_frames(&self) -> u64 {
        (self.frames.len() - self.used) as u64
    }
}

/// RAM of 4 pages on a machine with `frames` frames, of which the zero page takes one.
fn ram(frames: usize) -> (GuestRam<Machine>, &'static [PageEntry]) {
    let pages: &[PageEntry] = Box::leak(Box::new([const { PageEntry::absent() }; 4]));
    (GuestRam::new(machine(frames), pages, 1).unwrap(), pages)
}

fn machine(frames: usize) -> Machine {
    let frames = std::vec![Frame { _bytes: [0; 4096] }; frames];
    Machine {
        tables: BTreeMap::new(),
        next_table: TABLES_AT,
        frames: NonNull::from(Box::leak(frames.into_boxed_slice())),
        used: 0,
        tables_left: usize::MAX,
        broken: false,
        given: Rc::default(),
        newest_entry: Rc::default(),
        flushed: RefCell::default(),
    }
}

/// Notes what was asked of the harts, and what the page array and the newest entry of the table said then.
#[derive(Default)]
struct Notes<'a> {
    asked: RefCell<Vec<(&'static str, Gpa)>>,
    entry: Option<(&'a PageEntry, Rc<Cell<u64>>)>,
    seen: RefCell<Vec<(HostPage, u64)>>,
}

impl Notes<'_> {
    fn note(&self, what: &'static str, gpa: Gpa) {
        self.asked.borrow_mut().push((what, gpa));
        if let Some((page, newest)) = &self.entry {
            self.seen.borrow_mut().push((page.get(), newest.get()));
        }
    }
}

impl Fences for Notes<'_> {
    fn translations_changed(&self, gpa: Gpa) {
        self.note("translations", gpa);
    }
    fn forget_here(&self) {
        self.note("all here", Gpa::new(0));
    }
    fn instructions_changed(&self, gpa: Gpa) {
        self.note("instructions", gpa);
    }
}

fn flags(ram: &GuestRam<Machine>, gpa: Gpa) -> Option<Flags> {
    let g_stage = ram.table.lock();
    let leaf = g_stage.table.lookup(&g_stage.memory, gpa.value())?;
    Some(leaf.flags & (Flags::READ | Flags::WRITE | Flags::EXECUTE))
}

const PAGE: Gpa = Gpa::new(RAM_BASE.value() + 0x1000);
const INSIDE: Gpa = Gpa::new(RAM_BASE.value() + 0x1234);
const RW: Flags = Flags::READ.union(Flags::WRITE);

#[test]
fn a_load_maps_the_zero_page_and_takes_no_frame() {
    let (ram, pages) = ram(2);
    let notes = Notes::default();
    for gpa in [INSIDE, RAM_BASE] {
        assert_eq!(ram.page_in(gpa, AccessKind::Load, &notes), Ok(PageIn::Zero));
    }
    assert_eq!(flags(&ram, PAGE), Some(Flags::READ));
    assert_eq!(pages[0].get(), pages[1].get(), "both are the one zero page");
    assert!(matches!(pages[1].get(), HostPage::ReadOnly(_)));
    assert!(
        notes.asked.borrow().is_empty(),
        "absent to present needs no fence"
    );
}

#[test]
fn the_first_store_gives_a_page_its_own_frame() {
    let (ram, pages) = ram(3);
    let notes = Notes::default();
    for gpa in [INSIDE, RAM_BASE] {
        assert_eq!(
            ram.page_in(gpa, AccessKind::Store, &notes),
            Ok(PageIn::Frame)
        );
    }
    assert_eq!(flags(&ram, PAGE), Some(RW));
    assert_ne!(pages[0].get(), pages[1].get());
    assert!(notes.asked.borrow().is_empty());
}

#[test]
fn r73_i13_a_page_that_gets_a_frame_is_nowhere_during_its_fence() {
    for before in [AccessKind::Load, AccessKind::Fetch] {
        let (ram, pages) = ram(3);
        let newest_entry = ram.table.lock().memory.newest_entry.clone();
        ram.page_in(INSIDE, before, &Notes::default()).unwrap();
        assert!(matches!(pages[1].get(), HostPage::ReadOnly(_)));
        assert_ne!(newest_entry.get(), 0);
        let notes = Notes {
            entry: Some((&pages[1], newest_entry)),
            ..Notes::default()
        };
        assert_eq!(
            ram.page_in(INSIDE, AccessKind::Store, &notes),
            Ok(PageIn::Replaced)
        );
        assert_eq!(*notes.asked.borrow(), [("translations", PAGE)]);
        assert_eq!(*notes.seen.borrow(), [(HostPage::Absent, 0)]);
        assert!(matches!(pages[1].get(), HostPage::Writable(_)));
        assert_eq!(flags(&ram, PAGE), Some(RW));
    }
}

#[test]
fn a_zero_page_that_the_table_has_lost_is_mapped_again() {
    let (ram, pages) = ram(3);
    let notes = Notes::default();
    ram.page_in(INSIDE, AccessKind::Load, &notes).unwrap();
    let zero = pages[1].get();
    {
        let g_stage = &mut *ram.table.lock();
        g_stage.table.unmap(&mut g_stage.memory, PAGE.value());
    }
    assert_eq!(flags(&ram, PAGE), None);
    let done = ram.page_in(INSIDE, AccessKind::Load, &notes);
    assert_eq!(done, Ok(PageIn::Zero));
    assert_eq!(
        (pages[1].get(), flags(&ram, PAGE)),
        (zero, Some(Flags::READ))
    );
}

#[test]
fn r48_a_page_becomes_executable_by_its_first_fetch_after_a_fence_i() {
    for before in [None, Some(AccessKind::Load), Some(AccessKind::Store)] {
        let (ram, _) = ram(3);
        let notes = Notes::default();
        if let Some(access) = before {
            ram.page_in(INSIDE, access, &notes).unwrap();
            assert!(!flags(&ram, PAGE).unwrap().contains(Flags::EXECUTE));
        }
        let fetched = ram.page_in(INSIDE, AccessKind::Fetch, &notes);
        assert_eq!(fetched, Ok(PageIn::Executable));
        let rest = if before == Some(AccessKind::Store) {
            RW
        } else {
            Flags::READ
        };
        assert_eq!(flags(&ram, PAGE), Some(rest | Flags::EXECUTE));
        assert_eq!(*notes.asked.borrow(), [("instructions", PAGE)]);
    }
}

#[test]
fn a_store_to_an_executable_zero_page_takes_the_permission_back() {
    let (ram, _) = ram(3);
    let notes = Notes::default();
    ram.page_in(INSIDE, AccessKind::Fetch, &notes).unwrap();
    assert_eq!(
        ram.page_in(INSIDE, AccessKind::Store, &notes),
        Ok(PageIn::Replaced)
    );
    assert_eq!(flags(&ram, PAGE), Some(RW));
    assert_eq!(
        ram.page_in(INSIDE, AccessKind::Fetch, &notes),
        Ok(PageIn::Executable)
    );
}

#[test]
fn r40_a_fault_that_finds_its_page_ready_makes_this_hart_forget() {
    let (ram, pages) = ram(3);
    let notes = Notes::default();
    ram.page_in(INSIDE, AccessKind::Store, &notes).unwrap();
    let frame = pages[1].get();
    for access in [AccessKind::Store, AccessKind::Load] {
        assert_eq!(ram.page_in(INSIDE, access, &notes), Ok(PageIn::Nothing));
    }
    assert_eq!(*notes.asked.borrow(), [("all here", Gpa::new(0)); 2]);
    assert_eq!(pages[1].get(), frame);
}

#[test]
fn what_is_not_ram_is_not_paged_in() {
    let (ram, _) = ram(3);
    let end = RAM_BASE.value() + 4 * 4096;
    for gpa in [0, RAM_BASE.value() - 1, end, u64::MAX] {
        let result = ram.page_in(Gpa::new(gpa), AccessKind::Load, &Notes::default());
        assert_eq!(result, Err(PageInError::NotRam), "{gpa:#x}");
    }
    assert!(ram.contains(RAM_BASE, 4 * 4096));
    assert!(!ram.contains(RAM_BASE, 4 * 4096 + 1));
    assert!(!ram.contains(RAM_BASE, u64::MAX));
}

#[test]
fn a_store_without_a_frame_left_changes_nothing() {
    let (ram, pages) = ram(1);
    let notes = Notes::default();
    ram.page_in(INSIDE, AccessKind::Load, &notes).unwrap();
    let zero = pages[1].get();
    let result = ram.page_in(INSIDE, AccessKind::Store, &notes);
    assert_eq!(result, Err(PageInError::OutOfMemory));
    assert_eq!(
        (pages[1].get(), flags(&ram, PAGE)),
        (zero, Some(Flags::READ))
    );
}

#[test]
fn the_library_pages_in_through_the_same_door() {
    let (ram, _) = ram(5);
    let notes = Notes::default();
    let mut reader = ram.reader(0).unwrap();
    let mut resolver = |_: &guest_mem::Fault, gpa, access| {
        ram.page_in(gpa, access, &notes)
            .map(drop)
            .map_err(|_| guest_mem::guest_physical::Unresolvable)
    };
    let memory = reader.resolving(&mut resolver);
    let across = Gpa::new(RAM_BASE.value() + 0xffc);
    assert_eq!(memory.read_obj::<u64>(across).unwrap(), 0);
    memory
        .write_obj(across, &0x1122_3344_5566_7788_u64)
        .unwrap();
    assert_eq!(
        memory.read_obj::<u64>(across).unwrap(),
        0x1122_3344_5566_7788
    );
    assert_eq!(ram.page_ins.zero.get(), 2);
    assert_eq!(ram.page_ins.replaced.get(), 2);
}

#[test]
fn ram_of_two_slots_is_one_to_buffers_across_the_seam() {
    let pages: &[PageEntry] = Box::leak(Box::new([const { PageEntry::absent() }; 4]));
    let ram = GuestRam::with_seam(machine(9), pages, 1, 3).unwrap();
    let notes = Notes::default();
    let seam = RAM_BASE.value() + 3 * 4096;
    for page in [seam - 4096, seam] {
        let done = ram.page_in(Gpa::new(page), AccessKind::Store, &notes);
        assert_eq!(done, Ok(PageIn::Frame));
    }
    let mut reader = ram.reader(0).unwrap();
    let guard = reader.guard();
    let slots: Vec<_> = guard.slots().iter().map(|slot| slot.byte_len()).collect();
    assert_eq!(slots, [3 * 4096, 4096]);
    let across = Gpa::new(seam - 3);
    guard.write(across, b"across").unwrap();
    let mut back = [0; 6];
    guard.read(across, &mut back).unwrap();
    assert_eq!(&back, b"across");
    let mut beyond = [0; 3];
    guard.read(Gpa::new(seam), &mut beyond).unwrap();
    assert_eq!(&beyond, b"oss");
    assert!(ram.contains(across, 6));
}

#[test]
fn ram_that_is_freed_gives_back_every_frame_and_table() {
    let (ram, pages) = ram(9);
    let given = ram.table.lock().memory.given.clone();
    let notes = Notes::default();
    for (page, accesses) in [
        (0, &[AccessKind::Load][..]),
        (1, &[AccessKind::Store]),
        (2, &[AccessKind::Fetch, AccessKind::Load, AccessKind::Store]),
        (3, &[AccessKind::Fetch]),
    ] {
        for &access in accesses {
            let gpa = Gpa::new(RAM_BASE.value() + page * 4096);
            ram.page_in(gpa, access, &notes).unwrap();
        }
    }
    assert!(given.borrow().len() > 4);
    // SAFETY: there is no hart.
    unsafe { ram.free() };
    assert_eq!(*given.borrow(), BTreeSet::new());
    assert!(pages.iter().all(|page| page.get() == HostPage::Absent));
}

#[test]
fn what_was_taken_for_a_change_that_fails_is_given_back() {
    let pages: &[PageEntry] = Box::leak(Box::new([const { PageEntry::absent() }; 4]));
    let no_frame = machine(0);
    let given = no_frame.given.clone();
    assert!(GuestRam::new(no_frame, pages, 1).is_err());
    assert_eq!(*given.borrow(), BTreeSet::new());

    let (ram, _) = ram(3);
    let given = ram.table.lock().memory.given.clone();
    let before = given.borrow().clone();
    ram.table.lock().memory.tables_left = 0;
    assert_eq!(
        ram.page_in(INSIDE, AccessKind::Store, &Notes::default()),
        Err(PageInError::OutOfMemory)
    );
    assert_eq!(*given.borrow(), before);
}

/// RAM of three blocks on a machine that has frames for all of it and `spare` more. The first frames of the first block are there.
fn large_ram(spare: usize) -> (GuestRam<Machine>, &'static [PageEntry]) {
    let pages: Vec<_> = (0..3 * BLOCK_PAGES).map(|_| PageEntry::absent()).collect();
    let pages: &[PageEntry] = Box::leak(pages.into_boxed_slice());
    let machine = machine(pages.len() + spare);
    let ram = GuestRam::new(machine, pages, 1).unwrap();
    for page in 0..SINGLE_FRAMES {
        let gpa = Gpa::new(RAM_BASE.value() + page * 4096);
        let single = ram.page_in(gpa, AccessKind::Store, &Notes::default());
        assert_eq!(single, Ok(PageIn::Frame));
    }
    (ram, pages)
}

/// Frames beyond the guest's own that are plenty: for tables, and for what aligning a block skips.
const PLENTY: usize = TABLE_FRAMES as usize + 2 * BLOCK_PAGES;

const BLOCK_1: Gpa = Gpa::new(RAM_BASE.value() + BLOCK);
const INSIDE_BLOCK_1: Gpa = Gpa::new(BLOCK_1.value() + 0x5678);

#[test]
fn a_guest_that_wants_memory_gets_it_by_the_block() {
    let (ram, pages) = large_ram(PLENTY);
    let notes = Notes::default();
    let done = ram.page_in(INSIDE_BLOCK_1, AccessKind::Load, &notes);
    assert_eq!(done, Ok(PageIn::Block));
    // One entry of the table, and all of the array.
    let g_stage = ram.table.lock();
    let leaf = g_stage
        .table
        .lookup(&g_stage.memory, BLOCK_1.value())
        .unwrap();
    assert_eq!(leaf.size, PageSize::Large);
    assert_eq!(leaf.flags & (RW | Flags::EXECUTE), RW);
    for (index, page) in pages[BLOCK_PAGES..2 * BLOCK_PAGES].iter().enumerate() {
        let frame = Spa::new(leaf.physical.value() + 4096 * index as u64);
        assert_eq!(
            page.get(),
            HostPage::Writable(g_stage.memory.host_page(frame))
        );
    }
    assert!(
        pages[2 * BLOCK_PAGES..]
            .iter()
            .all(|page| page.get() == HostPage::Absent)
    );
    drop(g_stage);
    // Nothing was mapped there, so nobody has to forget anything.
    assert!(notes.asked.borrow().is_empty());
    let again = ram.page_in(BLOCK_1, AccessKind::Store, &notes);
    assert_eq!(again, Ok(PageIn::Nothing));
    // Where single pages are, there is no block.
    let first = Gpa::new(RAM_BASE.value() + SINGLE_FRAMES * 4096);
    let single = ram.page_in(first, AccessKind::Store, &notes);
    assert_eq!(single, Ok(PageIn::Frame));
}

#[test]
fn r48_the_first_fetch_makes_all_of_a_block_executable_after_a_fence_i() {
    let (ram, _) = large_ram(PLENTY);
    let notes = Notes::default();
    let executable = RW.union(Flags::EXECUTE);
    // One that is there, and one that is not.
    ram.page_in(BLOCK_1, AccessKind::Store, &notes).unwrap();
    let absent = Gpa::new(BLOCK_1.value() + BLOCK + 0x3000);
    for gpa in [INSIDE_BLOCK_1, absent] {
        notes.asked.borrow_mut().clear();
        let done = ram.page_in(gpa, AccessKind::Fetch, &notes);
        assert_eq!(done, Ok(PageIn::Executable));
        assert_eq!(*notes.asked.borrow(), [("instructions", gpa.page_base())]);
        let start = Gpa::new(gpa.value() & !(BLOCK - 1));
        assert_eq!(flags(&ram, start), Some(executable));
    }
}

#[test]
fn a_machine_that_could_not_back_the_rest_of_the_guest_gives_no_blocks() {
    // One frame less than it takes beside the zero page.
    let (ram, _) = large_ram(TABLE_FRAMES as usize);
    let notes = Notes::default();
    let done = ram.page_in(INSIDE_BLOCK_1, AccessKind::Load, &notes);
    assert_eq!(done, Ok(PageIn::Zero));
    let (ram, _) = large_ram(TABLE_FRAMES as usize + 1);
    let done = ram.page_in(INSIDE_BLOCK_1, AccessKind::Load, &notes);
    assert_eq!(done, Ok(PageIn::Block));
}

#[test]
fn without_a_block_in_one_piece_pages_are_brought_in() {
    let (ram, _) = large_ram(PLENTY);
    ram.table.lock().memory.broken = true;
    let done = ram.page_in(INSIDE_BLOCK_1, AccessKind::Store, &Notes::default());
    assert_eq!(done, Ok(PageIn::Frame));
}

#[test]
fn blocks_are_given_back_whole() {
    let (ram, pages) = large_ram(PLENTY);
    let given = ram.table.lock().memory.given.clone();
    let notes = Notes::default();
    ram.page_in(INSIDE_BLOCK_1, AccessKind::Store, &notes)
        .unwrap();
    assert_eq!(ram.page_ins.blocks.get(), 1);
    // SAFETY: there is no hart.
    unsafe { ram.free() };
    assert_eq!(*given.borrow(), BTreeSet::new());
    assert!(pages.iter().all(|page| page.get() == HostPage::Absent));
}

#[test]
fn what_is_about_to_be_filled_comes_by_blocks_that_it_fills_by_half() {
    let pages: Vec<_> = (0..3 * BLOCK_PAGES).map(|_| PageEntry::absent()).collect();
    let pages: &[PageEntry] = Box::leak(pages.into_boxed_slice());
    let ram = GuestRam::new(machine(pages.len() + PLENTY), pages, 1).unwrap();
    let start = Gpa::new(RAM_BASE.value() + BLOCK / 2 + 1);
    ram.prepare(start, 3 * BLOCK / 2 + BLOCK / 2 - 2);
    let there: Vec<_> = [0, 1, 2]
        .map(|block| pages[block * BLOCK_PAGES].get() != HostPage::Absent)
        .into();
    assert_eq!(there, [false, true, false]);
    // What is there, or not RAM, is left alone.
    ram.prepare(RAM_BASE, 4 * BLOCK);
    assert_eq!(ram.page_ins.blocks.get(), 3);
}

/// The frames that the G-stage shows at `[gpa, gpa + len)`.
fn frames(ram: &GuestRam<Machine>, gpa: Gpa, len: u64) -> Vec<u64> {
    let g_stage = ram.table.lock();
    let pages = (gpa.value()..gpa.value() + len).step_by(4096);
    pages
        .filter_map(|page| {
            let leaf = g_stage.table.lookup(&g_stage.memory, page)?;
            Some(leaf.physical.value() + (page & (leaf.size.bytes() - 1)))
        })
        .collect()
}

fn unflushed(ram: &GuestRam<Machine>, frames: &[u64]) -> Vec<u64> {
    let memory = &ram.table.lock().memory;
    let frames = frames.iter().copied();
    frames
        .filter(|&frame| !memory.is_flushed(frame, 4096))
        .collect()
}

/// That each is flushed before the table shows it, the machine checks whenever an entry is written.
#[test]
fn i20_whatever_a_guest_is_shown_is_flushed_as_a_whole() {
    let (small, _) = ram(9);
    let notes = Notes::default();
    for (page, access) in [
        (0, AccessKind::Load),
        (1, AccessKind::Store),
        (2, AccessKind::Fetch),
        (3, AccessKind::Load),
        (3, AccessKind::Store),
    ] {
        let gpa = Gpa::new(RAM_BASE.value() + page * 4096);
        small.page_in(gpa, access, &notes).unwrap();
    }
    let shown = frames(&small, RAM_BASE, 4 * 4096);
    assert_eq!(shown.len(), 4);
    assert_eq!(unflushed(&small, &shown), []);

    let (large, _) = large_ram(PLENTY);
    let done = large.page_in(INSIDE_BLOCK_1, AccessKind::Load, &notes);
    assert_eq!(done, Ok(PageIn::Block));
    let shown = frames(&large, RAM_BASE, 3 * BLOCK);
    assert_eq!(shown.len(), SINGLE_FRAMES as usize + BLOCK_PAGES);
    assert_eq!(unflushed(&large, &shown), []);
}

#[test]
fn i20_every_page_of_what_was_loaded_is_flushed() {
    let (ram, _) = large_ram(PLENTY);
    let notes = Notes::default();
    let block = Gpa::new(RAM_BASE.value() + 2 * BLOCK);
    ram.prepare(block, BLOCK);
    for page in 1..=3 {
        let gpa = Gpa::new(block.value() - page * 4096);
        ram.page_in(gpa, AccessKind::Store, &notes).unwrap();
    }
    let shown = frames(&ram, Gpa::new(block.value() - 3 * 4096), 6 * 4096);
    assert_eq!(shown.len(), 6);
    for &frame in &shown {
        ram.table.lock().memory.store(frame, 4096);
    }
    // From the middle of the second page to the first byte of the fifth.
    ram.flush(Gpa::new(block.value() - 0x1800), 0x1800 + 0x1001);
    assert_eq!(unflushed(&ram, &shown), [shown[0], shown[5]]);
}
