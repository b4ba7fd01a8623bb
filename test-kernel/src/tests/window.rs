//! Sections C and D through the library: what its access windows borrow, fence and put back, and what its probe finds.

use core::sync::atomic::Ordering;

use guest_mem::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SIE, STATUS_SUM};
use guest_mem::hart::riscv64::{HandlerHook, Riscv64, ScopedStvec};
use guest_mem::hart::{Csr, Hart};
use guest_mem::translate::AdPolicy;
use guest_mem::{FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva};

use crate::deviation::Deviation::{AccessFaultUnderBareSatp, FetchChecksRead, StaleVsatp};
use crate::harness::{Outcome, Test, cases, check, skip};
use crate::library::{Spy, in_both_forms, loaded, probed};
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{SAME, World, loaded_vmid, two_pages};
use crate::{arena, boot, csr, storm};

cases![
    r34_the_boot_probe_knows_this_machine,
    r34_the_boot_probe_puts_every_csr_back,
    r34_i9_an_unprobed_hart_reads_the_right_page,
    r34_i9_a_profile_serves_further_values,
    r35_the_library_is_right_at_equal_numbers_of_both_spaces,
    r35_the_library_is_right_after_a_switch_of_guests,
    r33_i9_the_library_issues_no_fence,
    r31_the_library_refuses_an_unknown_vsatp_mode_without_an_access,
    r26_i2_i3_a_window_puts_everything_back_also_after_a_fault,
    r26_i2_an_interrupt_inside_a_window_waits_for_its_end,
    r9_the_library_refuses_a_big_endian_guest_without_an_access,
    r4_i8_a_window_clears_the_hosts_mxr,
    r26_i2_i3_an_open_window_goes_on_after_faults_and_puts_everything_back,
    r27_a_host_fault_in_an_open_window_is_the_hosts,
];

use GuestPrivilege::{Supervisor, User};

fn r34_the_boot_probe_knows_this_machine(t: &mut Test) -> Outcome {
    let (_, profile) = probed::<HandlerHook>()?;
    let machine = t.machine;
    let stale = machine.has(StaleVsatp);
    t.equal("stale vsatp", profile.stale_vsatp, stale)?;
    t.equal(
        "hlvx needs X",
        profile.hlvx_needs_execute,
        !machine.has(FetchChecksRead),
    )?;
    t.equal(
        "cause of a page fault",
        profile.page_faults_as_access_faults,
        false,
    )?;
    check!(
        profile.vs_stage_ad != AdPolicy::Ignore,
        "no A/D policy of the VS-stage"
    );
    // The same machine under a Bare satp.
    // SAFETY: the kernel is linked where it is; the runner puts satp back.
    unsafe { csr::satp::write(0) };
    let (_, profile) = probed::<HandlerHook>()?;
    let as_access = machine.has(AccessFaultUnderBareSatp);
    t.equal(
        "cause of a page fault, satp Bare",
        profile.page_faults_as_access_faults,
        as_access,
    )?;
    for deviation in [StaleVsatp, FetchChecksRead, AccessFaultUnderBareSatp] {
        if machine.has(deviation) {
            t.deviates(deviation);
        }
    }
    Ok(())
}

fn r34_the_boot_probe_puts_every_csr_back(t: &mut Test) -> Outcome {
    let all = || {
        [
            csr::sstatus::read(),
            csr::hstatus::read(),
            csr::vsstatus::read(),
            csr::vsatp::read(),
            csr::hgatp::read(),
            csr::stvec::read(),
        ]
    };
    for (supervisor, sum) in [(false, 0), (true, STATUS_SUM)] {
        crate::harness::act_as_supervisor(supervisor);
        // SAFETY: guest state.
        unsafe { csr::vsstatus::write(sum) };
        // The form that keeps the exit record: the probe's own faults must not show in sstatus and hstatus. Its handler has an
        // entry of its own, whose address is in stvec.
        crate::trap::set_hook(false);
        let before = all();
        probed::<guest_mem::hart::riscv64::ScopedStvec>()?;
        t.equal("the CSRs", all(), before)?;
    }
    Ok(())
}

/// Reads one number as a guest-virtual and as a guest-physical address, and back: the two are different pages.
fn reads_both_spaces<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
    let (_world, by_gva, by_gpa) = two_pages();
    arena::write(by_gva.spa, 0x11);
    arena::write(by_gpa, 0x99);
    // A token for each pair of accesses, as each exit of a guest has its own.
    for first in [true, false, true] {
        let vcpu = loaded(hart);
        for physical in [first, !first] {
            let (found, wanted) = if physical {
                let space = vcpu.guest_physical();
                (space.load(Gpa::new(SAME), Ordering::Relaxed), Ok(0x99u64))
            } else {
                let space = vcpu.guest_virtual(Supervisor);
                (space.load(Gva::new(SAME), Ordering::Relaxed), Ok(0x11))
            };
            t.equal(format_args!("physical {physical}"), found, wanted)?;
        }
    }
    Ok(())
}

fn r34_i9_an_unprobed_hart_reads_the_right_page(t: &mut Test) -> Outcome {
    crate::trap::set_hook(true);
    // SAFETY: HS-mode with the H extension; the trap handler calls `try_fixup`; everything is mapped.
    let hook = unsafe { Riscv64::<HandlerHook>::new() };
    reads_both_spaces(t, &hook)?;
    boot::reset_csrs(csr::satp::read());
    // SAFETY: as before, but for the handler, which this form does not need.
    let scoped = unsafe { Riscv64::<ScopedStvec>::new() };
    reads_both_spaces(t, &scoped)?;
    // A value a call is right as well.
    let (_world, by_gva, by_gpa) = two_pages();
    arena::write(by_gva.spa, 0x11);
    arena::write(by_gpa, 0x99);
    for _ in 0..3 {
        // SAFETY: as before.
        let [one, two] = unsafe { [Riscv64::<ScopedStvec>::new(), Riscv64::new()] };
        let found = loaded(&one)
            .guest_virtual(Supervisor)
            .load(Gva::new(SAME), Ordering::Relaxed);
        t.equal("by one value", found, Ok(0x11u64))?;
        let found = loaded(&two)
            .guest_physical()
            .load(Gpa::new(SAME), Ordering::Relaxed);
        t.equal("by another value", found, Ok(0x99u64))?;
    }
    Ok(())
}

fn r34_i9_a_profile_serves_further_values(t: &mut Test) -> Outcome {
    let stale = t.machine.has(StaleVsatp);
    let (_, profile) = probed::<HandlerHook>()?;
    // SAFETY: as for `probed`, which found the profile on this hart.
    let hart = unsafe { Riscv64::<HandlerHook>::with_profile(&profile) };
    t.equal("careful", hart.fence_state().may_be_stale(), stale)?;
    if stale {
        t.deviates(StaleVsatp);
    }
    let spy = Spy::on(&hart);
    reads_both_spaces(t, &spy)?;
    t.equal("fences", spy.fences.get() != 0, stale)
}

fn r35_the_library_is_right_at_equal_numbers_of_both_spaces(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, by_gva, by_gpa) = two_pages();
        let vcpu = loaded(hart);
        let (guest, physical) = (vcpu.guest_virtual(Supervisor), vcpu.guest_physical());
        // A fixed sequence of pseudo-random choices between the spaces, and between reading and writing.
        let mut random = 0x2545_f491_4f6c_dd1du64;
        let (mut at_gva, mut at_gpa) = (0u64, 0u64);
        for round in 1..=500u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let what = format_args!("round {round}");
            match random % 4 {
                0 => {
                    at_gva = round;
                    t.equal(
                        what,
                        guest.store(Gva::new(SAME), round, Ordering::Relaxed),
                        Ok(()),
                    )?;
                }
                1 => {
                    at_gpa = round;
                    t.equal(
                        what,
                        physical.store(Gpa::new(SAME), round, Ordering::Relaxed),
                        Ok(()),
                    )?;
                }
                2 => t.equal(
                    what,
                    guest.load(Gva::new(SAME), Ordering::Relaxed),
                    Ok(at_gva),
                )?,
                _ => t.equal(
                    what,
                    physical.load(Gpa::new(SAME), Ordering::Relaxed),
                    Ok(at_gpa),
                )?,
            }
            t.equal(
                what,
                (arena::read(by_gva.spa), arena::read(by_gpa)),
                (at_gva, at_gpa),
            )?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r35_the_library_is_right_after_a_switch_of_guests(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        // Two guests of different VMIDs; no fence between them is owed.
        let worlds = [1, 2].map(|vmid: u64| {
            let mut world = World::sv39().with_vmid(vmid);
            let page = world.page_at(SAME, SUPERVISOR);
            arena::write(page.spa, 0x100 + vmid);
            world
        });
        worlds[0].load();
        if loaded_vmid() != 1 {
            skip!("VMIDs are read-only zero: a switch of guests has to fence");
        }
        for round in 0..20 {
            for (index, world) in worlds.iter().enumerate() {
                // SAFETY: guest state; `vsatp` is off while `hgatp` changes (R32).
                unsafe {
                    csr::vsatp::write(0);
                    csr::hgatp::write(world.hgatp);
                    csr::vsatp::write(world.vsatp);
                }
                let vcpu = loaded(hart);
                let found = vcpu
                    .guest_virtual(Supervisor)
                    .load(Gva::new(SAME), Ordering::Relaxed);
                t.equal(
                    format_args!("round {round}, guest {index}"),
                    found,
                    Ok(0x101 + index as u64),
                )?;
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r33_i9_the_library_issues_no_fence(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let hart = Spy::on(hart);
        let (_world, _, _) = two_pages();
        let vcpu = loaded(&hart);
        let mut buffer = [0; 64];
        for _ in 0..10 {
            let done = (
                vcpu.guest_virtual(Supervisor)
                    .read(Gva::new(SAME), &mut buffer),
                vcpu.guest_physical().write(Gpa::new(SAME), &buffer),
                vcpu.fetch_instruction(Gva::new(SAME), Supervisor).map(drop),
                vcpu.guest_virtual(User)
                    .read(Gva::new(SAME), &mut buffer)
                    .is_err(),
            );
            t.equal("the accesses", done, (Ok(()), Ok(()), Ok(()), true))?;
        }
        let fences = hart.fences.get();
        check!(hart.accesses.get() >= 40, "accesses were not seen");
        if t.machine.has(StaleVsatp) {
            // One for each change of space or privilege, and none for a repeated access.
            t.deviates(StaleVsatp);
            check!(fences > 0, "a machine that needs fences got none");
            vcpu.guest_virtual(User)
                .read(Gva::new(SAME), &mut buffer)
                .ok();
            t.equal("fences after a repeated access", hart.fences.get(), fences)
        } else {
            t.equal("fences", fences, 0)
        }
    }
    in_both_forms!(t, body)
}

fn r31_the_library_refuses_an_unknown_vsatp_mode_without_an_access(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, _, _) = two_pages();
        for mode in [1, 7, 11, 15] {
            let spy = Spy::on(hart);
            spy.shown.set(Some((Csr::Vsatp, mode << 60)));
            let vcpu = loaded(&spy);
            let mut buffer = [0x55; 8];
            let guest = vcpu.guest_virtual(Supervisor);
            let kinds = [
                guest
                    .read(Gva::new(SAME), &mut buffer)
                    .map_err(|error| error.fault.kind),
                guest
                    .write(Gva::new(SAME), &[0; 8])
                    .map_err(|error| error.fault.kind),
                vcpu.fetch_instruction(Gva::new(SAME), Supervisor)
                    .map(drop)
                    .map_err(|error| error.fault.kind),
            ];
            let what = format_args!("mode {mode}");
            t.equal(what, kinds, [Err(FaultKind::UnsupportedRegime); 3])?;
            t.equal(what, (spy.accesses.get(), buffer), (0, [0x55; 8]))?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r26_i2_i3_a_window_puts_everything_back_also_after_a_fault(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let all = || {
            (
                csr::vsatp::read(),
                csr::hgatp::read(),
                csr::vsstatus::read(),
                csr::hstatus::read() & HSTATUS_SPVP,
                csr::sstatus::read() & (STATUS_SIE | STATUS_MXR),
                csr::stvec::read(),
            )
        };
        // SAFETY: guest state.
        unsafe { csr::vsstatus::write(STATUS_SUM) };
        let (_world, _, _) = two_pages();
        for interrupts in [false, true] {
            // SAFETY: no interrupt is enabled in sie.
            unsafe {
                csr::sstatus::clear(STATUS_SIE);
                if interrupts {
                    csr::sstatus::set(STATUS_SIE);
                }
            }
            let vcpu = loaded(hart);
            let before = all();
            let mut buffer = [0; 16];
            for privilege in [User, Supervisor] {
                for at in [SAME, 0x7000_0000] {
                    let guest = vcpu.guest_virtual(privilege);
                    guest.read(Gva::new(at), &mut buffer).ok();
                    t.equal("after a read", all(), before)?;
                    guest.write(Gva::new(at), &buffer).ok();
                    t.equal("after a write", all(), before)?;
                    vcpu.fetch_instruction(Gva::new(at), privilege).ok();
                    t.equal("after a fetch", all(), before)?;
                    vcpu.guest_physical().read(Gpa::new(at), &mut buffer).ok();
                    t.equal("after a physical read", all(), before)?;
                }
            }
        }
        // SAFETY: as everywhere else.
        unsafe { csr::sstatus::clear(STATUS_SIE) };
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r4_i8_a_window_clears_the_hosts_mxr(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        use crate::tables::bits::{A, D, V, X};
        World::with_page(SAME, V | X | A | D, USER);
        // SAFETY: the host has no pages that MXR would open.
        unsafe { csr::sstatus::set(STATUS_MXR) };
        let vcpu = loaded(hart);
        let read = vcpu
            .guest_virtual(Supervisor)
            .read(Gva::new(SAME), &mut [0; 8]);
        let after = csr::sstatus::read() & STATUS_MXR;
        // SAFETY: MXR is off everywhere else.
        unsafe { csr::sstatus::clear(STATUS_MXR) };
        let kind = read.map_err(|error| error.fault.kind);
        t.equal("a read of an execute-only page", kind, Err(FaultKind::Page))?;
        t.equal("MXR afterwards", after, STATUS_MXR)
    }
    in_both_forms!(t, body)
}

fn r26_i2_an_interrupt_inside_a_window_waits_for_its_end(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let hart = Spy::on(hart);
        // SUM is what a fetch borrows.
        // SAFETY: guest state.
        unsafe { csr::vsstatus::write(STATUS_SUM) };
        let (_world, _, _) = two_pages();
        let vcpu = loaded(&hart);
        hart.interrupts.set(true);
        let missing = Gva::new(SAME + 0x10_0000);
        let storm = storm::during(1 << 40, || {
            let mut buffer = [0; 16];
            for privilege in [User, Supervisor] {
                let guest = vcpu.guest_virtual(privilege);
                // Whether they fault is the same to an interrupt.
                guest.read(Gva::new(SAME), &mut buffer).ok();
                guest.write(missing, &buffer).ok();
                guest.fill(Gva::new(SAME), 0, 16).ok();
                guest.load::<u32>(missing, Ordering::Relaxed).ok();
                guest.store(Gva::new(SAME), 1u8, Ordering::Relaxed).ok();
                vcpu.fetch_instruction(Gva::new(SAME), privilege).ok();
                vcpu.fetch_instruction(missing, privilege).ok();
                vcpu.guest_physical().read(Gpa::new(SAME), &mut buffer).ok();
                vcpu.guest_physical()
                    .write(Gpa::new(missing.value()), &buffer)
                    .ok();
            }
        });
        // One interrupt a window, of two accesses at most.
        let accesses = u64::from(hart.accesses.get());
        check!(
            storm.taken >= 18 && storm.taken <= accesses,
            "{} interrupts",
            storm.taken
        );
        t.equal(
            "interrupts that found something borrowed",
            storm.violations,
            0,
        )
    }
    in_both_forms!(t, body)
}

fn r9_the_library_refuses_a_big_endian_guest_without_an_access(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, _, _) = two_pages();
        for (shown, privileges) in [
            (
                (Csr::Hstatus, guest_mem::csr::HSTATUS_VSBE),
                &[User, Supervisor][..],
            ),
            ((Csr::Vsstatus, guest_mem::csr::STATUS_UBE), &[User][..]),
        ] {
            let spy = Spy::on(hart);
            spy.shown.set(Some(shown));
            let vcpu = loaded(&spy);
            for &privilege in privileges {
                let guest = vcpu.guest_virtual(privilege);
                let kinds = [
                    guest
                        .read(Gva::new(SAME), &mut [0; 8])
                        .map_err(|error| error.fault.kind),
                    guest
                        .write(Gva::new(SAME), &[0; 8])
                        .map_err(|error| error.fault.kind),
                ];
                let what = format_args!("{shown:x?}, {privilege:?}");
                t.equal(what, kinds, [Err(FaultKind::UnsupportedRegime); 2])?;
                t.equal(what, spy.accesses.get(), 0)?;
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r26_i2_i3_an_open_window_goes_on_after_faults_and_puts_everything_back(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let all = || {
            (
                csr::vsatp::read(),
                csr::hgatp::read(),
                csr::vsstatus::read(),
                csr::hstatus::read() & HSTATUS_SPVP,
                csr::sstatus::read() & (STATUS_SIE | STATUS_MXR),
                csr::stvec::read(),
            )
        };
        let (_world, page, _) = two_pages();
        let missing = Gva::new(0x7000_0000);
        for interrupts in [false, true] {
            // SAFETY: no interrupt is enabled in sie.
            unsafe {
                csr::sstatus::clear(STATUS_SIE);
                if interrupts {
                    csr::sstatus::set(STATUS_SIE);
                }
                csr::hstatus::clear(HSTATUS_SPVP);
            }
            let mut vcpu = loaded(hart);
            let before = all();
            let window = vcpu.open_window(Supervisor);
            let inside = all();
            t.equal(
                "SPVP and SIE inside",
                (inside.3, inside.4),
                (HSTATUS_SPVP, 0),
            )?;
            for round in 0..5u64 {
                let stored = window.store(Gva::new(SAME), round, Ordering::Relaxed);
                t.equal("a store", (stored, arena::read(page.spa)), (Ok(()), round))?;
                let kinds = [
                    window.load::<u64>(missing, Ordering::Relaxed).map(drop),
                    window.store(missing, 0u8, Ordering::Relaxed),
                    window.read(missing, &mut [0; 100]),
                    window.write(missing, &[0; 3]),
                    window.fill(missing, 0, 100),
                ]
                .map(|result| result.map_err(|error| (error.completed, error.fault.gva)));
                t.equal("the faults", kinds, [Err((0, Some(missing))); 5])?;
                t.equal("the CSRs inside", all(), inside)?;
                let loaded = window.load::<u64>(Gva::new(SAME), Ordering::Relaxed);
                t.equal("a load", loaded, Ok(round))?;
                let mut buffer = [0; 8];
                let read = window.read(Gva::new(SAME), &mut buffer);
                t.equal(
                    "a read",
                    (read, u64::from_le_bytes(buffer)),
                    (Ok(()), round),
                )?;
            }
            drop(window);
            t.equal("the CSRs afterwards", all(), before)?;
        }
        // SAFETY: as everywhere else.
        unsafe { csr::sstatus::clear(STATUS_SIE) };
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r27_a_host_fault_in_an_open_window_is_the_hosts(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, page, _) = two_pages();
        let mut vcpu = loaded(hart);
        let window = vcpu.open_window(Supervisor);
        // Between two accesses, and as the destination of one: a page that the host's handler gives to itself.
        for by_copy in [false, true] {
            let backing = arena::page();
            boot::arm_demand_page(backing);
            arena::write(page.spa, 0x1234_5678_9abc_def0u64);
            if by_copy {
                // SAFETY: the page is there as soon as it is touched, and nothing else uses it.
                let buffer =
                    unsafe { core::slice::from_raw_parts_mut(boot::DEMAND_PAGE as *mut u8, 512) };
                t.equal("a read", window.read(Gva::new(SAME), buffer), Ok(()))?;
            } else {
                let value = window.load::<u64>(Gva::new(SAME), Ordering::Relaxed);
                // SAFETY: as above.
                unsafe { (boot::DEMAND_PAGE as *mut u64).write_volatile(value.unwrap_or(0)) };
            }
            boot::arm_demand_page(0);
            t.equal(
                "the host's page",
                arena::read(backing),
                0x1234_5678_9abc_def0u64,
            )?;
            let missing = window.load::<u64>(Gva::new(0x7000_0000), Ordering::Relaxed);
            check!(missing.is_err(), "no fault");
            t.equal("stvec", csr::stvec::read(), crate::trap::entry())?;
        }
        drop(window);
        Ok(())
    }
    in_both_forms!(t, body)
}
