//! Walks of a guest's own tables through the slots.

use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::access::{AccessKind, GuestPrivilege, Width};
use crate::address::Gva;
use crate::csr::{GMode, VsMode};
use crate::fault::{FaultKind, Resolution};
use crate::guest_memory::GuestMemory;
use crate::translate::{Access, AdPolicy, VsRegime, translate};

const BASE: u64 = 0x8000_0000;
const V: u64 = 1;
const RW: u64 = 0b110;
const A: u64 = 1 << 6;
const D: u64 = 1 << 7;

const fn entry(gpa: u64, flags: u64) -> u64 {
    gpa >> 12 << 10 | flags
}

/// Sv39 with its root at `BASE`.
fn regime(ad: AdPolicy) -> VsRegime {
    let mut regime = VsRegime {
        mode: VsMode::Sv39,
        root: Gpa::new(BASE),
        ..VsRegime::BARE
    };
    regime.rules.ad = ad;
    regime
}

#[test]
fn r47_a_walk_goes_through_the_slots_at_each_level() {
    let frames = Frames::new(4);
    let memory = GuestPhysicalMemory::<4, 1>::new(GMode::Sv39x4);
    let pages = absent(1);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    memory
        .add(Slot::paged(Gpa::new(0x9000_0000), &pages), &mut NoGStage)
        .unwrap();
    memory
        .add(Slot::trapped(Gpa::new(0x1000_0000), 0x1000), &mut NoGStage)
        .unwrap();
    let registers = Frames::new(1);
    // SAFETY: plain memory stands for the device.
    let device = unsafe { Slot::device(Gpa::new(0x2000_0000), 0x1000, registers.start()) };
    memory.add(device, &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let put = |gpa: u64, value: u64| view.store(Gpa::new(gpa), value, Ordering::Relaxed).unwrap();
    put(BASE + 0x1000, entry(BASE + 0x2000, V));
    put(BASE + 0x2000 + 8, entry(BASE + 0x3000, V | RW | A | D));
    put(BASE + 0x2000 + 16, entry(0x9000_0000, V | RW | A | D));
    put(BASE + 0x2000 + 24, entry(0x1000_0000, V | RW | A | D));

    let regime = regime(AdPolicy::Fault);
    let walk = |gva| {
        translate(
            &regime,
            &view,
            Access::store(Gva::new(gva), GuestPrivilege::Supervisor),
        )
    };
    put(BASE, entry(BASE + 0x1000, V));
    let found = walk(0x1234).unwrap();
    assert_eq!(found.gpa, Gpa::new(BASE + 0x3234));
    // SAFETY: within the frames.
    assert_eq!(found.page, Some(unsafe { frames.start().add(0x3234) }));

    let access = AccessKind::Store;
    let fault = walk(0x2234).unwrap_err();
    assert_eq!(
        fault.kind,
        FaultKind::GuestPage {
            access,
            implicit: false
        }
    );
    let gpa = Gpa::new(0x9000_0234);
    assert_eq!(fault.resolution(), Resolution::Resolve { gpa, access });
    assert_eq!(walk(0x3234).unwrap_err().kind, FaultKind::Trapped);

    // The table itself: absent, among registers, nowhere, too wide.
    let access = AccessKind::Load;
    let implicit = FaultKind::GuestPage {
        access,
        implicit: true,
    };
    for (table, kind) in [
        (0x9000_0000, implicit),
        (0x1000_0000, implicit),
        (0x2000_0000, implicit),
        (0xa000_0000, FaultKind::NoSlot),
        (1 << 50, FaultKind::NoSlot),
    ] {
        put(BASE, entry(table, V));
        let fault = walk(0x1234).unwrap_err();
        assert_eq!((fault.kind, fault.gpa), (kind, Some(Gpa::new(table))));
    }
}

#[test]
fn r55_an_update_of_a_and_d_bits_is_logged_and_obeys_the_slot() {
    let frames = Frames::new(2);
    let log = [const { AtomicU64::new(0) }; 1];
    let base = Gpa::new(BASE);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(frames.linear(BASE).with_dirty_log(&log), &mut NoGStage)
        .unwrap();
    memory.start_logging(base, &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    // A 1 GiB page: GVA 0x8000_1000 leads to the second frame.
    let leaf = Gpa::new(BASE + 16);
    let clean = entry(BASE, V | RW);
    reader
        .guard()
        .store(leaf, clean, Ordering::Relaxed)
        .unwrap();
    memory.harvest(base, &mut NoGStage, |_| ()).unwrap();

    let access = Access::store(Gva::new(BASE + 0x1000), GuestPrivilege::Supervisor);
    translate(&regime(AdPolicy::Update), &reader.guard(), access).unwrap();
    let updated = reader
        .guard()
        .load_width(leaf, Width::Double, Ordering::Relaxed);
    assert_eq!(updated, Ok(clean | A | D));
    let mut dirty = Vec::new();
    memory
        .harvest(base, &mut NoGStage, |gpa| dirty.push(gpa))
        .unwrap();
    assert_eq!(
        dirty,
        [base],
        "the table's page, and not the one that was only found"
    );

    reader
        .guard()
        .store(leaf, clean, Ordering::Relaxed)
        .unwrap();
    memory.set_read_only(base, true, &mut NoGStage).unwrap();
    let load = Access::load(Gva::new(BASE + 0x1000), GuestPrivilege::Supervisor);
    let fault = translate(&regime(AdPolicy::Update), &reader.guard(), load).unwrap_err();
    assert_eq!(
        (fault.kind, fault.gpa),
        (FaultKind::ReadOnlySlot, Some(leaf))
    );
}
