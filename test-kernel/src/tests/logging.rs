//! The dirty log: no write goes unseen, by which way it may come.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::hart::Hart;
use guest_mem::{
    AccessKind, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, Resolution, copy_to_guest_va,
};

use crate::arena;
use crate::harness::{Outcome, Stop, Test, cases, check, fail};
use crate::library::{error_of, in_both_forms, loaded};
use crate::slots::{GVA, LEN, Memory, Mirror, PAGE, arena_slot, environment, is_slot, two_pages};
use crate::tables::bits::USER;
use crate::tables::{RAM, World};

cases![
    a_guest_virtual_write_to_a_logging_slot_is_in_the_dirty_log,
    a_store_by_hsv_to_a_logging_slot_faults_before_it_writes,
];

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
        // What the hypervisor does: make writable, mark, retry.
        let Ok(mut reader) = memory.reader(0) else {
            fail!("no reader");
        };
        world.map_g(pages[0].gpa, pages[0].spa, USER, 0);
        world.fence();
        reader.guard().mark_dirty(gpa);
        t.equal("the retry", write(), Ok(()))?;
        let (found, count) = harvest(&memory, &mut world)?;
        t.equal("the log", (found[0], count), (pages[0].gpa, 1))
    }
    in_both_forms!(t, body)
}
