//! The guest's memory beside the guest-virtual space: atomics, the dirty log, races and doubtful faults.

use core::sync::atomic::AtomicU64;

use super::*;
use crate::csr::{ENVCFG_ADUE, ENVCFG_SSE};
use crate::guest_physical::{
    GuestPhysicalMemory, HostPage, NoGStage, PageEntry, PhysicalView, Slot,
};
use crate::guest_virtual::VsEnvironment;
use crate::translate::{AdPolicy, StageRules};
use crate::{AccessKind, Fault};

type Slots<'m> = GuestPhysicalMemory<'m, 2, 1>;

/// All of the guest's memory as one slot.
fn slots<'m>(guest: &ModelGuest<'m>, ram: Ram<'m>, log: &'m [AtomicU64]) -> Slots<'m> {
    let host = ram.host_ptr(guest.spa(gpa(0)).unwrap()).unwrap();
    // SAFETY: the guest's memory is contiguous in `ram`, which outlives the slots and is accessed as R77 says.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host) }.with_dirty_log(log);
    let memory = Slots::new(GMode::Sv39x4);
    memory.add(slot, &mut NoGStage).unwrap();
    memory
}

const UPDATE: VsEnvironment = VsEnvironment {
    rules: StageRules {
        ad: AdPolicy::Update,
        ..StageRules::BASE
    },
    ..VsEnvironment::BASE
};

fn no_log() -> [AtomicU64; 1] {
    [AtomicU64::new(0)]
}

fn harvested(memory: &Slots<'_>) -> Vec<Gpa> {
    let mut pages = Vec::new();
    memory
        .harvest(gpa(0), &mut NoGStage, |page| pages.push(page))
        .unwrap();
    pages
}

#[test]
fn r17_compare_exchange_goes_through_the_hosts_mapping() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE);
    let lock = Gva::new(GVA.value() + 4096 + 8);
    space.store(lock, 7u32, Ordering::Relaxed).unwrap();
    assert_eq!(
        space.compare_exchange(lock, 7u32, 9, Ordering::SeqCst),
        Ok(Ok(7))
    );
    assert_eq!(
        space.compare_exchange(lock, 7u32, 1, Ordering::SeqCst),
        Ok(Err(9))
    );
    assert_eq!(
        space.compare_exchange(lock, 9u8, 200, Ordering::AcqRel),
        Ok(Ok(9))
    );
    assert_eq!(space.load::<u32>(lock, Ordering::Relaxed), Ok(200));
    let misaligned = Gva::new(lock.value() + 2);
    refused(
        space
            .compare_exchange(misaligned, 0u32, 0, Ordering::SeqCst)
            .map(drop),
        FaultKind::Misaligned,
    );
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let error = space
        .compare_exchange(hole, 0u32, 0, Ordering::SeqCst)
        .unwrap_err();
    assert_eq!(
        error.fault.resolution(),
        Resolution::Inject(Injection {
            cause: 15,
            tval: hole.value()
        })
    );
}

#[track_caller]
fn refused(result: Result<(), AccessError>, kind: FaultKind) {
    assert_eq!(result.unwrap_err().fault.kind, kind);
}

#[test]
fn a_guest_virtual_write_into_a_logging_slot_is_harvested() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram, &log);
    slots.start_logging(gpa(0), &mut NoGStage).unwrap();
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE);

    space.write(Gva::new(GVA.value() + 4090), &[1; 10]).unwrap();
    let mut pages = [gpa(PAGES[0]), gpa(PAGES[1])];
    pages.sort();
    assert_eq!(harvested(&slots), pages);
    assert_eq!(hart.counts().stores, 0);
    let mut back = [0; 10];
    space.read(Gva::new(GVA.value() + 4090), &mut back).unwrap();
    assert_eq!(back, [1; 10]);
    assert_eq!(harvested(&slots), []);

    space
        .store(Gva::new(GVA.value() + 2 * 4096), 1u64, Ordering::Release)
        .unwrap();
    assert_eq!(harvested(&slots), [gpa(PAGES[2])]);
    space.fill(Gva::new(GVA.value() + 3 * 4096), 1, 1).unwrap();
    assert_eq!(harvested(&slots), [gpa(PAGES[3])]);
    space
        .compare_exchange(GVA, 0u8, 0, Ordering::Relaxed)
        .unwrap()
        .unwrap();
    assert_eq!(harvested(&slots), [gpa(PAGES[0])]);
    // The part of a failed write counts.
    let end = Gva::new(GVA.value() + 4 * 4096 - 3);
    let error = space.write(end, &[1; 8]).unwrap_err();
    assert_eq!((error.completed, error.fault.kind), (3, FaultKind::Page));
    assert_eq!(error.fault.gva, Some(Gva::new(GVA.value() + 4 * 4096)));
    assert_eq!(harvested(&slots), [gpa(PAGES[3])]);
}

#[test]
fn a_logged_write_sets_a_and_d_as_the_machine_would_and_logs_the_table() {
    for (environment, succeeds) in [(UPDATE, true), (VsEnvironment::BASE, false)] {
        let (memory, log) = (RamArray::<64>::new(), no_log());
        let ram = memory.at(RAM_BASE);
        let guest = guest(ram, RWU);
        let clean = (gpa(PAGES[0]).value() >> 12) << 10 | RWU | entry::V;
        guest.set_entry(GVA, clean).unwrap();
        let table = guest.entry(GVA).unwrap();
        let slots = slots(&guest, ram, &log);
        slots.start_logging(gpa(0), &mut NoGStage).unwrap();
        let mut reader = slots.reader(0).unwrap();
        let view = reader.guard();
        let hart = guest.hart();
        let vcpu = load(&hart);
        let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
        let result = space.write(GVA, &[1]);
        let mut raw = [0; 8];
        guest.read(table, &mut raw).unwrap();
        if succeeds {
            result.unwrap();
            assert_eq!(u64::from_le_bytes(raw), clean | entry::A | entry::D);
            let mut pages = [gpa(PAGES[0]), table.page_base()];
            pages.sort();
            assert_eq!(harvested(&slots), pages);
        } else {
            assert_eq!(result.unwrap_err().fault.kind, FaultKind::Page);
            assert_eq!(u64::from_le_bytes(raw), clean);
            assert_eq!(harvested(&slots), []);
        }
    }
}

#[test]
fn r59_a_page_fault_that_came_as_an_access_fault_is_recognised() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let quirks = Quirks {
        page_faults_as_access_faults: true,
        ..Quirks::default()
    };
    let hart = guest.hart_of(Machine {
        quirks,
        ..Machine::new()
    });
    let vcpu = load(&hart);
    let hole = Gva::new(0x30_0000);
    let plain = vcpu.guest_virtual(USER);
    assert_eq!(
        plain.read(hole, &mut [0]).unwrap_err().fault.kind,
        FaultKind::Access
    );
    let error = plain
        .with_memory(&view, VsEnvironment::BASE)
        .read(hole, &mut [0])
        .unwrap_err();
    assert_eq!(
        error.fault.resolution(),
        Resolution::Inject(Injection {
            cause: 13,
            tval: hole.value()
        })
    );
    // One that is an access fault stays one.
    let spa = guest.spa(gpa(PAGES[0])).unwrap();
    hart.protect(Protection {
        range: spa..Spa::new(spa.value() + 8),
        read: false,
        write: false,
        execute: false,
    });
    let error = plain
        .with_memory(&view, VsEnvironment::BASE)
        .read(GVA, &mut [0])
        .unwrap_err();
    assert_eq!(
        (error.fault.kind, error.fault.resolution()),
        (FaultKind::Access, Resolution::Refuse)
    );
}

/// CVA6: what PMP refuses is cause 5 with `stval` 0 (reported). The guest has no page at address 0.
#[test]
fn r69_r93_a_fault_without_an_address_is_not_taken_for_one_of_0() {
    for page_faults_as_access_faults in [false, true] {
        let (memory, log) = (RamArray::<64>::new(), no_log());
        let ram = memory.at(RAM_BASE);
        let guest = guest(ram, RWU);
        let slots = slots(&guest, ram, &log);
        let mut reader = slots.reader(0).unwrap();
        let view = reader.guard();
        let hart = guest.hart_of(Machine {
            quirks: Quirks {
                page_faults_as_access_faults,
                protected_accesses_are_loads: true,
                ..Quirks::default()
            },
            ..Machine::new()
        });
        let second = guest.spa(gpa(PAGES[1])).unwrap();
        hart.protect(Protection {
            range: second..second.checked_add(4096).unwrap(),
            read: false,
            write: false,
            execute: false,
        });
        let vcpu = load(&hart);
        let space = vcpu
            .guest_virtual(USER)
            .with_memory(&view, VsEnvironment::BASE);
        let order = Ordering::Relaxed;
        // The first page is done, the second refused by the machine.
        let (start, second) = (
            Gva::new(GVA.value() + 4096 - 8),
            Gva::new(GVA.value() + 4096),
        );
        for (completed, error) in [
            (8, space.read(start, &mut [0; 20]).unwrap_err()),
            (8, space.write(start, &[1; 20]).unwrap_err()),
            (8, space.fill(start, 1, 20).unwrap_err()),
            (0, space.load::<u64>(second, order).unwrap_err()),
            (0, space.store(second, 1u64, order).unwrap_err()),
        ] {
            let fault = error.fault;
            assert_eq!(error.completed, completed, "{error}");
            assert_eq!(
                (fault.kind, fault.gva),
                (FaultKind::Access, None),
                "{error}"
            );
            assert_eq!(fault.resolution(), Resolution::Refuse);
        }
        // Behind the four pages is none. A walk from where the access stopped says so, if the trap does not.
        let hole = Gva::new(GVA.value() + 4 * 4096);
        let start = Gva::new(hole.value() - 8);
        for (cause, completed, error) in [
            (13, 8, space.read(start, &mut [0; 20]).unwrap_err()),
            (15, 8, space.write(start, &[1; 20]).unwrap_err()),
            (15, 0, space.store(hole, 1u64, order).unwrap_err()),
        ] {
            let tval = hole.value();
            assert_eq!(error.completed, completed, "{error}");
            let injection = Resolution::Inject(Injection { cause, tval });
            assert_eq!(error.fault.resolution(), injection, "{error}");
        }
    }
}

#[test]
fn r59_i13_an_absent_page_table_is_no_reason_to_inject() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let host = |page: u64| {
        let spa = guest.spa(gpa(page)).unwrap();
        HostPage::Writable(ram.host_ptr(spa).unwrap())
    };
    let pages: Vec<_> = (0..guest.len() / 4096)
        .map(|page| {
            let entry = PageEntry::absent();
            // SAFETY: the guest's memory is in `ram`, which outlives the slots and is accessed as R77 says.
            unsafe { entry.set(host(page)) };
            entry
        })
        .collect();
    let slots = Slots::new(GMode::Sv39x4);
    slots
        .add(Slot::paged(gpa(0), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart_of(Machine {
        quirks: Quirks {
            page_faults_as_access_faults: true,
            ..Quirks::default()
        },
        ..Machine::new()
    });
    let vcpu = load(&hart);
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let table = (guest.entry(hole).unwrap().value() - gpa(0).value()) / 4096;
    // Another hart is giving the last table's page a frame.
    pages[table as usize].clear();
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE);
    let fault = space.read(hole, &mut [0]).unwrap_err().fault;
    let Resolution::Resolve { gpa: at, access } = fault.resolution() else {
        panic!("{fault} is nothing to inject or refuse");
    };
    let expected = (gpa(table), AccessKind::Load);
    assert_eq!((at.page_base(), access), expected);
    // Whoever resolves it waits for that hart.
    let mut page_in = |_: &PhysicalView<'_>, _: &Fault, _: Gpa, _: AccessKind| {
        // SAFETY: as above.
        unsafe { pages[table as usize].set(host(table)) };
        Ok(())
    };
    let error = space.resolving(&mut page_in).read(hole, &mut [0]);
    assert_eq!(
        error.unwrap_err().fault.resolution(),
        Resolution::Inject(Injection {
            cause: 13,
            tval: hole.value()
        })
    );
}

#[test]
fn r16_a_store_to_a_shadow_stack_is_the_guests_own_access_fault() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let shadow_stack =
        (gpa(PAGES[0]).value() >> 12) << 10 | entry::W | entry::U | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, shadow_stack).unwrap();
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    hart.set_register(Register::Menvcfg, ENVCFG_SSE);
    hart.set_register(Register::Henvcfg, ENVCFG_SSE);
    let vcpu = load(&hart);
    let environment = VsEnvironment {
        henvcfg: ENVCFG_SSE,
        ..VsEnvironment::BASE
    };
    let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
    space.read(GVA, &mut [0]).unwrap();
    let error = space.write(GVA, &[0]).unwrap_err();
    assert_eq!(
        error.fault.resolution(),
        Resolution::Inject(Injection {
            cause: 7,
            tval: GVA.value()
        })
    );
}

#[test]
fn r22_without_htval_a_walk_tells_the_guest_physical_address() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    guest.unback(gpa(PAGES[1])).unwrap();
    let hart = guest.hart_of(Machine {
        writes_htval: false,
        ..Machine::new()
    });
    let vcpu = load(&hart);
    let at = Gva::new(GVA.value() + 4096 + 4);
    let plain = vcpu.guest_virtual(USER);
    assert_eq!(
        plain.write(at, &[0]).unwrap_err().fault.resolution(),
        Resolution::Refuse
    );
    let error = plain
        .with_memory(&view, VsEnvironment::BASE)
        .write(at, &[0])
        .unwrap_err();
    let found = Gpa::new(gpa(PAGES[1]).value() + 4);
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve {
            gpa: found,
            access: AccessKind::Store
        }
    );
}

#[test]
fn a_walk_that_classifies_leaves_no_trace_in_the_guests_tables() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let clean = (gpa(PAGES[0]).value() >> 12) << 10 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    // The hardware updates at neither stage, whatever the environment says.
    hart.set_register(Register::Menvcfg, 0);
    hart.set_register(Register::Henvcfg, ENVCFG_ADUE);
    let vcpu = load(&hart);
    let error = vcpu
        .guest_virtual(USER)
        .with_memory(&view, UPDATE)
        .read(GVA, &mut [0])
        .unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Page);
    let mut raw = [0; 8];
    guest.read(guest.entry(GVA).unwrap(), &mut raw).unwrap();
    assert_eq!(u64::from_le_bytes(raw), clean);
}

#[test]
fn r62_a_machine_that_does_not_obey_sum_reaches_memory_by_walks_only() {
    let (memory, log) = (RamArray::<64>::new(), no_log());
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram, &log);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let environment = VsEnvironment {
        walk_always: true,
        ..VsEnvironment::BASE
    };
    let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
    let start = Gva::new(GVA.value() + 4090);
    space.write(start, b"a page boundary").unwrap();
    let mut back = [0; 15];
    space.read(start, &mut back).unwrap();
    assert_eq!(&back, b"a page boundary");
    space.store(GVA, 0x1234u16, Ordering::Release).unwrap();
    assert_eq!(space.load::<u16>(GVA, Ordering::Acquire), Ok(0x1234));
    space.fill(GVA, 9, 3).unwrap();
    assert_eq!(space.load::<u8>(GVA, Ordering::Relaxed), Ok(9));
    let kernel = vcpu
        .guest_virtual(SUPERVISOR)
        .with_memory(&view, environment);
    assert_eq!(
        kernel.read(start, &mut back).unwrap_err().fault.kind,
        FaultKind::Page
    );
    assert_eq!(hart.counts().accesses(), 0);
}

/// Code that the host does not map lies in a page that the G-stage does not show yet: it is to be shown for a fetch.
#[test]
fn r61_a_fetch_by_a_walk_asks_the_host_for_a_fetch() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, entry::X);
    let code = gpa(PAGES[0]);
    // What lies behind it, the guest's tables too, is mapped.
    let behind = gpa(PAGES[0] + 1);
    let len = guest.len() - (behind.value() - gpa(0).value());
    let host = ram.host_ptr(guest.spa(behind).unwrap()).unwrap();
    let slots = Slots::new(GMode::Sv39x4);
    for slot in [
        // SAFETY: the guest's memory is contiguous in `ram`, which outlives the slots and is accessed as atomics only.
        unsafe { Slot::linear(behind, len, host) },
        Slot::guest_only(code, 4096),
    ] {
        slots.add(slot, &mut NoGStage).unwrap();
    }
    let hart = guest.hart();
    guest.unback(code).unwrap();
    let vcpu = load(&hart);
    let physical = vcpu.guest_physical();
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard().with_vcpu(&physical);
    let environment = VsEnvironment {
        walk_fetches: true,
        ..VsEnvironment::BASE
    };
    let error = vcpu
        .guest_virtual(SUPERVISOR)
        .with_memory(&view, environment)
        .fetch_instruction(GVA)
        .unwrap_err();
    let access = AccessKind::Fetch;
    let gpa = code;
    assert_eq!(error.fault.operation, Operation::Fetch);
    assert_eq!(
        error.fault.resolution(),
        Resolution::Resolve { gpa, access }
    );
}

/// A machine whose `hlvx` asks for another right than X: instructions are fetched by a walk, which asks for X.
#[test]
fn r61_a_fetch_by_a_walk_asks_for_what_the_guest_needs() {
    const LB: [u8; 4] = [0x03, 0x85, 0x55, 0x00];
    for (bits, privilege, fetched) in [
        (entry::X, SUPERVISOR, true),
        (entry::X | entry::R, SUPERVISOR, true),
        (RW, SUPERVISOR, false),
        (entry::X | entry::U, SUPERVISOR, false),
        (entry::X | entry::U, USER, true),
        (entry::X, USER, false),
    ] {
        let (memory, log) = (RamArray::<64>::new(), no_log());
        let ram = memory.at(RAM_BASE);
        let guest = guest(ram, bits);
        // Across the first two pages, and at the end of the last.
        guest
            .write(Gpa::new(gpa(PAGES[0]).value() + 4094), &LB[..2])
            .unwrap();
        guest.write(gpa(PAGES[1]), &LB[2..]).unwrap();
        guest
            .write(
                Gpa::new(gpa(PAGES[3]).value() + 4092),
                &[0x01, 0x45, 0x03, 0x85],
            )
            .unwrap();
        let slots = slots(&guest, ram, &log);
        let mut reader = slots.reader(0).unwrap();
        let view = reader.guard();
        let hart = guest.hart();
        let vcpu = load(&hart);
        let environment = VsEnvironment {
            walk_fetches: true,
            ..VsEnvironment::BASE
        };
        let space = vcpu
            .guest_virtual(privilege)
            .with_memory(&view, environment);
        for offset in [4094, 3 * 4096 + 4092, 3 * 4096 + 4094, 1, 4 * 4096] {
            let at = Gva::new(GVA.value() + offset);
            let by_walk = space.fetch_instruction(at).map_err(|error| {
                (
                    error.completed,
                    error.fault.kind,
                    error.fault.gva,
                    error.fault.resolution(),
                )
            });
            let by_hart = vcpu.fetch_instruction(at, privilege).map_err(|error| {
                (
                    error.completed,
                    error.fault.kind,
                    error.fault.gva,
                    error.fault.resolution(),
                )
            });
            assert_eq!(by_walk, by_hart, "{bits:#x} {privilege:?} {offset:#x}");
            let there = [4094, 3 * 4096 + 4092].contains(&offset);
            assert_eq!(
                by_walk.is_ok(),
                fetched && there,
                "{bits:#x} {privilege:?} {offset:#x}"
            );
        }
        // Not one by the hart.
        hart.reset_counts();
        let _ = space.fetch_instruction(Gva::new(GVA.value() + 4094));
        assert_eq!(hart.counts().fetches, 0);
    }
}
