//! What the slot table accepts, and what changes of it do.

use super::*;
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;

#[test]
fn bad_slots_are_refused_with_their_reason_and_change_nothing() {
    let memory = GuestPhysicalMemory::<3, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::trapped(Gpa::new(0x4000), 0x2000), &mut NoGStage)
        .unwrap();
    let frames = Frames::new(2);
    let top = 1u64 << 41;
    // SAFETY: never accessed: the address is refused.
    let skewed = unsafe { Slot::linear(Gpa::new(0), 0x1000, frames.start().add(8)) };
    let short_log = [const { core::sync::atomic::AtomicU64::new(0) }; 1];
    for (slot, error) in [
        (
            Slot::trapped(Gpa::new(0x1000), 0),
            SlotError::Empty {
                base: Gpa::new(0x1000),
            },
        ),
        (
            Slot::trapped(Gpa::new(0x1001), 0x1000),
            SlotError::Misaligned { value: 0x1001 },
        ),
        (
            Slot::trapped(Gpa::new(0x1000), 0x800),
            SlotError::Misaligned { value: 0x800 },
        ),
        (
            skewed,
            SlotError::Misaligned {
                value: frames.start().addr().get() as u64 + 8,
            },
        ),
        (
            Slot::trapped(Gpa::new(top), 0x1000),
            SlotError::OutOfRange {
                base: Gpa::new(top),
                len: 0x1000,
                gpa_bits: 41,
            },
        ),
        (
            Slot::trapped(Gpa::new(0x1000), 0u64.wrapping_sub(0x1000)),
            SlotError::OutOfRange {
                base: Gpa::new(0x1000),
                len: 0u64.wrapping_sub(0x1000),
                gpa_bits: 41,
            },
        ),
        (
            Slot::trapped(Gpa::new(0x3000), 0x2000),
            SlotError::Overlap {
                existing: Gpa::new(0x4000),
            },
        ),
        (
            Slot::trapped(Gpa::new(0x5000), 0x1000),
            SlotError::Overlap {
                existing: Gpa::new(0x4000),
            },
        ),
        (
            Slot::trapped(Gpa::new(0x3000), 0x9000),
            SlotError::Overlap {
                existing: Gpa::new(0x4000),
            },
        ),
        (
            Slot::trapped(Gpa::new(0x10_0000), 65 * 0x1000).with_dirty_log(&short_log),
            SlotError::NoDirtyLog {
                base: Gpa::new(0x10_0000),
            },
        ),
    ] {
        assert_eq!(memory.add(slot, &mut NoGStage), Err(error), "{slot:?}");
    }
    assert_eq!(memory.generation(), 1);
    memory
        .add(Slot::trapped(Gpa::new(0x3000), 0x1000), &mut NoGStage)
        .unwrap();
    memory
        .add(Slot::trapped(Gpa::new(top - 0x1000), 0x1000), &mut NoGStage)
        .unwrap();
    let full = memory.add(Slot::trapped(Gpa::new(0x6000), 0x1000), &mut NoGStage);
    assert_eq!(full, Err(SlotError::Full { slots: 3 }));
    let missing = memory.remove(Gpa::new(0x5000), &mut NoGStage).unwrap_err();
    assert_eq!(
        missing,
        SlotError::NoSuchSlot {
            base: Gpa::new(0x5000)
        }
    );
}

#[test]
fn a_bare_g_stage_has_no_guest_physical_space() {
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Bare);
    let slot = Slot::trapped(Gpa::new(0), 0x1000);
    assert!(matches!(
        memory.add(slot, &mut NoGStage),
        Err(SlotError::OutOfRange { gpa_bits: 0, .. })
    ));
}

#[test]
fn every_address_finds_its_slot_whatever_was_found_before() {
    let memory = GuestPhysicalMemory::<8, 1>::new(GMode::Sv39x4);
    for base in [7u64, 1, 4, 2, 9, 12] {
        memory
            .add(
                Slot::trapped(Gpa::new(base * 0x1000), 0x1000),
                &mut NoGStage,
            )
            .unwrap();
    }
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    for first in 0..14u64 {
        for second in 0..14u64 {
            for page in [first, second] {
                let found = view
                    .slot_at(Gpa::new(page * 0x1000 + 5))
                    .map(|slot| slot.base().page_number());
                assert_eq!(found, [1, 2, 4, 7, 9, 12].contains(&page).then_some(page));
            }
        }
    }
}

#[test]
fn a_change_is_seen_by_later_guards() {
    let (old, new) = (Frames::new(1), Frames::new(1));
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory.add(old.linear(0x1000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    reader.guard().fill(Gpa::new(0x1000), 1, 4).unwrap();
    memory
        .replace(Gpa::new(0x1000), new.linear(0x1000), &mut NoGStage)
        .unwrap();
    reader.guard().fill(Gpa::new(0x1000), 2, 4).unwrap();
    memory
        .set_read_only(Gpa::new(0x1000), true, &mut NoGStage)
        .unwrap();
    let refused = reader.guard().fill(Gpa::new(0x1000), 3, 4).unwrap_err();
    assert_eq!(refused.fault.kind, FaultKind::ReadOnlySlot);
    memory.remove(Gpa::new(0x1000), &mut NoGStage).unwrap();
    let refused = reader.guard().read(Gpa::new(0x1000), &mut [0]).unwrap_err();
    assert_eq!(refused.fault.kind, FaultKind::NoSlot);
    // SAFETY: no memory has the frames any more.
    let bytes = |frames: &Frames| unsafe { frames.start().cast::<[u8; 4]>().read().to_vec() };
    assert_eq!(
        (bytes(&old), bytes(&new)),
        (Vec::from([1; 4]), Vec::from([2; 4]))
    );
}

#[test]
fn a_claim_that_fails_leaves_the_owners_guard_alone() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(0x1000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    assert!(memory.reader(0).is_err());
    // Whoever waits for the guard now waits until it is gone.
    let mut asked = 0;
    std::thread::scope(|scope| {
        let (waits, waiting) = std::sync::mpsc::channel();
        scope.spawn(|| {
            memory.synchronize(|| {
                asked += 1;
                let _ = waits.send(());
            });
            drop(waits);
        });
        assert!(waiting.recv().is_ok(), "nobody was waited for");
        drop(view);
    });
    assert_ne!(asked, 0);
}

#[test]
fn a_reader_is_claimed_once_until_it_is_dropped() {
    let memory = GuestPhysicalMemory::<1, 2>::new(GMode::Sv39x4);
    let reader = memory.reader(1).unwrap();
    // As often as one asks: a claim that fails takes nothing from the owner.
    for _ in 0..2 {
        assert_eq!(
            memory.reader(1).unwrap_err(),
            ReaderUnavailable::Taken { index: 1 }
        );
    }
    assert!(memory.reader(0).is_ok());
    drop(reader);
    assert!(memory.reader(1).is_ok());
    let none = memory.reader(2).unwrap_err();
    assert_eq!(
        none,
        ReaderUnavailable::NoSuchReader {
            index: 2,
            readers: 2
        }
    );
}

#[test]
fn a_forgotten_guard_of_a_dropped_reader_blocks_nobody() {
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    let mut reader = memory.reader(0).unwrap();
    core::mem::forget(reader.guard());
    drop(reader.guard());
    memory.synchronize(|| panic!("no guard exists"));
    core::mem::forget(reader.guard());
    drop(reader);
    memory.synchronize(|| panic!("no guard exists"));
}

#[test]
fn each_slot_is_found_and_no_hole_whatever_the_number_of_slots() {
    const SLOTS: u64 = 70;
    let memory = GuestPhysicalMemory::<{ SLOTS as usize }, 1>::new(GMode::Sv39x4);
    let mut reader = memory.reader(0).unwrap();
    // From the second page on, every other page.
    let base = |slot| Gpa::new((2 * slot + 1) * PAGE_SIZE);
    for there in 0..=SLOTS {
        {
            let view = reader.guard();
            assert!(view.slot_at(Gpa::new(0)).is_none());
            for slot in 0..SLOTS {
                let (first, last) = (base(slot), base(slot).value() + PAGE_SIZE - 1);
                let expected = (slot < there).then_some(first);
                // The slot found before is another, so that the first is searched for and the last is not.
                for gpa in [first, Gpa::new(last)] {
                    let found = view.slot_at(gpa).map(|slot| slot.base());
                    assert_eq!(found, expected, "slot {slot} of {there}");
                }
                assert!(view.slot_at(Gpa::new(last + 1)).is_none());
            }
        }
        if there < SLOTS {
            memory
                .add(Slot::trapped(base(there), PAGE_SIZE), &mut NoGStage)
                .unwrap();
        }
    }
}
