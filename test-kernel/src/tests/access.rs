//! Section A, translation and rights: what `hlv`, `hlvx` and `hsv` may reach.

use guest_mem::csr::{GMode, HSTATUS_HU, STATUS_MXR, STATUS_SUM, VsMode};

use crate::deviation::Deviation::{
    self, FetchCauses, FetchChecksRead, HostMxrNotAtGStage, MxrOnPageTables, PointerMaskWrong,
    SumIgnored, VsMxrAtGStage, VsMxrIgnored, WideGpa, WideGpaIsPageFault,
};
use crate::deviation::{HENVCFG_PMM, HENVCFG_PMM_7};
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, skip};
use crate::tables::bits::{A, D, R, SUPERVISOR, U, USER, V, W, X};
use crate::tables::{World, supports};
use crate::{arena, boot, csr, raw};

cases![
    r1_guest_accesses_in_vs_and_vu_mode_raise_virtual_instruction,
    r1_guest_accesses_in_u_mode_need_hu,
    r2_spvp_chooses_the_privilege,
    r3_r62_vsstatus_sum_governs_user_pages_and_sstatus_sum_does_not,
    r4_r63_mxr_of_the_host_acts_at_both_stages_and_that_of_the_guest_at_its_own,
    r4_mxr_does_not_apply_to_page_table_reads,
    r5_r61_hlvx_needs_x_and_not_r_at_both_stages,
    r5_the_page_tables_of_an_hlvx_need_r_and_not_x,
    r6_r60_hlvx_raises_load_causes,
    r7_hlvx_takes_sum_as_a_load_does,
    r12_with_vsatp_bare_an_address_is_a_guest_physical_one,
    r13_wide_guest_physical_addresses_are_guest_page_faults,
    r14_pointer_masking_applies_by_effective_privilege,
];

/// A page of the guest's.
const GVA: u64 = 0x20_1000;

/// A fault of `hlvx` that the specification counts as a load's.
fn fetch_causes(expected: Expect) -> (Deviation, Expect) {
    let instead = match expected {
        Expect::Cause(5) => Expect::Cause(1),
        Expect::Cause(13 | 21) => Expect::Cause(12),
        other => other,
    };
    (FetchCauses, instead)
}

fn r1_guest_accesses_in_vs_and_vu_mode_raise_virtual_instruction(t: &mut Test) -> Outcome {
    for (name, word) in raw::words().filter(|(name, _)| is_guest_access(name)) {
        for mode in [Mode::Vs, Mode::Vu] {
            let (_world, mut guest) = guest::with_code(GVA, &[word, ECALL], mode);
            guest.x[10] = GVA;
            let trap = guest.run(mode);
            t.equal(format_args!("{name} in {mode:?}"), trap.info.scause, 22)?;
            t.equal("sepc", trap.sepc, GVA)?;
            let tval = trap.info.stval;
            check!(tval == 0 || tval == word.into(), "{name}: stval {tval:#x}");
            boot::fence_everything();
            arena::release_all();
        }
    }
    Ok(())
}

fn is_guest_access(name: &str) -> bool {
    (name.starts_with("hlv") || name.starts_with("hsv")) && !name.ends_with("c_nop")
}

fn r1_guest_accesses_in_u_mode_need_hu(t: &mut Test) -> Outcome {
    for (name, word) in raw::words().filter(|(name, _)| is_guest_access(name)) {
        for (hu, cause) in [(false, 2), (true, 8)] {
            let (mut world, mut guest) = guest::with_code(GVA, &[word, ECALL], Mode::U);
            let data = world.page_at(GVA + 0x1000, USER);
            world.fence();
            arena::write(data.spa, 0x77);
            guest.x[10] = GVA + 0x1000;
            guest.x[11] = 0x77;
            // SAFETY: HU lets the code of this test reach its own guest.
            unsafe {
                if hu {
                    csr::hstatus::set(HSTATUS_HU);
                }
            }
            let trap = guest.run(Mode::U);
            // SAFETY: HU is off everywhere else.
            unsafe { csr::hstatus::clear(HSTATUS_HU) };
            t.equal(format_args!("{name}, HU={hu}"), trap.info.scause, cause)?;
            if hu && name.starts_with("hlv") {
                t.equal(name, guest.x[10], 0x77)?;
            }
            arena::release_all();
        }
    }
    Ok(())
}

fn r2_spvp_chooses_the_privilege(t: &mut Test) -> Outcome {
    for (flags, spvp, load, store) in [
        (SUPERVISOR, true, Expect::Value(0), Expect::Works),
        (SUPERVISOR, false, Expect::Cause(13), Expect::Cause(15)),
        (USER, false, Expect::Value(0), Expect::Works),
    ] {
        World::with_page(GVA, flags, USER);
        act_as_supervisor(spvp);
        t.access("hlv.d", raw::hlv_d(GVA, 0), load)?;
        t.access_or("hlvx.hu", raw::hlvx_hu(GVA, 0), load, &[fetch_causes(load)])?;
        t.access("hsv.d", raw::hsv_d(GVA, 0), store)?;
    }
    Ok(())
}

fn r3_r62_vsstatus_sum_governs_user_pages_and_sstatus_sum_does_not(t: &mut Test) -> Outcome {
    for guest_sum in [false, true] {
        for host_sum in [false, true] {
            // SAFETY: the host has no pages that SUM would open; the guest is the test's.
            unsafe {
                csr::vsstatus::write(if guest_sum { STATUS_SUM } else { 0 });
                csr::sstatus::write(if host_sum { STATUS_SUM } else { 0 });
            }
            World::with_page(GVA, USER, USER);
            act_as_supervisor(true);
            let (load, store) = match guest_sum {
                true => (Expect::Value(0), Expect::Works),
                false => (Expect::Cause(13), Expect::Cause(15)),
            };
            let what = format_args!("vsstatus.SUM={guest_sum}, sstatus.SUM={host_sum}");
            t.access_or(
                what,
                raw::hlv_d(GVA, 0),
                load,
                &[(SumIgnored, Expect::Works)],
            )?;
            t.access_or(
                what,
                raw::hsv_d(GVA, 0),
                store,
                &[(SumIgnored, Expect::Works)],
            )?;
        }
    }
    Ok(())
}

fn r4_r63_mxr_of_the_host_acts_at_both_stages_and_that_of_the_guest_at_its_own(
    t: &mut Test,
) -> Outcome {
    let only_x = V | X | A | D;
    let works = Expect::Value(0);
    // At which stage the page is execute-only, the two MXRs, and what a load does.
    for (vs_flags, g_flags, host, guest, expected) in [
        (only_x, USER, false, false, Expect::Cause(13)),
        (only_x, USER, false, true, works),
        (only_x, USER, true, false, works),
        (SUPERVISOR, only_x | U, false, false, Expect::Cause(21)),
        (SUPERVISOR, only_x | U, false, true, Expect::Cause(21)),
        (SUPERVISOR, only_x | U, true, false, works),
        (only_x, only_x | U, true, false, works),
        (only_x, only_x | U, false, true, Expect::Cause(21)),
    ] {
        // SAFETY: the host has no pages that MXR would open; the guest is the test's.
        unsafe {
            csr::sstatus::write(if host { STATUS_MXR } else { 0 });
            csr::vsstatus::write(if guest { STATUS_MXR } else { 0 });
        }
        World::with_page(GVA, vs_flags, g_flags);
        act_as_supervisor(true);
        let what = format_args!(
            "VS-stage {vs_flags:#x}, G-stage {g_flags:#x}, sstatus.MXR={host}, vsstatus.MXR={guest}"
        );
        let deviations = [
            (VsMxrIgnored, Expect::Cause(13)),
            (VsMxrAtGStage, works),
            (HostMxrNotAtGStage, Expect::Cause(21)),
        ];
        t.access_or(what, raw::hlv_d(GVA, 0), expected, &deviations)?;
    }
    Ok(())
}

fn r4_mxr_does_not_apply_to_page_table_reads(t: &mut Test) -> Outcome {
    let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
    let entry = world.vs_entry(GVA, 0);
    world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, V | X | U | A | D, 0);
    world.fence();
    act_as_supervisor(true);
    // SAFETY: as above.
    unsafe { csr::sstatus::write(STATUS_MXR) };
    let result = raw::hlv_d(GVA, 0);
    // SAFETY: MXR is off everywhere else.
    unsafe { csr::sstatus::write(0) };
    t.access_or(
        "the page table is execute-only",
        result,
        Expect::Cause(21),
        &[(MxrOnPageTables, Expect::Works)],
    )
}

fn r5_r61_hlvx_needs_x_and_not_r_at_both_stages(t: &mut Test) -> Outcome {
    let flags = [0, R, X, R | X];
    for vs in flags {
        for g in flags {
            World::with_page(GVA, V | A | D | vs, V | A | D | U | g);
            act_as_supervisor(true);
            let needs = |bit| match (vs & bit != 0, g & bit != 0) {
                (false, _) => Expect::Cause(13),
                (true, false) => Expect::Cause(21),
                (true, true) => Expect::Value(0),
            };
            let expected = needs(X);
            t.access_or(
                format_args!("hlvx.hu, VS-stage {vs:#x}, G-stage {g:#x}"),
                raw::hlvx_hu(GVA, 0),
                expected,
                &[fetch_causes(expected), (FetchChecksRead, needs(R))],
            )?;
        }
    }
    Ok(())
}

fn r5_the_page_tables_of_an_hlvx_need_r_and_not_x(t: &mut Test) -> Outcome {
    for (flags, expected) in [
        (V | R | U | A | D, Expect::Value(0)),
        (V | R | W | U | A | D, Expect::Value(0)),
        (V | X | U | A | D, Expect::Cause(21)),
    ] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let entry = world.vs_entry(GVA, 0);
        world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, flags, 0);
        world.fence();
        act_as_supervisor(true);
        let what = format_args!("page table's flags {flags:#x}");
        t.access_or(
            what,
            raw::hlvx_hu(GVA, 0),
            expected,
            &[fetch_causes(expected)],
        )?;
    }
    Ok(())
}

fn r6_r60_hlvx_raises_load_causes(t: &mut Test) -> Outcome {
    // The two stages are told apart by htval where the cause does not tell (R60).
    for (vs, g, cause, htval) in [
        (SUPERVISOR & !X & !R, USER, 13, false),
        (0, USER, 13, false),
        (SUPERVISOR, 0, 21, true),
    ] {
        let (_, page) = World::with_page(GVA, vs, g);
        act_as_supervisor(true);
        for (name, result) in [
            ("hlvx.hu", raw::hlvx_hu(GVA + 4, 0)),
            ("hlvx.wu", raw::hlvx_wu(GVA + 4, 0)),
        ] {
            let expected = Expect::Cause(cause);
            t.access_or(name, result, expected, &[fetch_causes(expected)])?;
            let trap = result.unwrap_err();
            let gpa = if htval { page.gpa + 4 } else { 0 };
            t.equal("guest-physical address", trap.gpa(), gpa)?;
            t.equal("stval", trap.info.stval, GVA + 4)?;
        }
    }
    Ok(())
}

fn r7_hlvx_takes_sum_as_a_load_does(t: &mut Test) -> Outcome {
    for (sum, expected) in [(false, Expect::Cause(13)), (true, Expect::Value(0))] {
        // SAFETY: guest state.
        unsafe { csr::vsstatus::write(if sum { STATUS_SUM } else { 0 }) };
        World::with_page(GVA, USER, USER);
        act_as_supervisor(true);
        t.access_or(
            format_args!("hlvx.hu of a user page, SUM={sum}"),
            raw::hlvx_hu(GVA, 0),
            expected,
            // As a fetch, it never reads a user page at SPVP=1.
            &[
                (FetchCauses, Expect::Cause(12)),
                (SumIgnored, Expect::Works),
            ],
        )?;
    }
    Ok(())
}

fn r12_with_vsatp_bare_an_address_is_a_guest_physical_one(t: &mut Test) -> Outcome {
    let mut world = World::guest_physical();
    let page = world.page(USER);
    arena::write(page.spa + 8, 0x1234_5678_9abc_def0);
    world.load();
    for spvp in [false, true] {
        act_as_supervisor(spvp);
        t.access(
            "hlv.d",
            raw::hlv_d(page.gpa + 8, 0),
            Expect::Value(0x1234_5678_9abc_def0),
        )?;
        t.access("hsv.d", raw::hsv_d(page.gpa, 7), Expect::Works)?;
        t.equal("what was stored", arena::read(page.spa), 7)?;
    }
    Ok(())
}

fn r13_wide_guest_physical_addresses_are_guest_page_faults(t: &mut Test) -> Outcome {
    for (mode, bits) in [
        (GMode::Sv39x4, 41),
        (GMode::Sv48x4, 50),
        (GMode::Sv57x4, 59),
    ] {
        if !supports(mode, VsMode::Bare) {
            continue;
        }
        let mut world = World::new(mode, VsMode::Bare);
        let low = world.page(USER);
        let top = (1u64 << bits) - 4096;
        world.map_g(top, arena::page(), USER, 0);
        world.load();
        t.access_or(
            format_args!("{mode:?}, the last page"),
            raw::hlv_d(top, 0),
            Expect::Works,
            &[(WideGpa, Expect::Cause(21))],
        )?;
        let as_page = (WideGpaIsPageFault, Expect::Cause(13));
        for (gpa, deviations) in [
            (1 << bits | low.gpa, &[as_page][..]),
            (
                top | u64::MAX << bits,
                &[(WideGpa, Expect::Works), as_page][..],
            ),
        ] {
            let what = format_args!("{mode:?}, guest-physical {gpa:#x}");
            t.access_or(what, raw::hlv_d(gpa, 0), Expect::Cause(21), deviations)?;
        }
    }
    Ok(())
}

fn r14_pointer_masking_applies_by_effective_privilege(t: &mut Test) -> Outcome {
    // SAFETY: pointer masking of a guest that is the test's.
    unsafe { csr::henvcfg::set(HENVCFG_PMM_7) };
    let has = csr::henvcfg::read() & HENVCFG_PMM == HENVCFG_PMM_7;
    if !has {
        skip!("no Ssnpm: henvcfg.PMM is read-only zero");
    }
    World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    let tagged = 0x5a << 57 | GVA;
    let masked = (raw::hlv_d(tagged, 0), raw::hlvx_hu(tagged, 0));
    // SAFETY: as above.
    unsafe { csr::henvcfg::clear(HENVCFG_PMM) };
    boot::fence_everything();
    t.access_or(
        "hlv.d with a tag",
        masked.0,
        Expect::Value(0),
        &[(PointerMaskWrong, Expect::Cause(13))],
    )?;
    let fault = Expect::Cause(13);
    t.access_or(
        "hlvx.hu with a tag",
        masked.1,
        fault,
        &[fetch_causes(fault)],
    )?;
    t.access("hlv.d, PMM=0", raw::hlv_d(tagged, 0), fault)?;
    Ok(())
}
