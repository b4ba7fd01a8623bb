//! The G-stage refused: a page that is not there yet, an emulated device, or nothing at all.
//!
//! The one idea: the guest-physical address decides. RAM is paged in, a device is emulated, and for anything else the guest
//! gets the access fault that a machine without memory there would raise.

use core::fmt;

use guest_mem::cause;
use guest_mem::inject::Injection;
use guest_mem::instruction::{Htinst, TrappedAccess, TrappedError, decode_htinst, decode_trapped};
use guest_mem::translate::{Access, Purpose, WalkTrace};
use guest_mem::{AccessKind, FaultKind, Gpa, Gva, TrapInfo};

use super::illegal::give_fetch_fault;
use crate::vcpu::{Next, Vcpu};
use crate::vm::Ending;
use crate::vm::guest_ram::PageInError;

/// An exit with cause 20, 21 or 23.
pub fn handle(vcpu: &mut Vcpu<'_>) -> Next {
    let trap = vcpu.context.trap;
    let original = match trap.scause {
        cause::INSTRUCTION_GUEST_PAGE => AccessKind::Fetch,
        cause::STORE_GUEST_PAGE => AccessKind::Store,
        // R67: QEMU before 8.1 gives every page-table walk the cause of a load. The walk for the instruction comes before
        // that for its data, so one that faults at the pc is the fetch's.
        _ if is_page_table_walk(&trap) && trap.stval.wrapping_sub(vcpu.context.pc) < 4 => {
            AccessKind::Fetch
        }
        _ => AccessKind::Load,
    };
    // R58: what faulted may be the guest's page-table walk. R22: `htval` lacks the two low bits.
    let (gpa, access, implicit) = match decode_htinst(trap.htinst) {
        Htinst::PageTable(walk) => (Gpa::new(trap.htval << 2), walk, true),
        _ if trap.htval == 0 => match unreported(vcpu, original) {
            Some(found) => found,
            // The guest's tables have changed since: it tries again (R46).
            None => return Next::Resume,
        },
        _ => (
            Gpa::new(trap.htval << 2 | trap.stval & 0b11),
            original,
            false,
        ),
    };
    let fences = vcpu.vm.fences();
    match vcpu.vm.ram.page_in(gpa, access, &fences) {
        Ok(_) => return Next::Resume,
        Err(PageInError::OutOfMemory) => return Next::End(Ending::OutOfMemory),
        Err(PageInError::NotRam) => {}
    }
    if !implicit && original != AccessKind::Fetch {
        return emulate(vcpu, gpa, original);
    }
    let what = if implicit { "page-table walk" } else { "fetch" };
    refuse(
        vcpu,
        gpa,
        original,
        format_args!("{what} where no memory is"),
    )
}

fn is_page_table_walk(trap: &TrapInfo) -> bool {
    matches!(decode_htinst(trap.htinst), Htinst::PageTable(_))
}

/// The guest gets the access fault of a machine that does not answer at `gpa`.
fn refuse(vcpu: &mut Vcpu<'_>, gpa: Gpa, original: AccessKind, what: fmt::Arguments<'_>) -> Next {
    vcpu.complain(format_args!("{what}, GPA {gpa:#x}: access fault injected"));
    let gva = Gva::new(vcpu.context.trap.stval);
    vcpu.give(Injection::access_fault(original, gva))
}

/// What the G-stage refused, where the hart did not say: `htval` is 0, which may also be true. The guest's tables tell.
fn unreported(vcpu: &Vcpu<'_>, original: AccessKind) -> Option<(Gpa, AccessKind, bool)> {
    let access = Access {
        gva: Gva::new(vcpu.context.trap.stval),
        purpose: match original {
            AccessKind::Load => Purpose::Load,
            AccessKind::Store => Purpose::Store,
            AccessKind::Fetch => Purpose::Fetch,
        },
        privilege: vcpu.privilege(),
    };
    match vcpu.walk(access, &WalkTrace::new()) {
        Ok(found) => Some((found.gpa, original, false)),
        Err(fault) => match (fault.kind, fault.gpa) {
            (FaultKind::GuestPage { access, implicit }, Some(gpa)) => Some((gpa, access, implicit)),
            _ => None,
        },
    }
}

/// Carries out the guest's access to a device for it.
fn emulate(vcpu: &mut Vcpu<'_>, gpa: Gpa, original: AccessKind) -> Next {
    let trap = vcpu.context.trap;
    let decoded = match decode_trapped(&trap, || vcpu.fetch()) {
        Ok(decoded) => decoded,
        // Another hart rewrote the instruction: the guest tries what is there now, but not for ever, since it may also be
        // one that the library does not know.
        Err(TrappedError::InstructionChanged(_)) if vcpu.stuck.may_retry(vcpu.context.pc) => {
            return Next::Resume;
        }
        Err(TrappedError::Fetch(fault)) => return give_fetch_fault(vcpu, fault),
        Err(error) => return refuse(vcpu, gpa, original, format_args!("{error}")),
    };
    let changed = match decoded {
        TrappedAccess::Load(load) => {
            let answer = vcpu.vm.devices.read(gpa, load.width());
            let Some(value) = answer.value else {
                return refuse(vcpu, gpa, original, format_args!("load where nothing is"));
            };
            load.complete_load(&mut vcpu.context, value);
            answer.changed
        }
        TrappedAccess::Store(store) => {
            let value = store.store_value(&vcpu.context);
            let answer = vcpu.vm.devices.write(gpa, store.width(), value);
            if answer.value.is_none() {
                return refuse(vcpu, gpa, original, format_args!("store where nothing is"));
            }
            store.complete_store(&mut vcpu.context);
            answer.changed
        }
    };
    vcpu.vm.memory_use.device_accesses.add_one();
    vcpu.vm.interrupts_changed(changed);
    Next::Resume
}
