//! What a writer of guest code owes before the guest may run it.
//!
//! The one idea: neither `hsv` nor a store through the host's mapping is seen by an instruction fetch of its own accord
//! (R48). The writing hart executes `fence.i`, and so does every other hart that may run the guest, after the stores are
//! visible to it.

use core::sync::atomic::{Ordering, fence};

use crate::address::Address;
use crate::hart::Hart;

/// Makes guest code that this hart wrote at `start` visible to fetches: here by `fence.i`, elsewhere by `remote`.
///
/// `remote` makes every other hart that runs vCPUs of this guest execute `fence.i`, and returns when they have: through SBI
/// RFENCE, or an interrupt of the host's own. The stores are visible to those harts before it is called. It is handed the
/// range, for machines that can be told one; `fence.i` itself knows none.
///
/// To be called after writing an image, patching an instruction, and before the first execute mapping of a page whose bytes
/// the host wrote. With `len` zero nothing is owed and nothing is done.
///
/// ```
/// use guest_mem::{Gpa, hart::Hart, sync_instructions};
///
/// fn after_loading(hart: &impl Hart, image: Gpa, len: usize) {
///     sync_instructions(hart, image, len, |_start, _len| { /* sbi_rt::remote_fence_i(harts) */ });
/// }
/// ```
pub fn sync_instructions<A: Address>(
    hart: &impl Hart,
    start: A,
    len: usize,
    remote: impl FnOnce(A, usize),
) {
    if len == 0 {
        return;
    }
    // The stores come before the request that another hart acts on.
    fence(Ordering::SeqCst);
    hart.fence_i();
    remote(start, len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Gpa, Spa};
    use crate::hart::model::{Machine, ModelHart, RamArray};

    #[test]
    fn r48_this_hart_fences_before_the_others_are_asked_and_nobody_for_nothing() {
        let memory = RamArray::<1>::new();
        let hart = ModelHart::new(memory.at(Spa::new(0)), Machine::new());
        let start = Gpa::new(0x8000_0002);
        sync_instructions(&hart, start, 0, |_, _| unreachable!("nothing was written"));
        assert_eq!(hart.counts().fence_i, 0);
        let mut asked = None;
        sync_instructions(&hart, start, 6, |start, len| {
            assert_eq!(hart.counts().fence_i, 1);
            asked = Some((start, len));
        });
        assert_eq!(asked, Some((start, 6)));
    }
}
