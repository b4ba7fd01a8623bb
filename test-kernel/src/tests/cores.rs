//! Section H, R69: what cores were reported to get wrong, each seen by itself.
//!
//! The one idea: none of these cores is at hand, so that the tests elsewhere do not say which of their failures is known; here
//! each report is one case, right or wrong by a deviation that has a name.

use crate::deviation::Deviation::{
    CachedRefusalIsGStage, MisalignedIsAccessFault, NoBusFaults, ProtectionIsGuestPage,
    TableAccessIsLoad, TableNeedsNoUser, WideFetchIsPageFault,
};
use crate::deviation::{FIRMWARE, NOWHERE, firmware_is_protected};
use crate::guest::{Guest, Mode};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, fail, skip};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, U, USER, W};
use crate::{boot, raw};

cases![
    r15_r69_an_access_where_the_machine_has_nothing_is_an_access_fault,
    r15_r69_a_store_whose_page_table_is_protected_raises_the_fault_of_a_store,
    r10_r69_a_misaligned_access_works_or_says_that_it_is_misaligned,
    r13_r69_a_fetch_at_a_wide_guest_physical_address_is_a_guest_page_fault,
    r18_r69_the_cause_does_not_depend_on_what_is_cached,
    r54_r69_page_tables_need_u_at_the_g_stage,
];

const GVA: u64 = 0x20_1000;

fn r15_r69_an_access_where_the_machine_has_nothing_is_an_access_fault(t: &mut Test) -> Outcome {
    let mut world = World::guest_physical();
    world.map_g(GVA, NOWHERE, USER, 0);
    world.load();
    for (name, access, cause) in [
        ("hlv.d", raw::hlv_d as fn(u64, u64) -> _, 5),
        ("hsv.d", raw::hsv_d, 7),
    ] {
        t.access_or(
            name,
            access(GVA, 0),
            Expect::Cause(cause),
            &[(NoBusFaults, Expect::Works)],
        )?;
    }
    Ok(())
}

fn r15_r69_a_store_whose_page_table_is_protected_raises_the_fault_of_a_store(
    t: &mut Test,
) -> Outcome {
    if !firmware_is_protected() {
        skip!("no PMP");
    }
    let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
    let table = world.vs_entry(GVA, 0).gpa & !0xfff;
    world.map_g(table, FIRMWARE, USER, 0);
    world.fence();
    act_as_supervisor(true);
    let deviations = [(ProtectionIsGuestPage, Expect::Cause(21))];
    let load = raw::hlv_d(GVA, 0);
    t.access_or("hlv.d", load, Expect::Cause(5), &deviations)?;
    t.access_or(
        "hsv.d",
        raw::hsv_d(GVA, 0),
        Expect::Cause(7),
        &[
            (TableAccessIsLoad, Expect::Cause(5)),
            (ProtectionIsGuestPage, Expect::Cause(23)),
            (ProtectionIsGuestPage, Expect::Cause(21)),
        ],
    )
}

fn r10_r69_a_misaligned_access_works_or_says_that_it_is_misaligned(t: &mut Test) -> Outcome {
    World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    for offset in 1..8 {
        let what = format_args!("hlv.d at offset {offset}");
        let Err(trap) = raw::hlv_d(GVA + offset, 0) else {
            continue;
        };
        let deviations = [(MisalignedIsAccessFault, Expect::Cause(5))];
        t.access_or(what, Err(trap), Expect::Cause(4), &deviations)?;
        t.equal(what, trap.info.stval, GVA + offset)?;
    }
    Ok(())
}

fn r13_r69_a_fetch_at_a_wide_guest_physical_address_is_a_guest_page_fault(t: &mut Test) -> Outcome {
    World::guest_physical().load();
    for bit in [41, 55, 62] {
        let at = 1 << bit;
        let exit = Guest::at(at).run(Mode::Vs);
        if exit.sepc != at {
            skip!("sepc has no bit {bit}");
        }
        t.access_or(
            format_args!("a fetch at {at:#x}"),
            Err(exit),
            Expect::Cause(20),
            &[(WideFetchIsPageFault, Expect::Cause(12))],
        )?;
        t.equal("stval", exit.info.stval, at)?;
    }
    Ok(())
}

fn r18_r69_the_cause_does_not_depend_on_what_is_cached(t: &mut Test) -> Outcome {
    // Which stage is named where both refuse is the machine's choice.
    World::with_page(GVA, SUPERVISOR & !W, USER & !W);
    act_as_supervisor(true);
    let Err(not_cached) = raw::hsv_d(GVA, 0) else {
        fail!("a store to a page that is read-only at both stages went through");
    };
    check!(
        matches!(not_cached.info.scause, 15 | 23),
        "cause {}",
        not_cached.info.scause
    );
    boot::fence_everything();
    t.access("a load", raw::hlv_d(GVA, 0), Expect::Works)?;
    t.access_or(
        "a store after a load",
        raw::hsv_d(GVA, 0),
        Expect::Cause(not_cached.info.scause),
        &[(CachedRefusalIsGStage, Expect::Cause(23))],
    )
}

fn r54_r69_page_tables_need_u_at_the_g_stage(t: &mut Test) -> Outcome {
    for level in 0..3 {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let table = world.vs_entry(GVA, level);
        world.map_g(table.gpa & !0xfff, table.spa & !0xfff, USER & !U, 0);
        world.fence();
        act_as_supervisor(true);
        t.access_or(
            format_args!("the table of level {level}"),
            raw::hlv_d(GVA, 0),
            Expect::Cause(21),
            &[(TableNeedsNoUser, Expect::Works)],
        )?;
    }
    Ok(())
}
