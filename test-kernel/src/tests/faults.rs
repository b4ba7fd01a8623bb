//! The library's faults: each refusal with its kind, both addresses, how far the access got, and who has to act (R18, R22).

use core::sync::atomic::Ordering;

use guest_mem::hart::Hart;
use guest_mem::hart::riscv64::ScopedStvec;
use guest_mem::translate::AdPolicy;
use guest_mem::{
    AccessError, AccessKind, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu,
    Operation, Resolution,
};

use crate::deviation::Deviation::{
    AccessFaultUnderBareSatp, ProtectionIsGuestPage, UpdateIgnoresG,
};
use crate::deviation::{FIRMWARE, firmware_is_protected};
use crate::harness::{Outcome, Test, cases, fail, one_in, skip};
use crate::library::{Scoped, error_of, in_both_forms, loaded, probed};
use crate::tables::bits::{A, D, SUPERVISOR, USER, W};
use crate::tables::{Page, World};
use crate::{arena, csr};

cases![
    r18_r60_the_library_names_every_refusal_of_every_operation,
    r18_r59_the_library_names_refusals_under_a_bare_satp,
    r76_the_library_tells_reads_of_tables_from_updates,
    r22_the_library_reports_addresses_to_the_byte,
    r13_i5_the_library_refuses_wide_guest_physical_ranges,
    r12_i4_the_library_refuses_a_bare_g_stage_without_an_access,
    r15_the_library_reports_protected_memory,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;
use GuestPrivilege::Supervisor;

/// Who refuses the second of two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    VsStage,
    GStage,
    PageTable,
}

/// Two pages far apart enough to have page tables of their own; the second is refused. Answers the second page's first
/// address, and the guest-physical address that its fault has.
fn refused(refusal: Refusal) -> (World, u64, Option<u64>) {
    let start = 0x40_0000 - PAGE;
    let (mut world, _) = World::with_page(start, SUPERVISOR, USER);
    let second: Page = world.page_at(start + PAGE, SUPERVISOR);
    let entry = world.vs_entry(start + PAGE, 0);
    let gpa = match refusal {
        Refusal::VsStage => {
            arena::write(entry.spa, 0);
            None
        }
        Refusal::GStage => {
            world.map_g(second.gpa, second.spa, 0, 0);
            Some(second.gpa)
        }
        Refusal::PageTable => {
            world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, 0, 0);
            Some(entry.gpa)
        }
    };
    world.load();
    (world, start + PAGE, gpa)
}

/// The errors of all operations on a range that begins `before` bytes before `page`; the single ones begin at it.
fn all_operations<H: Hart>(
    vcpu: &LoadedVcpu<'_, H>,
    page: u64,
    before: usize,
) -> [(Operation, usize, Result<(), AccessError>); 6] {
    let guest = vcpu.guest_virtual(Supervisor);
    let start = Gva::new(page - before as u64);
    let len = before + 24;
    let mut buffer = [0; 512];
    let at = Gva::new(page);
    [
        (
            Operation::Read,
            before,
            guest.read(start, &mut buffer[..len]),
        ),
        (
            Operation::Write,
            before,
            guest.write(start, &[1; 512][..len]),
        ),
        (Operation::Fill, before, guest.fill(start, 2, len)),
        (
            Operation::Load,
            0,
            guest.load::<u32>(at, Ordering::Relaxed).map(|_| ()),
        ),
        (
            Operation::Store,
            0,
            guest.store(at, 3u16, Ordering::Relaxed),
        ),
        (
            Operation::Fetch,
            0,
            vcpu.fetch_instruction(at, Supervisor).map(|_| ()),
        ),
    ]
}

fn names_every_refusal<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
    for refusal in [Refusal::VsStage, Refusal::GStage, Refusal::PageTable] {
        for before in [0, 1, 8, 100, 300].into_iter().step_by(one_in(3)) {
            let (_world, page, gpa) = refused(refusal);
            let vcpu = loaded(hart);
            for (operation, completed, result) in all_operations(&vcpu, page, before) {
                let error = error_of(result)?;
                let what = format_args!("{refusal:?}, {operation:?}, {before} bytes before it");
                let bare = csr::satp::read() == 0 && refusal == Refusal::VsStage;
                if bare && error.fault.kind == FaultKind::Access {
                    t.holds_or(what, false, AccessFaultUnderBareSatp)?;
                } else {
                    let access = operation.access_kind();
                    let kind = match refusal {
                        Refusal::VsStage => FaultKind::Page,
                        Refusal::GStage => FaultKind::GuestPage {
                            access,
                            implicit: false,
                        },
                        Refusal::PageTable => FaultKind::GuestPage {
                            access: AccessKind::Load,
                            implicit: true,
                        },
                    };
                    t.equal(what, error.fault.kind, kind)?;
                    resolution_fits(t, &error, gpa)?;
                }
                t.equal(what, error.completed, completed)?;
                t.equal(what, error.fault.operation, operation)?;
                t.equal(what, error.fault.gva, Some(Gva::new(page)))?;
                t.equal(what, error.fault.gpa, gpa.map(Gpa::new))?;
            }
            arena::release_all();
        }
    }
    Ok(())
}

/// A page fault goes to the guest with the cause of its operation, a guest-page fault to the owner of the G-stage.
fn resolution_fits(t: &Test, error: &AccessError, gpa: Option<u64>) -> Outcome {
    let access = error.fault.operation.access_kind();
    match (error.fault.kind, error.fault.resolution()) {
        (FaultKind::Page, Resolution::Inject(injection)) => {
            let cause = match access {
                AccessKind::Fetch => 12,
                AccessKind::Load => 13,
                AccessKind::Store => 15,
            };
            t.equal("injected cause", injection.cause, cause)?;
            t.equal(
                "injected tval",
                Some(Gva::new(injection.tval)),
                error.fault.gva,
            )
        }
        (
            FaultKind::GuestPage { access, .. },
            Resolution::Resolve {
                gpa: found,
                access: needed,
            },
        ) => t.equal(
            "what to resolve",
            (Some(found), needed),
            (gpa.map(Gpa::new), access),
        ),
        (kind, resolution) => fail!("{kind:?} is to be met by {resolution:?}"),
    }
}

fn r18_r60_the_library_names_every_refusal_of_every_operation(t: &mut Test) -> Outcome {
    in_both_forms!(t, names_every_refusal)
}

fn r18_r59_the_library_names_refusals_under_a_bare_satp(t: &mut Test) -> Outcome {
    // SAFETY: the kernel is linked where it is; the runner puts satp back.
    unsafe { csr::satp::write(0) };
    in_both_forms!(t, names_every_refusal)
}

fn r76_the_library_tells_reads_of_tables_from_updates(t: &mut Test) -> Outcome {
    let (hart, profile): (Scoped, _) = probed::<ScopedStvec>()?;
    if profile.vs_stage_ad != AdPolicy::Update {
        skip!("A and D bits of the VS-stage are the guest's");
    }
    for readable in [false, true] {
        let (mut world, _) = World::with_page(GVA, SUPERVISOR & !A & !D, USER);
        let entry = world.vs_entry(GVA, 0);
        let flags = if readable { USER & !W } else { 0 };
        world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, flags, 0);
        world.fence();
        let vcpu = loaded(&hart);
        let guest = vcpu.guest_virtual(Supervisor);
        let access = if readable {
            AccessKind::Store
        } else {
            AccessKind::Load
        };
        let resolve = Resolution::Resolve {
            gpa: Gpa::new(entry.gpa),
            access,
        };
        for (what, result) in [
            ("a read", guest.read(Gva::new(GVA), &mut [0; 8])),
            ("a write", guest.write(Gva::new(GVA), &[0; 8])),
            (
                "a load",
                guest
                    .load::<u8>(Gva::new(GVA), Ordering::Relaxed)
                    .map(|_| ()),
            ),
        ] {
            let what = format_args!("{what}, the table is readable: {readable}");
            match result {
                Ok(()) if readable => t.holds_or(what, false, UpdateIgnoresG)?,
                Ok(()) => fail!("{what}: went through"),
                Err(error) => t.equal(what, error.fault.resolution(), resolve)?,
            }
        }
        arena::release_all();
    }
    Ok(())
}

fn r22_the_library_reports_addresses_to_the_byte(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, page) = World::with_page(GVA, SUPERVISOR, 0);
        let vcpu = loaded(hart);
        let guest = vcpu.guest_virtual(Supervisor);
        for offset in [0, 1, 2, 3, 5, 0x234, 0xfff] {
            let error = error_of(guest.read(Gva::new(GVA + offset), &mut [0; 1]))?;
            t.equal("GVA", error.fault.gva, Some(Gva::new(GVA + offset)))?;
            t.equal("GPA", error.fault.gpa, Some(Gpa::new(page.gpa + offset)))?;
            let physical = vcpu.guest_physical();
            let error = error_of(physical.read(Gpa::new(page.gpa + offset), &mut [0; 1]))?;
            t.equal("GVA of a physical read", error.fault.gva, None)?;
            t.equal(
                "GPA of a physical read",
                error.fault.gpa,
                Some(Gpa::new(page.gpa + offset)),
            )?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r13_i5_the_library_refuses_wide_guest_physical_ranges(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let mut world = World::sv39();
        // What a machine that ignores or extends high bits would reach.
        let low = world.page(USER);
        world.map_g((1 << 41) - PAGE, low.spa, USER, 0);
        world.load();
        arena::write(low.spa, u64::MAX);
        let vcpu = loaded(hart);
        let physical = vcpu.guest_physical();
        for (gpa, len) in [
            (1 << 41 | low.gpa, 8),
            (1 << 41, 1),
            (1 << 63, 8),
            (u64::MAX - 4095, 8),
            (u64::MAX - 7, 16),
            ((1 << 41) - 4, 8),
        ] {
            let mut buffer = [0x55; 16];
            let what = format_args!("{len} bytes at {gpa:#x}");
            let error = error_of(physical.read(Gpa::new(gpa), &mut buffer[..len]))?;
            t.equal(
                what,
                (error.fault.kind, error.completed),
                (FaultKind::OutOfRange, 0),
            )?;
            t.equal(what, buffer, [0x55; 16])?;
            let error = error_of(physical.write(Gpa::new(gpa), &buffer[..len]))?;
            t.equal(
                what,
                (error.fault.kind, error.completed),
                (FaultKind::OutOfRange, 0),
            )?;
        }
        t.equal("the page", arena::read(low.spa), u64::MAX)?;
        let error = error_of(
            vcpu.guest_virtual(Supervisor)
                .read(Gva::new(u64::MAX - 3), &mut [0; 8]),
        )?;
        t.equal(
            "a virtual range past the top",
            error.fault.kind,
            FaultKind::OutOfRange,
        )
    }
    in_both_forms!(t, body)
}

fn r12_i4_the_library_refuses_a_bare_g_stage_without_an_access(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let hart = crate::library::Spy::on(hart);
        // Memory of the host, which a guest access would reach by its machine address.
        let host = arena::page();
        arena::write(host, 0x1234);
        let vcpu = loaded(&hart);
        t.equal("hgatp", vcpu.csrs().hgatp, 0)?;
        let (gva, gpa) = (Gva::new(host), Gpa::new(host));
        let mut buffer = [0x55; 8];
        let (guest, physical) = (vcpu.guest_virtual(Supervisor), vcpu.guest_physical());
        let relaxed = Ordering::Relaxed;
        for (index, result) in [
            guest.read(gva, &mut buffer),
            guest.write(gva, &[0; 8]),
            guest.fill(gva, 0, 8),
            guest.load::<u64>(gva, relaxed).map(|_| ()),
            guest.store(gva, 0u64, relaxed),
            vcpu.fetch_instruction(gva, Supervisor).map(|_| ()),
            physical.read(gpa, &mut buffer.clone()),
            physical.write(gpa, &[0; 8]),
            physical.fill(gpa, 0, 8),
            physical.load::<u64>(gpa, relaxed).map(|_| ()),
            physical.store(gpa, 0u64, relaxed),
        ]
        .into_iter()
        .enumerate()
        {
            let error = error_of(result)?;
            let what = format_args!("operation {index}");
            t.equal(
                what,
                (error.fault.kind, error.completed),
                (FaultKind::GStageBare, 0),
            )?;
        }
        t.equal("accesses issued", hart.accesses.get(), 0)?;
        t.equal("the host's memory", arena::read(host), 0x1234)?;
        t.equal("the buffer", buffer, [0x55; 8])
    }
    in_both_forms!(t, body)
}

fn r15_the_library_reports_protected_memory(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
        world.map_g(page.gpa, FIRMWARE, USER, 0);
        world.fence();
        let vcpu = loaded(hart);
        for (operation, _, result) in all_operations(&vcpu, GVA, 0) {
            let error = error_of(result)?;
            let access = operation.access_kind();
            let instead = FaultKind::GuestPage {
                access,
                implicit: false,
            };
            if error.fault.kind == instead {
                t.holds_or(format_args!("{operation:?}"), false, ProtectionIsGuestPage)?;
                continue;
            }
            t.equal(
                format_args!("{operation:?}"),
                error.fault.kind,
                FaultKind::Access,
            )?;
            t.equal("resolution", error.fault.resolution(), Resolution::Refuse)?;
            t.equal("GVA", error.fault.gva, Some(Gva::new(GVA)))?;
        }
        Ok(())
    }
    if !firmware_is_protected() {
        skip!("no PMP");
    }
    in_both_forms!(t, body)
}
