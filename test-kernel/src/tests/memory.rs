//! Guest-physical memory beside the hardware's translation: slots over the same pages, the dirty log, atomics through a
//! software walk, and faults that only a walk can name.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{GuestPhysicalMemory, Slot, StageMirror};
use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::hart::Hart;
use guest_mem::{
    AccessKind, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, Resolution, copy_from_guest,
    copy_to_guest, copy_to_guest_va,
};

use crate::harness::{Outcome, Stop, Test, cases, check, fail};
use crate::library::{error_of, in_both_forms, loaded};
use crate::oracle::Oracle;
use crate::tables::bits::{A, D, R, SUPERVISOR, U, USER, V, W};
use crate::tables::{Page, RAM, World};
use crate::{arena, boot, csr};

cases![
    slots_and_hlv_see_the_same_bytes,
    r12_memory_that_the_host_does_not_map_is_reached_through_the_vcpu,
    a_guest_virtual_write_to_a_logging_slot_is_in_the_dirty_log,
    a_store_by_hsv_to_a_logging_slot_faults_before_it_writes,
    r17_an_exchange_at_a_guest_virtual_address_goes_by_a_walk,
    r59_a_walk_names_a_page_fault_that_came_as_an_access_fault,
    r3_r62_a_walk_honours_sum_where_the_machine_does_not,
    r46_a_true_fault_is_not_retried_away,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;

/// All of the arena that the world maps is below this.
const LEN: u64 = 0x40_0000;

type Memory<'m> = GuestPhysicalMemory<'m, 2, 2>;

fn is_slot<E: core::fmt::Display>(result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(error) => fail!("slot: {error}"),
    }
}

/// The arena as the slot that the world's G-stage shows at [`RAM`].
fn arena_slot<'m>() -> Slot<'m> {
    let host = NonNull::new(arena::start() as *mut u8);
    // SAFETY: the arena is RAM for all of the run. Only this hart touches it while a slot of it exists, and no reference
    // points into it.
    unsafe { Slot::linear(Gpa::new(RAM), LEN, host.unwrap_or(NonNull::dangling())) }
}

/// The world's G-stage table as the slots' mirror: only the pages that the world gave out.
struct Mirror<'w> {
    world: &'w mut World,
    protected: u32,
    shot_down: u32,
}

impl<'w> Mirror<'w> {
    fn of(world: &'w mut World) -> Self {
        Self {
            world,
            protected: 0,
            shot_down: 0,
        }
    }

    fn change(&mut self, start: Gpa, len: u64, change: impl Fn(u64) -> u64) {
        for gpa in (start.value()..start.value() + len).step_by(4096) {
            let entry = self.world.g_entry(gpa, 0);
            let old = arena::read(entry);
            if old & V != 0 {
                arena::write(entry, change(old));
                self.protected += 1;
            }
        }
    }
}

impl StageMirror for Mirror<'_> {
    fn unmap(&mut self, start: Gpa, len: u64) {
        self.change(start, len, |_| 0);
    }

    fn write_protect(&mut self, start: Gpa, len: u64) {
        self.change(start, len, |entry| entry & !W);
    }

    fn shoot_down(&mut self) {
        self.shot_down += 1;
        boot::fence_everything();
    }
}

/// A loaded guest with two adjacent pages at `GVA`.
fn two_pages() -> (World, [Page; 2]) {
    let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
    let second = world.page_at(GVA + PAGE, SUPERVISOR);
    world.fence();
    (world, [first, second])
}

fn environment() -> Result<VsEnvironment, Stop> {
    let oracle = Oracle::measure()?;
    Ok(VsEnvironment::new(
        &oracle.profile,
        oracle.vs,
        csr::henvcfg::read(),
        csr::senvcfg::read(),
    ))
}

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
        for round in 0..500 {
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

/// One bit for each page of [`LEN`].
type Log = [AtomicU64; (LEN / PAGE / 64) as usize];

fn empty_log() -> Log {
    core::array::from_fn(|_| AtomicU64::new(0))
}

/// The pages of the log, at most eight, harvested.
fn harvest(memory: &Memory<'_>, world: &mut World) -> Result<([u64; 8], usize), Stop> {
    let (mut pages, mut count) = ([0; 8], 0);
    let mut mirror = Mirror::of(world);
    let harvested = memory.harvest(Gpa::new(RAM), &mut mirror, |gpa| {
        if let Some(page) = pages.get_mut(count) {
            *page = gpa.value();
        }
        count += 1;
    });
    is_slot(harvested)?;
    Ok((pages, count))
}

fn a_guest_virtual_write_to_a_logging_slot_is_in_the_dirty_log(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let environment = environment()?;
        let (mut world, pages) = two_pages();
        let log = empty_log();
        let memory = Memory::new(GMode::Sv39x4);
        let slot = arena_slot().with_dirty_log(&log);
        is_slot(memory.add(slot, &mut Mirror::of(&mut world)))?;
        is_slot(memory.start_logging(Gpa::new(RAM), &mut Mirror::of(&mut world)))?;
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        {
            let vcpu = loaded(hart);
            let view = reader.guard();
            let guest = vcpu
                .guest_virtual(GuestPrivilege::Supervisor)
                .with_memory(&view, environment);
            t.equal("a read", guest.read(Gva::new(GVA), &mut [0; 8]), Ok(()))?;
            // Four bytes in the first page, four in the second.
            let write = guest.write(Gva::new(GVA + PAGE - 4), &[0xaa; 8]);
            t.equal("a write", write, Ok(()))?;
        }
        let (found, count) = harvest(&memory, &mut world)?;
        let mut expected = pages.map(|page| page.gpa);
        expected.sort_unstable();
        t.equal("pages in the log", count, 2)?;
        t.equal("which", [found[0], found[1]], expected)?;
        t.equal(
            "the first page",
            arena::read(pages[0].spa + PAGE - 8),
            0xaaaa_aaaa << 32,
        )?;
        t.equal("the second page", arena::read(pages[1].spa), 0xaaaa_aaaa)?;
        // Taken once; a store and a fill count too.
        t.equal(
            "pages in the next harvest",
            harvest(&memory, &mut world)?.1,
            0,
        )?;
        {
            let vcpu = loaded(hart);
            let view = reader.guard();
            let guest = vcpu
                .guest_virtual(GuestPrivilege::Supervisor)
                .with_memory(&view, environment);
            t.equal(
                "a store",
                guest.store(Gva::new(GVA + 8), 1u32, Ordering::Relaxed),
                Ok(()),
            )?;
            t.equal("a fill", guest.fill(Gva::new(GVA + PAGE), 1, 16), Ok(()))?;
        }
        t.equal(
            "pages after a store and a fill",
            harvest(&memory, &mut world)?.1,
            2,
        )
    }
    in_both_forms!(t, body)
}

fn a_store_by_hsv_to_a_logging_slot_faults_before_it_writes(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, pages) = two_pages();
        let log = empty_log();
        let memory = Memory::new(GMode::Sv39x4);
        is_slot(memory.add(
            arena_slot().with_dirty_log(&log),
            &mut Mirror::of(&mut world),
        ))?;
        let mut mirror = Mirror::of(&mut world);
        is_slot(memory.start_logging(Gpa::new(RAM), &mut mirror))?;
        check!(
            mirror.protected >= 2 && mirror.shot_down == 1,
            "the G-stage was not told"
        );
        let vcpu = loaded(hart);
        let write = || copy_to_guest_va(&vcpu, GuestPrivilege::Supervisor, Gva::new(GVA), &[7; 8]);
        let error = error_of(write())?;
        let access = AccessKind::Store;
        let gpa = Gpa::new(pages[0].gpa);
        t.equal(
            "kind",
            error.fault.kind,
            FaultKind::GuestPage {
                access,
                implicit: false,
            },
        )?;
        t.equal(
            "resolution",
            error.fault.resolution(),
            Resolution::Resolve { gpa, access },
        )?;
        t.equal("the page", arena::read(pages[0].spa), 0)?;
        // What the hypervisor does: mark, make writable, retry.
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        reader.guard().mark_dirty(gpa);
        world.map_g(pages[0].gpa, pages[0].spa, USER, 0);
        world.fence();
        t.equal("the retry", write(), Ok(()))?;
        let (found, count) = harvest(&memory, &mut world)?;
        t.equal("the log", (found[0], count), (pages[0].gpa, 1))
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
        // One access for each page: the fault was confirmed by the walk. None where the walk has to do it all.
        let expected = if environment.walk_always { 0 } else { 2 };
        t.equal("accesses", hart.accesses.get(), expected)?;
        t.equal("the second page", arena::read(pages[1].spa), 0)
    }
    in_both_forms!(t, body)
}
