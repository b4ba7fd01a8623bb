//! The library's use of privilege, and its instruction fetch (R2, R7, R8).

use guest_mem::hart::Hart;
use guest_mem::{AccessKind, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva};

use crate::deviation::Deviation::{FetchChecksRead, SumIgnored};
use crate::harness::{Outcome, Test, cases, check};
use crate::library::{error_of, in_both_forms, loaded};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER, X};
use crate::{arena, csr};

cases![
    r2_the_library_acts_with_the_stated_privilege,
    r3_the_library_honours_the_guests_sum,
    r5_the_library_fetches_from_an_execute_only_page,
    r7_the_librarys_fetch_refuses_a_user_page_to_the_supervisor,
    r8_an_instruction_across_pages_is_fetched_in_parcels,
    r8_the_second_half_of_an_instruction_has_a_fault_of_its_own,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;
use GuestPrivilege::{Supervisor, User};

/// `addi a0, a0, 1`, a 4-byte instruction.
const INCREMENT: u32 = 0x0015_0513;

fn r2_the_library_acts_with_the_stated_privilege(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        World::with_page(GVA, SUPERVISOR, USER);
        let vcpu = loaded(hart);
        // What SPVP holds makes no difference, nor does what the other privilege was given just before (R35).
        for spvp in [false, true] {
            crate::harness::act_as_supervisor(spvp);
            let allowed = vcpu
                .guest_virtual(Supervisor)
                .read(Gva::new(GVA), &mut [0; 8]);
            t.equal("as supervisor", allowed, Ok(()))?;
            let error = error_of(vcpu.guest_virtual(User).read(Gva::new(GVA), &mut [0; 8]))?;
            t.equal("as user", error.fault.kind, FaultKind::Page)?;
            let left = csr::hstatus::read() & guest_mem::csr::HSTATUS_SPVP != 0;
            t.equal("SPVP afterwards", left, spvp)?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r7_the_librarys_fetch_refuses_a_user_page_to_the_supervisor(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        for sum in [0, guest_mem::csr::STATUS_SUM] {
            // SAFETY: guest state.
            unsafe { csr::vsstatus::write(sum) };
            World::with_page(GVA, USER, USER);
            let vcpu = loaded(hart);
            let as_user = vcpu.fetch_instruction(Gva::new(GVA), User);
            check!(as_user.is_ok(), "as user: {as_user:?}");
            let as_supervisor = vcpu.fetch_instruction(Gva::new(GVA), Supervisor);
            if as_supervisor.is_ok() {
                // A machine that takes SUM as set reads user pages whatever the library does.
                t.holds_or(
                    "a user page was fetched for the supervisor",
                    false,
                    SumIgnored,
                )?;
            } else {
                let error = error_of(as_supervisor)?;
                t.equal("as supervisor", error.fault.kind, FaultKind::Page)?;
            }
            t.equal(
                "vsstatus afterwards",
                csr::vsstatus::read() & guest_mem::csr::STATUS_SUM,
                sum,
            )?;
        }
        // Without X nothing is fetched.
        World::with_page(GVA, SUPERVISOR & !X, USER);
        let vcpu = loaded(hart);
        let fetched = vcpu.fetch_instruction(Gva::new(GVA), Supervisor);
        t.holds_or(
            "a page without X was fetched",
            fetched.is_err(),
            FetchChecksRead,
        )
    }
    in_both_forms!(t, body)
}

fn r8_an_instruction_across_pages_is_fetched_in_parcels(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
        let second = world.page_at(GVA + PAGE, SUPERVISOR);
        world.fence();
        arena::write_bytes(
            first.spa + PAGE - 2,
            INCREMENT.to_le_bytes()[..2].iter().copied(),
        );
        arena::write_bytes(second.spa, INCREMENT.to_le_bytes()[2..].iter().copied());
        let vcpu = loaded(hart);
        let fetched = vcpu.fetch_instruction(Gva::new(GVA + PAGE - 2), Supervisor);
        t.equal("across", fetched.map(|found| found.bits()), Ok(INCREMENT))?;
        // A 2-byte instruction at the end of a page needs no second page.
        arena::write_bytes(first.spa + PAGE - 2, [0x05, 0x45]);
        world.map(GVA + PAGE, second.gpa, 0, 0);
        world.fence();
        let fetched = vcpu.fetch_instruction(Gva::new(GVA + PAGE - 2), Supervisor);
        t.equal("compressed", fetched.map(|found| found.bits()), Ok(0x4505))
    }
    in_both_forms!(t, body)
}

fn r8_the_second_half_of_an_instruction_has_a_fault_of_its_own(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        for (vs_flags, g_flags) in [(0, USER), (SUPERVISOR, 0)] {
            let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
            let second = world.page(g_flags);
            world.map(GVA + PAGE, second.gpa, vs_flags, 0);
            world.fence();
            arena::write_bytes(
                first.spa + PAGE - 2,
                INCREMENT.to_le_bytes()[..2].iter().copied(),
            );
            let vcpu = loaded(hart);
            let error = error_of(vcpu.fetch_instruction(Gva::new(GVA + PAGE - 2), Supervisor))?;
            t.equal("completed", error.completed, 2)?;
            t.equal("GVA", error.fault.gva, Some(Gva::new(GVA + PAGE)))?;
            let (kind, gpa) = if vs_flags == 0 {
                (FaultKind::Page, None)
            } else {
                let access = AccessKind::Fetch;
                (
                    FaultKind::GuestPage {
                        access,
                        implicit: false,
                    },
                    Some(Gpa::new(second.gpa)),
                )
            };
            t.equal(
                "kind and GPA",
                (error.fault.kind, error.fault.gpa),
                (kind, gpa),
            )?;
        }
        let vcpu = loaded(hart);
        let error = error_of(vcpu.fetch_instruction(Gva::new(GVA + 1), Supervisor))?;
        t.equal("an odd pc", error.fault.kind, FaultKind::Misaligned)
    }
    in_both_forms!(t, body)
}

fn r3_the_library_honours_the_guests_sum(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        for sum in [0, guest_mem::csr::STATUS_SUM] {
            // SAFETY: guest state.
            unsafe { csr::vsstatus::write(sum) };
            World::with_page(GVA, USER, USER);
            let vcpu = loaded(hart);
            let as_user = vcpu.guest_virtual(User).read(Gva::new(GVA), &mut [0; 8]);
            t.equal("as user", as_user, Ok(()))?;
            let as_supervisor = vcpu
                .guest_virtual(Supervisor)
                .read(Gva::new(GVA), &mut [0; 8]);
            let refused = as_supervisor.is_err_and(|error| error.fault.kind == FaultKind::Page);
            if sum == 0 {
                t.holds_or(
                    "SUM=0: the supervisor reads a user page",
                    refused,
                    SumIgnored,
                )?;
            } else {
                t.equal("SUM=1", as_supervisor, Ok(()))?;
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r5_the_library_fetches_from_an_execute_only_page(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        use crate::tables::bits::{A, D, U, V};
        let (_world, page) = World::with_page(GVA, V | X | A | D, V | X | U | A | D);
        arena::write(page.spa, INCREMENT.into());
        let vcpu = loaded(hart);
        let fetched = vcpu.fetch_instruction(Gva::new(GVA), Supervisor);
        let right = fetched.is_ok_and(|found| found.bits() == INCREMENT);
        t.holds_or(
            "an execute-only page is not fetched",
            right,
            FetchChecksRead,
        )?;
        let read = vcpu
            .guest_virtual(Supervisor)
            .read(Gva::new(GVA), &mut [0; 4]);
        let kind = read.map_err(|error| error.fault.kind);
        t.equal("a read", kind, Err(FaultKind::Page))
    }
    in_both_forms!(t, body)
}
