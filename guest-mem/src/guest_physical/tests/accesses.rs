//! What accesses do, one by one.

use core::sync::atomic::Ordering;
use std::vec;

use super::*;
use crate::access::{AccessKind, Width};
use crate::csr::GMode;
use crate::fault::{FaultKind, Operation, Resolution};
use crate::guest_memory::GuestMemory;

const BASE: u64 = 0x8000_0000;

fn gpa(offset: u64) -> Gpa {
    Gpa::new(BASE + offset)
}

#[test]
fn a_copy_crosses_pages_and_slots() {
    let (first, second) = (Frames::new(2), Frames::new(1));
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory
        .add(second.linear(BASE + 0x2000), &mut NoGStage)
        .unwrap();
    memory.add(first.linear(BASE), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let data: Vec<u8> = (0..0x2100u32).map(|byte| (byte * 7) as u8).collect();
    view.write(gpa(0xf01), &data).unwrap_err();
    view.write(gpa(0xe03), &data).unwrap();
    let mut back = vec![0; data.len()];
    view.read(gpa(0xe03), &mut back).unwrap();
    assert_eq!(back, data);
}

#[test]
fn a_hole_ends_a_copy_after_the_bytes_before_it() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    for error in [
        view.read(gpa(0xff0), &mut [0; 32]).unwrap_err(),
        view.write(gpa(0xff0), &[1; 32]).unwrap_err(),
        view.fill(gpa(0xff0), 2, 32).unwrap_err(),
    ] {
        assert_eq!(error.completed, 16);
        assert_eq!(error.fault.kind, FaultKind::NoSlot);
        assert_eq!(error.fault.gpa, Some(gpa(0x1000)));
        assert_eq!(error.fault.resolution(), Resolution::Refuse);
    }
}

#[test]
fn an_absent_page_and_a_write_to_a_read_only_page_are_to_be_resolved() {
    let frames = Frames::new(2);
    let pages = absent(3);
    // SAFETY: the frames outlive the memory.
    unsafe {
        pages[0].set(HostPage::Writable(frames.page(0)));
        pages[1].set(HostPage::ReadOnly(frames.page(1)));
    }
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();

    let error = view.write(gpa(0xffc), &[1; 8]).unwrap_err();
    assert_eq!(error.completed, 4);
    let access = AccessKind::Store;
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve {
            gpa: gpa(0x1000),
            access
        }
    );

    let error = view.read(gpa(0xffc), &mut [0; 0x1100]).unwrap_err();
    assert_eq!(error.completed, 0x1004);
    let access = AccessKind::Load;
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve {
            gpa: gpa(0x2000),
            access
        }
    );
}

#[test]
fn r13_a_range_beyond_the_modes_width_is_refused_before_anything_is_accessed() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<2, 1>::new(GMode::Sv39x4);
    memory
        .add(frames.linear((1 << 41) - 0x1000), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    for (start, len) in [
        ((1 << 41) - 8, 9),
        (1 << 41, 1),
        (u64::MAX, 2),
        (u64::MAX - 4095, 1),
    ] {
        let error = view.write(Gpa::new(start), &vec![1; len]).unwrap_err();
        assert_eq!(
            (error.completed, error.fault.kind),
            (0, FaultKind::OutOfRange)
        );
    }
    assert_eq!(
        view.load::<u64>(Gpa::new((1 << 41) - 8), Ordering::Relaxed),
        Ok(0)
    );
    assert_eq!(view.read(Gpa::new(u64::MAX), &mut []), Ok(()));
}

#[test]
fn single_accesses_of_every_width_go_where_copies_go() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv48x4);
    memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let value = 0x8877_6655_4433_2211u64;
    for width in Width::ALL {
        for at in (0..16).step_by(width.bytes()) {
            view.fill(gpa(0), 0xaa, 32).unwrap();
            view.store_width(gpa(at), width, value, Ordering::Release)
                .unwrap();
            let mut expected = [0xaa; 32];
            expected[at as usize..][..width.bytes()]
                .copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
            let mut found = [0; 32];
            view.read(gpa(0), &mut found).unwrap();
            assert_eq!(found, expected);
            let stored = value & width.mask();
            assert_eq!(
                view.load_width(gpa(at), width, Ordering::Acquire),
                Ok(stored)
            );
            let order = Ordering::AcqRel;
            let exchange =
                |current, new| view.compare_exchange_width(gpa(at), width, current, new, order);
            assert_eq!(exchange(stored ^ 1, 5), Ok(stored));
            assert_eq!(exchange(stored, 5), Ok(stored));
            let beyond = 5 | !width.mask();
            if beyond != 5 {
                assert_eq!(
                    exchange(beyond, 9),
                    Ok(5),
                    "no value of the width equals it"
                );
            }
            assert_eq!(view.load_width(gpa(at), width, Ordering::Relaxed), Ok(5));
        }
        if width != Width::Byte {
            let error = view
                .load_width(gpa(1), width, Ordering::Relaxed)
                .unwrap_err();
            assert_eq!(error.fault.kind, FaultKind::Misaligned);
        }
    }
}

#[test]
fn each_kind_of_slot_refuses_in_its_own_way() {
    let frames = Frames::new(1);
    let memory = GuestPhysicalMemory::<4, 1>::new(GMode::Sv39x4);
    memory
        .add(frames.linear(BASE).read_only(), &mut NoGStage)
        .unwrap();
    memory
        .add(Slot::trapped(gpa(0x1000), 0x1000), &mut NoGStage)
        .unwrap();
    memory
        .add(Slot::guest_only(gpa(0x2000), 0x1000), &mut NoGStage)
        .unwrap();
    let registers = Frames::new(1);
    // SAFETY: plain memory stands for the device.
    let device = unsafe { Slot::device(gpa(0x3000), 0x1000, registers.start()) };
    memory.add(device, &mut NoGStage).unwrap();

    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    use FaultKind::*;
    for (offset, read, write, load, store, exchange) in [
        (
            0x0000,
            None,
            Some(ReadOnlySlot),
            None,
            Some(ReadOnlySlot),
            Some(ReadOnlySlot),
        ),
        (
            0x1000,
            Some(Trapped),
            Some(Trapped),
            Some(Trapped),
            Some(Trapped),
            Some(Trapped),
        ),
        (
            0x2000,
            Some(NotMapped),
            Some(NotMapped),
            Some(NotMapped),
            Some(NotMapped),
            Some(AtomicUnavailable),
        ),
        (
            0x3000,
            Some(DeviceMemory),
            Some(DeviceMemory),
            None,
            None,
            Some(AtomicUnavailable),
        ),
        (
            0x4000,
            Some(NoSlot),
            Some(NoSlot),
            Some(NoSlot),
            Some(NoSlot),
            Some(NoSlot),
        ),
    ] {
        let at = gpa(offset + 8);
        let order = Ordering::SeqCst;
        assert_eq!(view.read(at, &mut [0]).err().map(|e| e.fault.kind), read);
        assert_eq!(view.write(at, &[0]).err().map(|e| e.fault.kind), write);
        assert_eq!(view.fill(at, 0, 1).err().map(|e| e.fault.kind), write);
        assert_eq!(
            view.load::<u32>(at, order).err().map(|e| e.fault.kind),
            load
        );
        assert_eq!(
            view.store(at, 1u32, order).err().map(|e| e.fault.kind),
            store
        );
        let exchanged = view.compare_exchange(at, 1u32, 2, order);
        assert_eq!(exchanged.err().map(|e| e.fault.kind), exchange);
        let error = view.write(at, &[0]).unwrap_err();
        assert_eq!(
            (error.fault.gpa, error.fault.operation),
            (Some(at), Operation::Write)
        );
    }
    assert_eq!(view.load::<u32>(gpa(0x3008), Ordering::Relaxed), Ok(1));
}

#[test]
fn guest_only_memory_is_reached_through_the_loaded_vcpu() {
    use crate::guest_virtual::LoadedVcpu;
    use crate::hart::model::{ModelGuest, RamArray};
    let ram = RamArray::<64>::new();
    let guest = ModelGuest::new(ram.at(crate::Spa::new(0x8_0000_0000))).unwrap();
    let base = ModelGuest::BASE;
    let log = [const { core::sync::atomic::AtomicU64::new(0) }; 1];
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    // The slot is larger than what the G-stage maps.
    let beyond = guest.len();
    let slot = Slot::guest_only(base, beyond + 0x1000).with_dirty_log(&log);
    memory.add(slot, &mut NoGStage).unwrap();
    memory.start_logging(base, &mut NoGStage).unwrap();

    let hart = guest.hart();
    // SAFETY: the hart has the guest loaded.
    let vcpu = unsafe { LoadedVcpu::new(&hart) };
    let physical = vcpu.guest_physical();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard().with_vcpu(&physical);
    let at = |offset| Gpa::new(base.value() + offset);
    view.write(at(0xffd), b"across").unwrap();
    view.store(at(0x3008), 7u32, Ordering::Release).unwrap();
    let mut back = [0; 6];
    guest.read(at(0xffd), &mut back).unwrap();
    assert_eq!(&back, b"across");
    assert_eq!(view.load::<u32>(at(0x3008), Ordering::Acquire), Ok(7));
    let exchange = view.compare_exchange(at(0x3008), 7u32, 8, Ordering::SeqCst);
    assert_eq!(
        exchange.unwrap_err().fault.kind,
        FaultKind::AtomicUnavailable
    );

    let error = view.fill(at(beyond - 16), 1, 32).unwrap_err();
    assert_eq!(error.completed, 16);
    let access = AccessKind::Store;
    let gpa = at(beyond);
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve { gpa, access }
    );
    drop(view);
    let mut dirty = Vec::new();
    let page = |gpa: Gpa| (gpa.value() - base.value()) / PAGE_SIZE;
    memory
        .harvest(base, &mut NoGStage, |gpa| dirty.push(page(gpa)))
        .unwrap();
    assert_eq!(dirty, [0, 1, 3, beyond / PAGE_SIZE - 1]);
}
