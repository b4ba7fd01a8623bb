//! Rules that need M-mode: PMP at any place, double traps, delegation, shadow stacks that firmware does not turn on.
//!
//! The one idea: where firmware runs below the kernel these are its business, and the tests are skipped; standalone the
//! kernel asks its own shim (`machine`).

use guest_mem::csr::{HSTATUS_GVA, HSTATUS_SPV, STATUS_SDT};
use guest_mem::hart::Hart;
use guest_mem::{FaultKind, GuestMemory, GuestPrivilege, Gva};

use crate::deviation::Deviation::{
    FetchCauses, ImplicitIsLoad, ProtectionIsGuestPage, TableAccessIsLoad,
};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, check, fail, one_in, skip};
use crate::library::{error_of, in_both_forms, loaded};
use crate::machine;
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::{arena, csr, raw};

cases![
    r15_pmp_refuses_exactly_the_bytes_of_a_hole,
    r15_pmp_guards_the_page_tables_of_both_stages,
    r15_a_copy_into_a_hole_reports_what_it_moved,
    r21_an_access_fault_without_firmware_is_marked_as_every_other,
    r24_a_fault_with_sdt_set_is_a_double_trap,
    r24_i1_the_library_clears_sdt_before_it_touches_the_guest,
    r25_a_cause_that_is_not_delegated_goes_to_m_mode,
    r25_hedeleg_does_not_matter,
];

const GVA: u64 = 0x20_1000;

/// Skips the test unless M-mode is the kernel's.
fn standalone() -> Outcome {
    if !machine::is_standalone() {
        skip!("M-mode is the firmware's");
    }
    Ok(())
}

/// Runs `body` with PMP refusing `len` bytes at `start`; answers `None` where its granules are coarser.
fn in_hole(start: u64, len: u64, body: impl FnOnce() -> Outcome) -> Option<Outcome> {
    let exact = machine::protect(start..start + len);
    let outcome = exact.then(body);
    machine::protect(0..0);
    outcome
}

/// As [`in_hole`], but skips the test where PMP's granules are coarser.
fn with_hole(start: u64, len: u64, body: impl FnOnce() -> Outcome) -> Outcome {
    match in_hole(start, len, body) {
        Some(outcome) => outcome,
        None => skip!("PMP takes no granules of {len} bytes"),
    }
}

fn r15_pmp_refuses_exactly_the_bytes_of_a_hole(t: &mut Test) -> Outcome {
    standalone()?;
    let (_world, page) = World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    // As many as its granules let it take.
    let mut taken = 0;
    for (start, len) in [
        (0x100, 4),
        (0x104, 4),
        (0x108, 8),
        (0x20c, 12),
        (0x400, 64),
        (0xff8, 8),
    ] {
        let outcome = in_hole(page.spa + start, len, || {
            for (name, access, size, cause) in [
                ("hlv.bu", raw::hlv_bu as fn(u64, u64) -> _, 1, 5),
                ("hlv.hu", raw::hlv_hu, 2, 5),
                ("hlv.wu", raw::hlv_wu, 4, 5),
                ("hlv.d", raw::hlv_d, 8, 5),
                ("hsv.b", raw::hsv_b, 1, 7),
                ("hsv.w", raw::hsv_w, 4, 7),
                ("hsv.d", raw::hsv_d, 8, 7),
                ("hlvx.hu", raw::hlvx_hu, 2, 5),
            ] {
                let around = start.saturating_sub(16)..(start + len + 16).min(4096);
                for at in around.step_by(size) {
                    let at = at / size as u64 * size as u64;
                    let touches = at < start + len && at + size as u64 > start;
                    let expected = if touches {
                        Expect::Cause(cause)
                    } else {
                        Expect::Works
                    };
                    let what = format_args!("{name} at {at:#x}, hole of {len} at {start:#x}");
                    t.access_or(
                        what,
                        access(GVA + at, 0),
                        expected,
                        &[
                            (
                                FetchCauses,
                                if touches && name == "hlvx.hu" {
                                    Expect::Cause(1)
                                } else {
                                    expected
                                },
                            ),
                            (
                                ProtectionIsGuestPage,
                                if touches {
                                    Expect::Cause(cause + 16)
                                } else {
                                    expected
                                },
                            ),
                        ],
                    )?;
                }
            }
            Ok(())
        });
        if let Some(outcome) = outcome {
            outcome?;
            taken += 1;
        }
    }
    if taken == 0 {
        skip!("PMP takes none of these holes");
    }
    Ok(())
}

fn r15_pmp_guards_the_page_tables_of_both_stages(t: &mut Test) -> Outcome {
    standalone()?;
    for stage in ["VS-stage", "G-stage"] {
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        act_as_supervisor(true);
        let entry = if stage == "VS-stage" {
            world.vs_entry(GVA, 0).spa
        } else {
            world.g_entry(page.gpa, 0)
        };
        with_hole(entry, 8, || {
            for (name, result, cause) in [
                ("hlv.d", raw::hlv_d(GVA, 0), 5),
                ("hsv.d", raw::hsv_d(GVA, 0), 7),
            ] {
                t.access_or(
                    format_args!("{name}, {stage} entry protected"),
                    result,
                    Expect::Cause(cause),
                    &[
                        (ProtectionIsGuestPage, Expect::Cause(cause + 16)),
                        (ImplicitIsLoad, Expect::Cause(21)),
                        (TableAccessIsLoad, Expect::Cause(5)),
                    ],
                )?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn r15_a_copy_into_a_hole_reports_what_it_moved(t: &mut Test) -> Outcome {
    /// Where in the page the hole is, and how long: what cores with 64-bit ports take, too.
    const HOLE: u64 = 512;
    const GRANULE: u64 = 8;
    const UNTOUCHED: u8 = 0xee;
    fn old(at: u64) -> u8 {
        at as u8 ^ 0x5a
    }
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, page) = World::with_page(GVA, SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
        for before in (0..=40)
            .chain([63, 64, 65, 127, 128, 129, 255, 256, 300])
            .step_by(one_in(9))
        {
            for host_at in [0, 1, 2, 4] {
                let start = HOLE - before as u64;
                arena::write_bytes(page.spa, (0..1024).map(old));
                let (mut host, source) = ([UNTOUCHED; 400], [0x77; 400]);
                let there = host_at..host_at + before + 50;
                machine::protect(page.spa + HOLE..page.spa + HOLE + GRANULE);
                let read = guest.read(Gva::new(GVA + start), &mut host[there.clone()]);
                let write = guest.write(Gva::new(GVA + start), &source[there]);
                machine::protect(0..0);
                let (read, write) = (error_of(read)?, error_of(write)?);
                for (name, error) in [("read", read), ("write", write)] {
                    let what = format_args!("{name}, {before} bytes before the hole");
                    if matches!(error.fault.kind, FaultKind::GuestPage { .. }) {
                        t.holds_or(what, false, ProtectionIsGuestPage)?;
                    } else {
                        t.equal(what, error.fault.kind, FaultKind::Access)?;
                    }
                    // What was copied lies before the hole; what was not may share a double with it.
                    check!(
                        error.completed <= before && before - error.completed < 8,
                        "{what}: {} completed",
                        error.completed
                    );
                }
                for (index, &byte) in host.iter().enumerate() {
                    let expected = if (host_at..host_at + read.completed).contains(&index) {
                        old(start + (index - host_at) as u64)
                    } else {
                        UNTOUCHED
                    };
                    check!(byte == expected, "byte {index} of the host is {byte:#x}");
                }
                for at in 0..1024 {
                    let byte = arena::read_byte(page.spa + at);
                    let written = (start..start + write.completed as u64).contains(&at);
                    let expected = if written { 0x77 } else { old(at) };
                    check!(byte == expected, "byte {at:#x} of the guest is {byte:#x}");
                }
            }
        }
        Ok(())
    }
    standalone()?;
    // Tells machines with coarser granules.
    with_hole(arena::start(), GRANULE, || Ok(()))?;
    in_both_forms!(t, body)
}

fn r21_an_access_fault_without_firmware_is_marked_as_every_other(t: &mut Test) -> Outcome {
    standalone()?;
    let (_world, page) = World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    with_hole(page.spa, 4096, || {
        for result in [raw::hlv_d(GVA + 8, 0), raw::hsv_d(GVA + 8, 0)] {
            let Err(trap) = result else {
                fail!("an access to protected memory worked");
            };
            let marks = trap.hstatus & (HSTATUS_GVA | HSTATUS_SPV);
            t.equal("GVA and SPV", marks, HSTATUS_GVA)?;
            t.equal("stval", trap.info.stval, GVA + 8)?;
        }
        Ok(())
    })
}

/// Runs `body` with double traps on, or skips the test where there are none.
fn with_double_traps(body: impl FnOnce() -> Outcome) -> Outcome {
    standalone()?;
    machine::in_environment(machine::DOUBLE_TRAPS, || {
        // SAFETY: no trap comes before it is cleared again, and then only those that the tests are about.
        let has = unsafe {
            csr::sstatus::set(STATUS_SDT);
            let has = csr::sstatus::read() & STATUS_SDT != 0;
            csr::sstatus::clear(STATUS_SDT);
            has
        };
        if !has {
            skip!("no Ssdbltrp: sstatus.SDT is read-only zero");
        }
        body()
    })
}

fn r24_a_fault_with_sdt_set_is_a_double_trap(t: &mut Test) -> Outcome {
    with_double_traps(|| {
        World::with_page(GVA, SUPERVISOR, 0);
        act_as_supervisor(true);
        let (first, taken) = machine::watched(|| raw::hlv_d(GVA, 0));
        t.equal("M-mode's trap with SDT clear", taken, None)?;
        let sdt = first.map_or_else(|trap| trap.sstatus & STATUS_SDT, |_| 0);
        t.equal("SDT after a trap", sdt, STATUS_SDT)?;
        // SAFETY: the trap that comes of it goes to M-mode, which goes on after it.
        unsafe { csr::sstatus::set(STATUS_SDT) };
        let (_, taken) = machine::watched(|| raw::hlv_d(GVA, 0));
        // SAFETY: as it was.
        unsafe { csr::sstatus::clear(STATUS_SDT) };
        let Some(taken) = taken else {
            fail!("no double trap");
        };
        t.equal("mcause", taken.mcause, 16)?;
        t.equal("the cause that was lost", taken.mtval2, 21)
    })
}

fn r24_i1_the_library_clears_sdt_before_it_touches_the_guest(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        with_double_traps(|| {
            World::with_page(GVA, SUPERVISOR, 0);
            let vcpu = loaded(hart);
            let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
            let mut host = [0; 8];
            // SAFETY: no trap comes but those of the guest access.
            unsafe { csr::sstatus::set(STATUS_SDT) };
            let (result, taken) = machine::watched(|| guest.read(Gva::new(GVA), &mut host));
            let after = csr::sstatus::read() & STATUS_SDT;
            // SAFETY: as it was.
            unsafe { csr::sstatus::clear(STATUS_SDT) };
            t.equal("M-mode's trap", taken, None)?;
            t.equal("SDT after the access", after, STATUS_SDT)?;
            let kind = error_of(result)?.fault.kind;
            check!(
                matches!(kind, FaultKind::GuestPage { .. }),
                "the fault is {kind:?}"
            );
            Ok(())
        })
    }
    in_both_forms!(t, body)
}

/// The four causes of guest accesses: what makes each, VS-stage and G-stage flags, and whether it is a store.
const CAUSES: [(u64, u64, u64, bool); 4] = [
    (13, 0, USER, false),
    (15, 0, USER, true),
    (21, SUPERVISOR, 0, false),
    (23, SUPERVISOR, 0, true),
];

/// The access that `CAUSES` describes.
fn refused(vs_flags: u64, g_flags: u64, store: bool) -> Result<u64, crate::trap::Trap> {
    World::with_page(GVA, vs_flags, g_flags);
    act_as_supervisor(true);
    if store {
        raw::hsv_d(GVA, 0)
    } else {
        raw::hlv_d(GVA, 0)
    }
}

fn r25_a_cause_that_is_not_delegated_goes_to_m_mode(t: &mut Test) -> Outcome {
    standalone()?;
    for (cause, vs_flags, g_flags, store) in CAUSES {
        let access = || refused(vs_flags, g_flags, store);
        let (result, taken) = machine::undelegated(cause, || machine::watched(access));
        check!(result.is_ok(), "cause {cause}: HS-mode took it, too");
        let Some(taken) = taken else {
            fail!("cause {cause}: M-mode did not take it");
        };
        t.equal("mcause", taken.mcause, cause)?;
        t.equal("mtval", taken.mtval, GVA)?;
        let (result, taken) = machine::watched(|| refused(vs_flags, g_flags, store));
        t.access("delegated", result, Expect::Cause(cause))?;
        t.equal("M-mode's trap when it is delegated", taken, None)?;
    }
    Ok(())
}

fn r25_hedeleg_does_not_matter(t: &mut Test) -> Outcome {
    for (cause, vs_flags, g_flags, store) in CAUSES {
        for hedeleg in [0, u64::MAX] {
            // SAFETY: no guest runs meanwhile.
            unsafe { csr::hedeleg::write(hedeleg) };
            let result = refused(vs_flags, g_flags, store);
            // SAFETY: as it was.
            unsafe { csr::hedeleg::write(0) };
            t.access("with any hedeleg", result, Expect::Cause(cause))?;
        }
    }
    Ok(())
}
