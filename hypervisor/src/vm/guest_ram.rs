//! The guest's RAM: paged in on demand, copy-on-write from one page of zeroes.
//!
//! The one idea: a page is in one of three states (absent, the shared zero page, a frame of its
//! own), and the state stands in two places that this module alone keeps the same: the G-stage
//! table, which the hardware obeys, and the page array, through which the library reaches the
//! memory for the hypervisor.
//!
//! A page in the second state that is stored to passes through the first one on its way to the
//! third, so that nobody reads zeroes where another hart has stored already (R73, I13).
//!
//! What decides is the type of the access that faulted: a load maps the zero page, a store gives
//! the page a frame, and the first fetch makes a page executable, which is where the host owes the
//! harts a `fence.i` for what it wrote there (R48).
//!
//! A guest that has shown that it wants memory is given it by the block: 512 frames in one piece,
//! one entry of the G-stage table, one fault. Only as long as the machine could back the rest of
//! the guest too, so that a block never takes a frame that a page will need; and only where nothing
//! is mapped yet, so that no page moves. A block is of one kind: all of it is writable, and its
//! first fetch makes all of it executable.

use core::fmt;

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{
    GuestPhysicalMemory, HostPage, NoGStage, PageEntry, PageMirror, Reader, Slot, SlotError,
};
use guest_mem::{AccessKind, Gpa, Spa};
use spin::Mutex;

use crate::boot::machine::MAX_HARTS;
use crate::memory::frames::FRAME;
use crate::memory::page_table::{
    Flags, FrameMemory, Leaf, MODE_SV39, MapError, PageSize, PageTable, Stage,
};
use crate::statistics::Counter;

/// Where the RAM of every guest starts.
pub const RAM_BASE: Gpa = Gpa::new(0x8000_0000);

/// What paging in a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageIn {
    /// The zero page was mapped.
    Zero,
    /// The page got a frame; it had none.
    Frame,
    /// The page got a frame in place of the zero page, which no hart uses for it any more.
    Replaced,
    /// The page and all others of its block got frames; none of them had anything.
    Block,
    /// The page, or its whole block, may be executed from now on.
    Executable,
    /// Another hart had done it already, or this one remembered an old translation.
    Nothing,
}

/// Why a page was not paged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageInError {
    /// The address is not RAM of the guest.
    NotRam,
    /// The machine has no frame left.
    OutOfMemory,
}

impl From<MapError> for PageInError {
    fn from(_: MapError) -> Self {
        // Addresses are checked, and large pages are mapped where nothing is: no other error is
        // left.
        Self::OutOfMemory
    }
}

/// How often each kind of paging in happened.
#[derive(Debug, Default)]
pub struct PageIns {
    /// Pages that mapped the zero page.
    pub zero: Counter,
    /// Pages that got a frame.
    pub frames: Counter,
    /// Of those, the ones that had the zero page.
    pub replaced: Counter,
    /// Blocks that got frames.
    pub blocks: Counter,
    /// Pages that became executable.
    pub executable: Counter,
    /// Faults that found their page ready.
    pub spurious: Counter,
}

/// Single frames that a guest is given before it gets blocks: a guest that does little leaves
/// little to clear and to give back.
const SINGLE_FRAMES: u64 = 128;

/// Frames that are left for tables and for the rest of the hypervisor when blocks are handed out.
const TABLE_FRAMES: u64 = 1024;

/// Bytes of a block, and its pages.
const BLOCK: u64 = PageSize::Large.bytes();
const BLOCK_PAGES: usize = (BLOCK / FRAME) as usize;

/// The RAM of one guest, whose frames and tables are in `M`.
pub struct GuestRam<M> {
    len: u64,
    hgatp: u64,
    zero_page: Spa,
    table: Mutex<GStage<M>>,
    pages: &'static [PageEntry],
    slots: Slots,
    /// How pages came in.
    pub page_ins: PageIns,
}

/// The library's view of it: one slot, or two that meet, a reader for each hart and one for whoever
/// loads the guest.
type Slots = GuestPhysicalMemory<'static, 2, { MAX_HARTS + 1 }>;

/// The G-stage table, and where it and the frames are.
struct GStage<M> {
    table: PageTable,
    memory: M,
    /// Pages that have a frame of their own.
    backed: u64,
}

impl<M: FrameMemory> GStage<M> {
    fn map(&mut self, page: Gpa, frame: Spa, flags: Flags) -> Result<(), MapError> {
        self.map_sized(page, frame, PageSize::Small, flags)
    }

    fn map_sized(
        &mut self,
        page: Gpa,
        frame: Spa,
        size: PageSize,
        flags: Flags,
    ) -> Result<(), MapError> {
        self.table
            .map(&mut self.memory, page.value(), frame, size, flags)
    }
}

/// A page that gets a frame of its own.
struct Remapped<'a, M, F> {
    g_stage: &'a mut GStage<M>,
    fences: &'a F,
    page: Gpa,
    frame: Spa,
}

impl<M: FrameMemory, F: Fences> PageMirror for Remapped<'_, M, F> {
    type Error = MapError;

    fn hide(&mut self) {
        let GStage { table, memory, .. } = &mut *self.g_stage;
        table.unmap(memory, self.page.value());
        self.fences.translations_changed(self.page);
    }

    fn show(&mut self) -> Result<(), MapError> {
        // The first fetch makes the page executable again, and synchronizes.
        self.g_stage
            .map(self.page, self.frame, Flags::READ | Flags::WRITE)
    }
}

impl<M: FrameMemory> GuestRam<M> {
    /// RAM of `pages.len()` pages with nothing in it. `vmid` is 0 where the machine has none.
    ///
    /// # Errors
    ///
    /// No memory for the tables, or RAM that reaches past what the G-stage can translate.
    pub fn new(memory: M, pages: &'static [PageEntry], vmid: u64) -> Result<Self, RamError> {
        Self::with_seam(memory, pages, vmid, pages.len())
    }

    /// The same, of two slots: the first one of `seam` pages, the second one of those after them,
    /// if there are any. A guest cannot tell, unless a buffer across the seam is served badly.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_seam(
        mut memory: M,
        pages: &'static [PageEntry],
        vmid: u64,
        seam: usize,
    ) -> Result<Self, RamError> {
        let slots = Slots::new(GMode::Sv39x4);
        let (low, high) = pages.split_at(seam.min(pages.len()));
        // No G-stage table shows anything yet.
        slots.add(Slot::paged(RAM_BASE, low), &mut NoGStage)?;
        if !high.is_empty() {
            let base = Gpa::new(RAM_BASE.value() + low.len() as u64 * FRAME);
            slots.add(Slot::paged(base, high), &mut NoGStage)?;
        }
        let table = PageTable::new(&mut memory, Stage::Guest)?;
        let Some(zero_page) = memory.allocate_frame() else {
            // SAFETY: no hart has seen it.
            unsafe { table.free(&mut memory) };
            return Err(MapError::OutOfMemory.into());
        };
        memory.flush(zero_page, FRAME);
        Ok(Self {
            len: pages.len() as u64 * FRAME,
            hgatp: MODE_SV39 << 60 | vmid << 44 | table.root().page_number(),
            zero_page,
            table: Mutex::new(GStage {
                table,
                memory,
                backed: 0,
            }),
            pages,
            slots,
            page_ins: PageIns::default(),
        })
    }

    /// The library's handle on this RAM for one hart.
    pub fn reader(&self, index: usize) -> Option<Reader<'_>> {
        self.slots.reader(index).ok()
    }

    /// Waits for every read guard that exists: what a hart reaches through a walk in software, it
    /// reaches under one, and no fence of the hardware stops it. The caller holds none.
    pub fn wait_for_guards(&self) {
        self.slots.synchronize(core::hint::spin_loop);
    }

    /// The index of the reader that is for no hart.
    pub const LOADER: usize = MAX_HARTS;

    /// The value of `hgatp` that loads this RAM.
    pub const fn hgatp(&self) -> u64 {
        self.hgatp
    }

    /// Bytes.
    pub const fn byte_len(&self) -> u64 {
        self.len
    }

    /// Whether `[gpa, gpa + len)` is RAM.
    pub fn contains(&self, gpa: Gpa, len: u64) -> bool {
        gpa.value()
            .checked_sub(RAM_BASE.value())
            .and_then(|offset| offset.checked_add(len))
            .is_some_and(|end| end <= self.len)
    }

    /// Makes the page of `gpa` accessible for `access`. `fences` carries out what the change asks
    /// of the harts.
    ///
    /// A page that another hart is just giving a frame is absent for that time (I13). A hart that
    /// finds it so comes here, waits for the table's lock, and finds the page ready. Nothing here
    /// waits for a guard, so the caller may hold one.
    pub fn page_in(
        &self,
        gpa: Gpa,
        access: AccessKind,
        fences: &impl Fences,
    ) -> Result<PageIn, PageInError> {
        if !self.contains(gpa, 1) {
            return Err(PageInError::NotRam);
        }
        let page = gpa.page_base();
        let entry = &self.pages[((page.value() - RAM_BASE.value()) / FRAME) as usize];
        let mut g_stage = self.table.lock();
        if entry.get() == HostPage::Absent
            && g_stage.backed >= SINGLE_FRAMES
            && self.bring_in_block(&mut g_stage, page)
            && access != AccessKind::Fetch
        {
            return Ok(PageIn::Block);
        }
        let old = entry.get();
        let leaf = g_stage.table.lookup(&g_stage.memory, page.value());
        let executable = leaf.is_some_and(|leaf| leaf.flags.contains(Flags::EXECUTE));
        let done = match (access, old) {
            (AccessKind::Store, HostPage::Absent | HostPage::ReadOnly(_)) => {
                let frame = g_stage
                    .memory
                    .allocate_frame()
                    .ok_or(PageInError::OutOfMemory)?;
                g_stage.memory.flush(frame, FRAME);
                let replaced = old != HostPage::Absent;
                let own = HostPage::Writable(g_stage.memory.host_page(frame));
                let mut remapped = Remapped {
                    g_stage: &mut g_stage,
                    fences,
                    page,
                    frame,
                };
                // SAFETY: the frame is the page's until the guest is over, zeroed before, and from
                // now on accessed by the guest and the library only. The zero page that it may
                // replace is not reused before that either. Entries and table change under the
                // table's lock alone.
                let shown = unsafe { self.slots.replace_page(entry, own, &mut remapped) };
                if let Err(error) = shown {
                    // SAFETY: just allocated, and mapped nowhere.
                    unsafe { g_stage.memory.free_frame(frame) };
                    return Err(error.into());
                }
                g_stage.backed += 1;
                self.page_ins.frames.add_one();
                if replaced {
                    self.page_ins.replaced.add_one();
                    PageIn::Replaced
                } else {
                    PageIn::Frame
                }
            }
            (AccessKind::Load, HostPage::Absent | HostPage::ReadOnly(_)) if leaf.is_none() => {
                g_stage.map(page, self.zero_page, Flags::READ)?;
                self.show_zero_page(&g_stage, entry);
                PageIn::Zero
            }
            (AccessKind::Fetch, _) if !executable => {
                let leaf = leaf.unwrap_or(Leaf {
                    physical: self.zero_page,
                    flags: Flags::READ,
                    size: PageSize::Small,
                });
                let start = Gpa::new(page.value() & !(leaf.size.bytes() - 1));
                fences.instructions_changed(page);
                g_stage.map_sized(start, leaf.physical, leaf.size, leaf.flags | Flags::EXECUTE)?;
                if old == HostPage::Absent {
                    self.show_zero_page(&g_stage, entry);
                }
                self.page_ins.executable.add_one();
                PageIn::Executable
            }
            _ => {
                // An entry that was invalid, or allowed less, may be remembered by this hart; one that leads to a table as well
                // as one of a page.
                fences.forget_here();
                self.page_ins.spurious.add_one();
                PageIn::Nothing
            }
        };
        Ok(done)
    }

    /// Brings in the blocks of which `[gpa, gpa + len)` is half or more, as far as there are to be
    /// blocks: for whoever is about to fill them.
    pub fn prepare(&self, gpa: Gpa, len: u64) {
        let end = gpa.value().saturating_add(len);
        let mut g_stage = self.table.lock();
        let first = gpa.value() & !(BLOCK - 1);
        for start in (first..end).step_by(BLOCK as usize) {
            let filled = end.min(start + BLOCK) - gpa.value().max(start);
            if filled >= BLOCK / 2 {
                // What does not come now comes by pages.
                let _ = self.bring_in_block(&mut g_stage, Gpa::new(start));
            }
        }
    }

    /// Makes memory itself hold what was stored to `[gpa, gpa + len)` before the guest runs: it may
    /// read past the caches (I20). What the hypervisor stores for a running guest is the guest's to
    /// look after, as with firmware's stores.
    pub fn flush(&self, gpa: Gpa, len: u64) {
        let g_stage = self.table.lock();
        let end = gpa.value().saturating_add(len);
        for page in (gpa.page_base().value()..end).step_by(FRAME as usize) {
            if let Some(leaf) = g_stage.table.lookup(&g_stage.memory, page) {
                let offset = page & (leaf.size.bytes() - 1);
                let frame = Spa::new(leaf.physical.value() + offset);
                g_stage.memory.flush(frame, FRAME);
            }
        }
    }

    /// Gives the block around `page` its frames, if the machine has plenty and nothing of the block
    /// is mapped.
    fn bring_in_block(&self, g_stage: &mut GStage<M>, page: Gpa) -> bool {
        let start = Gpa::new(page.value() & !(BLOCK - 1));
        let wanted = self.pages.len() as u64 - g_stage.backed;
        if !self.contains(start, BLOCK)
            || !g_stage
                .table
                .is_vacant(&g_stage.memory, start.value(), PageSize::Large)
            || g_stage.memory.free_frames() < wanted + TABLE_FRAMES
        {
            return false;
        }
        let Some(block) = g_stage.memory.allocate_block() else {
            return false;
        };
        g_stage.memory.flush(block, BLOCK);
        let flags = Flags::READ | Flags::WRITE;
        if g_stage
            .map_sized(start, block, PageSize::Large, flags)
            .is_err()
        {
            // SAFETY: just allocated, and mapped nowhere.
            unsafe { g_stage.memory.free_block(block) };
            return false;
        }
        let first = ((start.value() - RAM_BASE.value()) / FRAME) as usize;
        for (index, entry) in (0..).zip(&self.pages[first..first + BLOCK_PAGES]) {
            let frame = Spa::new(block.value() + index * FRAME);
            // SAFETY: as for a single frame in `page_in`.
            unsafe { entry.set(HostPage::Writable(g_stage.memory.host_page(frame))) };
        }
        g_stage.backed += BLOCK_PAGES as u64;
        self.page_ins.blocks.add_one();
        true
    }

    /// Gives back every frame and every table, and answers the page array, which is the caller's
    /// again.
    ///
    /// # Safety
    ///
    /// The guest is over: no hart has this RAM loaded or remembers how it translates, and no reader
    /// of it is left.
    pub unsafe fn free(self) -> &'static [PageEntry] {
        let GStage {
            table, mut memory, ..
        } = self.table.into_inner();
        for (index, entry) in (0..).zip(self.pages) {
            if let HostPage::Writable(_) = entry.clear() {
                let page = RAM_BASE.value() + index * FRAME;
                let leaf = table.lookup(&memory, page);
                let leaf = leaf.expect("a page with a frame is mapped");
                // SAFETY: `page_in` allocated the frame for this page alone, or the block for its
                // pages, of which the last is cleared here; by the contract nobody uses it.
                unsafe {
                    match leaf.size {
                        PageSize::Small => memory.free_frame(leaf.physical),
                        _ if (page + FRAME).is_multiple_of(BLOCK) => {
                            memory.free_block(leaf.physical);
                        }
                        _ => {}
                    }
                }
            }
        }
        // SAFETY: as above; only pages of this RAM showed the zero page, and only they were in the
        // table.
        unsafe {
            memory.free_frame(self.zero_page);
            table.free(&mut memory);
        }
        self.pages
    }

    fn show_zero_page(&self, g_stage: &GStage<M>, entry: &PageEntry) {
        let page = g_stage.memory.host_page(self.zero_page);
        // SAFETY: the zero page is never written, and not reused before the guest is over.
        unsafe { entry.set(HostPage::ReadOnly(page)) };
        self.page_ins.zero.add_one();
    }
}

/// Why a guest has no RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamError {
    /// No memory for its tables.
    Tables(MapError),
    /// The library refuses its slot.
    Slot(SlotError),
}

impl From<MapError> for RamError {
    fn from(error: MapError) -> Self {
        Self::Tables(error)
    }
}

impl From<SlotError> for RamError {
    fn from(error: SlotError) -> Self {
        Self::Slot(error)
    }
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tables(error) => error.fmt(f),
            Self::Slot(error) => error.fmt(f),
        }
    }
}

/// What a change of the G-stage asks of the harts of the guest.
pub trait Fences {
    /// Every hart, this one included, forgets how it translates `gpa`.
    fn translations_changed(&self, gpa: Gpa);

    /// This hart forgets all translations of the G-stage: a fence of one address leaves out the entries that lead to tables
    /// (R40), and of those, too, it may remember that they were invalid (R46).
    fn forget_here(&self);

    /// Every hart, this one included, sees what was written to the page of `gpa` when it fetches
    /// instructions.
    fn instructions_changed(&self, gpa: Gpa);
}

#[cfg(test)]
mod tests;
