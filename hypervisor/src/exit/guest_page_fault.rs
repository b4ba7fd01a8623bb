//! The G-stage refused: a page that is not there yet, an emulated device, or nothing at all.
//!
//! The one idea: the guest-physical address decides. RAM is paged in, a device is emulated, and for anything else the guest
//! gets the access fault that a machine without memory there would raise.

use guest_mem::fault::cause;
use guest_mem::inject::Injection;
use guest_mem::instruction::{Htinst, TrappedAccess, TrappedError, decode_htinst, decode_trapped};
use guest_mem::translate::{Access, Purpose, WalkTrace};
use guest_mem::{AccessKind, FaultKind, Gpa, Gva};

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
    nothing_there(vcpu, gpa, original, implicit)
}

/// The guest gets the access fault of a machine that has nothing at `gpa`.
fn nothing_there(vcpu: &mut Vcpu<'_>, gpa: Gpa, original: AccessKind, implicit: bool) -> Next {
    let trap = vcpu.context.trap;
    vcpu.complain(format_args!(
        "{} at GPA {gpa:#x}, where nothing is: access fault injected",
        if implicit {
            "page-table walk"
        } else {
            kind_name(original)
        },
    ));
    vcpu.give(Injection::access_fault(original, Gva::new(trap.stval)))
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

fn kind_name(access: AccessKind) -> &'static str {
    match access {
        AccessKind::Load => "load",
        AccessKind::Store => "store",
        AccessKind::Fetch => "fetch",
    }
}

/// Carries out the guest's access to a device for it.
fn emulate(vcpu: &mut Vcpu<'_>, gpa: Gpa, original: AccessKind) -> Next {
    let trap = vcpu.context.trap;
    let decoded = match decode_trapped(&trap, || vcpu.fetch()) {
        Ok(decoded) => decoded,
        // Another hart rewrote the instruction: the guest tries what is there now.
        Err(TrappedError::InstructionChanged(_)) => return Next::Resume,
        Err(TrappedError::Fetch(fault)) => return give_fetch_fault(vcpu, fault),
        Err(_) => return nothing_there(vcpu, gpa, original, false),
    };
    let changed = match decoded {
        TrappedAccess::Load(load) => {
            let answer = vcpu.vm.devices.read(gpa, load.width());
            let Some(value) = answer.value else {
                return nothing_there(vcpu, gpa, original, false);
            };
            load.complete_load(&mut vcpu.context, value);
            answer.changed
        }
        TrappedAccess::Store(store) => {
            let value = store.store_value(&vcpu.context);
            let answer = vcpu.vm.devices.write(gpa, store.width(), value);
            if answer.value.is_none() {
                return nothing_there(vcpu, gpa, original, false);
            }
            store.complete_store(&mut vcpu.context);
            answer.changed
        }
    };
    vcpu.vm.memory_use.device_accesses.add_one();
    vcpu.vm.interrupts_changed(changed);
    Next::Resume
}
