//! The two forms of fault recovery, as types: who is asked when a routine of the access unit traps.

use super::record::{ExitRecord, RecordInRegisters};
use super::routines::{Copies, Hooked, Scoped, Singles};

mod sealed {
    pub trait Sealed {}
}

/// How faults of guest accesses come back: one of [`HandlerHook`] and [`ScopedStvec`].
pub trait Recovery: sealed::Sealed + 'static {
    /// What a recovered fault puts back.
    #[doc(hidden)]
    type Record;

    /// The routines of the access unit for a series of accesses.
    #[doc(hidden)]
    type Routines<'r>: Copies + Singles;

    /// Those for one single access.
    #[doc(hidden)]
    type Once: Singles;

    /// The record of this hart now.
    #[doc(hidden)]
    fn record() -> Self::Record;

    #[doc(hidden)]
    fn routines(record: &Self::Record) -> Self::Routines<'_>;

    #[doc(hidden)]
    fn once() -> Self::Once;
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
/// Traps that are not faults of a guest access reach the host's own handler with the CSRs as the hardware left them, and so
/// with the registers but for t2 to t4 and t6, of which the interrupted routine has no other use. `stvec` is the host's from
/// then on: a copy notices it by t6, and takes the library's back before its next sixteen accesses at the latest; a fill or a
/// single access does not, so that what they fault with after such a trap reaches the host's handler, too. Guest accesses
/// themselves raise no such trap, but a breakpoint or a host that pages its own text might. A recovered fault
/// leaves every trap CSR as it was before the access (in an open window: as it was when that was opened), if it takes the
/// write: QEMU ignores writes of `htinst`, so a host that looks at the `htinst` of the guest's exit reads it before its first
/// guest access.
#[derive(Clone, Copy, Debug)]
pub struct ScopedStvec;

impl sealed::Sealed for HandlerHook {}
impl sealed::Sealed for ScopedStvec {}

impl Recovery for HandlerHook {
    type Record = ();
    type Routines<'r> = Hooked;
    type Once = Hooked;

    #[inline(always)]
    fn record() {}

    #[inline(always)]
    fn routines((): &()) -> Hooked {
        Hooked
    }

    #[inline(always)]
    fn once() -> Hooked {
        Hooked
    }
}

impl Recovery for ScopedStvec {
    type Record = ExitRecord;
    type Routines<'r> = Scoped<'r>;
    type Once = RecordInRegisters;

    #[inline(always)]
    fn record() -> ExitRecord {
        ExitRecord::of_this_hart()
    }

    #[inline(always)]
    fn routines(record: &ExitRecord) -> Scoped<'_> {
        Scoped(record)
    }

    #[inline(always)]
    fn once() -> RecordInRegisters {
        RecordInRegisters::of_this_hart()
    }
}
