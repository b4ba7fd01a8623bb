//! What a lazy hart keeps: large pages at each of their addresses, and the way to a table through fences of one address.

use super::translations::{Choices, lazy};
use super::*;
use crate::translate::entry::{self, G, N, V};

/// Another 2 MiB of guest-virtual addresses, with an entry of their own at level 1.
const BIG: u64 = 0x20_0000;
/// [`PAGE`]'s place in it.
const BESIDE: u64 = BIG + PAGE;
/// 2 MiB of guest-physical addresses beside those of the guest's memory.
const BIG_GPA: u64 = ModelGuest::BASE.value() + 0x20_0000;
/// Where [`FRAME`] is in the machine, from the start of memory.
const FRAME_IN_RAM: u64 = 15 * 0x1000;

/// A guest with 1 in [`FRAME`] and 2 in the frame after it, [`PAGE`] mapped to the first.
fn two_pages(memory: &RamArray<32>) -> ModelGuest<'_> {
    let guest = guest(memory);
    guest.write(FRAME, &[1]).unwrap();
    guest.write(frame(0x1000), &[2]).unwrap();
    guest
}

fn read_entry(guest: &ModelGuest<'_>, at: Gpa) -> u64 {
    let mut bytes = [0; 8];
    guest.read(at, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn write_entry(guest: &ModelGuest<'_>, at: Gpa, entry: u64) {
    guest.write(at, &entry.to_le_bytes()).unwrap();
}

/// Where the guest's entry for 2 MiB is.
fn large_entry(guest: &ModelGuest<'_>, gva: u64) -> Gpa {
    let root = (guest.vsatp() & ((1 << 44) - 1)) << 12;
    let table = entry::address(read_entry(guest, Gpa::new(root + (gva >> 30) * 8)));
    Gpa::new(table + (gva >> 21 & 0x1ff) * 8)
}

/// Where the host's entry for 2 MiB is.
fn large_g_entry(guest: &ModelGuest<'_>, ram: Ram<'_>, gpa: u64) -> Spa {
    let root = (guest.hgatp() & ((1 << 44) - 1)) << 12;
    let root_entry = ram.load(Spa::new(root + (gpa >> 30) * 8), Width::Double);
    Spa::new(entry::address(root_entry.unwrap()) + (gpa >> 21 & 0x1ff) * 8)
}

#[test]
fn r40_a_fence_of_one_address_after_a_non_leaf_edit_leaves_the_old_table_in_use() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    guest.map(Gva::new(BESIDE), frame(0x1000), RWXU).unwrap();
    let hart = lazy(&guest);
    let read = || hart.hlv(PAGE, Width::Byte).unwrap();
    assert_eq!(read(), 1);
    let other_table = read_entry(&guest, large_entry(&guest, BESIDE));
    write_entry(&guest, large_entry(&guest, PAGE), other_table);
    hart.hfence_vvma(Some(PAGE));
    assert_eq!(read(), 1);
    // Nor by the other stage's, nor by another VMID's.
    hart.hfence_gvma(None);
    let hgatp = hart.register(Register::Hgatp);
    hart.set_register(Register::Hgatp, hgatp ^ 2 << 44);
    hart.hfence_vvma(None);
    hart.set_register(Register::Hgatp, hgatp);
    hart.hfence_vvma(Some(PAGE));
    assert_eq!(read(), 1);
    hart.hfence_vvma(None);
    assert_eq!(read(), 2);
}

#[test]
fn r40_what_the_old_table_says_after_a_fence_of_one_address_is_read_again() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    let hart = lazy(&guest);
    let read = || hart.hlv(PAGE, Width::Byte).map_err(|trap| trap.scause);
    assert_eq!(read(), Ok(1));
    hart.reset_counts();
    guest.map(Gva::new(PAGE), frame(0x1000), RWXU).unwrap();
    write_entry(&guest, large_entry(&guest, PAGE), 0);
    hart.hfence_vvma(Some(PAGE));
    assert_eq!(read(), Ok(2), "the table that no entry leads to");
    // The guest's own entry, and the host's way to the page.
    assert_eq!(hart.counts().entries_read, 2);
    hart.hfence_vvma(None);
    assert_eq!(read(), Err(13));
}

#[test]
fn r40_a_fence_of_one_guest_physical_address_leaves_the_hosts_old_table_in_use() {
    let memory = RamArray::<32>::new();
    let ram = memory.at(RAM_BASE);
    let guest = two_pages(&memory);
    let beside = Gpa::new(BIG_GPA + (FRAME.value() & 0x1f_ffff));
    guest.map(Gva::new(BIG), beside, RWXU).unwrap();
    guest.back(beside, guest.spa(FRAME).unwrap(), R).unwrap();
    let hart = lazy(&guest);
    let read = || hart.hlv(BIG, Width::Byte).map_err(|trap| trap.scause);
    assert_eq!(read(), Ok(1));
    let at = large_g_entry(&guest, ram, BIG_GPA);
    ram.store(at, Width::Double, 0).unwrap();
    hart.hfence_gvma(Some(beside.value()));
    hart.hfence_vvma(None);
    assert_eq!(read(), Ok(1));
    hart.hfence_gvma(None);
    assert_eq!(read(), Err(21));
}

#[test]
fn r30_a_large_page_that_is_kept_shows_at_each_of_its_addresses() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    let large = |bits| pack(ModelGuest::BASE.value(), bits | A | D);
    let at = large_entry(&guest, BIG);
    write_entry(&guest, at, large(RWXU));
    let hart = lazy(&guest);
    let read = |offset| {
        hart.hlv(BIG + 0x3000 + offset, Width::Byte)
            .map_err(|trap| trap.scause)
    };
    assert_eq!(read(0), Ok(1));
    write_entry(&guest, at, 0);
    assert_eq!([read(0x1000), read(0)], [Ok(2), Ok(1)]);
    hart.hfence_vvma(Some(PAGE));
    assert_eq!(read(0x1000), Ok(2));
    hart.hfence_vvma(Some(BIG + 0x1f_f000));
    assert_eq!([read(0), read(0x1000)], [Err(13), Err(13)]);
}

#[test]
fn r30_a_64_kib_page_that_is_kept_shows_at_each_of_its_addresses() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    let napot = pack(ModelGuest::BASE.value() | 0x8000, N | RWXU | A | D);
    for page in [3, 4] {
        let gva = Gva::new(PAGE + page * 0x1000);
        guest.set_entry(gva, napot).unwrap();
    }
    let hart = lazy(&guest);
    let read = |page: u64| hart.hlv(PAGE + page * 0x1000, Width::Byte);
    assert_eq!(read(3), Ok(1));
    guest.set_entry(Gva::new(PAGE + 0x4000), 0).unwrap();
    assert_eq!(read(4), Ok(2));
    hart.hfence_vvma(Some(PAGE + 0xf000));
    assert!(read(4).is_err());
}

#[test]
fn r38_a_large_page_of_the_hosts_that_is_kept_shows_at_each_of_its_addresses() {
    let memory = RamArray::<32>::new();
    let ram = memory.at(RAM_BASE);
    let guest = two_pages(&memory);
    for page in 0..2 {
        let gpa = Gpa::new(BIG_GPA + FRAME_IN_RAM + page * 0x1000);
        let gva = Gva::new(BIG + page * 0x1000);
        guest.map(gva, gpa, RWXU).unwrap();
    }
    let at = large_g_entry(&guest, ram, BIG_GPA);
    let large = pack(RAM_BASE.value(), RWXU | A | D);
    ram.store(at, Width::Double, large).unwrap();
    let hart = lazy(&guest);
    let read = |page: u64| {
        hart.hlv(BIG + page * 0x1000, Width::Byte)
            .map_err(|trap| trap.scause)
    };
    assert_eq!(read(0), Ok(1));
    ram.store(at, Width::Double, 0).unwrap();
    assert_eq!(read(1), Ok(2));
    hart.hfence_gvma(Some(BIG_GPA + 0x1234));
    assert_eq!([read(0), read(1)], [Err(21), Err(21)]);
}

#[test]
fn r40_what_is_global_serves_every_asid_and_what_is_not_serves_its_own() {
    for [table_bits, page_bits] in [[0, 0], [0, G], [G, 0]] {
        let memory = RamArray::<32>::new();
        let guest = two_pages(&memory);
        let gva = Gva::new(PAGE);
        let at = large_entry(&guest, PAGE);
        write_entry(&guest, at, read_entry(&guest, at) | table_bits);
        guest.map(gva, FRAME, RWXU | page_bits).unwrap();
        let hart = lazy(&guest);
        let read = || hart.hlv(PAGE, Width::Byte);
        assert_eq!(read(), Ok(1));
        guest.set_entry(gva, 0).unwrap();
        hart.set_register(Register::Vsatp, guest.vsatp() ^ 2 << 44);
        assert_eq!(read().is_ok(), table_bits | page_bits != 0);
    }
}

/// R46: what was not valid at level 1 is so for 2 MiB.
#[test]
fn r46_a_refusal_is_kept_for_all_addresses_of_its_entry() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    let hart = guest.hart_of(Machine {
        translations: Translations::Lazy,
        keeps_refusals: true,
        ..Machine::new()
    });
    let read = |offset| hart.hlv(BIG + offset, Width::Byte);
    assert!(read(0).is_err());
    guest.map(Gva::new(BIG + 0x1000), FRAME, RWXU).unwrap();
    assert!(read(0x1000).is_err());
    hart.hfence_vvma(Some(BIG + 0x1f_f000));
    assert_eq!(read(0x1000), Ok(1));
}

/// The walk and a lazy hart see the same when an edit of a leaf is followed by a fence of an address of it, and an edit above
/// by one of everything.
#[test]
fn r40_a_fence_of_an_address_for_leaves_and_one_of_everything_for_tables_are_enough() {
    let memory = RamArray::<32>::new();
    let guest = two_pages(&memory);
    guest.map(Gva::new(BESIDE), frame(0x1000), RWXU).unwrap();
    let places = [PAGE, BESIDE].map(|gva| large_entry(&guest, gva));
    let tables = places.map(|at| read_entry(&guest, at));
    let large = pack(ModelGuest::BASE.value(), RWXU | A | D);
    let walking = guest.hart();
    let lazy = guest.hart_of(Machine {
        translations: Translations::Lazy,
        keeps_refusals: true,
        ..Machine::new()
    });
    let mut choices = Choices(0x2545_f491_4f6c_dd1d);
    let mut kept_an_old_table = 0;
    for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
        let place = choices.below(2) as usize;
        let old = read_entry(&guest, places[place]);
        let new = [tables[0], tables[1], large, large & !V][choices.below(4) as usize];
        write_entry(&guest, places[place], new);
        let in_place = [PAGE, BESIDE][place] & !0x1f_ffff | choices.below(0x20_0000);
        let is_table = |entry| tables.contains(&entry);
        // A leaf, and what was not valid, is read again after this.
        let before = lazy.hlv([PAGE, BESIDE][place], Width::Byte);
        lazy.hfence_vvma(Some(in_place));
        if is_table(old) {
            let after = lazy.hlv([PAGE, BESIDE][place], Width::Byte);
            kept_an_old_table += u64::from(old != new && before.is_ok() && before == after);
            lazy.hfence_vvma(None);
        }
        for _ in 0..3 {
            let page = [PAGE, BESIDE][choices.below(2) as usize];
            let address = [page, (page & !0x1f_ffff) + 0x3000][choices.below(2) as usize];
            let [expected, found] = [&walking, &lazy].map(|hart| hart.hlv(address, Width::Byte));
            assert_eq!(found, expected);
        }
    }
    assert!(cfg!(miri) || kept_an_old_table > 100);
}
