//! Section F, single rules of page-table entries: reserved bits, contiguous pages, the U bit, A and D, and page tables that
//! the guest does not have.

use guest_mem::csr::{GMode, VsMode};
use guest_mem::translate::{AdPolicy, MemoryType, Purpose};
use guest_mem::{AccessKind, FaultKind, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};

use crate::deviation::Deviation::{
    FetchCauses, HtinstFollowsAccess, PbmtReservedAllowed, ReservedIgnored, UpdateIgnoresG,
};
use crate::deviation::HENVCFG_ADUE;
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, fail, one_in, skip};
use crate::library::in_both_forms;
use crate::oracle::{Oracle, mark};
use crate::sight::{RESERVED, Sight};
use crate::tables::World;
use crate::tables::bits::{A, D, G, N, R, SUPERVISOR, U, USER, V, W};
use crate::{arena, csr, raw};

cases![
    r51_non_leaf_entries_with_leaf_bits_are_refused,
    r52_reserved_bits_are_refused_at_both_stages,
    r52_memory_types_need_their_extension_and_the_reserved_one_is_refused,
    r53_a_contiguous_entry_maps_sixteen_pages,
    r54_a_g_stage_leaf_without_u_is_refused,
    r55_clear_a_and_d_bits_are_updated_or_refused_by_one_policy_a_stage,
    r55_r64_the_g_stage_guards_the_update_of_a_page_table,
    r56_a_copy_over_a_large_page_crosses_every_small_one,
    r57_a_page_table_outside_guest_memory_is_a_guest_page_fault,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;

fn r51_non_leaf_entries_with_leaf_bits_are_refused(t: &mut Test) -> Outcome {
    for bit in [U, A, D] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let entry = world.vs_entry(GVA, 1).spa;
        arena::write(entry, arena::read(entry) | bit);
        world.fence();
        act_as_supervisor(true);
        let what = format_args!("VS-stage, bit {bit:#x}");
        t.access(what, raw::hlv_d(GVA, 0), Expect::Cause(13))?;
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        // The page alone in its table, so that the fault is its own.
        let gpa = 1 << 38;
        world.map_g(gpa, page.spa, USER, 0);
        world.map(GVA, gpa, SUPERVISOR, 0);
        let entry = world.g_entry(gpa, 1);
        arena::write(entry, arena::read(entry) | bit);
        world.fence();
        act_as_supervisor(true);
        let what = format_args!("G-stage, bit {bit:#x}");
        t.access(what, raw::hlv_d(GVA, 0), Expect::Cause(21))?;
    }
    Ok(())
}

fn r52_reserved_bits_are_refused_at_both_stages(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for bit in (54..61).filter(|&bit| RESERVED >> bit & 1 != 0) {
        let software = bit >= 59 && oracle.vs.svrsw60t59b;
        for (vs, g, cause) in [(1 << bit, 0, 13), (0, 1 << bit, 21)] {
            World::with_page(GVA, SUPERVISOR | vs, USER | g);
            act_as_supervisor(true);
            let expected = if software {
                Expect::Works
            } else {
                Expect::Cause(cause)
            };
            let deviations = [(ReservedIgnored, Expect::Works)];
            t.access_or(
                format_args!("bit {bit}"),
                raw::hlv_d(GVA, 0),
                expected,
                &deviations,
            )?;
        }
    }
    // RSW, and G at the G-stage, are ignored.
    for ignored in [1 << 8, 1 << 9, G] {
        World::with_page(GVA, SUPERVISOR | ignored, USER | ignored);
        act_as_supervisor(true);
        t.access(
            format_args!("bits {ignored:#x}"),
            raw::hlv_d(GVA, 0),
            Expect::Works,
        )?;
    }
    Ok(())
}

fn r52_memory_types_need_their_extension_and_the_reserved_one_is_refused(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for (value, memory_type) in [
        (1, Some(MemoryType::NonCacheable)),
        (2, Some(MemoryType::Io)),
        (3, None),
    ] {
        for (stage, vs, g, cause, has) in [
            ("VS-stage", value << 61, 0, 13, oracle.vs.pbmt),
            ("G-stage", 0, value << 61, 21, oracle.g.pbmt),
        ] {
            World::with_page(GVA, SUPERVISOR | vs, USER | g);
            act_as_supervisor(true);
            let works = has && memory_type.is_some();
            let expected = if works {
                Expect::Works
            } else {
                Expect::Cause(cause)
            };
            let what = format_args!("{stage}, PBMT {value}");
            let deviations = [(PbmtReservedAllowed, Expect::Works)];
            let known = if value == 3 { &deviations[..] } else { &[] };
            t.access_or(what, raw::hlv_d(GVA, 0), expected, known)?;
            let software = oracle.walk(GVA, Purpose::Load, false, Sight::ALL)?;
            let found = software
                .map(|found| Some(found.memory_type()))
                .map_err(|fault| fault.kind);
            if works {
                t.equal(what, found, Ok(memory_type))?;
            } else {
                check!(found.is_err(), "{what}: the walk allows it: {found:?}");
            }
        }
    }
    Ok(())
}

fn r53_a_contiguous_entry_maps_sixteen_pages(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    if !oracle.vs.svnapot {
        skip!("no Svnapot: an entry with N is refused");
    }
    // The low bits of the page number give the size: only 1000 (64 KiB) is defined.
    for low in (0..16u64).step_by(one_in(5)) {
        let mut world = World::sv39();
        let block = world.contiguous(16);
        let base = 0x40_0000;
        for page in 0..16 {
            world.map(base + page * PAGE, block | low << 12, SUPERVISOR | N, 0);
        }
        world.load();
        act_as_supervisor(true);
        for page in 0..16 {
            let at = base + page * PAGE + 0x10;
            if low == 8 {
                let found = oracle.walk(at, Purpose::Load, false, Sight::ALL)?;
                let gpa = found
                    .map(|found| found.gpa.value())
                    .map_err(|fault| fault.kind);
                t.equal("software", gpa, Ok(block + page * PAGE + 0x10))?;
            }
            oracle.agrees(
                t,
                format_args!("N with {low:#x}, page {page}"),
                at,
                Purpose::Load,
                &[],
            )?;
        }
        arena::release_all();
    }
    // At a higher level N is always refused.
    let mut world = World::sv39();
    world.map(0x40_0000, 0x4000_0000, SUPERVISOR | N, 1);
    world.load();
    act_as_supervisor(true);
    oracle.agrees(
        t,
        format_args!("N at level 1"),
        0x40_0000,
        Purpose::Load,
        &[],
    )
}

fn r54_a_g_stage_leaf_without_u_is_refused(t: &mut Test) -> Outcome {
    for supervisor in [false, true] {
        let flags = if supervisor { SUPERVISOR } else { USER };
        World::with_page(GVA, flags, USER & !U);
        act_as_supervisor(supervisor);
        t.access("hlv.d", raw::hlv_d(GVA, 0), Expect::Cause(21))?;
        t.access("hsv.d", raw::hsv_d(GVA, 0), Expect::Cause(23))?;
        let deviations = [(FetchCauses, Expect::Cause(12))];
        t.access_or(
            "hlvx.hu",
            raw::hlvx_hu(GVA, 0),
            Expect::Cause(21),
            &deviations,
        )?;
    }
    Ok(())
}

fn r55_clear_a_and_d_bits_are_updated_or_refused_by_one_policy_a_stage(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for clear in [0, A, D, A | D] {
        for (store, access) in [(false, raw::hlv_d as fn(u64, u64) -> _), (true, raw::hsv_d)] {
            for g_stage in [false, true] {
                let (vs_flags, g_flags) = match g_stage {
                    false => (SUPERVISOR & !clear, USER),
                    true => (SUPERVISOR, USER & !clear),
                };
                let (mut world, page) = World::with_page(GVA, vs_flags, g_flags);
                act_as_supervisor(true);
                let entry = match g_stage {
                    false => world.vs_entry(GVA, 0).spa,
                    true => world.g_entry(page.gpa, 0),
                };
                let policy = if g_stage { oracle.g.ad } else { oracle.vs.ad };
                let needed = if store { A | D } else { A };
                let before = arena::read(entry);
                let expected = match policy {
                    AdPolicy::Fault if clear & needed != 0 => {
                        let cause = 13 + 8 * u64::from(g_stage) + 2 * u64::from(store);
                        (Expect::Cause(cause), before)
                    }
                    _ => (Expect::Works, before | needed),
                };
                let what = format_args!(
                    "G-stage={g_stage}, store={store}, clear bits {clear:#x}, {policy:?}"
                );
                t.access(what, access(GVA, 0), expected.0)?;
                t.equal(what, arena::read(entry), expected.1)?;
            }
        }
    }
    Ok(())
}

fn r55_r64_the_g_stage_guards_the_update_of_a_page_table(t: &mut Test) -> Outcome {
    // Where the guest's A/D policy is a choice (Svade beside Svadu), it starts out as the guest's own.
    let before = csr::henvcfg::read();
    // SAFETY: the A/D policy of a guest that is the test's.
    unsafe { csr::henvcfg::set(HENVCFG_ADUE) };
    let outcome = the_g_stage_guards_the_update(t);
    // SAFETY: as it was.
    unsafe { csr::henvcfg::write(before) };
    outcome
}

fn the_g_stage_guards_the_update(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    if oracle.vs.ad != AdPolicy::Update {
        skip!(
            "A and D bits of the VS-stage are the guest's: {:?}",
            oracle.vs.ad
        );
    }
    for (store, access, cause) in [
        (false, raw::hlv_d as fn(u64, u64) -> _, 21),
        (true, raw::hsv_d, 23),
    ] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR & !A & !D, USER);
        let entry = world.vs_entry(GVA, 0);
        world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, V | R | U | A | D, 0);
        world.fence();
        act_as_supervisor(true);
        let before = arena::read(entry.spa);
        let what = format_args!("store={store}: the page table is read-only to the guest");
        let result = access(GVA, 0);
        let deviations = [(UpdateIgnoresG, Expect::Works)];
        t.access_or(what, result, Expect::Cause(cause), &deviations)?;
        if let Err(trap) = result {
            t.equal(what, trap.gpa(), entry.gpa)?;
            if !store && trap.info.htinst == 0x3000 {
                t.holds_or(what, false, HtinstFollowsAccess)?;
            } else {
                t.equal(what, trap.info.htinst, 0x3020)?;
            }
            t.equal(what, arena::read(entry.spa), before)?;
        }
        // The walk refuses it, whatever the machine does.
        arena::write(entry.spa, before);
        let purpose = if store { Purpose::Store } else { Purpose::Load };
        let Err(fault) = oracle.walk(GVA, purpose, false, Sight::ALL)? else {
            fail!("{what}: the walk went through");
        };
        let access = AccessKind::Store;
        t.equal(
            what,
            fault.kind,
            FaultKind::GuestPage {
                access,
                implicit: true,
            },
        )?;
        t.equal(what, fault.gpa.map(|gpa| gpa.value()), Some(entry.gpa))?;
        t.equal(what, arena::read(entry.spa), before)?;
        // A page table of the guest's that is writable gets its D bit.
        world.map_g(
            entry.gpa & !0xfff,
            entry.spa & !0xfff,
            V | R | W | U | A | D,
            0,
        );
        world.fence();
        t.access(
            "a writable page table",
            access_of(store)(GVA, 0),
            Expect::Works,
        )?;
    }
    Ok(())
}

fn access_of(store: bool) -> fn(u64, u64) -> Result<u64, crate::trap::Trap> {
    if store { raw::hsv_d } else { raw::hlv_d }
}

fn r56_a_copy_over_a_large_page_crosses_every_small_one(t: &mut Test) -> Outcome {
    fn body<H: guest_mem::hart::Hart>(t: &mut Test, hart: &H) -> Outcome {
        // One 1 GiB page of the VS-stage over scattered 4 KiB pages of the G-stage, of which the last is missing.
        let mut world = World::new(GMode::Sv39x4, VsMode::Sv39);
        let base = 1 << 30;
        let gpa = 4 << 30;
        world.map(base, gpa, SUPERVISOR, 2);
        const PAGES: usize = 5;
        for page in 0..PAGES as u64 {
            let spa = arena::page();
            mark(spa);
            // In the reverse order of their machine addresses.
            world.map_g(gpa + (PAGES as u64 - 1 - page) * PAGE, spa, USER, 0);
        }
        world.load();
        // SAFETY: the test's guest is in the CSRs and stays there; its tables lead to the arena only.
        let vcpu = unsafe { LoadedVcpu::new(hart) };
        let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
        let mut buffer = [0; PAGES * 4096];
        t.equal(
            "a read of all",
            guest.read(Gva::new(base), &mut buffer),
            Ok(()),
        )?;
        for (page, bytes) in buffer.chunks(4096).enumerate() {
            let spa =
                crate::tables::target(arena::read(world.g_entry(gpa + page as u64 * PAGE, 0)));
            let wrong = bytes
                .iter()
                .zip(spa..)
                .position(|(&byte, at)| byte != arena::read_byte(at));
            t.equal(format_args!("page {page}: a wrong byte"), wrong, None)?;
        }
        let error = guest.fill(Gva::new(base + 100), 0, PAGES * 4096);
        let completed = error.map_err(|error| error.completed);
        t.equal("a fill past the last", completed, Err(PAGES * 4096 - 100))
    }
    in_both_forms!(t, body)
}

fn r57_a_page_table_outside_guest_memory_is_a_guest_page_fault(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for level in [1, 2] {
        // The entry leads to a table where the guest has no memory, below and above the mode's width.
        for table in [0x7000_0000, 1 << 41, (1 << 44) - PAGE] {
            let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
            let entry = world.vs_entry(GVA, level).spa;
            arena::write(entry, crate::tables::leaf(table, V));
            world.fence();
            act_as_supervisor(true);
            let what = format_args!("level {level}, table at {table:#x}");
            t.access(what, raw::hlv_d(GVA, 0), Expect::Cause(21))?;
            oracle.agrees(t, what, GVA, Purpose::Load, &[])?;
            oracle.agrees(t, what, GVA, Purpose::Store, &[])?;
        }
    }
    Ok(())
}
