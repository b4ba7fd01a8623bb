//! What each hart has of its own: its number, its stacks, the library's hart.
//!
//! The one idea: while the hypervisor runs, `tp` points to the hart's [`HartLocal`]; a guest has its own `tp`, so the world
//! switch puts this one back.

use core::arch::asm;

use crate::boot::machine::MAX_HARTS;
use crate::vcpu::Hart;

/// Bytes of a page that is left unmapped below each stack.
const GUARD: usize = 4096;
const STACK: usize = 256 << 10;
const TRAP_STACK: usize = 16 << 10;

/// The two stacks of a hart, each above a guard page: a stack that overflows faults, and does not eat its neighbour.
#[repr(C, align(4096))]
pub(super) struct Stacks {
    guard: [u8; GUARD],
    stack: [u8; STACK],
    trap_guard: [u8; GUARD],
    trap_stack: [u8; TRAP_STACK],
}

#[unsafe(link_section = ".stacks")]
pub(super) static mut STACKS: [Stacks; MAX_HARTS] = [const {
    Stacks {
        guard: [0; GUARD],
        stack: [0; STACK],
        trap_guard: [0; GUARD],
        trap_stack: [0; TRAP_STACK],
    }
}; MAX_HARTS];

/// From the start of [`STACKS`] to the top of the first hart's ordinary stack.
pub(super) const FIRST_STACK_TOP: usize = GUARD + STACK;

/// Per-hart data. The first fields are read by assembly.
#[repr(C)]
pub struct HartLocal {
    /// Top of the ordinary stack.
    pub stack_top: usize,
    /// Top of the stack on which traps of the hypervisor itself are handled.
    pub trap_stack_top: usize,
    /// What `satp` holds.
    pub satp: u64,
    /// The number of the vCPU that runs here, which is the guest's hart number.
    pub index: usize,
    /// The machine's number of this hart.
    pub id: u64,
    /// The library's hart.
    pub hart: Hart,
}

/// Where [`HartLocal::satp`] is, for the assembly that turns it on.
pub const SATP_OFFSET: usize = core::mem::offset_of!(HartLocal, satp);
/// Where [`HartLocal::stack_top`] is.
pub const STACK_TOP_OFFSET: usize = core::mem::offset_of!(HartLocal, stack_top);
/// Where [`HartLocal::trap_stack_top`] is.
pub const TRAP_STACK_TOP_OFFSET: usize = core::mem::offset_of!(HartLocal, trap_stack_top);

/// The tops of the ordinary and the trap stack of vCPU `index`.
pub fn stack_tops(index: usize) -> (usize, usize) {
    assert!(index < MAX_HARTS);
    let base = (&raw const STACKS) as usize + index * size_of::<Stacks>();
    let stack_top = base + GUARD + STACK;
    (stack_top, base + size_of::<Stacks>())
}

/// The guard pages of every hart's stacks.
pub fn guard_pages() -> impl Iterator<Item = usize> {
    (0..MAX_HARTS).flat_map(|index| {
        let base = (&raw const STACKS) as usize + index * size_of::<Stacks>();
        [base, base + GUARD + STACK]
    })
}

impl HartLocal {
    /// The data of the hart that runs this.
    pub fn current() -> &'static Self {
        let local: *const Self;
        // SAFETY: reading `tp` has no effect.
        unsafe { asm!("mv {}, tp", out(reg) local, options(nomem, nostack, preserves_flags)) };
        // SAFETY: boot set `tp` to a `HartLocal` that lives for good, and the world switch keeps it so.
        unsafe { &*local }
    }
}
