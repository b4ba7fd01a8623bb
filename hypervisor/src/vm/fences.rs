//! Fences on the harts of a guest, by the firmware.
//!
//! The one idea: the firmware executes a remote fence in M-mode on the target hart, whether that runs the guest or sits in
//! the hypervisor (R44), and serves requests while it waits itself. So no two harts can wait for each other, and a fence
//! has happened when the call returns.

use guest_mem::hart::Hart;
use guest_mem::{Gpa, sync_instructions};
use sbi_rt::HartMask;

use super::guest_ram::Fences;
use crate::boot::hart_local::HartLocal;
use crate::memory::frames::FRAME;
use crate::power;
use crate::sbi::arguments::{FenceRange, HartSet};

/// The machine's harts that run a guest: index is the guest's hart number.
#[derive(Clone, Copy, Debug)]
pub struct GuestHarts<'a>(pub &'a [u64]);

impl GuestHarts<'_> {
    /// Calls the firmware for each of `harts`.
    fn each(&self, harts: HartSet, call: impl Fn(HartMask) -> sbi_rt::SbiRet) {
        for index in harts.iter() {
            let Some(&id) = self.0.get(index) else {
                continue;
            };
            if let Err(error) = call(HartMask::from_mask_base(1, id as usize)).into_result() {
                // A fence that did not happen leaves the guest's memory in two states at once.
                power::give_up(format_args!(
                    "the firmware refuses a remote fence on hart {id}: {error:?}"
                ));
            }
        }
    }

    fn all(&self) -> HartSet {
        HartSet::all(self.0.len())
    }

    /// `fence.i` on guest harts.
    pub fn fence_i(&self, harts: HartSet) {
        self.each(harts, sbi_rt::remote_fence_i);
    }

    /// The guest's `sfence.vma` on guest harts, for one address space if `asid` is given.
    pub fn sfence_vma(&self, harts: HartSet, range: FenceRange, asid: Option<usize>) {
        let (start, len) = range.arguments();
        self.each(harts, |mask| match asid {
            Some(asid) => sbi_rt::remote_hfence_vvma_asid(mask, start, len, asid),
            None => sbi_rt::remote_hfence_vvma(mask, start, len),
        });
    }
}

impl Fences for GuestHarts<'_> {
    fn translations_changed(&self, gpa: Gpa) {
        self.each(self.all(), |mask| {
            sbi_rt::remote_hfence_gvma(mask, gpa.value() as usize, FRAME as usize)
        });
    }

    fn forget_here(&self, gpa: Gpa) {
        HartLocal::current().hart.hfence_gvma(Some(gpa.value()));
    }

    fn instructions_changed(&self, gpa: Gpa) {
        sync_instructions(&HartLocal::current().hart, gpa, FRAME as usize, |_, _| {
            if self.0.len() > 1 {
                self.fence_i(self.all());
            }
        });
    }
}
