//! Section C: `vsatp` and `hgatp` at V=0, and what no fence is needed for.

use guest_mem::csr::{GMode, VsMode};

use crate::deviation::Deviation::{AnyMode, PrivilegeNotCached, StaleHgatp, StaleVsatp};
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, skip};
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{World, loaded_asid, loaded_vmid, supports};
use crate::{arena, csr, raw};

cases![
    r28_bare_takes_effect_immediately_and_so_does_the_way_back,
    r28_an_asid_takes_effect_immediately,
    r29_a_bare_window_leaves_the_guests_translations_valid,
    r30_an_edited_page_table_is_seen_after_a_fence,
    r30_another_mode_under_the_same_asid_is_seen_after_a_fence,
    r31_an_unsupported_mode_does_not_read_back,
    r32_parked_vsatp_lets_hgatp_change_between_guests,
    r33_guest_physical_copies_need_no_fence_around_them,
    r35_r62_privilege_is_part_of_what_is_cached,
    r35_entering_the_guest_forgets_stale_translations,
];

/// A number that is a page of both spaces.
const SAME: u64 = 0x20_1000;
const BY_GVA: u64 = 0x2222;
const BY_GPA: u64 = 0x1111;

/// A loaded guest where the page at `SAME` holds `BY_GVA` as a virtual and `BY_GPA` as a physical address.
fn two_pages() -> World {
    let mut world = World::sv39();
    let virtual_page = world.page_at(SAME, SUPERVISOR);
    let physical_page = arena::page();
    world.map_g(SAME, physical_page, USER, 0);
    arena::write(virtual_page.spa, BY_GVA);
    arena::write(physical_page, BY_GPA);
    world.load();
    act_as_supervisor(true);
    world
}

fn set_vsatp(vsatp: u64) {
    // SAFETY: guest state.
    unsafe { csr::vsatp::write(vsatp) };
}

fn set_hgatp(hgatp: u64) {
    // SAFETY: guest state.
    unsafe { csr::hgatp::write(hgatp) };
}

/// What the access finds if the write of `vsatp` before it has left an earlier translation behind.
const fn stale(value: u64) -> [(crate::deviation::Deviation, Expect); 1] {
    [(StaleVsatp, Expect::Value(value))]
}

fn r28_bare_takes_effect_immediately_and_so_does_the_way_back(t: &mut Test) -> Outcome {
    let world = two_pages();
    t.access("under vsatp", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    set_vsatp(0);
    let bare = raw::hlv_d(SAME, 0);
    t.access_or("under Bare", bare, Expect::Value(BY_GPA), &stale(BY_GVA))?;
    world.fence();
    t.access(
        "under Bare, fenced",
        raw::hlv_d(SAME, 0),
        Expect::Value(BY_GPA),
    )?;
    set_vsatp(world.vsatp);
    let back = raw::hlv_d(SAME, 0);
    t.access_or(
        "under vsatp again",
        back,
        Expect::Value(BY_GVA),
        &stale(BY_GPA),
    )
}

fn r28_an_asid_takes_effect_immediately(t: &mut Test) -> Outcome {
    let mut world = two_pages();
    // A second table under an ASID of its own, where the same address is another page.
    let root = world.page(USER);
    let own = world.vsatp;
    let other = 8 << 60 | 2 << 44 | root.gpa >> 12;
    world.vsatp = other;
    let page = world.page_at(SAME, SUPERVISOR);
    arena::write(page.spa, 0x3333);
    world.vsatp = own;
    world.load();
    if loaded_asid() != 1 {
        skip!("ASIDs are read-only zero: a switch of tables has to fence");
    }
    t.access("ASID 1", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    set_vsatp(other);
    let result = raw::hlv_d(SAME, 0);
    t.access_or("ASID 2", result, Expect::Value(0x3333), &stale(BY_GVA))
}

fn r29_a_bare_window_leaves_the_guests_translations_valid(t: &mut Test) -> Outcome {
    let world = two_pages();
    for round in 0..100 {
        let what = format_args!("round {round}");
        let by_gva = raw::hlv_d(SAME, 0);
        t.access_or(what, by_gva, Expect::Value(BY_GVA), &stale(BY_GPA))?;
        set_vsatp(0);
        let by_gpa = raw::hlv_d(SAME, 0);
        t.access_or(what, by_gpa, Expect::Value(BY_GPA), &stale(BY_GVA))?;
        set_vsatp(world.vsatp);
    }
    Ok(())
}

fn r30_an_edited_page_table_is_seen_after_a_fence(t: &mut Test) -> Outcome {
    let mut world = two_pages();
    let other = world.page(USER);
    arena::write(other.spa, 0x3333);
    // The G-stage's new entry is no part of this.
    world.fence();
    t.access("before", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    world.map(SAME, other.gpa, SUPERVISOR, 0);
    let _ = raw::hfence_vvma_page(SAME, 0);
    t.access("after", raw::hlv_d(SAME, 0), Expect::Value(0x3333))
}

fn r30_another_mode_under_the_same_asid_is_seen_after_a_fence(t: &mut Test) -> Outcome {
    if !supports(GMode::Sv39x4, VsMode::Sv48) {
        skip!("no Sv48: Sv39 is the only mode");
    }
    let mut world = two_pages();
    let mut wide = World::new(GMode::Sv39x4, VsMode::Sv48);
    let page = wide.page_at(SAME, SUPERVISOR);
    arena::write(page.spa, 0x4444);
    // The wide tables are in the same guest-physical memory.
    for block in (arena::start()..page.spa + 0x1_0000).step_by(4096) {
        let gpa = crate::tables::RAM + (block - arena::start());
        world.map_g(gpa, block, USER, 0);
    }
    // Only the mode changes under what is cached: that the G-stage lacked these pages may have been.
    world.fence();
    t.access("Sv39", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    set_vsatp(wide.vsatp);
    let _ = raw::hfence_vvma_all(0, 0);
    t.access("Sv48", raw::hlv_d(SAME, 0), Expect::Value(0x4444))
}

fn r31_an_unsupported_mode_does_not_read_back(t: &mut Test) -> Outcome {
    for mode in [1, 7, 11, 15] {
        set_vsatp(8 << 60);
        set_vsatp(mode << 60);
        let kept = csr::vsatp::read() >> 60;
        t.holds_or(
            format_args!("vsatp.MODE {mode} reads back"),
            kept != mode,
            AnyMode,
        )?;
        check!(
            kept == mode || matches!(kept, 0 | 8..=10),
            "vsatp.MODE became {kept}"
        );
        set_vsatp(0);
    }
    // What is read from it can be written back.
    let modes = [(8, VsMode::Sv39), (9, VsMode::Sv48), (10, VsMode::Sv57)];
    for (mode, _) in modes
        .into_iter()
        .filter(|&(_, mode)| supports(GMode::Bare, mode))
    {
        set_vsatp(mode << 60 | 0x1234);
        t.equal("a supported mode", csr::vsatp::read(), mode << 60 | 0x1234)?;
        set_vsatp(0);
        t.equal("Bare", csr::vsatp::read(), 0)?;
    }
    Ok(())
}

/// Two guests with different pages at the same guest-physical address.
fn two_guests(vmids: [u64; 2]) -> ([World; 2], u64) {
    let gpa = crate::tables::RAM + 0x800_0000;
    let worlds = vmids.map(|vmid| {
        let mut world = World::guest_physical().with_vmid(vmid);
        let page = arena::page();
        arena::write(page, 0x100 + vmid);
        world.map_g(gpa, page, USER, 0);
        world
    });
    (worlds, gpa)
}

fn r32_parked_vsatp_lets_hgatp_change_between_guests(t: &mut Test) -> Outcome {
    let ([one, two], gpa) = two_guests([1, 2]);
    one.load();
    if loaded_vmid() != 1 {
        skip!("VMIDs are read-only zero: a switch of guests has to fence");
    }
    t.access("guest 1", raw::hlv_d(gpa, 0), Expect::Value(0x101))?;
    set_hgatp(two.hgatp);
    let result = raw::hlv_d(gpa, 0);
    t.access_or(
        "guest 2",
        result,
        Expect::Value(0x102),
        &[(StaleHgatp, Expect::Value(0x101))],
    )?;
    two.fence();
    t.access("guest 2, fenced", raw::hlv_d(gpa, 0), Expect::Value(0x102))
}

fn r33_guest_physical_copies_need_no_fence_around_them(t: &mut Test) -> Outcome {
    let world = two_pages();
    // Both accesses, twice, in the way a guest-physical copy by hlv goes: no fence at all.
    let mut seen = [0; 4];
    for at in 0..2 {
        seen[2 * at] = raw::hlv_d(SAME, 0).unwrap_or(0);
        set_vsatp(0);
        seen[2 * at + 1] = raw::hlv_d(SAME, 0).unwrap_or(0);
        set_vsatp(world.vsatp);
    }
    let expected = [BY_GVA, BY_GPA, BY_GVA, BY_GPA];
    if seen != expected && t.machine.has(StaleVsatp) {
        t.deviates(StaleVsatp);
        return t.equal("stale", seen, [BY_GVA; 4]);
    }
    t.equal("without a fence", seen, expected)
}

fn r35_r62_privilege_is_part_of_what_is_cached(t: &mut Test) -> Outcome {
    let _world = two_pages();
    t.access("SPVP=1", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    act_as_supervisor(false);
    t.access_or(
        "SPVP=0, a supervisor page",
        raw::hlv_d(SAME, 0),
        Expect::Cause(13),
        &[(PrivilegeNotCached, Expect::Value(BY_GVA))],
    )
}

fn r35_entering_the_guest_forgets_stale_translations(t: &mut Test) -> Outcome {
    let mut world = two_pages();
    let (code, at) = (world.page_at(SAME + 0x1000, SUPERVISOR), SAME + 0x1000);
    guest::write_code(code, &[ECALL]);
    // Only the other space's translation of the page is cached.
    set_vsatp(0);
    world.fence();
    t.access("guest-physical", raw::hlv_d(SAME, 0), Expect::Value(BY_GPA))?;
    set_vsatp(world.vsatp);
    let exit = guest::Guest::at(at).run(Mode::Vs);
    t.equal("the guest ran", (exit.info.scause, exit.sepc), (10, at))?;
    act_as_supervisor(true);
    t.access("guest-virtual", raw::hlv_d(SAME, 0), Expect::Value(BY_GVA))?;
    Ok(())
}
