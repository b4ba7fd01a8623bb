//! Exception causes of `scause` that guest accesses and guests meet (R18).
//!
//! The one idea: [`refusal`] is the only place that says who refused an access, and which type it had.

use crate::access::AccessKind;

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
/// A hardware error: the memory that was accessed is corrupt. The cause does not tell the type of the access.
pub const HARDWARE_ERROR: u64 = 19;
/// A load that the G-stage refuses.
pub const LOAD_GUEST_PAGE: u64 = 21;
/// An instruction that is legal, but not for a guest.
pub const VIRTUAL_INSTRUCTION: u64 = 22;
/// A store that the G-stage refuses.
pub const STORE_GUEST_PAGE: u64 = 23;

/// Who refused a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refuser {
    /// The VS-stage (or, for the host, its own translation): causes 12, 13, 15.
    VsStage,
    /// The G-stage: causes 20, 21, 23.
    GStage,
    /// Physical memory protection or attributes: causes 1, 5, 7.
    Machine,
    /// The hart does not carry out misaligned accesses: causes 0, 4, 6.
    Alignment,
}

/// What a cause says of the memory access that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Who refused it.
    pub by: Refuser,
    /// The type of the access. Of a page-table access it is that of the access it was made for.
    pub access: AccessKind,
}

/// Who refused a memory access, and its type, by the cause. `None` for interrupts and for other exceptions.
///
/// ```
/// use guest_mem::AccessKind;
/// use guest_mem::cause::{self, Refusal, Refuser};
///
/// let refusal = cause::refusal(cause::STORE_GUEST_PAGE);
/// assert_eq!(refusal, Some(Refusal { by: Refuser::GStage, access: AccessKind::Store }));
/// assert_eq!(cause::refusal(cause::ILLEGAL_INSTRUCTION), None);
/// ```
#[inline]
pub const fn refusal(scause: u64) -> Option<Refusal> {
    use AccessKind::{Fetch, Load, Store};
    use Refuser::{Alignment, GStage, Machine, VsStage};
    let (by, access) = match scause {
        INSTRUCTION_MISALIGNED => (Alignment, Fetch),
        INSTRUCTION_ACCESS => (Machine, Fetch),
        INSTRUCTION_PAGE => (VsStage, Fetch),
        INSTRUCTION_GUEST_PAGE => (GStage, Fetch),
        LOAD_MISALIGNED => (Alignment, Load),
        LOAD_ACCESS => (Machine, Load),
        LOAD_PAGE => (VsStage, Load),
        LOAD_GUEST_PAGE => (GStage, Load),
        STORE_MISALIGNED => (Alignment, Store),
        STORE_ACCESS => (Machine, Store),
        STORE_PAGE => (VsStage, Store),
        STORE_GUEST_PAGE => (GStage, Store),
        _ => return None,
    };
    Some(Refusal { by, access })
}

/// The cause of a refusal: the inverse of [`refusal`].
#[inline]
pub const fn of_refusal(Refusal { by, access }: Refusal) -> u64 {
    use AccessKind::{Fetch, Load, Store};
    use Refuser::{Alignment, GStage, Machine, VsStage};
    match (by, access) {
        (Alignment, Fetch) => INSTRUCTION_MISALIGNED,
        (Machine, Fetch) => INSTRUCTION_ACCESS,
        (VsStage, Fetch) => INSTRUCTION_PAGE,
        (GStage, Fetch) => INSTRUCTION_GUEST_PAGE,
        (Alignment, Load) => LOAD_MISALIGNED,
        (Machine, Load) => LOAD_ACCESS,
        (VsStage, Load) => LOAD_PAGE,
        (GStage, Load) => LOAD_GUEST_PAGE,
        (Alignment, Store) => STORE_MISALIGNED,
        (Machine, Store) => STORE_ACCESS,
        (VsStage, Store) => STORE_PAGE,
        (GStage, Store) => STORE_GUEST_PAGE,
    }
}

/// The causes of a set, as bits.
pub(crate) const fn bits(list: &[u64]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < list.len() {
        mask |= bit(list[index]);
        index += 1;
    }
    mask
}

/// The causes by which `refuser` refuses, as bits.
pub(crate) const fn bits_of(refuser: Refuser) -> u32 {
    let mut mask = 0;
    let mut scause = 0;
    while scause < 32 {
        if let Some(refusal) = refusal(scause)
            && refusal.by as u8 == refuser as u8
        {
            mask |= bit(scause);
        }
        scause += 1;
    }
    mask
}

/// The bit of an exception's cause in a set of causes; none for an interrupt, or a cause above 31.
#[inline(always)]
pub(crate) const fn bit(scause: u64) -> u32 {
    // No branch: a bit that is clear goes nowhere.
    ((scause < 32) as u32).wrapping_shl(scause as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_each_refusal_has_one_cause_and_back() {
        let mut found = 0;
        for scause in 0..64 {
            if let Some(refusal) = refusal(scause) {
                assert_eq!(of_refusal(refusal), scause);
                found += 1;
            }
        }
        assert_eq!(found, 12);
        assert_eq!(refusal(1 << 63 | 5), None, "an interrupt");
    }
}
