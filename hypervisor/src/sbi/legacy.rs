//! The calls of SBI v0.1, which kernels without the newer extensions still make.
//!
//! The one idea: their hart masks are in memory at a guest-*virtual* address, so reading one is an access with the guest
//! kernel's own rights, and a fault of it is the guest's to take. They answer in `a0` alone.

use guest_mem::{Gva, Resolution};
use sbi_spec::legacy::{
    LEGACY_CLEAR_IPI, LEGACY_CONSOLE_GETCHAR, LEGACY_CONSOLE_PUTCHAR, LEGACY_REMOTE_FENCE_I,
    LEGACY_REMOTE_SFENCE_VMA, LEGACY_REMOTE_SFENCE_VMA_ASID, LEGACY_SEND_IPI, LEGACY_SET_TIMER,
    LEGACY_SHUTDOWN,
};

use super::arguments::{FenceRange, HartSet};
use crate::console;
use crate::csr;
use crate::vcpu::{Next, Vcpu};
use crate::vm::{Ending, Request};

const A0: usize = 10;
const ECALL: u64 = 4;

/// SBI_ERR_FAILED, SBI_ERR_NOT_SUPPORTED, SBI_ERR_INVALID_PARAM and SBI_ERR_INVALID_ADDRESS, as `a0` shows them.
const FAILED: u64 = -1_i64 as u64;
const NOT_SUPPORTED: u64 = -2_i64 as u64;
const INVALID_PARAM: u64 = -3_i64 as u64;
const INVALID_ADDRESS: u64 = -5_i64 as u64;

/// Handles a call of extension `extension`.
pub fn handle(vcpu: &mut Vcpu<'_>, extension: usize) -> Next {
    let [a0, a1, a2, a3] = core::array::from_fn(|n| vcpu.context.x[A0 + n]);
    let answer = match extension {
        LEGACY_SET_TIMER => {
            vcpu.timer.set_guest(a0);
            0
        }
        LEGACY_CONSOLE_PUTCHAR => {
            console::put_guest(&[a0 as u8]);
            0
        }
        LEGACY_CONSOLE_GETCHAR => vcpu.vm.typed().map_or(FAILED, u64::from),
        LEGACY_CLEAR_IPI => {
            let pending = csr::read!("hvip") & csr::VSSI != 0;
            // SAFETY: the register is the guest's.
            unsafe { csr::clear!("hvip", csr::VSSI) };
            // "A positive value if an IPI had been pending."
            u64::from(pending)
        }
        LEGACY_SEND_IPI
        | LEGACY_REMOTE_FENCE_I
        | LEGACY_REMOTE_SFENCE_VMA
        | LEGACY_REMOTE_SFENCE_VMA_ASID => {
            let harts = match hart_mask(vcpu, a0) {
                Ok(Some(harts)) => harts,
                Ok(None) => return answer_with(vcpu, INVALID_PARAM),
                Err(next) => return next,
            };
            let asid = (extension == LEGACY_REMOTE_SFENCE_VMA_ASID).then_some(a3 as usize);
            on_harts(
                vcpu,
                extension,
                harts,
                FenceRange::new(a1 as usize, a2 as usize),
                asid,
            )
        }
        LEGACY_SHUTDOWN => return Next::End(Ending::Shutdown),
        _ => NOT_SUPPORTED,
    };
    answer_with(vcpu, answer)
}

fn answer_with(vcpu: &mut Vcpu<'_>, answer: u64) -> Next {
    vcpu.context.x[A0] = answer;
    vcpu.context.pc = vcpu.context.pc.wrapping_add(ECALL);
    Next::Resume
}

/// The harts of the mask at `gva`: every hart if that is 0, `Ok(None)` if one of them does not exist. If the guest cannot read
/// its own mask it takes that fault at the `ecall`.
fn hart_mask(vcpu: &mut Vcpu<'_>, gva: u64) -> Result<Option<HartSet>, Next> {
    let harts = vcpu.vm.harts();
    if gva == 0 {
        return Ok(Some(HartSet::all(harts)));
    }
    let mut mask = [0; 8];
    match vcpu.read_virtual(Gva::new(gva), &mut mask) {
        Ok(()) => {
            let mask = u64::from_le_bytes(mask) as usize;
            Ok(HartSet::from_mask(mask, 0, harts))
        }
        Err(fault) => {
            vcpu.complain(format_args!("a bad hart-mask pointer for the SBI: {fault}"));
            let injection = match fault.resolution() {
                Resolution::Inject(injection) => Some(injection),
                _ => fault.injection_when_unbacked(),
            };
            Err(match injection {
                Some(injection) => vcpu.give(injection),
                None => answer_with(vcpu, FAILED),
            })
        }
    }
}

fn on_harts(
    vcpu: &Vcpu<'_>,
    extension: usize,
    harts: HartSet,
    range: Option<FenceRange>,
    asid: Option<usize>,
) -> u64 {
    match (extension, range) {
        (LEGACY_SEND_IPI, _) => {
            for index in harts.iter() {
                vcpu.vm.request(index, Request::SOFTWARE_INTERRUPT);
            }
        }
        (LEGACY_REMOTE_FENCE_I, _) => vcpu.vm.fences().fence_i(harts),
        (_, Some(range)) => vcpu.vm.remote_sfence(harts, range, asid),
        (_, None) => return INVALID_ADDRESS,
    }
    0
}
