//! The guest whose memory is measured, and the host's buffer.

use core::ptr::NonNull;

use guest_mem::Gpa;
use guest_mem::csr::HSTATUS_SPVP;
use guest_mem::guest_physical::Slot;
use test_kernel::tables::bits::{SUPERVISOR, USER};
use test_kernel::tables::{RAM, World};
use test_kernel::{arena, csr};

/// Bytes of guest memory: the largest copy and room around it.
const LEN: u64 = 0x20_0000;

/// The same in a small run.
const SMALL_LEN: u64 = 0x4000;

/// How far into its block the host's buffer begins. An emulator looks translations up by the low bits of the page number: where
/// guest memory and the buffer agree in them, as blocks do, each access to the one throws out what the other needs, and every
/// copy by plain loads and stores takes two to three times as long.
const APART: u64 = 4096;

/// Where the guest has it as a virtual address.
const GVA: u64 = 0x40_0000;

/// The loaded guest: bytes that both stages map by 4 KiB pages, and a page after them that only the VS-stage maps.
pub struct Guest {
    /// The first byte as a guest-virtual address.
    pub gva: u64,
    /// The first byte as a guest-physical address.
    pub gpa: u64,
    /// The first byte as the host has it.
    pub spa: u64,
    /// How many there are.
    pub len: u64,
    /// The host's own bytes: as many, but for how far they begin.
    pub buffer: *mut u8,
    /// Guest-virtual address of the page without memory.
    pub lost: u64,
}

impl Guest {
    /// Makes it and puts it into this hart's CSRs, which are then as they are after an exit from VS-mode.
    pub fn load(small: bool) -> Self {
        let len = if small { SMALL_LEN } else { LEN };
        let spa = arena::take(len);
        let buffer = (arena::take(len) + APART) as *mut u8;
        let gpa = RAM + (spa - arena::start());
        let mut world = World::sv39();
        for at in (0..len).step_by(4096) {
            world.map_g(gpa + at, spa + at, USER, 0);
            world.map(GVA + at, gpa + at, SUPERVISOR, 0);
        }
        world.map(GVA + len, gpa + len, SUPERVISOR, 0);
        world.load();
        // SAFETY: read by guest accesses only.
        unsafe { csr::hstatus::set(HSTATUS_SPVP) };
        Self {
            gva: GVA,
            gpa,
            spa,
            len,
            buffer,
            lost: GVA + len,
        }
    }

    /// All of the guest's RAM as one slot: its memory and its page tables.
    pub fn ram<'m>(&self) -> Slot<'m> {
        let host = NonNull::new(arena::start() as *mut u8).unwrap_or(NonNull::dangling());
        // The guest's tables were taken last.
        let len = arena::page() - arena::start();
        // SAFETY: the arena is mapped for all of the run; it is accessed here by the library, by this hart's plain loops and by
        // nothing at the same time.
        unsafe { Slot::linear(Gpa::new(RAM), len, host) }
    }

    /// Its memory as a slot at `gpa`.
    pub fn slot<'m>(&self, gpa: u64, len: u64) -> Slot<'m> {
        let host = NonNull::new(self.spa as *mut u8).unwrap_or(NonNull::dangling());
        // SAFETY: the block is the arena's, mapped for all of the run; it is accessed here by the library, by this hart's
        // plain loops and by nothing at the same time.
        unsafe { Slot::linear(Gpa::new(gpa), len, host) }
    }
}
