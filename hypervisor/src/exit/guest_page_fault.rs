//! The G-stage refused: a page that is not there yet, an emulated device, or nothing at all.
//!
//! The one idea: the guest-physical address decides. RAM is paged in, a device is emulated, and for
//! anything else the guest gets the access fault that a machine without memory there would raise.

use core::fmt;

use guest_mem::instruction::{TrappedAccess, TrappedError, decode_trapped};
use guest_mem::{AccessKind, Fault, Gpa, Resolution};

use super::illegal::give_fetch_fault;
use crate::boot::hart_local::HartLocal;
use crate::devices::finisher::Finish;
use crate::vcpu::confirm::confirmed;
use crate::vcpu::{Next, Vcpu};
use crate::vm::Ending;
use crate::vm::guest_ram::PageInError;

/// An exit with cause 20, 21 or 23.
pub fn handle(vcpu: &mut Vcpu<'_>) -> Next {
    let exit = vcpu.last_exit();
    let fault = Fault::from_guest_exit(&exit, &vcpu.vm.profile);
    let hart = &HartLocal::current().hart;
    let Some(fault) = confirmed(fault, hart, |fault| vcpu.walked(fault)) else {
        return Next::Resume;
    };
    let Resolution::Resolve { gpa, access } = fault.resolution() else {
        unreachable!("a guest-page fault that was walked has an address: {fault}")
    };
    let fences = vcpu.vm.fences();
    match vcpu.vm.ram.page_in(gpa, access, &fences) {
        Ok(_) => return Next::Resume,
        Err(PageInError::OutOfMemory) => return Next::End(Ending::OutOfMemory),
        Err(PageInError::NotRam) => {}
    }
    if fault.is_of_page_table() {
        return refuse_page_table(vcpu, fault, gpa);
    }
    if fault.operation.access_kind() == AccessKind::Fetch {
        return refuse(vcpu, &fault, gpa, format_args!("fetch where no memory is"));
    }
    emulate(vcpu, &fault, gpa)
}

/// The guest gets the access fault of a machine that does not answer at `gpa`.
fn refuse(vcpu: &mut Vcpu<'_>, fault: &Fault, gpa: Gpa, what: fmt::Arguments<'_>) -> Next {
    vcpu.complain(format_args!("{what}, GPA {gpa:#x}: access fault injected"));
    match fault.injection_when_unbacked() {
        Some(injection) => vcpu.give(injection),
        // Every exit by a guest-page fault has an address.
        None => Next::Resume,
    }
}

/// The guest keeps page tables where no memory is: its access gets the access fault of its own
/// type.
fn refuse_page_table(vcpu: &mut Vcpu<'_>, fault: Fault, gpa: Gpa) -> Next {
    let fault = if fault.needs_instruction(&vcpu.vm.profile) {
        match vcpu.fetch() {
            Ok(instruction) => fault.of_instruction(instruction),
            Err(fetch) => return give_fetch_fault(vcpu, fetch),
        }
    } else {
        fault
    };
    refuse(
        vcpu,
        &fault,
        gpa,
        format_args!("page-table walk where no memory is"),
    )
}

/// Carries out the guest's access to a device for it.
fn emulate(vcpu: &mut Vcpu<'_>, fault: &Fault, gpa: Gpa) -> Next {
    // They tell where an access begins that lies in two pages (R75).
    let registers = vcpu.context.clone();
    let decoded = match decode_trapped(fault, &registers, || vcpu.fetch()) {
        Ok(decoded) => decoded,
        // Another hart rewrote the instruction: the guest tries what is there now, but not for
        // ever, since it may also be one that the library does not know.
        Err(TrappedError::InstructionChanged(_)) if vcpu.stuck.may_retry(vcpu.context.pc) => {
            return Next::Resume;
        }
        Err(TrappedError::Fetch(fault)) => return give_fetch_fault(vcpu, fault),
        Err(error) => return refuse(vcpu, fault, gpa, format_args!("{error}")),
    };
    match decoded {
        TrappedAccess::Load(load) => {
            let gpa = load.gpa().unwrap_or(gpa);
            let Some(value) = vcpu.vm.read_device(gpa, load.width()) else {
                return refuse(vcpu, fault, gpa, format_args!("load where nothing is"));
            };
            load.complete_load(&mut vcpu.context, value);
        }
        TrappedAccess::Store(store) => {
            let gpa = store.gpa().unwrap_or(gpa);
            let value = store.store_value(&vcpu.context);
            let Some(finish) = vcpu.vm.write_device(gpa, store.width(), value) else {
                return refuse(vcpu, fault, gpa, format_args!("store where nothing is"));
            };
            store.complete_store(&mut vcpu.context);
            if let Some(finish) = finish {
                if let Finish::Fail { code } = finish {
                    log::info!("the guest says that it failed, with code {code}");
                }
                return Next::End(finish.into());
            }
        }
        // I14: devices carry out no misaligned access that leaves their page, and nothing is done
        // of it. The guest may make it by smaller ones.
        TrappedAccess::AcrossPages(access) => {
            vcpu.complain(format_args!(
                "access across the edge of a device's page, GPA {gpa:#x}: misaligned address injected"
            ));
            return vcpu.give(access.injection());
        }
    }
    vcpu.vm.memory_use.device_accesses.add_one();
    Next::Resume
}
