//! Building and looking up tables, in a simulated memory.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const RWX: Flags = Flags::READ.union(Flags::WRITE).union(Flags::EXECUTE);

#[derive(Default)]
struct Memory {
    entries: BTreeMap<u64, u64>,
    allocated: BTreeSet<(u64, u64)>,
    next: u64,
    limit: u64,
}

impl Memory {
    fn new() -> Self {
        Self {
            next: 0x10_0000,
            limit: u64::MAX,
            ..Self::default()
        }
    }
}

impl TableMemory for Memory {
    fn allocate_table(&mut self, bytes: u64) -> Option<Spa> {
        let start = self.next.next_multiple_of(bytes);
        self.next = start + bytes;
        (self.next <= self.limit).then(|| {
            self.allocated.insert((start, bytes));
            Spa::new(start)
        })
    }
    unsafe fn free_table(&mut self, table: Spa, bytes: u64) {
        assert!(self.allocated.remove(&(table.value(), bytes)), "{table:#x}");
    }
    unsafe fn read_entry(&self, at: Spa) -> u64 {
        self.entries.get(&at.value()).copied().unwrap_or(0)
    }
    unsafe fn write_entry(&mut self, at: Spa, entry: u64) {
        self.entries.insert(at.value(), entry);
    }
}

#[test]
fn r41_the_guest_root_is_16_kib_and_aligned_to_its_size() {
    let mut memory = Memory::new();
    memory.next = 0x1000;
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    assert_eq!((table.root().value(), memory.next), (0x4000, 0x8000));
}

#[test]
fn r50_the_guest_root_has_2048_entries() {
    let mut memory = Memory::new();
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    let top = 2047 << 30;
    table
        .map(&mut memory, top, Spa::new(1 << 30), PageSize::Huge, RWX)
        .unwrap();
    let slot = Spa::new(table.root().value() + 8 * 2047);
    // SAFETY: the last entry of the root.
    assert_ne!(unsafe { memory.read_entry(slot) }, 0);
}

#[test]
fn r54_guest_leaves_are_user_pages_and_host_leaves_are_not() {
    for (stage, user) in [(Stage::Host, false), (Stage::Guest, true)] {
        let mut memory = Memory::new();
        let table = PageTable::new(&mut memory, stage).unwrap();
        table
            .map(&mut memory, 0x5000, Spa::new(0x9000), PageSize::Small, RWX)
            .unwrap();
        let leaf = table.lookup(&memory, 0x5fff).unwrap();
        assert_eq!(leaf.flags.contains(Flags::USER), user);
        assert_eq!(leaf.physical, Spa::new(0x9000));
    }
}

#[test]
fn writable_leaves_are_born_dirty_and_all_leaves_accessed() {
    let mut memory = Memory::new();
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    for (address, flags, dirty) in [(0x1000, RWX, true), (0x2000, Flags::READ, false)] {
        table
            .map(
                &mut memory,
                address,
                Spa::new(0x9000),
                PageSize::Small,
                flags,
            )
            .unwrap();
        let leaf = table.lookup(&memory, address).unwrap();
        assert!(leaf.flags.contains(Flags::ACCESSED));
        assert_eq!(leaf.flags.contains(Flags::DIRTY), dirty);
    }
}

#[test]
fn a_range_takes_the_largest_pages_that_fit() {
    let mut memory = Memory::new();
    let table = PageTable::new(&mut memory, Stage::Host).unwrap();
    let start = (1 << 30) - 0x20_1000;
    let len = (1 << 30) + 0x20_1000 + 0x3000;
    table
        .map_range(&mut memory, start, Spa::new(start), len, RWX)
        .unwrap();
    for (address, size) in [
        (start, PageSize::Small),
        (start + 0x1000, PageSize::Large),
        (1 << 30, PageSize::Huge),
        ((2 << 30) + 0x2000, PageSize::Small),
    ] {
        assert_eq!(
            table.lookup(&memory, address).unwrap().size,
            size,
            "{address:#x}"
        );
    }
    assert_eq!(table.lookup(&memory, start + len), None);
    assert_eq!(table.lookup(&memory, start - 1), None);
}

#[test]
fn a_page_is_replaced_by_one_of_its_size_only() {
    let mut memory = Memory::new();
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    let mut map =
        |size, physical| table.map(&mut memory, 0x4000_0000, Spa::new(physical), size, RWX);
    assert_eq!(map(PageSize::Small, 0x1000), Ok(()));
    assert_eq!(map(PageSize::Small, 0x2000), Ok(()));
    assert_eq!(
        map(PageSize::Large, 0x20_0000),
        Err(MapError::Occupied(0x4000_0000))
    );
    assert_eq!(
        table.lookup(&memory, 0x4000_0000).unwrap().physical,
        Spa::new(0x2000)
    );
}

#[test]
fn addresses_that_the_mode_does_not_translate_are_refused() {
    let mut memory = Memory::new();
    for (stage, bad) in [(Stage::Host, 1 << 38), (Stage::Guest, 1 << 41)] {
        let table = PageTable::new(&mut memory, stage).unwrap();
        let error = Err(MapError::BadAddress(bad));
        assert_eq!(
            table.map(&mut memory, bad, Spa::new(0), PageSize::Small, RWX),
            error
        );
        assert_eq!(table.lookup(&memory, bad), None);
    }
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    assert_eq!(
        table.map(&mut memory, 0x1001, Spa::new(0), PageSize::Small, RWX),
        Err(MapError::BadAddress(0x1001))
    );
}

#[test]
fn running_out_of_tables_is_an_error() {
    let mut memory = Memory::new();
    let table = PageTable::new(&mut memory, Stage::Guest).unwrap();
    memory.limit = memory.next + 4096;
    assert_eq!(
        table.map(&mut memory, 0, Spa::new(0), PageSize::Small, RWX),
        Err(MapError::OutOfMemory)
    );
}

#[test]
fn a_table_that_is_freed_gives_back_each_table_once_and_no_page() {
    let mut memory = Memory::new();
    for stage in [Stage::Host, Stage::Guest] {
        let table = PageTable::new(&mut memory, stage).unwrap();
        for (address, size) in [
            (0x1000, PageSize::Small),
            (0x2000, PageSize::Small),
            (0x4000_0000, PageSize::Huge),
            (0x8020_0000, PageSize::Large),
            (0x8040_1000, PageSize::Small),
        ] {
            let page = Spa::new(address & !(size.bytes() - 1));
            table
                .map(&mut memory, page.value(), page, size, RWX)
                .unwrap();
        }
        assert_eq!(memory.allocated.len(), 5);
        // SAFETY: there is no hart.
        unsafe { table.free(&mut memory) };
        assert_eq!(memory.allocated, BTreeSet::new());
    }
}
