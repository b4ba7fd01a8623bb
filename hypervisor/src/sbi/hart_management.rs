//! Hart state management: start, stop, status, suspend.

use rustsbi::{Hsm, SbiRet};
use sbi_spec::hsm::suspend_type::{NON_RETENTIVE, RETENTIVE};

use guest_mem::Gpa;

use super::call::Call;
use crate::vcpu::{Next, Vcpu};
use crate::vm::Request;
use crate::vm::hart_state::{Start, StartError};

/// Whether a hart can start at this guest-physical address: an instruction in RAM.
fn can_start_at(vcpu: &Vcpu<'_>, address: usize) -> bool {
    address.is_multiple_of(2) && vcpu.vm.ram.contains(Gpa::new(address as u64), 2)
}

impl Hsm for Call<'_, '_> {
    fn hart_start(&self, hart: usize, address: usize, opaque: usize) -> SbiRet {
        let vcpu = self.vcpu.borrow();
        let Some(state) = vcpu.vm.state(hart) else {
            return SbiRet::invalid_param();
        };
        if !can_start_at(&vcpu, address) {
            return SbiRet::invalid_address();
        }
        let start = Start {
            address: address as u64,
            opaque: opaque as u64,
        };
        match state.request_start(start) {
            Ok(()) => {
                vcpu.vm.request(hart, Request::STATE);
                SbiRet::success(0)
            }
            Err(StartError::AlreadyAvailable) => SbiRet::already_available(),
        }
    }

    fn hart_stop(&self) -> SbiRet {
        self.next.set(Next::Stop);
        SbiRet::success(0)
    }

    fn hart_get_status(&self, hart: usize) -> SbiRet {
        match self.vcpu.borrow().vm.state(hart) {
            Some(state) => SbiRet::success(state.get() as usize),
            None => SbiRet::invalid_param(),
        }
    }

    fn hart_suspend(&self, suspend_type: u32, address: usize, opaque: usize) -> SbiRet {
        let resume = match suspend_type {
            RETENTIVE => None,
            NON_RETENTIVE if !can_start_at(&self.vcpu.borrow(), address) => {
                return SbiRet::invalid_address();
            }
            NON_RETENTIVE => Some(Start {
                address: address as u64,
                opaque: opaque as u64,
            }),
            _ => return SbiRet::invalid_param(),
        };
        self.next.set(Next::Suspend(resume));
        SbiRet::success(0)
    }
}
