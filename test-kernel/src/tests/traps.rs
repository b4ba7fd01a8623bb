//! Section B: the traps that `hlv`, `hlvx` and `hsv` take in HS-mode.

use guest_mem::csr::{
    HSTATUS_GVA, HSTATUS_SPV, HSTATUS_SPVP, STATUS_SDT, STATUS_SIE, STATUS_SPIE, STATUS_SPP,
};

use crate::deviation::Deviation::{
    AccessFaultUnderBareSatp, FetchCauses, ImplicitIsLoad, MisalignedIsAccessFault,
    ProtectedStoreIsLoad, ProtectionIsGuestPage, RedirectClearsGva,
};
use crate::deviation::{FIRMWARE, firmware_is_protected};
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, fail, skip};
use crate::tables::World;
use crate::tables::bits::{A, D, R, SUPERVISOR, USER, V, W};
use crate::trap::Trap;
use crate::{arena, boot, csr, machine, raw};

cases![
    r18_r67_every_cause_under_a_translating_satp,
    r18_r59_every_cause_under_a_bare_satp,
    r19_a_fault_writes_exactly_its_csrs,
    r19_a_fault_leaves_the_guests_csrs_alone,
    r20_a_fault_destroys_the_exit_record_and_the_guest_goes_on_from_a_saved_one,
    r21_gva_without_spv_is_the_mark_of_a_guest_access,
    r21_an_access_fault_may_come_through_the_firmware,
    r22_htval_is_the_guest_physical_address_shifted_by_two,
    r22_an_implicit_fault_names_the_page_table_entry,
    r22_guest_physical_page_zero_is_told_by_stval,
    r22_the_second_page_of_an_access_is_named_by_its_start,
    r23_sepc_is_the_access_also_at_half_alignment,
    r24_a_trap_sets_sdt,
    r25_the_guest_access_causes_reach_hs_mode_directly,
];

const GVA: u64 = 0x20_1000;

fn trap_of(result: Result<u64, Trap>) -> Result<Trap, crate::harness::Stop> {
    match result {
        Err(trap) => Ok(trap),
        Ok(value) => fail!("no trap, value {value:#x}"),
    }
}

/// Who refuses in [`every_cause`].
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// The VS-stage: no entry.
    VsStage,
    /// The VS-stage: an address out of range.
    NotCanonical,
    /// The G-stage: the page.
    GStage,
    /// The G-stage: the page table.
    PageTable,
    /// Both stages at the page: the VS-stage is asked first.
    Both,
    /// PMP.
    Protection,
}

fn every_cause(t: &mut Test) -> Outcome {
    use Refusal::{Both, GStage, NotCanonical, PageTable, Protection, VsStage};
    // For each refusal the cause of a load, and that of a store.
    for (refusal, load, store) in [
        (VsStage, 13, 15),
        (NotCanonical, 13, 15),
        (GStage, 21, 23),
        (PageTable, 21, 23),
        (Both, 13, 15),
        (Protection, 5, 7),
    ] {
        if matches!(refusal, Protection) && !firmware_is_protected() {
            continue;
        }
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        let entry = world.vs_entry(GVA, 0);
        match refusal {
            VsStage => arena::write(entry.spa, 0),
            NotCanonical => {}
            GStage => world.map_g(page.gpa, page.spa, 0, 0),
            PageTable => world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, 0, 0),
            Both => {
                world.map(GVA, page.gpa, V | A | D, 0);
                world.map_g(page.gpa, page.spa, 0, 0);
            }
            Protection => world.map_g(page.gpa, FIRMWARE, USER, 0),
        }
        world.fence();
        act_as_supervisor(true);
        let address = match refusal {
            NotCanonical => GVA | 1 << 63,
            _ => GVA,
        };
        for (name, result, cause) in [
            ("hlv.d", raw::hlv_d(address, 0), load),
            ("hsv.d", raw::hsv_d(address, 0), store),
            ("hlvx.hu", raw::hlvx_hu(address, 0), load),
        ] {
            let fetch = name == "hlvx.hu";
            let as_fetch = if cause == 5 { 1 } else { 12 };
            let under_bare = match (cause, fetch) {
                (13, _) => 5,
                (15, _) => 7,
                _ => cause,
            };
            let deviations = [
                (
                    FetchCauses,
                    Expect::Cause(if fetch { as_fetch } else { cause }),
                ),
                (AccessFaultUnderBareSatp, Expect::Cause(under_bare)),
                (
                    ImplicitIsLoad,
                    Expect::Cause(if cause == 23 { 21 } else { cause }),
                ),
                (
                    ProtectedStoreIsLoad,
                    Expect::Cause(if cause == 7 { 5 } else { cause }),
                ),
                (
                    ProtectionIsGuestPage,
                    Expect::Cause(cause + if cause < 8 { 16 } else { 0 }),
                ),
            ];
            t.access_or(
                format_args!("{refusal:?}: {name}"),
                result,
                Expect::Cause(cause),
                &deviations,
            )?;
        }
        arena::release_all();
    }
    Ok(())
}

fn r18_r67_every_cause_under_a_translating_satp(t: &mut Test) -> Outcome {
    check!(csr::satp::read() != 0, "the host does not translate");
    every_cause(t)
}

fn r18_r59_every_cause_under_a_bare_satp(t: &mut Test) -> Outcome {
    // SAFETY: the kernel is linked where it is; the runner puts satp back.
    unsafe { csr::satp::write(0) };
    every_cause(t)
}

fn r19_a_fault_writes_exactly_its_csrs(t: &mut Test) -> Outcome {
    for (spvp, sie) in [(false, false), (false, true), (true, false), (true, true)] {
        World::with_page(GVA, 0, USER);
        act_as_supervisor(spvp);
        // SAFETY: no interrupt is enabled in sie.
        unsafe {
            csr::sstatus::clear(STATUS_SPP | STATUS_SPIE);
            if sie {
                csr::sstatus::set(STATUS_SIE);
            }
        }
        let before = csr::hstatus::read();
        let trap = trap_of(raw::hlv_d(GVA, 0));
        // SAFETY: as everywhere else.
        unsafe { csr::sstatus::clear(STATUS_SIE) };
        let trap = trap?;
        let what = format_args!("SPVP={spvp}, SIE={sie}");
        t.equal(what, trap.info.stval, GVA)?;
        t.equal(what, trap.sstatus & STATUS_SPP, STATUS_SPP)?;
        t.equal(what, trap.sstatus & STATUS_SIE, 0)?;
        t.equal(what, trap.sstatus & STATUS_SPIE != 0, sie)?;
        t.equal(what, trap.hstatus & HSTATUS_SPV, 0)?;
        t.equal(what, trap.hstatus & HSTATUS_GVA, HSTATUS_GVA)?;
        t.equal(what, trap.hstatus & HSTATUS_SPVP != 0, spvp)?;
        let others = !(HSTATUS_SPV | HSTATUS_GVA);
        t.equal(what, trap.hstatus & others, before & others)?;
    }
    Ok(())
}

fn r19_a_fault_leaves_the_guests_csrs_alone(t: &mut Test) -> Outcome {
    World::with_page(GVA, 0, USER);
    act_as_supervisor(true);
    // SAFETY: guest state.
    unsafe {
        csr::vsstatus::write(STATUS_SPIE | STATUS_SPP);
        csr::vstvec::write(0x1111_0000);
        csr::vsscratch::write(0x2222);
        csr::vsepc::write(0x3332);
        csr::vscause::write(7);
        csr::vstval::write(0x5555);
    }
    let all = || {
        [
            csr::vsstatus::read(),
            csr::vsie::read(),
            csr::vstvec::read(),
            csr::vsscratch::read(),
            csr::vsepc::read(),
            csr::vscause::read(),
            csr::vstval::read(),
            csr::vsip::read(),
            csr::vsatp::read(),
            csr::hgatp::read(),
        ]
    };
    let before = all();
    trap_of(raw::hlv_d(GVA, 0))?;
    t.equal("the vs CSRs", all(), before)
}

fn r20_a_fault_destroys_the_exit_record_and_the_guest_goes_on_from_a_saved_one(
    t: &mut Test,
) -> Outcome {
    /// `addi a0, a0, 1`
    const INCREMENT: u32 = 0x0015_0513;
    let (_world, mut guest) = guest::with_code(GVA, &[ECALL, INCREMENT, ECALL], Mode::Vs);
    guest.x[10] = 41;
    let exit = guest.run(Mode::Vs);
    t.equal("the first exit", (exit.info.scause, exit.sepc), (10, GVA))?;
    check!(exit.hstatus & HSTATUS_SPV != 0, "an exit from V=1 sets SPV");
    check!(exit.sstatus & STATUS_SPP != 0, "an exit from VS sets SPP");

    act_as_supervisor(true);
    let fault = trap_of(raw::hlv_d(GVA + 0x10_0000, 0))?;
    // The record in the CSRs is the fault's now, and the handler's sret has cleared SPV and SPP.
    t.equal("scause", csr::scause::read(), 13)?;
    check!(fault.sepc != exit.sepc, "sepc is the access's");
    t.equal("stval", csr::stval::read(), GVA + 0x10_0000)?;
    t.equal("SPV", csr::hstatus::read() & HSTATUS_SPV, 0)?;
    t.equal("SPP", csr::sstatus::read() & STATUS_SPP, 0)?;

    guest.pc += 4;
    let exit = guest.run(Mode::Vs);
    t.equal(
        "the second exit",
        (exit.info.scause, exit.sepc),
        (10, GVA + 8),
    )?;
    t.equal("a0", guest.x[10], 42)?;
    check!(exit.hstatus & HSTATUS_SPV != 0, "the guest ran at V=1");
    check!(exit.sstatus & STATUS_SPP != 0, "the guest ran in VS-mode");
    Ok(())
}

fn r21_gva_without_spv_is_the_mark_of_a_guest_access(t: &mut Test) -> Outcome {
    const MARK: u64 = HSTATUS_GVA | HSTATUS_SPV;
    World::with_page(GVA, SUPERVISOR, 0);
    act_as_supervisor(true);
    let ours = trap_of(raw::hlv_d(GVA, 0))?;
    t.equal("hlv.d, G-stage", ours.hstatus & MARK, HSTATUS_GVA)?;
    let hosts = trap_of(raw::host_ld(boot::UNMAPPED, 0))?;
    t.equal(
        "a load of the host",
        (hosts.info.scause, hosts.hstatus & MARK),
        (13, 0),
    )?;
    let breakpoint = trap_of(raw::breakpoint(0, 0))?;
    t.equal(
        "a breakpoint",
        (breakpoint.info.scause, breakpoint.hstatus & MARK),
        (3, 0),
    )?;

    let (mut world, mut guest) = guest::with_code(GVA, &[ECALL], Mode::Vs);
    let exit = guest.run(Mode::Vs);
    t.equal("a call of the guest", exit.hstatus & MARK, HSTATUS_SPV)?;
    let page = world.vs_entry(GVA, 0);
    arena::write(page.spa, 0);
    world.fence();
    let exit = guest.run(Mode::Vs);
    t.equal(
        "a page fault of the guest",
        (exit.info.scause, exit.hstatus & MARK),
        (12, MARK),
    )
}

fn r21_an_access_fault_may_come_through_the_firmware(t: &mut Test) -> Outcome {
    if !firmware_is_protected() {
        skip!("no PMP");
    }
    let mut world = World::guest_physical();
    let gpa = crate::tables::RAM;
    world.map_g(gpa, FIRMWARE, USER, 0);
    world.load();
    let trap = trap_of(raw::hlv_d(gpa, 0))?;
    t.equal("SPV", trap.hstatus & HSTATUS_SPV, 0)?;
    t.holds_or(
        "GVA is set",
        trap.hstatus & HSTATUS_GVA != 0,
        RedirectClearsGva,
    )
}

fn r22_htval_is_the_guest_physical_address_shifted_by_two(t: &mut Test) -> Outcome {
    for spvp in [false, true] {
        for offset in [0, 1, 2, 3, 4, 0x234, 0xfff] {
            let flags = if spvp { SUPERVISOR } else { USER };
            let (_, page) = World::with_page(GVA, flags, 0);
            act_as_supervisor(spvp);
            for (name, trap) in [
                ("hlv.b", trap_of(raw::hlv_b(GVA + offset, 0))?),
                ("hsv.b", trap_of(raw::hsv_b(GVA + offset, 0))?),
            ] {
                let what = format_args!("{name} at offset {offset:#x}");
                t.equal(what, trap.info.htval, (page.gpa + offset) >> 2)?;
                t.equal(what, trap.info.stval, GVA + offset)?;
                let gpa = trap.gpa() | trap.info.stval & 3;
                t.equal(what, gpa, page.gpa + offset)?;
            }
        }
    }
    // Other faults leave it 0.
    World::with_page(GVA, 0, USER);
    let trap = trap_of(raw::hlv_d(GVA, 0))?;
    t.equal("htval of a page fault", trap.info.htval, 0)
}

fn r22_an_implicit_fault_names_the_page_table_entry(t: &mut Test) -> Outcome {
    for level in [0, 1] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let entry = world.vs_entry(GVA, level);
        world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, 0, 0);
        world.fence();
        act_as_supervisor(true);
        // Aligned, since a machine may refuse a misaligned access before it looks for a page (R10).
        for (name, trap, offset) in [
            ("hlv.d", trap_of(raw::hlv_d(GVA + 0x128, 0))?, 0x128),
            ("hlv.b", trap_of(raw::hlv_b(GVA + 0x123, 0))?, 0x123),
        ] {
            t.equal(format_args!("{name}: cause"), trap.info.scause, 21)?;
            t.equal(format_args!("{name}: stval"), trap.info.stval, GVA + offset)?;
            t.equal(
                format_args!("{name}: htval"),
                trap.info.htval,
                entry.gpa >> 2,
            )?;
            t.equal(format_args!("{name}: htinst"), trap.info.htinst, 0x3000)?;
        }
    }
    Ok(())
}

fn r22_guest_physical_page_zero_is_told_by_stval(t: &mut Test) -> Outcome {
    let mut world = World::sv39();
    world.map(GVA, 0, SUPERVISOR, 0);
    world.load();
    act_as_supervisor(true);
    for offset in [0, 3, 0x10] {
        let trap = trap_of(raw::hlv_b(GVA + offset, 0))?;
        t.equal("cause", trap.info.scause, 21)?;
        t.equal("htval", trap.info.htval, offset >> 2)?;
        t.equal("stval", trap.info.stval, GVA + offset)?;
    }
    Ok(())
}

fn r22_the_second_page_of_an_access_is_named_by_its_start(t: &mut Test) -> Outcome {
    for (vs_flags, g_flags, cause) in [(0, USER, 13), (SUPERVISOR, 0, 21)] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
        let second = world.page(g_flags);
        world.map(GVA + 4096, second.gpa, vs_flags, 0);
        world.fence();
        act_as_supervisor(true);
        for offset in 1..8 {
            let trap = trap_of(raw::hlv_d(GVA + 4096 - offset, 0))?;
            if trap.info.scause == 4 {
                continue;
            }
            if trap.info.scause == 5 {
                t.holds_or("a misaligned load", false, MisalignedIsAccessFault)?;
                continue;
            }
            t.equal("cause", trap.info.scause, cause)?;
            t.equal("stval", trap.info.stval, GVA + 4096)?;
            t.equal(
                "htval",
                trap.info.htval,
                if cause == 21 { second.gpa >> 2 } else { 0 },
            )?;
        }
    }
    Ok(())
}

fn r23_sepc_is_the_access_also_at_half_alignment(t: &mut Test) -> Outcome {
    World::with_page(GVA, 0, USER);
    let trap = trap_of(raw::hlv_d_after_c_nop(GVA, 0))?;
    t.equal("sepc", trap.sepc, raw::after_c_nop())?;
    t.equal("sepc modulo 4", trap.sepc % 4, 2)
}

fn r24_a_trap_sets_sdt(t: &mut Test) -> Outcome {
    // Firmware may have left them off; the kernel's own M-mode turns them on for the test.
    if machine::is_standalone() {
        machine::in_environment(machine::DOUBLE_TRAPS, || a_trap_sets_sdt(t))
    } else {
        a_trap_sets_sdt(t)
    }
}

fn a_trap_sets_sdt(t: &mut Test) -> Outcome {
    // SAFETY: no trap comes before it is cleared again.
    let has = unsafe {
        csr::sstatus::set(STATUS_SDT);
        let has = csr::sstatus::read() & STATUS_SDT != 0;
        csr::sstatus::clear(STATUS_SDT);
        has
    };
    if !has {
        skip!("no Ssdbltrp: sstatus.SDT is read-only zero");
    }
    World::with_page(GVA, 0, USER);
    let trap = trap_of(raw::hlv_d(GVA, 0));
    // SAFETY: the trap is over, and what comes next may trap again.
    unsafe { csr::sstatus::clear(STATUS_SDT) };
    t.equal("SDT", trap?.sstatus & STATUS_SDT, STATUS_SDT)
}

fn r25_the_guest_access_causes_reach_hs_mode_directly(t: &mut Test) -> Outcome {
    // A trap that the firmware redirects has GVA clear or htinst of its own; these have what the hardware writes.
    let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    world.map_g(page.gpa, page.spa, USER & !W, 0);
    world.fence();
    let store = trap_of(raw::hsv_d(GVA, 0))?;
    world.map_g(page.gpa, page.spa, 0, 0);
    world.fence();
    let load = trap_of(raw::hlv_d(GVA, 0))?;
    world.map(GVA, page.gpa, V | R | A, 0);
    world.fence();
    let vs_store = trap_of(raw::hsv_d(GVA, 0))?;
    world.map(GVA, page.gpa, 0, 0);
    world.fence();
    let vs_load = trap_of(raw::hlv_d(GVA, 0))?;
    for (trap, cause) in [(store, 23), (load, 21), (vs_store, 15), (vs_load, 13)] {
        t.equal("cause", trap.info.scause, cause)?;
        t.equal("GVA", trap.hstatus & HSTATUS_GVA, HSTATUS_GVA)?;
    }
    Ok(())
}
