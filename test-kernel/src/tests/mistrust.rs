//! Section G, what is not to be believed: `htinst` out of the standard, instructions that changed, and bytes that cannot be
//! fetched.

use guest_mem::hart::riscv64::ScopedStvec;
use guest_mem::instruction::{TrappedAccess, TrappedError};
use guest_mem::{AccessKind, FaultKind, Gpa, GuestPrivilege, Gva, TrapInfo};

use super::exits::{CODE, DEVICE, DEVICE_GPA, decode, decoded_fits, guest_at, world};
use crate::arena;
use crate::forms::{self, FORMS, STRIDE};
use crate::guest::{Mode, fence_i};
use crate::harness::{Outcome, Test, cases, check, fail, skip};
use crate::library::{Scoped, loaded, probed};
use crate::tables::bits::{SUPERVISOR, USER};

cases![
    r58_an_htinst_out_of_the_standard_counts_as_zero,
    r58_i11_a_changed_instruction_is_not_emulated,
    r58_an_instruction_that_cannot_be_fetched_has_its_own_fault,
    r58_a_fetch_fault_of_the_guest_is_no_data_access,
    r58_r75_a_misaligned_access_tells_its_offset,
];

fn r58_an_htinst_out_of_the_standard_counts_as_zero(t: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    let (_world, _) = world(None);
    let mut guest = guest_at(0);
    let exit = guest.run(Mode::Vs);
    let vcpu = loaded(&hart);
    for htinst in [
        1 << 33 | forms::transformed(3),
        2,
        0x3001 << 1,
        // A store, in answer to a load's fault.
        0x0000_0023,
        u64::MAX,
    ] {
        let info = TrapInfo {
            htinst,
            ..exit.info
        };
        let mut fetches = 0;
        let decoded = decode(&guest, &info, || {
            fetches += 1;
            vcpu.fetch_instruction(Gva::new(guest.pc), GuestPrivilege::Supervisor)
        });
        decoded_fits(t, &FORMS[0], &decoded, &guest)?;
        t.equal(format_args!("htinst {htinst:#x}: fetches"), fetches, 1)?;
    }
    Ok(())
}

fn r58_i11_a_changed_instruction_is_not_emulated(_: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    let (_world, code) = world(None);
    let position = |text| FORMS.iter().position(|form| form.text.starts_with(text));
    let (Some(loads), Some(stores)) = (position("lb "), position("sb ")) else {
        fail!("the forms are not there");
    };
    for (trapped, instead) in [
        (loads, forms::bits(stores)),
        (stores, forms::bits(loads)),
        (loads, 0x13),
    ] {
        let guest_pc = CODE + (trapped * STRIDE) as u64;
        let mut guest = guest_at(trapped);
        let exit = guest.run(Mode::Vs);
        // Another hart of the guest rewrites it before it is fetched.
        let at = code.spa + (trapped * STRIDE) as u64;
        arena::write_bytes(at, instead.to_le_bytes());
        let vcpu = loaded(&hart);
        let info = TrapInfo {
            htinst: 0,
            ..exit.info
        };
        let decoded = decode(&guest, &info, || {
            vcpu.fetch_instruction(Gva::new(guest_pc), GuestPrivilege::Supervisor)
        });
        let changed = matches!(
            decoded,
            Err(TrappedError::InstructionChanged(fault)) if fault.kind == FaultKind::InstructionChanged
        );
        check!(
            changed,
            "{instead:#x} in the place of form {trapped}: {decoded:x?}"
        );
        arena::write_bytes(at, forms::bits(trapped).to_le_bytes());
        fence_i();
    }
    Ok(())
}

fn r58_an_instruction_that_cannot_be_fetched_has_its_own_fault(t: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    for (by_guest, kind) in [
        (true, FaultKind::Page),
        (
            false,
            FaultKind::GuestPage {
                access: AccessKind::Fetch,
                implicit: false,
            },
        ),
    ] {
        let (mut world, code) = world(None);
        let mut guest = guest_at(0);
        let exit = guest.run(Mode::Vs);
        if by_guest {
            world.map(CODE, code.gpa, 0, 0);
        } else {
            world.map_g(code.gpa, code.spa, 0, 0);
        }
        world.fence();
        let vcpu = loaded(&hart);
        let info = TrapInfo {
            htinst: 0,
            ..exit.info
        };
        let decoded = decode(&guest, &info, || {
            vcpu.fetch_instruction(Gva::new(guest.pc), GuestPrivilege::Supervisor)
        });
        let Err(TrappedError::Fetch(fault)) = decoded else {
            fail!("{kind:?}: {decoded:x?}");
        };
        t.equal("kind", fault.kind, kind)?;
        t.equal("GVA", fault.gva, Some(Gva::new(CODE)))?;
        arena::release_all();
    }
    Ok(())
}

fn r58_a_fetch_fault_of_the_guest_is_no_data_access(t: &mut Test) -> Outcome {
    let (mut world, code) = world(None);
    world.map_g(code.gpa, code.spa, USER & !crate::tables::bits::X, 0);
    world.fence();
    let mut guest = guest_at(0);
    let exit = guest.run(Mode::Vs);
    t.equal("cause", exit.info.scause, 20)?;
    t.equal("GPA", exit.gpa(), code.gpa)?;
    t.equal("htinst", exit.info.htinst, 0)?;
    let no_fetch = || -> Result<_, guest_mem::AccessError> { panic!("nothing to fetch") };
    let decoded = decode(&guest, &exit.info, no_fetch);
    check!(
        matches!(decoded, Err(TrappedError::NotDataAccess(fault)) if fault.trap == Some(exit.info)),
        "{decoded:x?}"
    );
    if exit.hstatus & guest_mem::csr::HSTATUS_GVA == 0 {
        skip!("stval of a fetch fault is not marked as guest-virtual");
    }
    Ok(())
}

fn r58_r75_a_misaligned_access_tells_its_offset(t: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    let Some(index) = FORMS.iter().position(|form| form.text == "lw a0, 4(a1)") else {
        fail!("the form is not there");
    };
    // Two bytes in memory before the device, two in the device.
    let (mut world, _) = world(None);
    world.page_at(DEVICE - 4096, SUPERVISOR);
    world.fence();
    let mut guest = guest_at(index);
    guest.x[11] = DEVICE - 2 - 4;
    let exit = guest.run(Mode::Vs);
    if exit.info.scause == 4 {
        return t.equal("stval", exit.info.stval, DEVICE - 2);
    }
    t.equal("cause", exit.info.scause, 21)?;
    t.equal("stval", exit.info.stval, DEVICE)?;
    t.equal("GPA", exit.gpa(), DEVICE_GPA)?;
    if exit.info.htinst != 0 {
        t.equal(
            "htinst",
            exit.info.htinst,
            forms::transformed(index) | 2 << 15,
        )?;
    }
    // The library tells the two parts apart, by htinst and by the instruction.
    let vcpu = loaded(&hart);
    for htinst in [exit.info.htinst, 0] {
        let info = TrapInfo {
            htinst,
            ..exit.info
        };
        let decoded = decode(&guest, &info, || {
            vcpu.fetch_instruction(Gva::new(guest.pc), GuestPrivilege::Supervisor)
        });
        let Ok(TrappedAccess::AcrossPages(access)) = decoded else {
            fail!("htinst {htinst:#x}: {decoded:x?}");
        };
        let parts = access.parts().map(|part| (part.gva, part.len, part.gpa));
        let expected = [
            (Gva::new(DEVICE - 2), 2, None),
            (Gva::new(DEVICE), 2, Some(Gpa::new(DEVICE_GPA))),
        ];
        t.equal(format_args!("htinst {htinst:#x}"), parts, expected)?;
    }
    Ok(())
}
