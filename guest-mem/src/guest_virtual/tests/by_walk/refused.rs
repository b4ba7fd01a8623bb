//! Who judges where a walk finds no ordinary memory: the hardware, wherever it can be asked.

use super::*;

/// A guest whose first page at `GVA` is guest-physical page 0; all others are in a slot that can log.
fn guest_of<'a>(ram: Ram<'a>, log: &'a [AtomicU64]) -> (ModelGuest<'a>, Slots<'a>) {
    let guest = guest(ram, RWU);
    let first = gpa(0).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, first).unwrap();
    let memory = Slots::new(GMode::Sv39x4);
    // SAFETY: as in `slots`.
    let rest = unsafe { Slot::linear(gpa(1), guest.len() - 4096, host_of(&guest, ram, gpa(1))) };
    memory.add(rest.with_dirty_log(log), &mut NoGStage).unwrap();
    (guest, memory)
}

/// What page 0 may be that is no memory of the host's.
fn not_ordinary<'a>(guest: &ModelGuest<'a>, ram: Ram<'a>) -> [Option<Slot<'a>>; 4] {
    // SAFETY: memory stands for the registers.
    let device = unsafe { Slot::device(gpa(0), 4096, host_of(guest, ram, gpa(0))) };
    [
        Some(device),
        Some(Slot::guest_only(gpa(0), 4096)),
        Some(Slot::trapped(gpa(0), 4096)),
        None,
    ]
}

#[test]
fn a_write_that_works_goes_on_working_while_another_slot_logs() {
    for index in 0..4 {
        let (array, log) = (RamArray::<64>::new(), [AtomicU64::new(0)]);
        let ram = array.at(RAM_BASE);
        let (guest, memory) = guest_of(ram, &log);
        let slot = not_ordinary(&guest, ram)[index];
        if let Some(slot) = slot {
            memory.add(slot, &mut NoGStage).unwrap();
        }
        let hart = guest.hart();
        let vcpu = load(&hart);
        let mut reader = memory.reader(0).unwrap();
        for logging in [false, true] {
            if logging {
                memory.start_logging(gpa(1), &mut NoGStage).unwrap();
            }
            let view = reader.guard();
            let space = vcpu
                .guest_virtual(USER)
                .with_memory(&view, VsEnvironment::BASE);
            let what = (slot, logging);
            assert_eq!(space.write(GVA, &[1; 9]), Ok(()), "{what:?}");
            assert_eq!(space.fill(GVA, 1, 9), Ok(()), "{what:?}");
            assert_eq!(
                space.store(GVA, 1u32, Ordering::Release),
                Ok(()),
                "{what:?}"
            );
        }
    }
}

#[test]
fn what_the_hardware_refuses_is_refused_while_a_slot_logs() {
    let (array, log) = (RamArray::<64>::new(), [AtomicU64::new(0)]);
    let ram = array.at(RAM_BASE);
    let (guest, memory) = guest_of(ram, &log);
    memory.start_logging(gpa(1), &mut NoGStage).unwrap();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE);
    // No slot, and not in the G-stage's table either.
    guest.unback(gpa(0)).unwrap();
    let resolve = Resolution::Resolve {
        gpa: gpa(0),
        access: AccessKind::Store,
    };
    let error = space.write(GVA, &[1; 8]).unwrap_err();
    assert_eq!(error.fault.resolution(), resolve);
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let error = space.write(hole, &[1; 8]).unwrap_err();
    assert_eq!((error.fault.kind, error.completed), (FaultKind::Page, 0));
}

#[test]
fn a_copy_by_walk_of_rules_that_know_less_than_the_hardware_is_the_hardwares() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    // A 64 KiB page (Svnapot) of which `GVA` is the first 4 KiB: N, and 0b1000 in the lowest bits of the page number.
    let napot = gpa(0).value() >> 2 | 0b1000 << 10 | 1 << 63;
    let leaf = napot | RWU | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, leaf).unwrap();
    let space = vcpu.guest_virtual(USER).with_memory(&view, ALL_BY_WALK);
    let (mut found, mut there) = ([0; 16], [0; 16]);
    guest.read(gpa(0), &mut there).unwrap();
    assert_eq!(space.read(GVA, &mut found), Ok(()));
    assert_eq!(found, there);
}

#[test]
fn r55_an_exchange_that_no_memory_makes_leaves_a_and_d_alone() {
    let (array, log) = (RamArray::<64>::new(), [AtomicU64::new(0)]);
    let ram = array.at(RAM_BASE);
    let (guest, memory) = guest_of(ram, &log);
    memory
        .add(Slot::guest_only(gpa(0), 4096), &mut NoGStage)
        .unwrap();
    let hart = guest.hart();
    let setting = Setting::new(true, 0);
    setting.put(&hart);
    let vcpu = load(&hart);
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let clean = gpa(0).value() >> 2 | RWU | entry::V;
    for walk_always in [false, true] {
        guest.set_entry(GVA, clean).unwrap();
        let environment = VsEnvironment {
            walk_always,
            ..setting.environment()
        };
        let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
        let error = space
            .compare_exchange(GVA, 0u64, 1, Ordering::AcqRel)
            .unwrap_err();
        assert_eq!(error.fault.kind, FaultKind::AtomicUnavailable);
        assert_eq!(vs_entry(&guest), clean);
    }
}

#[test]
fn r53_an_exchange_in_memory_of_another_type_is_not_made() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let setting = Setting::new(false, 0);
    setting.put(&hart);
    let vcpu = load(&hart);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let leaf = gpa(PAGES[0]).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    guest.write(gpa(PAGES[0]), &[0; 8]).unwrap();
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, setting.environment());
    let exchange = || space.compare_exchange(GVA, 0u64, 1, Ordering::AcqRel);
    for memory_type in [1u64 << 61, 2 << 61] {
        guest.set_entry(GVA, leaf | memory_type).unwrap();
        let error = exchange().unwrap_err();
        assert_eq!(error.fault.kind, FaultKind::AtomicUnavailable);
        assert_eq!((error.completed, error.fault.gva), (0, Some(GVA)));
    }
    guest.set_entry(GVA, leaf).unwrap();
    assert_eq!(exchange(), Ok(Ok(0)));
}
