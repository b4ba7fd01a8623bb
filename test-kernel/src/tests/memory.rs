//! Guest-physical memory beside the hardware's translation: slots over the same pages, atomics through a
//! software walk, and faults that only a walk can name.

use core::sync::atomic::Ordering;

use guest_mem::csr::GMode;
use guest_mem::guest_physical::Slot;
use guest_mem::hart::Hart;
use guest_mem::{
    AccessError, AccessKind, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, Resolution,
    copy_from_guest, copy_to_guest,
};

use crate::harness::{Outcome, Test, cases, check, fail, one_in};
use crate::library::{error_of, in_both_forms, loaded};
use crate::slots::{GVA, LEN, Memory, Mirror, PAGE, arena_slot, environment, is_slot, two_pages};
use crate::tables::RAM;
use crate::tables::bits::{A, D, R, U, USER, V};
use crate::{arena, csr, machine};

cases![
    slots_and_hlv_see_the_same_bytes,
    r12_memory_that_the_host_does_not_map_is_reached_through_the_vcpu,
    r17_an_exchange_at_a_guest_virtual_address_goes_by_a_walk,
    r59_a_walk_names_a_page_fault_that_came_as_an_access_fault,
    r3_r62_a_walk_honours_sum_where_the_machine_does_not,
    a_copy_by_a_walk_a_page_is_the_hardwares_copy,
    r46_a_true_fault_is_not_retried_away,
];

fn slots_and_hlv_see_the_same_bytes(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, pages) = two_pages();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        let vcpu = loaded(hart);
        let by_vcpu = vcpu.guest_physical();
        let mut random = 0x9e37_79b9u64;
        let (mut one, mut other) = ([0u8; 64], [0u8; 64]);
        for round in (0..500).step_by(one_in(17)) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Adjacent in the virtual space only.
            let page = pages[(random >> 33) as usize % 2];
            let gpa = Gpa::new(page.gpa + (random >> 40) % (PAGE - 64));
            let len = (random >> 55) as usize % 64;
            for (index, byte) in one.iter_mut().enumerate() {
                *byte = (random >> (index % 57)) as u8;
            }
            let (writes, reads) = if round % 2 == 0 {
                (
                    copy_to_guest(&view, gpa, &one[..len]),
                    copy_from_guest(&by_vcpu, gpa, &mut other[..len]),
                )
            } else {
                (
                    copy_to_guest(&by_vcpu, gpa, &one[..len]),
                    copy_from_guest(&view, gpa, &mut other[..len]),
                )
            };
            t.equal(
                format_args!("round {round}"),
                (writes, reads),
                (Ok(()), Ok(())),
            )?;
            check!(
                one[..len] == other[..len],
                "round {round}: {len} bytes at {gpa:#x} differ"
            );
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r12_memory_that_the_host_does_not_map_is_reached_through_the_vcpu(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, pages) = two_pages();
        let memory = Memory::new(GMode::Sv39x4);
        let slot = Slot::guest_only(Gpa::new(RAM), LEN);
        is_slot(memory.add(slot, &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let gpa = Gpa::new(pages[0].gpa + 0x10);
        let error = error_of(reader.guard().write_obj(gpa, &1u64))?;
        t.equal("without a vCPU", error.fault.kind, FaultKind::NotMapped)?;
        let vcpu = loaded(hart);
        let by_vcpu = vcpu.guest_physical();
        let view = reader.guard().with_vcpu(&by_vcpu);
        t.equal("a write", view.write_obj(gpa, &0x1234_5678u64), Ok(()))?;
        t.equal(
            "what was written",
            arena::read(pages[0].spa + 0x10),
            0x1234_5678,
        )?;
        let exchange = view.compare_exchange(gpa, 0u64, 1, Ordering::SeqCst);
        let kind = exchange.map_err(|error| error.fault.kind);
        t.equal("an exchange", kind, Err(FaultKind::AtomicUnavailable))?;
        let error = error_of(view.write_obj(Gpa::new(RAM + LEN - PAGE), &1u64))?;
        let access = AccessKind::Store;
        t.equal(
            "a page that the G-stage lacks",
            error.fault.kind,
            FaultKind::GuestPage {
                access,
                implicit: false,
            },
        )
    }
    in_both_forms!(t, body)
}

fn r17_an_exchange_at_a_guest_virtual_address_goes_by_a_walk(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let environment = environment()?;
        let (mut world, pages) = two_pages();
        // A page that the guest may only read.
        let fixed = world.page(USER);
        world.map(GVA + 2 * PAGE, fixed.gpa, V | R | A | D, 0);
        world.fence();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        let vcpu = loaded(hart);
        let guest = vcpu
            .guest_virtual(GuestPrivilege::Supervisor)
            .with_memory(&view, environment);
        arena::write(pages[1].spa + 8, 0x1111_2222_3333_4444);
        let order = Ordering::SeqCst;
        let at = |offset| Gva::new(GVA + PAGE + 8 + offset);
        t.equal(
            "u16",
            guest.compare_exchange(at(2), 0x3333u16, 0x5555, order),
            Ok(Ok(0x3333)),
        )?;
        t.equal(
            "u8",
            guest.compare_exchange(at(0), 0u8, 1, order),
            Ok(Err(0x44)),
        )?;
        t.equal(
            "u32",
            guest.compare_exchange(at(4), 0x1111_2222u32, 9, order),
            Ok(Ok(0x1111_2222)),
        )?;
        t.equal(
            "the page",
            arena::read(pages[1].spa + 8),
            0x0000_0009_5555_4444,
        )?;
        let found = 0x0000_0009_5555_4444u64;
        t.equal(
            "u64",
            guest.compare_exchange(at(0), found, u64::MAX, order),
            Ok(Ok(found)),
        )?;
        let read_only = guest.compare_exchange(Gva::new(GVA + 2 * PAGE), 0u64, 1, order);
        let kind = read_only.map_err(|error| error.fault.kind);
        t.equal("a page without W", kind, Err(FaultKind::Page))?;
        let misaligned = guest.compare_exchange(at(1), 0u32, 1, order);
        let kind = misaligned.map_err(|error| error.fault.kind);
        t.equal("misaligned", kind, Err(FaultKind::Misaligned))
    }
    in_both_forms!(t, body)
}

fn r59_a_walk_names_a_page_fault_that_came_as_an_access_fault(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let environment = environment()?;
        let (mut world, _) = two_pages();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        let vcpu = loaded(hart);
        let guest = vcpu
            .guest_virtual(GuestPrivilege::Supervisor)
            .with_memory(&view, environment);
        // The same on every machine, whatever cause it raised.
        let at = Gva::new(GVA + 2 * PAGE - 8);
        let mut buffer = [0; 32];
        for error in [
            error_of(guest.read(at, &mut buffer))?,
            error_of(guest.write(at, &buffer))?,
        ] {
            t.equal("kind", error.fault.kind, FaultKind::Page)?;
            t.equal("completed", error.completed, 8)?;
            t.equal("GVA", error.fault.gva, Some(Gva::new(GVA + 2 * PAGE)))?;
            let injected = matches!(error.fault.resolution(), Resolution::Inject(_));
            check!(
                injected,
                "{:?} is not the guest's",
                error.fault.resolution()
            );
        }
        Ok(())
    }
    // SAFETY: the kernel is linked where it is; the runner puts satp back.
    unsafe { csr::satp::write(0) };
    in_both_forms!(t, body)
}

fn r3_r62_a_walk_honours_sum_where_the_machine_does_not(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let environment = environment()?;
        let (mut world, pages) = two_pages();
        world.map(GVA, pages[0].gpa, USER, 0);
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        for sum in [false, true] {
            // SAFETY: guest state.
            unsafe { csr::vsstatus::write(if sum { guest_mem::csr::STATUS_SUM } else { 0 }) };
            world.fence();
            let vcpu = loaded(hart);
            let guest = vcpu
                .guest_virtual(GuestPrivilege::Supervisor)
                .with_memory(&view, environment);
            let expected = if sum { Ok(()) } else { Err(FaultKind::Page) };
            let kind = |result: Result<(), guest_mem::AccessError>| {
                result.map_err(|error| error.fault.kind)
            };
            let what = format_args!("a user page, SUM={sum}");
            t.equal(what, kind(guest.read(Gva::new(GVA), &mut [0; 8])), expected)?;
            t.equal(what, kind(guest.write(Gva::new(GVA), &[1; 8])), expected)?;
            let store = guest.store(Gva::new(GVA), 1u32, Ordering::Relaxed);
            t.equal(what, kind(store), expected)?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

/// Fails unless an access succeeded.
fn done(result: Result<(), AccessError>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(error) => fail!("{error}"),
    }
}

fn a_copy_by_a_walk_a_page_is_the_hardwares_copy(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let environment = environment()?;
        let (mut world, _) = two_pages();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        let vcpu = loaded(hart);
        let hardware = vcpu.guest_virtual(GuestPrivilege::Supervisor);
        let walking = hardware.with_memory(&view, environment.with_walk_from(0));
        let mut bytes = [0; 2 * PAGE as usize];
        for (byte, at) in bytes.iter_mut().zip(0u32..) {
            *byte = (at * 7 + at / 251) as u8;
        }
        // Every alignment, across the two pages.
        let mut back = [0; 2 * PAGE as usize];
        for (offset, len) in [
            (0, 8192),
            (1, 8191),
            (3, 4100),
            (4093, 8),
            (8, 4096),
            (4095, 2),
        ] {
            let at = Gva::new(GVA + offset as u64);
            let (sent, got) = (&bytes[..len], &mut back[..len]);
            done(walking.fill(at, 0xa5, len))?;
            done(walking.write(at, sent))?;
            done(hardware.read(at, got))?;
            check!(got == sent, "{len} bytes at {offset}, written by a walk");
            got.fill(0);
            done(walking.read(at, got))?;
            check!(got == sent, "{len} bytes at {offset}, read by a walk");
        }
        // The page after them is the guest's to map: the same fault, as far along.
        let end = Gva::new(GVA + 2 * PAGE - 16);
        for error in [
            walking.read(end, &mut back[..64]).err(),
            hardware
                .with_memory(&view, environment)
                .read(end, &mut back[..64])
                .err(),
        ] {
            let error = error.map(|error| (error.completed, error.fault.kind, error.fault.gva));
            let page_end = Gva::new(GVA + 2 * PAGE);
            t.equal("fault", error, Some((16, FaultKind::Page, Some(page_end))))?;
        }
        // It is found at some size, or never: what it is depends on the machine.
        let measured = walking.measure_walk_from(Gva::new(GVA), machine::time);
        check!(measured.is_ok(), "{measured:?}");
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r46_a_true_fault_is_not_retried_away(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let hart = crate::library::Spy::on(hart);
        let environment = environment()?;
        let (mut world, pages) = two_pages();
        world.map(GVA + PAGE, pages[1].gpa, V | R | U | A | D, 0);
        world.fence();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(arena_slot(), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        let view = reader.guard();
        let vcpu = loaded(&hart);
        let guest = vcpu
            .guest_virtual(GuestPrivilege::Supervisor)
            .with_memory(&view, environment);
        let error = error_of(guest.write(Gva::new(GVA + PAGE - 4), &[1; 8]))?;
        t.equal(
            "the error",
            (error.completed, error.fault.kind),
            (4, FaultKind::Page),
        )?;
        // One access for both pages: the fault was confirmed by the walk. None where the walk has to do it all.
        let expected = if environment.walk_always { 0 } else { 1 };
        t.equal("accesses", hart.accesses.get(), expected)?;
        t.equal("the second page", arena::read(pages[1].spa), 0)
    }
    in_both_forms!(t, body)
}
