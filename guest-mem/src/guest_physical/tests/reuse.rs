//! Cached ranges and scatter lists.

use core::sync::atomic::Ordering;

use super::*;
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;

#[test]
fn a_cached_range_crosses_pages_and_slots_and_sees_pages_change() {
    let (frames, other) = (Frames::new(3), Frames::new(1));
    let pages = absent(2);
    // SAFETY: the frames outlive the memory.
    unsafe {
        pages[0].set(HostPage::Writable(frames.page(1)));
        pages[1].set(HostPage::Writable(frames.page(0)));
    }
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(0x1000), &pages), &mut NoGStage)
        .unwrap();
    memory.add(other.linear(0x3000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let range = reader.guard().cache(Gpa::new(0x1f00), 0x1200).unwrap();
    let data: Vec<u8> = (0..0x1200u32).map(|at| (at / 3) as u8).collect();
    let view = reader.guard();
    range.write(&view, 0, &data).unwrap();
    let mut back = [0; 0x300];
    range.read(&view, 0xf00, &mut back).unwrap();
    assert_eq!(back, data[0xf00..]);
    drop(view);

    // SAFETY: as above.
    unsafe { pages[0].set(HostPage::Writable(frames.page(2))) };
    assert_eq!(
        range.load::<u32>(&reader.guard(), 0, Ordering::Relaxed),
        Ok(0)
    );
    range
        .store(&reader.guard(), 0, 9u32, Ordering::Relaxed)
        .unwrap();
    let exchanged = range.compare_exchange(&reader.guard(), 0, 9u32, 10, Ordering::Relaxed);
    assert_eq!(exchanged, Ok(Ok(9)));
    pages[0].clear();
    let error = range
        .load::<u32>(&reader.guard(), 0, Ordering::Relaxed)
        .unwrap_err();
    assert!(matches!(error.fault.kind, FaultKind::GuestPage { .. }));
}

#[test]
fn a_stale_cached_range_finds_its_slot_again_or_fails() {
    let (low, old, new) = (Frames::new(1), Frames::new(1), Frames::new(1));
    let memory = GuestPhysicalMemory::<3, 1>::new(GMode::Sv39x4);
    memory.add(old.linear(0x5000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let range = reader.guard().cache(Gpa::new(0x5ff8), 8).unwrap();
    let order = Ordering::Relaxed;
    range.store(&reader.guard(), 0, 1u64, order).unwrap();
    // Another place in the table, other memory.
    memory.add(low.linear(0x1000), &mut NoGStage).unwrap();
    assert_eq!(range.load(&reader.guard(), 0, order), Ok(1u64));
    memory
        .replace(Gpa::new(0x5000), new.linear(0x5000), &mut NoGStage)
        .unwrap();
    assert_eq!(range.load(&reader.guard(), 0, order), Ok(0u64));
    memory.remove(Gpa::new(0x5000), &mut NoGStage).unwrap();
    let error = range.load::<u64>(&reader.guard(), 0, order).unwrap_err();
    assert_eq!(
        (error.fault.kind, error.fault.gpa),
        (FaultKind::NoSlot, Some(Gpa::new(0x5ff8)))
    );
}

#[test]
fn i16_a_cached_range_is_validated_in_another_memory() {
    let (ram, registers, rom) = (Frames::new(1), Frames::new(1), Frames::new(1));
    // Three VMs whose slots have changed equally often, and who have something else at the same address.
    let one = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    one.add(ram.linear(0x1000), &mut NoGStage).unwrap();
    let two = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    // SAFETY: the frames stand for registers that every access is good for, and outlive the memory.
    let device = unsafe { Slot::device(Gpa::new(0x1000), 0x1000, registers.start()) };
    two.add(device, &mut NoGStage).unwrap();
    let three = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    three.add(rom.linear(0x1000), &mut NoGStage).unwrap();
    let [mut one, mut two, mut three] =
        [&one, &two, &three].map(|memory| memory.reader(0).unwrap());
    let order = Ordering::Relaxed;
    let range = one.guard().cache(Gpa::new(0x1008), 8).unwrap();
    range.store(&one.guard(), 0, 1u64, order).unwrap();
    assert_eq!(one.guard().generation(), two.guard().generation());
    let error = range.load::<u64>(&two.guard(), 0, order).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::DeviceMemory);
    assert!(range.store(&two.guard(), 0, 2u64, order).is_err());
    // Where it is memory there too, it is that memory.
    assert_eq!(range.load(&three.guard(), 0, order), Ok(0u64));
    assert_eq!(range.load(&one.guard(), 0, order), Ok(1u64));
}

#[test]
fn a_cached_range_is_memory_throughout_and_is_not_left() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<3, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(0x1000), &mut NoGStage).unwrap();
    memory
        .add(Slot::trapped(Gpa::new(0x2000), 0x1000), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    for (start, len, kind, gpa) in [
        (0x1ff8, 9, FaultKind::Trapped, 0x2000),
        (0xfff, 2, FaultKind::NoSlot, 0xfff),
        (u64::MAX, 2, FaultKind::OutOfRange, u64::MAX),
    ] {
        let fault = view.cache(Gpa::new(start), len).unwrap_err();
        assert_eq!((fault.kind, fault.gpa), (kind, Some(Gpa::new(gpa))));
    }
    let range = view.cache(Gpa::new(0x1ff0), 16).unwrap();
    for (offset, len) in [(16, 1), (0, 17), (usize::MAX, 2)] {
        let mut buffer = [0; 17];
        let error = range.read(&view, offset, &mut buffer[..len]).unwrap_err();
        assert_eq!(
            (error.completed, error.fault.kind),
            (0, FaultKind::OutOfRange)
        );
    }
    assert_eq!(range.read(&view, 16, &mut []), Ok(()));
}

#[test]
fn a_scatter_list_is_one_run_of_bytes() {
    let frames = Frames::new(2);
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(0x1000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let segments = [
        (0x1ff0u64, 0x20usize),
        (0x1100, 0),
        (0x1200, 7),
        (0x2800, 0x700),
    ]
    .map(|(start, len)| (Gpa::new(start), len));
    let list = ScatterList::new(&segments);
    assert_eq!(list.byte_len(), 0x727);
    let data: Vec<u8> = (0..0x800u32).map(|at| (at % 251) as u8 + 1).collect();
    assert_eq!(list.write(&view, 0, &data), Ok(0x727));
    for (offset, len) in [
        (0, 0x727),
        (0x1f, 2),
        (0x20, 7),
        (0x25, 0x10),
        (0x726, 5),
        (0x727, 3),
        (usize::MAX, 1),
    ] {
        let mut back = std::vec![0; len];
        let expected = data.get(offset..0x727).unwrap_or(&[]);
        let expected = &expected[..len.min(expected.len())];
        assert_eq!(list.read(&view, offset, &mut back), Ok(expected.len()));
        assert_eq!(&back[..expected.len()], expected);
    }
    assert_eq!(list.fill(&view, 0x1e, 0, 3), Ok(3));
    assert_eq!(view.load::<u8>(Gpa::new(0x1200), Ordering::Relaxed), Ok(0));

    let other = [(Gpa::new(0x1300), 0x10), (Gpa::new(0x1400), 0x800)];
    let other = ScatterList::new(&other);
    assert_eq!(list.copy_to(&view, &other, &view), Ok(0x727));
    let (mut left, mut right) = ([0; 0x727], [0; 0x727]);
    list.read(&view, 0, &mut left).unwrap();
    other.read(&view, 0, &mut right).unwrap();
    assert_eq!(left, right);
}

#[test]
fn a_scatter_list_fails_at_its_bad_segment_after_the_bytes_before() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(0x1000), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let good = [(Gpa::new(0x1000), 0x400)];
    let good = ScatterList::new(&good);
    for (bad, completed, kind) in [
        ((0x1ff0, 0x20), 0x110, FaultKind::NoSlot),
        ((u64::MAX - 255, 512), 0x100, FaultKind::OutOfRange),
        ((0x9000, 1), 0x100, FaultKind::NoSlot),
    ] {
        let segments = [(Gpa::new(0x1000), 0x100), (Gpa::new(bad.0), bad.1)];
        let list = ScatterList::new(&segments);
        for error in [
            list.read(&view, 0, &mut [0; 0x400]).unwrap_err(),
            list.write(&view, 0, &[0; 0x400]).unwrap_err(),
            list.copy_to(&view, &good, &view).unwrap_err(),
            good.copy_to(&view, &list, &view).unwrap_err(),
        ] {
            assert_eq!(
                (error.completed, error.fault.kind),
                (completed, kind),
                "{error}"
            );
        }
    }
}

#[test]
fn no_bytes_of_a_scatter_list_touch_nothing() {
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    // A range that leaves the space, and one that no slot has.
    for (address, len) in [(u64::MAX, 2), (0x1000, 8)] {
        let segments = [(Gpa::new(address), len)];
        let list = ScatterList::new(&segments);
        assert_eq!(list.read(&view, 0, &mut []), Ok(0));
        assert_eq!(list.write(&view, 1, &[]), Ok(0));
        assert_eq!(list.fill(&view, 0, 7, 0), Ok(0));
        let nowhere: [(Gpa, usize); 0] = [];
        let nowhere = ScatterList::new(&nowhere);
        assert_eq!(list.copy_to(&view, &nowhere, &view), Ok(0));
    }
}
