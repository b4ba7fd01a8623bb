//! Page tables of three levels, for both things the hypervisor translates: its own addresses (Sv39) and the guest's
//! physical ones (Sv39x4).
//!
//! The one idea: the two differ in the width of the root index and in nothing else (R50), so one builder serves both; it
//! reaches the tables through [`TableMemory`], so that the same code runs against a simulated memory in tests.

use core::ptr::NonNull;

use bitflags::bitflags;
use guest_mem::Spa;

bitflags! {
    /// The low bits of a page-table entry.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u64 {
        /// V: the entry means something.
        const VALID = 1 << 0;
        /// R.
        const READ = 1 << 1;
        /// W.
        const WRITE = 1 << 2;
        /// X.
        const EXECUTE = 1 << 3;
        /// U: in every leaf of the G-stage, in none of the host's (R54).
        const USER = 1 << 4;
        /// G: ignored by the G-stage, which leaves it clear.
        const GLOBAL = 1 << 5;
        /// A: set beforehand, so that no machine has to.
        const ACCESSED = 1 << 6;
        /// D: set beforehand in writable leaves.
        const DIRTY = 1 << 7;
    }
}

impl Flags {
    /// The permissions that make an entry a leaf.
    const LEAF: Self = Self::READ.union(Self::EXECUTE);
}

/// Which translation a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The hypervisor's own: 39-bit addresses.
    Host,
    /// The guest's G-stage: 41-bit addresses, a root of 16 KiB.
    Guest,
}

impl Stage {
    /// Bytes of the root, and its alignment (R41).
    pub const fn root_bytes(self) -> u64 {
        match self {
            Self::Host => 4096,
            Self::Guest => 16384,
        }
    }

    /// Bits of an address that translation looks at. The host map uses the lower half only, where no sign extension shows.
    const fn usable_bits(self) -> u32 {
        match self {
            Self::Host => 38,
            Self::Guest => 41,
        }
    }

    /// One past the last address that can be mapped.
    pub const fn address_end(self) -> u64 {
        1 << self.usable_bits()
    }
}

/// The value of `satp.MODE` for Sv39, and of `hgatp.MODE` for Sv39x4.
pub const MODE_SV39: u64 = 8;

/// Size of what one leaf maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl PageSize {
    /// Largest first.
    const ALL: [Self; 3] = [Self::Huge, Self::Large, Self::Small];

    /// Its bytes.
    pub const fn bytes(self) -> u64 {
        4096 << (9 * self.level())
    }

    const fn level(self) -> u32 {
        match self {
            Self::Small => 0,
            Self::Large => 1,
            Self::Huge => 2,
        }
    }
}

/// Where page tables live.
pub trait TableMemory {
    /// A zeroed piece of `bytes` bytes, aligned to its size, for a table; `None` if memory has run out.
    fn allocate_table(&mut self, bytes: u64) -> Option<Spa>;

    /// Takes a table back.
    ///
    /// # Safety
    ///
    /// `table` is `bytes` bytes that [`allocate_table`](Self::allocate_table) of this memory gave. Nothing refers to it any
    /// more, and no hart walks it.
    unsafe fn free_table(&mut self, table: Spa, bytes: u64);

    /// Reads an entry.
    ///
    /// # Safety
    ///
    /// `at` is a multiple of 8 inside a table that [`allocate_table`](Self::allocate_table) of this memory gave and that was
    /// not freed.
    unsafe fn read_entry(&self, at: Spa) -> u64;

    /// Writes an entry. Hardware may walk the table meanwhile: the write is one store, and what was written before it is seen
    /// before it.
    ///
    /// # Safety
    ///
    /// As [`read_entry`](Self::read_entry).
    unsafe fn write_entry(&mut self, at: Spa, entry: u64);
}

/// Where page tables and frames for everything else live.
///
/// # Safety
///
/// A frame that was allocated belongs to who asked for it until it is freed, and [`host_page`](Self::host_page) is where any
/// hart reaches its 4096 bytes.
pub unsafe trait FrameMemory: TableMemory {
    /// A zeroed frame.
    fn allocate_frame(&mut self) -> Option<Spa>;

    /// Takes a frame back.
    ///
    /// # Safety
    ///
    /// [`allocate_frame`](Self::allocate_frame) of this memory gave it, and nobody uses it any more, no hart's translations
    /// included.
    unsafe fn free_frame(&mut self, frame: Spa);

    /// Where the host has a frame, of a block too.
    fn host_page(&self, frame: Spa) -> NonNull<u8>;

    /// As many zeroed frames as a page of [`PageSize::Large`] has, in one piece that is aligned to its size.
    fn allocate_block(&mut self) -> Option<Spa>;

    /// Takes a block back, whole.
    ///
    /// # Safety
    ///
    /// As [`free_frame`](Self::free_frame), for [`allocate_block`](Self::allocate_block).
    unsafe fn free_block(&mut self, block: Spa);

    /// Makes memory itself hold what the host stored to `bytes` bytes from `start` on, before any later store to a
    /// table: a guest may read past the caches (I20).
    fn flush(&self, start: Spa, bytes: u64);

    /// How many frames nobody owns.
    fn free_frames(&self) -> u64;
}

/// Why a page could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table.
    OutOfMemory,
    /// The address is beyond what the mode translates, or not a multiple of the page size.
    BadAddress(u64),
    /// A leaf of another size is already there.
    Occupied(u64),
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("no memory left for a page table"),
            Self::BadAddress(address) => write!(f, "{address:#x} cannot be mapped"),
            Self::Occupied(address) => {
                write!(f, "{address:#x} is mapped by a page of another size")
            }
        }
    }
}

/// A leaf that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where its page is.
    pub physical: Spa,
    /// What it allows.
    pub flags: Flags,
    /// How much it maps.
    pub size: PageSize,
}

/// A table of one stage. It stays with the memory that it was made in: every function that takes a memory takes that one.
#[derive(Debug)]
pub struct PageTable {
    root: Spa,
    stage: Stage,
}

impl PageTable {
    /// An empty table.
    pub fn new(memory: &mut impl TableMemory, stage: Stage) -> Result<Self, MapError> {
        let root = memory
            .allocate_table(stage.root_bytes())
            .ok_or(MapError::OutOfMemory)?;
        Ok(Self { root, stage })
    }

    /// Where the root is.
    pub const fn root(&self) -> Spa {
        self.root
    }

    fn slot(&self, table: Spa, address: u64, level: u32) -> Spa {
        let root_level = level == PageSize::Huge.level();
        let bits = if root_level && self.stage == Stage::Guest {
            11
        } else {
            9
        };
        let index = (address >> (12 + 9 * level)) & ((1 << bits) - 1);
        Spa::new(table.value() + 8 * index)
    }

    /// Maps the page of `size` at `address`, in place of a leaf of the same size if there is one.
    ///
    /// The caller fences as the specification asks (R41): this changes memory only.
    pub fn map(
        &self,
        memory: &mut impl TableMemory,
        address: u64,
        physical: Spa,
        size: PageSize,
        flags: Flags,
    ) -> Result<(), MapError> {
        let misaligned = (address | physical.value()) & (size.bytes() - 1) != 0;
        if misaligned || address >> self.stage.usable_bits() != 0 {
            return Err(MapError::BadAddress(address));
        }
        let mut table = self.root;
        for level in (size.level() + 1..=2).rev() {
            let slot = self.slot(table, address, level);
            // SAFETY: `slot` is an aligned entry of a table of this memory: the root, or one that `map` linked.
            let entry = unsafe { memory.read_entry(slot) };
            let found = Flags::from_bits_truncate(entry);
            table = if !found.contains(Flags::VALID) {
                let next = memory.allocate_table(4096).ok_or(MapError::OutOfMemory)?;
                // SAFETY: as above.
                unsafe { memory.write_entry(slot, encode(next, Flags::VALID)) };
                next
            } else if found.intersects(Flags::LEAF) {
                return Err(MapError::Occupied(address));
            } else {
                target(entry)
            };
        }
        let slot = self.slot(table, address, size.level());
        // SAFETY: as above.
        let found = Flags::from_bits_truncate(unsafe { memory.read_entry(slot) });
        if found.contains(Flags::VALID) && !found.intersects(Flags::LEAF) {
            return Err(MapError::Occupied(address));
        }
        let mut flags = flags | Flags::VALID | Flags::ACCESSED;
        flags.set(Flags::DIRTY, flags.contains(Flags::WRITE));
        flags.set(Flags::USER, self.stage == Stage::Guest);
        // SAFETY: as above.
        unsafe { memory.write_entry(slot, encode(physical, flags)) };
        Ok(())
    }

    /// Maps `[address, address + len)` to consecutive memory, with the largest pages that fit.
    pub fn map_range(
        &self,
        memory: &mut impl TableMemory,
        address: u64,
        physical: Spa,
        len: u64,
        flags: Flags,
    ) -> Result<(), MapError> {
        let mut done = 0;
        while done < len {
            let (from, to) = (address + done, physical.value() + done);
            let size = PageSize::ALL
                .into_iter()
                .find(|size| (from | to) & (size.bytes() - 1) == 0 && len - done >= size.bytes())
                .ok_or(MapError::BadAddress(from))?;
            self.map(memory, from, Spa::new(to), size, flags)?;
            done += size.bytes();
        }
        Ok(())
    }

    /// Whether nothing at all is mapped where a page of `size` would translate `address`, so that one can be.
    pub fn is_vacant(&self, memory: &impl TableMemory, address: u64, size: PageSize) -> bool {
        let mut table = self.root;
        for level in (size.level()..=2).rev() {
            // SAFETY: an aligned entry of a table of this memory: the root, or one that `map` linked.
            let entry = unsafe { memory.read_entry(self.slot(table, address, level)) };
            let flags = Flags::from_bits_truncate(entry);
            if !flags.contains(Flags::VALID) {
                return true;
            }
            if flags.intersects(Flags::LEAF) {
                return false;
            }
            table = target(entry);
        }
        false
    }

    /// The leaf that translates `address`, if there is one.
    pub fn lookup(&self, memory: &impl TableMemory, address: u64) -> Option<Leaf> {
        self.find(memory, address).map(|(_, leaf)| leaf)
    }

    /// Takes out the leaf that translates `address`, if there is one, and returns it. The tables that lead there stay, so that
    /// a page of the same size can be mapped there without memory for a table.
    ///
    /// The caller fences (R41): this changes memory only.
    pub fn unmap(&self, memory: &mut impl TableMemory, address: u64) -> Option<Leaf> {
        let (slot, leaf) = self.find(memory, address)?;
        // SAFETY: `find` read the entry there.
        unsafe { memory.write_entry(slot, 0) };
        Some(leaf)
    }

    /// The leaf that translates `address`, and where its entry is.
    fn find(&self, memory: &impl TableMemory, address: u64) -> Option<(Spa, Leaf)> {
        if address >> self.stage.usable_bits() != 0 {
            return None;
        }
        let mut table = self.root;
        for size in PageSize::ALL {
            let slot = self.slot(table, address, size.level());
            // SAFETY: an aligned entry of a table of this memory: the root, or one that `map` linked.
            let entry = unsafe { memory.read_entry(slot) };
            let flags = Flags::from_bits_truncate(entry);
            if !flags.contains(Flags::VALID) {
                return None;
            }
            if flags.intersects(Flags::LEAF) {
                let leaf = Leaf {
                    physical: target(entry),
                    flags,
                    size,
                };
                return Some((slot, leaf));
            }
            table = target(entry);
        }
        None
    }

    /// Gives the tables back, not what the leaves map.
    ///
    /// # Safety
    ///
    /// No hart walks them or remembers what they say.
    pub unsafe fn free(self, memory: &mut impl TableMemory) {
        // SAFETY: the root and every table under it are this table's alone.
        unsafe { free_tables(memory, self.root, self.stage.root_bytes(), 2) };
    }
}

/// Frees the table of `bytes` bytes and those that it links.
///
/// # Safety
///
/// It is a table of a [`PageTable`] that nobody will use again, `level` levels above the last.
unsafe fn free_tables(memory: &mut impl TableMemory, table: Spa, bytes: u64, level: u32) {
    for offset in (0..bytes).step_by(8).take_while(|_| level > 0) {
        // SAFETY: an aligned entry of the table.
        let entry = unsafe { memory.read_entry(Spa::new(table.value() + offset)) };
        let flags = Flags::from_bits_truncate(entry);
        if flags.contains(Flags::VALID) && !flags.intersects(Flags::LEAF) {
            // SAFETY: an entry that is no leaf links a table of the next level, which nothing else links.
            unsafe { free_tables(memory, target(entry), 4096, level - 1) };
        }
    }
    // SAFETY: `allocate_table` gave it, and by the contract nobody uses it.
    unsafe { memory.free_table(table, bytes) };
}

const fn encode(physical: Spa, flags: Flags) -> u64 {
    (physical.value() >> 12) << 10 | flags.bits()
}

const fn target(entry: u64) -> Spa {
    Spa::new(((entry >> 10) & ((1 << 44) - 1)) << 12)
}

#[cfg(test)]
mod tests;
