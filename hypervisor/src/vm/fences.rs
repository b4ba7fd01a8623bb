//! Fences on the harts of a guest.
//!
//! The one idea: a fence has happened on a hart when the call returns, or happens before that hart reaches anything of the
//! guest again. This hart fences by itself, one that sleeps in the hypervisor is left the fence ([`Sleeper`]), and all others
//! are fenced by one call of the firmware. That executes a remote fence in M-mode on the target hart, whether it runs the
//! guest or sits in the hypervisor (R44), and serves requests while it waits itself: no two harts can wait for each other.

use guest_mem::hart::Hart;
use guest_mem::{Gpa, sync_instructions};
use sbi_rt::{HartMask, SbiRet};

use super::guest_ram::Fences;
use super::sleeper::{Owed, Sleeper};
use crate::boot::hart_local::HartLocal;
use crate::memory::frames::FRAME;
use crate::power;
use crate::sbi::arguments::{FenceRange, HartSet};

/// The machine's harts that run a guest: index is the guest's hart number.
#[derive(Clone, Copy, Debug)]
pub struct GuestHarts<'a> {
    /// What the machine calls them.
    pub ids: &'a [u64],
    /// Which of them sleep.
    pub sleepers: &'a [Sleeper],
}

/// Carries out here what this hart owes its guest.
pub fn carry_out(owed: Owed) {
    owed.carry_out(&HartLocal::current().hart);
}

impl GuestHarts<'_> {
    /// Calls the firmware for `harts`.
    fn by_firmware(
        &self,
        harts: HartSet,
        range: FenceRange,
        call: impl Fn(HartMask, usize, usize) -> SbiRet,
    ) {
        harts.masks(self.ids, |mask, base| {
            let harts = HartMask::from_mask_base(mask, base);
            if let Err(error) = range.ask(|start, len| call(harts, start, len)) {
                // A fence that did not happen leaves the guest's memory in two states at once.
                power::give_up(format_args!(
                    "the firmware refuses a remote fence on harts {mask:#x} from {base}: {error:?}"
                ));
            }
        });
    }

    fn all(&self) -> HartSet {
        HartSet::all(self.ids.len())
    }

    /// The fence on `harts`: `here` on this one, `call` on those that are awake.
    fn on(
        &self,
        harts: HartSet,
        range: FenceRange,
        owed: Owed,
        here: impl FnOnce(),
        call: impl Fn(HartMask, usize, usize) -> SbiRet,
    ) {
        let this = HartLocal::current().index;
        let mut awake = HartSet::default();
        for index in harts.iter() {
            if index == this {
                continue;
            }
            let is_left = self
                .sleepers
                .get(index)
                .is_some_and(|hart| hart.leave(owed));
            if !is_left {
                awake.insert(index);
            }
        }
        self.by_firmware(awake, range, call);
        if harts.contains(this) {
            here();
        }
    }

    /// `fence.i` on guest harts.
    pub fn fence_i(&self, harts: HartSet) {
        let owed = Owed::INSTRUCTIONS;
        let call = |mask, _, _| sbi_rt::remote_fence_i(mask);
        self.on(harts, FenceRange::All, owed, || carry_out(owed), call);
    }

    /// The guest's `sfence.vma` on guest harts, for one address space if `asid` is given.
    pub fn sfence_vma(&self, harts: HartSet, range: FenceRange, asid: Option<usize>) {
        let here = || match range.only_page() {
            Some(page) => HartLocal::current().hart.hfence_vvma(Some(page)),
            None => carry_out(Owed::TRANSLATIONS),
        };
        let call = |mask, start, len| match asid {
            Some(asid) => sbi_rt::remote_hfence_vvma_asid(mask, start, len, asid),
            None => sbi_rt::remote_hfence_vvma(mask, start, len),
        };
        self.on(harts, range, Owed::TRANSLATIONS, here, call);
    }
}

impl Fences for GuestHarts<'_> {
    fn translations_changed(&self, gpa: Gpa) {
        let range = FenceRange::Part {
            start: gpa.page_base().value() as usize,
            len: FRAME as usize,
        };
        self.by_firmware(self.all(), range, |mask, start, len| {
            sbi_rt::remote_hfence_gvma(mask, start, len)
        });
    }

    fn forget_here(&self) {
        HartLocal::current().hart.hfence_gvma(None);
    }

    fn instructions_changed(&self, gpa: Gpa) {
        sync_instructions(&HartLocal::current().hart, gpa, FRAME as usize, |_, _| {
            if self.ids.len() > 1 {
                self.fence_i(self.all());
            }
        });
    }
}
