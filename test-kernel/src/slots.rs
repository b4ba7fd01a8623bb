//! Slots over the guest memory of the tests, and the world's G-stage table as their mirror.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::guest_physical::{
    GuestPhysicalMemory, MachineMemory, PhysicalView, Slot, StageMirror, StageView,
};
use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::hart::Hart;
use guest_mem::translate::{EntryMemory, GRegime, Refused, StageRules};
use guest_mem::{Gpa, LoadedVcpu, Spa};

use crate::harness::{Outcome, Stop, fail};
use crate::oracle::Oracle;
use crate::tables::bits::{SUPERVISOR, USER, V, W};
use crate::tables::{Page, RAM, World};
use crate::{arena, boot, csr};

/// Two adjacent pages of the guest's kernel, in [`two_pages`].
pub const GVA: u64 = 0x20_1000;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// All of the arena that the world maps is below this.
pub const LEN: u64 = 0x40_0000;

/// A guest's memory.
pub type Memory<'m> = GuestPhysicalMemory<'m, 2, 2>;

/// Fails unless a change of slots succeeded.
pub fn is_slot<E: core::fmt::Display>(result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(error) => fail!("slot: {error}"),
    }
}

/// The arena as the slot that the world's G-stage shows at [`RAM`].
pub fn arena_slot<'m>() -> Slot<'m> {
    let host = NonNull::new(arena::start() as *mut u8);
    // SAFETY: the arena is RAM for all of the run. Only this hart touches it while a slot of it exists, and no reference
    // points into it.
    unsafe { Slot::linear(Gpa::new(RAM), LEN, host.unwrap_or(NonNull::dangling())) }
}

/// The world's G-stage table as the slots' mirror: only the pages that the world gave out.
pub struct Mirror<'w> {
    world: &'w mut World,
    /// Entries changed.
    pub protected: u32,
    /// Shootdowns.
    pub shot_down: u32,
}

impl<'w> Mirror<'w> {
    /// For this world.
    pub fn of(world: &'w mut World) -> Self {
        Self {
            world,
            protected: 0,
            shot_down: 0,
        }
    }

    fn change(&mut self, start: Gpa, len: u64, change: impl Fn(u64) -> u64) {
        for gpa in (start.value()..start.value() + len).step_by(4096) {
            let entry = self.world.g_entry(gpa, 0);
            let old = arena::read(entry);
            if old & V != 0 {
                arena::write(entry, change(old));
                self.protected += 1;
            }
        }
    }
}

impl StageMirror for Mirror<'_> {
    fn unmap(&mut self, start: Gpa, len: u64) {
        self.change(start, len, |_| 0);
    }

    fn write_protect(&mut self, start: Gpa, len: u64) {
        self.change(start, len, |entry| entry & !W);
    }

    fn shoot_down(&mut self) {
        self.shot_down += 1;
        boot::fence_everything();
    }
}

/// The machine's memory as far as the arena goes, identity-mapped: the guest's RAM and all tables.
pub struct Arena {
    /// Turns of a loop between finding a page and using it: time for another hart to take it away.
    pub linger: u64,
}

impl Arena {
    fn entry(at: Spa) -> Result<&'static AtomicU64, Refused> {
        let at = at.value();
        match at.is_multiple_of(8) && arena::contains(at, 8) {
            // SAFETY: an aligned double of the arena, which is there for all of the run; whoever walks accesses it atomically.
            true => Ok(unsafe { AtomicU64::from_ptr(at as *mut u64) }),
            false => Err(Refused),
        }
    }
}

impl EntryMemory for Arena {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        Ok(Self::entry(at)?.load(Ordering::Relaxed))
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        Ok(Self::entry(at)?.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
    }
}

// SAFETY: the arena is RAM for all of the run, and no reference points into it.
unsafe impl MachineMemory for Arena {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        match arena::contains(at.value(), 1) {
            true => {
                (0..self.linger).for_each(|_| core::hint::spin_loop());
                NonNull::new(at.value() as *mut u8)
            }
            false => None,
        }
    }
}

/// The view as the loaded guest's G-stage table shows it.
pub fn shown<'v, 'g, H: Hart>(
    view: &'v PhysicalView<'g>,
    vcpu: &LoadedVcpu<'_, H>,
    rules: StageRules,
    memory: Arena,
) -> StageView<'v, 'g, Arena> {
    let Ok(regime) = GRegime::from_csrs(vcpu.csrs().hgatp, 0, rules) else {
        unreachable!("a guest is loaded");
    };
    // SAFETY: the world's table leads to the guest's pages and tables, in the arena.
    unsafe { view.shown_by(regime, memory) }
}

/// What the VS-stage depends on, as measured.
pub fn environment() -> Result<VsEnvironment, Stop> {
    let oracle = Oracle::measure()?;
    Ok(VsEnvironment::new(
        &oracle.profile,
        oracle.vs,
        csr::henvcfg::read(),
        csr::senvcfg::read(),
    ))
}

/// A loaded guest with two adjacent pages at `GVA`.
pub fn two_pages() -> (World, [Page; 2]) {
    let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
    let second = world.page_at(GVA + PAGE, SUPERVISOR);
    world.fence();
    (world, [first, second])
}
