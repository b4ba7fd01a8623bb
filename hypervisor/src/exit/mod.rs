//! Why a guest exited, and what is done about it: one handler a cause.
//!
//! The one idea: whatever the guest did, it gets what the specification says it gets, and the host goes on.

mod guest_page_fault;
mod illegal;

use core::fmt;

use guest_mem::cause;
use guest_mem::inject::Injection;

use crate::sbi;
use crate::vcpu::{Next, Vcpu};
use crate::vm::Ending;

/// `scause` of interrupts.
const INTERRUPT: u64 = 1 << 63;
const SOFTWARE_INTERRUPT: u64 = INTERRUPT | 1;
const TIMER_INTERRUPT: u64 = INTERRUPT | 5;
/// `scause` of an `ecall` from VS-mode.
const ECALL_FROM_VS: u64 = 10;

/// Handles the exit that the vCPU's context records.
pub fn handle(vcpu: &mut Vcpu<'_>) -> Next {
    let trap = vcpu.context.trap;
    vcpu.vm.exits.count(trap.scause);
    match trap.scause {
        // The requests that came with it are served before the guest goes on.
        SOFTWARE_INTERRUPT => Next::Resume,
        TIMER_INTERRUPT => {
            vcpu.timer_interrupt();
            vcpu.check_progress()
        }
        ECALL_FROM_VS => sbi::handle(vcpu),
        cause::INSTRUCTION_GUEST_PAGE | cause::LOAD_GUEST_PAGE | cause::STORE_GUEST_PAGE => {
            guest_page_fault::handle(vcpu)
        }
        cause::VIRTUAL_INSTRUCTION => illegal::virtual_instruction(vcpu),
        cause::ILLEGAL_INSTRUCTION => illegal::illegal_instruction(vcpu),
        // What the firmware did not delegate, and what it redirected here: the guest's own.
        scause if scause & INTERRUPT == 0 => {
            vcpu.complain(format_args!(
                "exception {scause} at address {:#x}: injected",
                trap.stval
            ));
            vcpu.give(Injection {
                cause: scause,
                tval: trap.stval,
            })
        }
        _ => Next::Resume,
    }
}

impl Vcpu<'_> {
    /// Says in one line what the guest did wrong where it stands.
    pub fn complain(&self, what: fmt::Arguments<'_>) {
        self.vm.complain(self.context.pc, what);
    }

    /// Lets the guest take an exception, unless it has taken it at its own trap vector for too long.
    pub fn give(&mut self, injection: Injection) -> Next {
        let vstvec = crate::csr::read!("vstvec");
        if self.stuck.exception(self.context.pc, vstvec) {
            return Next::End(Ending::LostTrapVector);
        }
        self.inject(injection);
        Next::Resume
    }

    /// Looks, on a tick, whether the guest still gets anywhere.
    fn check_progress(&mut self) -> Next {
        if self.vm.is_past_deadline() {
            return Next::End(Ending::TimeLimit);
        }
        let endless = self.stuck.tick(
            self.context.pc,
            crate::csr::read!("vstvec"),
            crate::csr::read!("vsepc"),
            crate::csr::read!("vscause"),
        );
        if endless {
            Next::End(Ending::LostTrapVector)
        } else {
            Next::Resume
        }
    }
}
