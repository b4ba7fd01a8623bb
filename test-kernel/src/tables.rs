//! Two-stage page tables of the tests: any mode at either stage, any bits in any entry.
//!
//! The one idea: a [`World`] is one guest's address spaces. Its guest-physical memory is the arena, moved: the page at
//! `arena::start() + n` is at guest-physical `RAM + n` once [`World::map_g`] or [`World::page`] made it so. Nothing is fenced
//! but by [`World::load`] and [`World::fence`], so that a test decides what is cached.

use guest_mem::csr::{GMode, VsMode};

use crate::{arena, boot, csr};

/// Entry bits.
pub mod bits {
    /// Valid.
    pub const V: u64 = 1 << 0;
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// User: VU-mode at the VS-stage, everything at the G-stage (R54).
    pub const U: u64 = 1 << 4;
    /// Global.
    pub const G: u64 = 1 << 5;
    /// Accessed.
    pub const A: u64 = 1 << 6;
    /// Dirty.
    pub const D: u64 = 1 << 7;
    /// Svnapot.
    pub const N: u64 = 1 << 63;
    /// What a page of the guest's kernel has.
    pub const SUPERVISOR: u64 = V | R | W | X | A | D;
    /// What a page of the guest's user, and any page at the G-stage, has.
    pub const USER: u64 = SUPERVISOR | U;
}

use bits::{USER, V};

/// Guest-physical address of the arena's first byte.
pub const RAM: u64 = 0x4000_0000;

/// A page of guest memory.
#[derive(Clone, Copy)]
pub struct Page {
    /// Where the guest's physical address space has it.
    pub gpa: u64,
    /// Where the machine has it, and the host reads it.
    pub spa: u64,
}

/// One guest's two stages.
pub struct World {
    /// `hgatp`.
    pub hgatp: u64,
    /// `vsatp`.
    pub vsatp: u64,
    g_mode: GMode,
    vs_mode: VsMode,
}

/// Whether this machine has the modes: a write of one that it lacks is dropped. Leaves both stages Bare.
pub fn supports(g_mode: GMode, vs_mode: VsMode) -> bool {
    // SAFETY: no guest access happens under these values.
    unsafe {
        csr::vsatp::write(vs_number(vs_mode) << 60);
        csr::hgatp::write(g_number(g_mode) << 60);
        let taken = csr::vsatp::read() >> 60 == vs_number(vs_mode)
            && csr::hgatp::read() >> 60 == g_number(g_mode);
        csr::vsatp::write(0);
        csr::hgatp::write(0);
        taken
    }
}

/// `hgatp.VMID` of the guest that is loaded: 0 in place of 1 where the hart has no bits for it, and a switch of guests has to
/// fence (R41).
pub fn loaded_vmid() -> u64 {
    csr::hgatp::read() >> 44 & 0x3fff
}

/// `vsatp.ASID` of the guest that is loaded: 0 in place of 1 where the hart has no bits for it, and a switch of the guest's
/// tables has to fence.
pub fn loaded_asid() -> u64 {
    csr::vsatp::read() >> 44 & 0xffff
}

/// The entry of a leaf at guest- or host-physical `address`.
pub const fn leaf(address: u64, flags: u64) -> u64 {
    (address >> 12) << 10 | flags
}

/// The address in an entry.
pub const fn target(entry: u64) -> u64 {
    ((entry >> 10) & ((1 << 44) - 1)) << 12
}

const fn vs_number(mode: VsMode) -> u64 {
    match mode {
        VsMode::Bare => 0,
        VsMode::Sv39 => 8,
        VsMode::Sv48 => 9,
        VsMode::Sv57 => 10,
    }
}

const fn g_number(mode: GMode) -> u64 {
    match mode {
        GMode::Bare => 0,
        GMode::Sv39x4 => 8,
        GMode::Sv48x4 => 9,
        GMode::Sv57x4 => 10,
    }
}

impl World {
    /// Empty tables of the given modes. `vmid` and `asid` are 1.
    pub fn new(g_mode: GMode, vs_mode: VsMode) -> Self {
        let mut world = Self {
            hgatp: g_number(g_mode) << 60 | 1 << 44 | arena::take(16384) >> 12,
            vsatp: 0,
            g_mode,
            vs_mode,
        };
        if vs_mode != VsMode::Bare {
            let root = world.page(USER);
            world.vsatp = vs_number(vs_mode) << 60 | 1 << 44 | root.gpa >> 12;
        }
        world
    }

    /// Sv39x4 and Sv39.
    pub fn sv39() -> Self {
        Self::new(GMode::Sv39x4, VsMode::Sv39)
    }

    /// Sv39x4 and Sv39, loaded, with one page at `gva` that the two stages map with the given flags.
    pub fn with_page(gva: u64, vs_flags: u64, g_flags: u64) -> (Self, Page) {
        let mut world = Self::sv39();
        let page = world.page(g_flags);
        world.map(gva, page.gpa, vs_flags, 0);
        world.load();
        (world, page)
    }

    /// Sv39x4 and no VS-stage.
    pub fn guest_physical() -> Self {
        Self::new(GMode::Sv39x4, VsMode::Bare)
    }

    /// The same guest under a VMID of its own.
    pub const fn with_vmid(mut self, vmid: u64) -> Self {
        self.hgatp = self.hgatp & !(0x3fff << 44) | vmid << 44;
        self
    }

    /// Puts the guest's tables into this hart's CSRs, with nothing cached of any guest.
    pub fn load(&self) {
        // SAFETY: `vsatp` is off while `hgatp` changes (R32); both describe tables of the arena.
        unsafe {
            csr::vsatp::write(0);
            csr::hgatp::write(self.hgatp);
            csr::vsatp::write(self.vsatp);
        }
        // VMID and ASID may have fewer bits than were written.
        let but_id = |atp: u64| atp & !(0xffff << 44);
        assert_eq!(
            but_id(csr::hgatp::read()),
            but_id(self.hgatp),
            "hgatp is refused"
        );
        assert_eq!(
            but_id(csr::vsatp::read()),
            but_id(self.vsatp),
            "vsatp is refused"
        );
        self.fence();
    }

    /// Forgets everything cached of any guest.
    pub fn fence(&self) {
        boot::fence_everything();
    }

    /// A new page of guest memory, mapped at the G-stage with `flags`.
    pub fn page(&mut self, flags: u64) -> Page {
        let spa = arena::page();
        let gpa = RAM + (spa - arena::start());
        self.map_g(gpa, spa, flags, 0);
        Page { gpa, spa }
    }

    /// `pages` consecutive pages of guest memory, a power of two, at a multiple of their size; answers where.
    pub fn contiguous(&mut self, pages: u64) -> u64 {
        let spa = arena::take(pages * 4096);
        // Aligned in both spaces, clear of the rest of the arena's image.
        let gpa = RAM + 0x1000_0000 + (spa - arena::start()).next_multiple_of(pages * 4096);
        for page in 0..pages {
            self.map_g(gpa + page * 4096, spa + page * 4096, USER, 0);
        }
        gpa
    }

    /// A new page of guest memory that both stages map, at `gva` and with `flags` at the VS-stage.
    pub fn page_at(&mut self, gva: u64, flags: u64) -> Page {
        let page = self.page(USER);
        self.map(gva, page.gpa, flags, 0);
        page
    }

    /// Maps `gpa` to `spa` at the G-stage by an entry of `level` (0 is a 4 KiB page).
    pub fn map_g(&mut self, gpa: u64, spa: u64, flags: u64, level: usize) {
        let entry = self.g_entry(gpa, level);
        arena::write(entry, leaf(spa, flags));
    }

    /// Maps `gva` to `gpa` at the VS-stage by an entry of `level` (0 is a 4 KiB page).
    pub fn map(&mut self, gva: u64, gpa: u64, flags: u64, level: usize) {
        let entry = self.vs_entry(gva, level).spa;
        arena::write(entry, leaf(gpa, flags));
    }

    /// Where the G-stage entry of `level` for `gpa` is; the tables above it are made.
    pub fn g_entry(&mut self, gpa: u64, level: usize) -> u64 {
        let top = self.g_mode.levels() - 1;
        let mut table = (self.hgatp & guest_mem::csr::ATP_PPN) << 12;
        for at in (level..=top).rev() {
            // The root's index is two bits wider (R50).
            let mask = if at == top { 0x7ff } else { 0x1ff };
            let entry = table + ((gpa >> (12 + 9 * at)) & mask) * 8;
            if at == level {
                return entry;
            }
            if arena::read(entry) & V == 0 {
                arena::write(entry, leaf(arena::page(), V));
            }
            table = target(arena::read(entry));
        }
        unreachable!("a level of the mode")
    }

    /// Where the VS-stage entry of `level` for `gva` is; the tables above it are made, in guest memory.
    pub fn vs_entry(&mut self, gva: u64, level: usize) -> Page {
        let top = self.vs_mode.levels() - 1;
        let mut table = (self.vsatp & guest_mem::csr::ATP_PPN) << 12;
        for at in (level..=top).rev() {
            let gpa = table + ((gva >> (12 + 9 * at)) & 0x1ff) * 8;
            let entry = Page {
                gpa,
                spa: spa_of(gpa),
            };
            if at == level {
                return entry;
            }
            if arena::read(entry.spa) & V == 0 {
                let next = self.page(USER);
                arena::write(entry.spa, leaf(next.gpa, V));
            }
            table = target(arena::read(entry.spa));
        }
        unreachable!("a level of the mode")
    }
}

/// Where the machine has a page of the arena that the guest has at `gpa`.
pub fn spa_of(gpa: u64) -> u64 {
    arena::start() + (gpa - RAM)
}

/// A number that is a page of both spaces of [`two_pages`].
pub const SAME: u64 = 0x20_1000;

/// A loaded guest where the page at `SAME` is one page as a virtual and another as a physical address. Nothing is cached.
pub fn two_pages() -> (World, Page, u64) {
    let mut world = World::sv39();
    let by_gva = world.page_at(SAME, bits::SUPERVISOR);
    let by_gpa = arena::page();
    world.map_g(SAME, by_gpa, USER, 0);
    world.load();
    (world, by_gva, by_gpa)
}
