//! Exception causes of `scause` that guest accesses and guests meet (R18).

/// A misaligned instruction address.
pub const INSTRUCTION_MISALIGNED: u64 = 0;
/// A fetch that physical memory protection or attributes refuse.
pub const INSTRUCTION_ACCESS: u64 = 1;
/// An instruction that does not exist at this privilege.
pub const ILLEGAL_INSTRUCTION: u64 = 2;
/// A misaligned load.
pub const LOAD_MISALIGNED: u64 = 4;
/// A load that physical memory protection or attributes refuse.
pub const LOAD_ACCESS: u64 = 5;
/// A misaligned store.
pub const STORE_MISALIGNED: u64 = 6;
/// A store that physical memory protection or attributes refuse.
pub const STORE_ACCESS: u64 = 7;
/// A fetch that the VS-stage (or, for the host, its own translation) refuses.
pub const INSTRUCTION_PAGE: u64 = 12;
/// A load that the VS-stage refuses.
pub const LOAD_PAGE: u64 = 13;
/// A store that the VS-stage refuses.
pub const STORE_PAGE: u64 = 15;
/// A fetch that the G-stage refuses.
pub const INSTRUCTION_GUEST_PAGE: u64 = 20;
/// A load that the G-stage refuses.
pub const LOAD_GUEST_PAGE: u64 = 21;
/// An instruction that is legal, but not for a guest.
pub const VIRTUAL_INSTRUCTION: u64 = 22;
/// A store that the G-stage refuses.
pub const STORE_GUEST_PAGE: u64 = 23;

/// The bit of an exception's cause in a set of causes; none for an interrupt, or a cause above 31.
#[inline(always)]
pub(crate) const fn bit(scause: u64) -> u32 {
    // No branch: a bit that is clear goes nowhere.
    ((scause < 32) as u32).wrapping_shl(scause as u32)
}
