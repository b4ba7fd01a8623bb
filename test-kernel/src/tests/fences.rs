//! Section D: fences, and the CSRs that decide what has to be fenced.

use guest_mem::FaultKind;
use guest_mem::csr::ATP_PPN;
use guest_mem::hart::Hart;
use guest_mem::translate::{GRegime, StageRules};

use crate::deviation::Deviation::{
    AnyMode, EnvironmentIgnored, FenceInVuIllegal, RootBitsWritable,
};
use crate::deviation::HENVCFG_ADUE;
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, skip};
use crate::library::in_both_forms;
use crate::tables::bits::{A, G, SUPERVISOR, USER};
use crate::tables::{Page, World};
use crate::trap::Trap;
use crate::{arena, csr, raw};

cases![
    r37_hfence_vvma_makes_an_edited_entry_seen,
    r38_hfence_gvma_makes_an_unmapped_page_fault,
    r37_r38_the_librarys_fences_name_pages_by_their_addresses,
    r39_fences_at_v1_raise_virtual_instruction_and_in_u_mode_are_illegal,
    r39_hypervisor_csrs_at_v1_raise_virtual_instruction,
    r40_a_fence_of_everything_orders_global_and_non_leaf_entries,
    r41_an_unsupported_hgatp_mode_does_not_become_translation,
    r41_vmid_bits_are_found_by_writing_ones,
    r41_the_roots_low_bits_are_zero,
    r41_the_walk_refuses_a_root_that_is_not_aligned,
    r42_r65_a_change_of_adue_is_seen_after_a_fence,
    r43_hinval_between_its_fences_is_as_good_as_hfence,
];

const GVA: u64 = 0x20_1000;

/// An access of [`raw`].
type Access = fn(u64, u64) -> Result<u64, Trap>;

fn r37_hfence_vvma_makes_an_edited_entry_seen(t: &mut Test) -> Outcome {
    let fences: [(&str, Access, u64); 3] = [
        ("of everything", raw::hfence_vvma_all, 0),
        ("of the page", raw::hfence_vvma_page, GVA),
        ("of the ASID", raw::hfence_vvma_asid, 1),
    ];
    for (name, fence, operand) in fences {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let other = world.page(USER);
        arena::write(other.spa, 9);
        // The G-stage's new entry is not what the fence is for.
        world.fence();
        act_as_supervisor(true);
        t.access("before", raw::hlv_d(GVA, 0), Expect::Value(0))?;
        world.map(GVA, other.gpa, SUPERVISOR, 0);
        t.access(name, fence(operand, 0), Expect::Works)?;
        t.access(name, raw::hlv_d(GVA, 0), Expect::Value(9))?;
    }
    Ok(())
}

fn r38_hfence_gvma_makes_an_unmapped_page_fault(t: &mut Test) -> Outcome {
    type Operand = fn(Page) -> u64;
    let fences: [(&str, Access, Operand); 3] = [
        ("of everything", raw::hfence_gvma_all, |_| 0),
        ("of the page", raw::hfence_gvma_page, |page| page.gpa >> 2),
        ("of the VMID", raw::hfence_gvma_vmid, |_| 1),
    ];
    for (name, fence, operand) in fences {
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        act_as_supervisor(true);
        t.access("before", raw::hlv_d(GVA, 0), Expect::Value(0))?;
        world.map_g(page.gpa, page.spa, 0, 0);
        t.access(name, fence(operand(page), 0), Expect::Works)?;
        t.access(name, raw::hlv_d(GVA, 0), Expect::Cause(21))?;
    }
    Ok(())
}

fn r39_fences_at_v1_raise_virtual_instruction_and_in_u_mode_are_illegal(t: &mut Test) -> Outcome {
    for (name, word) in raw::words().filter(|(name, _)| name.starts_with("hfence")) {
        for (mode, cause) in [(Mode::Vs, 22), (Mode::Vu, 22), (Mode::U, 2)] {
            let (_world, mut guest) = guest::with_code(GVA, &[word, ECALL], mode);
            let trap = guest.run(mode);
            t.access_or(
                format_args!("{name} in {mode:?}"),
                Err(trap),
                Expect::Cause(cause),
                if mode == Mode::Vu {
                    &[(FenceInVuIllegal, Expect::Cause(2))]
                } else {
                    &[]
                },
            )?;
            arena::release_all();
        }
    }
    Ok(())
}

fn r39_hypervisor_csrs_at_v1_raise_virtual_instruction(t: &mut Test) -> Outcome {
    // `csrr a0, NUMBER`
    let read = |number: u32| number << 20 | 0x2573;
    for (name, number) in [
        ("hgatp", 0x680),
        ("vsatp", 0x280),
        ("hstatus", 0x600),
        ("htval", 0x643),
        ("vsstatus", 0x200),
    ] {
        for (mode, cause) in [(Mode::Vs, 22), (Mode::Vu, 22), (Mode::U, 2)] {
            let (_world, mut guest) = guest::with_code(GVA, &[read(number), ECALL], mode);
            let trap = guest.run(mode);
            t.equal(format_args!("{name} in {mode:?}"), trap.info.scause, cause)?;
            arena::release_all();
        }
    }
    Ok(())
}

fn r40_a_fence_of_everything_orders_global_and_non_leaf_entries(t: &mut Test) -> Outcome {
    // A global mapping, and then an entry above it.
    for level in [0, 1] {
        let (mut world, page) = World::with_page(GVA, SUPERVISOR | G, USER);
        arena::write(page.spa, 5);
        act_as_supervisor(true);
        t.access("before", raw::hlv_d(GVA, 0), Expect::Value(5))?;
        let entry = world.vs_entry(GVA, level);
        arena::write(entry.spa, 0);
        t.access("fence", raw::hfence_vvma_all(0, 0), Expect::Works)?;
        t.access("after", raw::hlv_d(GVA, 0), Expect::Cause(13))?;
    }
    Ok(())
}

fn r41_an_unsupported_hgatp_mode_does_not_become_translation(t: &mut Test) -> Outcome {
    for mode in [1, 7, 11, 15] {
        // SAFETY: guest state; no guest access happens under it.
        unsafe { csr::hgatp::write(mode << 60) };
        let kept = csr::hgatp::read() >> 60;
        t.holds_or(
            format_args!("hgatp.MODE {mode} reads back"),
            kept != mode,
            AnyMode,
        )?;
        check!(
            kept == mode || matches!(kept, 0 | 8..=10),
            "hgatp.MODE became {kept}"
        );
        // SAFETY: guest state.
        unsafe { csr::hgatp::write(0) };
        t.equal("Bare", csr::hgatp::read(), 0)?;
    }
    Ok(())
}

fn r41_vmid_bits_are_found_by_writing_ones(t: &mut Test) -> Outcome {
    let world = World::guest_physical();
    // SAFETY: guest state.
    unsafe { csr::hgatp::write(world.hgatp | 0x3fff << 44) };
    let vmid = csr::hgatp::read() >> 44 & 0x3fff;
    check!(
        (vmid + 1).is_power_of_two(),
        "VMID bits {vmid:#x} have holes"
    );
    t.equal(
        "the rest",
        csr::hgatp::read() & ATP_PPN,
        world.hgatp & ATP_PPN,
    )
}

fn r41_the_roots_low_bits_are_zero(t: &mut Test) -> Outcome {
    let world = World::guest_physical();
    t.equal("a root of 16 KiB", world.hgatp & 3, 0)?;
    // SAFETY: guest state; no guest access happens under it.
    unsafe { csr::hgatp::write(world.hgatp | 3) };
    let low = csr::hgatp::read() & 3;
    t.holds_or("hgatp.PPN[1:0] is writable", low == 0, RootBitsWritable)
}

fn r42_r65_a_change_of_adue_is_seen_after_a_fence(t: &mut Test) -> Outcome {
    // SAFETY: the A/D policy of a guest that is the test's.
    unsafe { csr::henvcfg::set(HENVCFG_ADUE) };
    if csr::henvcfg::read() & HENVCFG_ADUE == 0 {
        skip!("henvcfg.ADUE is read-only zero: no choice of A/D policy");
    }
    let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
    let entry = world.vs_entry(GVA, 0);
    act_as_supervisor(true);
    world.map(GVA, page.gpa, SUPERVISOR & !A, 0);
    world.fence();
    let updating = raw::hlv_d(GVA, 0);
    let updated = arena::read(entry.spa) & A != 0;
    // SAFETY: as above.
    unsafe { csr::henvcfg::clear(HENVCFG_ADUE) };
    world.map(GVA, page.gpa, SUPERVISOR & !A, 0);
    let _ = raw::hfence_vvma_all(0, 0);
    let faulting = raw::hlv_d(GVA, 0);
    t.access("ADUE=1", updating, Expect::Value(0))?;
    check!(updated, "ADUE=1: A is not set");
    t.access_or(
        "ADUE=0",
        faulting,
        Expect::Cause(13),
        &[(EnvironmentIgnored, Expect::Works)],
    )
}

fn r43_hinval_between_its_fences_is_as_good_as_hfence(t: &mut Test) -> Outcome {
    let has = raw::sfence_w_inval(0, 0);
    if has.is_err_and(|trap| trap.info.scause == 2) {
        skip!("no Svinval: sfence.w.inval is illegal");
    }
    for g_stage in [false, true] {
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        act_as_supervisor(true);
        t.access("before", raw::hlv_d(GVA, 0), Expect::Value(0))?;
        let expected = if g_stage {
            world.map_g(page.gpa, page.spa, 0, 0);
            21
        } else {
            world.map(GVA, page.gpa, 0, 0);
            13
        };
        t.access("sfence.w.inval", raw::sfence_w_inval(0, 0), Expect::Works)?;
        let result = if g_stage {
            raw::hinval_gvma_page(page.gpa >> 2, 0)
        } else {
            raw::hinval_vvma_page(GVA, 0)
        };
        t.access("hinval", result, Expect::Works)?;
        t.access("sfence.inval.ir", raw::sfence_inval_ir(0, 0), Expect::Works)?;
        t.access("after", raw::hlv_d(GVA, 0), Expect::Cause(expected))?;
    }
    Ok(())
}

fn r37_r38_the_librarys_fences_name_pages_by_their_addresses(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        for (g_stage, one_page) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
            act_as_supervisor(true);
            t.access("before", raw::hlv_d(GVA, 0), Expect::Value(0))?;
            let cause = if g_stage {
                world.map_g(page.gpa, page.spa, 0, 0);
                hart.hfence_gvma(one_page.then_some(page.gpa));
                21
            } else {
                world.map(GVA, page.gpa, 0, 0);
                hart.hfence_vvma(one_page.then_some(GVA));
                13
            };
            let what = format_args!("G-stage={g_stage}, one page={one_page}");
            t.access(what, raw::hlv_d(GVA, 0), Expect::Cause(cause))?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r41_the_walk_refuses_a_root_that_is_not_aligned(t: &mut Test) -> Outcome {
    let world = World::guest_physical();
    for low in 0..4 {
        let regime = GRegime::from_csrs(world.hgatp | low, 0, StageRules::BASE);
        let expected = if low == 0 {
            Ok(())
        } else {
            Err(FaultKind::UnsupportedRegime)
        };
        t.equal(
            format_args!("PPN[1:0] = {low}"),
            regime.map(|_| ()),
            expected,
        )?;
    }
    for mode in [1, 7, 11, 15] {
        let regime = GRegime::from_csrs(mode << 60, 0, StageRules::BASE).map(|_| ());
        t.equal(
            format_args!("mode {mode}"),
            regime,
            Err(FaultKind::UnsupportedRegime),
        )?;
    }
    Ok(())
}
