//! The two forms of fault recovery, as types: who is asked when a routine of the access unit traps.

use super::routines::{self, Argument, CopyRoutines, Routine, SingleResult};
use crate::fault::TrapInfo;

mod sealed {
    pub trait Sealed {}
}

/// How faults of guest accesses come back: one of [`HandlerHook`] and [`ScopedStvec`].
pub trait Recovery: sealed::Sealed {
    #[doc(hidden)]
    const COPIES: CopyRoutines;

    /// Runs a routine of the access unit under this form.
    ///
    /// # Safety
    ///
    /// As the routine's own.
    #[doc(hidden)]
    unsafe fn run(
        routine: Routine,
        host: Argument,
        guest: u64,
        len: Argument,
        trap: *mut TrapInfo,
    ) -> SingleResult;
}

/// The host's trap handler calls [`try_fixup`](super::try_fixup): costs nothing until a fault.
///
/// A fault goes through the host's handler and overwrites `sepc`, `scause`, `stval`, `htval`, `htinst`, `sstatus.SPP` and
/// `SPIE`, `hstatus.SPV` and `GVA`, which the host saved at the guest's exit (R20).
#[derive(Clone, Copy, Debug)]
pub struct HandlerHook;

/// A vector of the library is in `stvec` while a routine of the access unit runs: for hosts whose trap entry cannot be
/// changed.
///
/// Traps that are not faults of a guest access reach the host's own handler, as the hardware raised them. A recovered fault
/// leaves every trap CSR as it was before the access, if it takes the write: QEMU ignores writes of `htinst`, so a host that
/// looks at the `htinst` of the guest's exit reads it before its first guest access.
#[derive(Clone, Copy, Debug)]
pub struct ScopedStvec;

impl sealed::Sealed for HandlerHook {}
impl sealed::Sealed for ScopedStvec {}

impl Recovery for HandlerHook {
    const COPIES: CopyRoutines = routines::HOOK_COPIES;

    #[inline(always)]
    unsafe fn run(
        routine: Routine,
        host: Argument,
        guest: u64,
        len: Argument,
        trap: *mut TrapInfo,
    ) -> SingleResult {
        // SAFETY: the caller's promise.
        unsafe { routine(host, guest, len, trap) }
    }
}

impl Recovery for ScopedStvec {
    const COPIES: CopyRoutines = routines::SCOPED_COPIES;

    #[inline(always)]
    unsafe fn run(
        routine: Routine,
        host: Argument,
        guest: u64,
        len: Argument,
        trap: *mut TrapInfo,
    ) -> SingleResult {
        // SAFETY: the caller's promise; interrupts are off in the window, so that the vector is entered only by exceptions
        // of the routine itself.
        unsafe { routines::scoped_call(host, guest, len, trap, routine) }
    }
}
