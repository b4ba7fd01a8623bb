//! What Rust's own memory model has to allow (R77): accesses of several sizes at one place, and memory that nobody may write.
//!
//! Miri is the judge (`cargo xtask miri`). Run natively these are ordinary tests of values.

use core::sync::atomic::Ordering;
use std::thread;

use super::*;
use crate::access::Width;
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;
use crate::translate::{GStage, Purpose};

const BASE: u64 = 0x8000_0000;

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };

/// Runs both at once, each with a view of one page of zeroes, for as many rounds.
fn beside(
    one: impl Fn(&PhysicalView<'_>, u64) + Sync,
    other: impl Fn(&PhysicalView<'_>, u64) + Sync,
) {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<1, 2>::new(GMode::Sv39x4);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    let hart = |index, work: &(dyn Fn(&PhysicalView<'_>, u64) + Sync)| {
        let mut reader = memory.reader(index).unwrap();
        for round in 0..ROUNDS {
            work(&reader.guard(), round);
            if cfg!(miri) {
                thread::yield_now();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| hart(0, &one));
        hart(1, &other);
    });
}

#[test]
fn r77_a_byte_is_stored_beside_a_double_that_is_loaded() {
    beside(
        |view, round| {
            let at = Gpa::new(BASE + 3);
            view.store(at, round as u8, Ordering::Relaxed).unwrap();
        },
        |view, _| {
            let double: u64 = view.load(Gpa::new(BASE), Ordering::Acquire).unwrap();
            assert_eq!(double & !0xff00_0000, 0, "only byte 3 is ever written");
        },
    );
}

#[test]
fn r77_exchanges_of_every_width_meet_in_one_double() {
    // Each width counts in a part of its own, so that no count is lost.
    let count = |view: &PhysicalView<'_>, at: u64, width: Width| {
        let at = Gpa::new(BASE + at);
        let mut old = view.load_width(at, width, Ordering::Relaxed).unwrap();
        loop {
            let new = (old + 1) & width.mask();
            let exchange = view.compare_exchange_width(at, width, old, new, Ordering::AcqRel);
            match exchange.unwrap() {
                found if found == old => return,
                found => old = found,
            }
        }
    };
    beside(
        |view, _| {
            count(view, 0, Width::Word);
            count(view, 4, Width::Half);
        },
        |view, round| {
            count(view, 6, Width::Byte);
            count(view, 7, Width::Byte);
            if round + 1 == ROUNDS {
                let all: u64 = view.load(Gpa::new(BASE), Ordering::Relaxed).unwrap();
                assert_eq!(all >> 48 & 0xff, ROUNDS & 0xff);
                assert_eq!(all >> 56, ROUNDS & 0xff);
            }
            let at = Gpa::new(BASE);
            let same =
                |old| view.compare_exchange_width(at, Width::Double, old, old, Ordering::SeqCst);
            let found = same(0).unwrap();
            let _ = same(found).unwrap();
        },
    );
}

#[test]
fn r77_copies_and_fills_meet_at_any_alignment() {
    beside(
        |view, round| {
            view.fill(Gpa::new(BASE + round % 8), 0x11, 41).unwrap();
            let source = [0x11; 48];
            let len = 40 - (round % 5) as usize;
            view.write(Gpa::new(BASE + 1 + round % 3), &source[..len])
                .unwrap();
        },
        |view, round| {
            let mut copy = [0; 40];
            view.read(Gpa::new(BASE + round % 8), &mut copy).unwrap();
            assert!(copy.iter().all(|&byte| byte == 0 || byte == 0x11));
        },
    );
}

#[test]
fn r77_a_walk_updates_an_entry_beside_a_byte_of_it() {
    beside(
        |view, round| {
            let at = Gpa::new(BASE + 7);
            view.store(at, round as u8, Ordering::Relaxed).unwrap();
        },
        |view, _| {
            let at = Gpa::new(BASE);
            let old = view.read_entry(at).unwrap();
            let _ = view.compare_exchange_entry(at, old, old | 0xc0).unwrap();
        },
    );
}

/// A page of constants: a program has it in memory that is not writable.
#[repr(C, align(4096))]
struct Rom([u8; PAGE_SIZE as usize]);

static ROM: Rom = {
    let mut bytes = [0; PAGE_SIZE as usize];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % 251) as u8;
        at += 1;
    }
    Rom(bytes)
};

#[test]
fn r77_a_read_only_slot_may_be_memory_that_nobody_can_write() {
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    // SAFETY: constants, which are valid for reads for ever; the slot is read-only.
    let slot = unsafe { Slot::linear(Gpa::new(BASE), PAGE_SIZE, NonNull::from(&ROM).cast()) };
    memory.add(slot.read_only(), &mut NoGStage).unwrap();
    read_all(&memory);
}

#[test]
fn r77_a_read_only_page_may_be_memory_that_nobody_can_write() {
    let pages = absent(1);
    // SAFETY: constants, which are valid for reads for ever.
    unsafe { pages[0].set(HostPage::ReadOnly(NonNull::from(&ROM).cast())) };
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    read_all(&memory);
}

/// Reads what the one page of the memory has, [`ROM`], in every way; what would write is refused.
fn read_all(memory: &GuestPhysicalMemory<'_, 1, 1>) {
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    for (start, len) in [(0, 64), (3, 61), (8, 7), (1, 300), (0xfff, 1)] {
        let mut copy = [0; 300];
        let copy = &mut copy[..len];
        view.read(Gpa::new(BASE + start as u64), copy).unwrap();
        assert_eq!(copy, &ROM.0[start..start + len]);
    }
    for width in Width::ALL {
        for order in [Ordering::Relaxed, Ordering::Acquire, Ordering::SeqCst] {
            let value = view.load_width(Gpa::new(BASE + 16), width, order).unwrap();
            let mut expected = [0; 8];
            expected[..width.bytes()].copy_from_slice(&ROM.0[16..][..width.bytes()]);
            assert_eq!(value, u64::from_le_bytes(expected));
        }
        let at = Gpa::new(BASE + 16);
        let refused = [
            view.store_width(at, width, 0, Ordering::Relaxed),
            view.compare_exchange_width(at, width, 0, 1, Ordering::Relaxed)
                .map(drop),
        ];
        for result in refused {
            assert!(matches!(
                result.unwrap_err().fault.kind,
                FaultKind::ReadOnlySlot | FaultKind::GuestPage { .. }
            ));
        }
    }
    // The guest may have its page tables there.
    let entry = view.read_entry(Gpa::new(BASE + 8)).unwrap();
    assert_eq!(entry.to_le_bytes(), ROM.0[8..16]);
    assert!(view.locate(Gpa::new(BASE + 8), Purpose::Load).is_ok());
    assert!(
        view.compare_exchange_entry(Gpa::new(BASE + 8), entry, !entry)
            .is_err()
    );
}
