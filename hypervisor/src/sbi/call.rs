//! One call: from `a7` to the extension, and what it makes of the vCPU.

use core::cell::{Cell, RefCell};

use rustsbi::{EnvInfo, Reset, RustSBI, SbiRet, Timer};
use sbi_spec::base::{EID_BASE, PROBE_EXTENSION};
use sbi_spec::binary::Error;
use sbi_spec::fwft::{self, EID_FWFT};
use sbi_spec::legacy::LEGACY_SHUTDOWN;
use sbi_spec::srst;

use super::{arguments, legacy};
use crate::vcpu::{Next, Vcpu};
use crate::vm::Ending;

/// Bytes of an `ecall`.
const ECALL: u64 = 4;
/// The SBI's first number for experiments: a panic, where the operator lets a guest ask for one.
const DRILL: usize = 0x0800_0000;
/// The last extension of the v0.1 kind.
const LAST_LEGACY_EXTENSION: usize = 0xf;

const A0: usize = 10;
const A1: usize = 11;
const A6: usize = 16;
const A7: usize = 17;

/// Handles the guest's `ecall`.
pub fn handle(vcpu: &mut Vcpu<'_>) -> Next {
    let extension = vcpu.context.x[A7] as usize;
    if extension <= LAST_LEGACY_EXTENSION {
        return legacy::handle(vcpu, extension);
    }
    if extension == DRILL && vcpu.vm.drill {
        panic!("a drill that the guest asked for");
    }
    let function = vcpu.context.x[A6] as usize;
    let registers = core::array::from_fn(|n| vcpu.context.x[A0 + n] as usize);
    // The dispatcher would refuse what does not fit a `uint32_t`.
    let arguments = arguments::as_declared(extension, function, registers);
    let call = Call {
        vcpu: RefCell::new(vcpu),
        next: Cell::new(Next::Resume),
    };
    let sbi = GuestSbi {
        timer: &call,
        ipi: &call,
        fence: &call,
        hsm: &call,
        reset: &call,
        console: &call,
        info: &call,
    };
    let result = match (extension, function, arguments[0]) {
        // The dispatcher does not know of the calls that `legacy` serves.
        (EID_BASE, PROBE_EXTENSION, ..=LEGACY_SHUTDOWN | EID_FWFT) => SbiRet::success(1),
        (EID_FWFT, function, _) => call.firmware_features(function, arguments),
        _ => sbi.handle_ecall(extension, function, arguments),
    };
    let next = call.next.get();
    let refusal = match result.into_result() {
        Err(Error::InvalidParam) => Some("an invalid parameter"),
        Err(Error::InvalidAddress) => Some("an invalid address"),
        Err(Error::Failed) => Some("an argument that cannot be served"),
        _ => None,
    };
    if let Some(refusal) = refusal {
        vcpu.complain(format_args!(
            "SBI call with {refusal} (extension {extension:#x}, function {function}): refused"
        ));
    }
    vcpu.context.pc = vcpu.context.pc.wrapping_add(ECALL);
    vcpu.context.x[A0] = result.error as u64;
    vcpu.context.x[A1] = result.value as u64;
    next
}

/// The extensions that a guest has. The names of the fields are those that the derive knows.
#[derive(RustSBI)]
struct GuestSbi<'c, 'b, 'v> {
    timer: &'c Call<'b, 'v>,
    ipi: &'c Call<'b, 'v>,
    fence: &'c Call<'b, 'v>,
    hsm: &'c Call<'b, 'v>,
    reset: &'c Call<'b, 'v>,
    console: &'c Call<'b, 'v>,
    info: &'c Call<'b, 'v>,
}

/// One call of one vCPU: the implementation of every extension.
pub(super) struct Call<'b, 'v> {
    /// The vCPU that calls. Each function borrows it once.
    pub(super) vcpu: RefCell<&'b mut Vcpu<'v>>,
    /// What the vCPU does afterwards.
    pub(super) next: Cell<Next>,
}

impl Call<'_, '_> {
    /// FWFT, which the dispatcher does not know.
    fn firmware_features(&self, function: usize, arguments: [usize; 6]) -> SbiRet {
        let mut vcpu = self.vcpu.borrow_mut();
        let [feature, value, flags, ..] = arguments;
        let result = match function {
            fwft::SET => vcpu.set_firmware_feature(feature, value, flags).map(|()| 0),
            fwft::GET => vcpu.firmware_features.get(feature),
            _ => Err(Error::NotSupported),
        };
        result.map_or_else(SbiRet::from, SbiRet::success)
    }
}

impl Timer for Call<'_, '_> {
    fn set_timer(&self, deadline: u64) {
        self.vcpu.borrow_mut().timer.set_guest(deadline);
    }
}

impl Reset for Call<'_, '_> {
    fn system_reset(&self, reset_type: u32, reset_reason: u32) -> SbiRet {
        let failed = match reset_reason {
            srst::RESET_REASON_NO_REASON => false,
            srst::RESET_REASON_SYSTEM_FAILURE => true,
            _ => return SbiRet::invalid_param(),
        };
        let ending = match reset_type {
            srst::RESET_TYPE_SHUTDOWN if failed => Ending::SystemFailure,
            srst::RESET_TYPE_SHUTDOWN => Ending::Shutdown,
            srst::RESET_TYPE_COLD_REBOOT | srst::RESET_TYPE_WARM_REBOOT => Ending::Reboot,
            _ => return SbiRet::invalid_param(),
        };
        self.next.set(Next::End(ending));
        SbiRet::success(0)
    }
}

impl EnvInfo for Call<'_, '_> {
    fn mvendorid(&self) -> usize {
        sbi_rt::get_mvendorid()
    }

    fn marchid(&self) -> usize {
        sbi_rt::get_marchid()
    }

    fn mimpid(&self) -> usize {
        sbi_rt::get_mimpid()
    }
}
