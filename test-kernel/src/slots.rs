//! Slots over the guest memory of the tests, and the world's G-stage table as their mirror.

use core::ptr::NonNull;

use guest_mem::Gpa;
use guest_mem::guest_physical::{GuestPhysicalMemory, Slot, StageMirror};
use guest_mem::guest_virtual::VsEnvironment;

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
