//! Instructions that a guest may not execute.
//!
//! The one idea: a virtual-instruction exit (22) is an instruction that would be legal in HS-mode. The guest was not given
//! the H extension, so for it the instruction does not exist: it takes an illegal-instruction exception, as on a machine
//! without it.

use guest_mem::inject::Injection;
use guest_mem::{Fault, GuestPrivilege, Resolution};

use crate::vcpu::waiting::Waiting;
use crate::vcpu::{Next, Vcpu};

/// An exit with cause 22. `hstatus.VTW` makes one of the instructions that wait (R72).
pub fn virtual_instruction(vcpu: &mut Vcpu<'_>) -> Next {
    let bits = match vcpu.fetch() {
        Ok(instruction) => instruction.bits(),
        Err(fault) => return give_fetch_fault(vcpu, fault),
    };
    let supervisor = vcpu.privilege() == GuestPrivilege::Supervisor;
    if let Some(waiting) = Waiting::decode(bits, supervisor) {
        vcpu.context.pc = vcpu.context.pc.wrapping_add(Waiting::BYTES);
        return match waiting {
            Waiting::ForInterrupt => Next::Wait,
            Waiting::ForStore => Next::Resume,
        };
    }
    refuse(
        vcpu,
        bits,
        "an instruction of the H extension or of a hidden CSR",
    )
}

/// An exit with cause 2, which the firmware redirects here (R25).
pub fn illegal_instruction(vcpu: &mut Vcpu<'_>) -> Next {
    // `stval` may hold the instruction, or 0, or on QEMU 7.2 an earlier one; what is at the pc is what was refused.
    let bits = match vcpu.fetch() {
        Ok(instruction) => instruction.bits(),
        Err(fault) => return give_fetch_fault(vcpu, fault),
    };
    refuse(vcpu, bits, "an illegal instruction")
}

fn refuse(vcpu: &mut Vcpu<'_>, bits: u32, what: &str) -> Next {
    vcpu.complain(format_args!(
        "{what} ({bits:08x}): illegal instruction injected"
    ));
    vcpu.give(Injection::illegal_instruction(bits))
}

/// The guest's code is gone by the time the host looks at it: the guest gets the fault that its own fetch would meet.
pub fn give_fetch_fault(vcpu: &mut Vcpu<'_>, fault: Fault) -> Next {
    match fault.resolution() {
        Resolution::Inject(injection) => vcpu.give(injection),
        _ => match fault.injection_when_unbacked() {
            Some(injection) => vcpu.give(injection),
            // Without an address there is nothing to inject: the guest tries again.
            None => Next::Resume,
        },
    }
}
