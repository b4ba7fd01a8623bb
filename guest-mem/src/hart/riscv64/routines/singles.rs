//! Single accesses: their names, and how each is called.
//!
//! The one idea: one instruction of the guest's memory, and nothing around it that the caller would have to save: what a form
//! wants beside value and address is in registers that the caller's code chose.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::{Hooked, Routine, Scoped, scoped_vector};
use crate::access::Width;
use crate::fault::TrapInfo;
use crate::hart::Interrupted;
use crate::hart::riscv64::record::{ExitRecord, RecordInRegisters};

/// The single accesses of one form of recovery.
pub trait Singles: Copy {
    /// `hlv` of a width, zero-extended.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn load(self, address: u64, width: Width) -> Result<u64, TrapInfo>;

    /// `hsv` of a width.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn store(self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo>;

    /// `hlvx.hu`.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn fetch_parcel(self, address: u64) -> Result<u16, TrapInfo>;

    /// `hlvx.hu` once or twice. The second address does not wrap.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn fetch_instruction(self, address: u64) -> Result<u32, Interrupted>;
}

/// Calls a single access with a0 and a1, and what else its form wants in registers. Answers a0, a1 and the trap.
///
/// A series calls by a register, which keeps the routine's address from one access to the next.
macro_rules! call_single {
    ($routine:ident, $value:expr, $address:expr, [by name, $($operands:tt)*]) => {
        call_single!(@ $routine, "call t0, {routine}", [sym $routine], $value, $address, [$($operands)*])
    };
    ($routine:ident, $value:expr, $address:expr, [by register, $($operands:tt)*]) => {
        call_single!(@ $routine, "jalr t0, {routine}", [in(reg) $routine as Routine], $value, $address, [$($operands)*])
    };
    (@ $routine:ident, $call:literal, [$($target:tt)*], $value:expr, $address:expr, [$($operands:tt)*]) => {{
        unsafe extern "C" {
            #[link_name = symbol!($routine)]
            fn $routine();
        }
        let (value, faulted): (u64, u64);
        let (scause, stval, htval, htinst): (u64, u64, u64, u64);
        // SAFETY: the caller's promise. The routine's contract: it changes these registers, memory of the guest, and the
        // frame's scratch; it needs no stack.
        unsafe {
            asm!(
                $call,
                routine = $($target)*,
                inlateout("a0") $value => value,
                inlateout("a1") $address => faulted,
                out("t0") _,
                lateout("t1") scause,
                lateout("t2") stval,
                lateout("t3") htval,
                lateout("t4") htinst,
                lateout("t6") _,
                $($operands)*
                options(nostack),
            );
        }
        (value, faulted, TrapInfo {
                scause,
                stval,
                htval,
                htinst,
            })
    }};
}

/// [`Singles`] of a form: the names of its routines, and its operands.
macro_rules! singles {
    (
        this: $self:ident;
        operands: $operands:tt;
        load: $load_1:ident $load_2:ident $load_4:ident $load_8:ident;
        store: $store_1:ident $store_2:ident $store_4:ident $store_8:ident;
        fetch: $fetch_parcel:ident $fetch_instruction:ident;
    ) => {
        #[inline(always)]
        unsafe fn load($self, address: u64, width: Width) -> Result<u64, TrapInfo> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = match width {
                Width::Byte => call_single!($load_1, unused, address, $operands),
                Width::Half => call_single!($load_2, unused, address, $operands),
                Width::Word => call_single!($load_4, unused, address, $operands),
                Width::Double => call_single!($load_8, unused, address, $operands),
            };
            if faulted == 0 { Ok(value) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn store($self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
            let (_, faulted, trap) = match width {
                Width::Byte => call_single!($store_1, value, address, $operands),
                Width::Half => call_single!($store_2, value, address, $operands),
                Width::Word => call_single!($store_4, value, address, $operands),
                Width::Double => call_single!($store_8, value, address, $operands),
            };
            if faulted == 0 { Ok(()) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn fetch_parcel($self, address: u64) -> Result<u16, TrapInfo> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = call_single!($fetch_parcel, unused, address, $operands);
            if faulted == 0 { Ok(value as u16) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn fetch_instruction($self, address: u64) -> Result<u32, Interrupted> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = call_single!($fetch_instruction, unused, address, $operands);
            if faulted == 0 {
                return Ok(value as u32);
            }
            Err(Interrupted {
                completed: (faulted as usize - 1) * 2,
                trap,
            })
        }
    };
}

impl Singles for Hooked {
    singles! {
        this: self;
        operands: [by name, out("t5") _,];
        load: __guest_mem_hook_load_1 __guest_mem_hook_load_2 __guest_mem_hook_load_4 __guest_mem_hook_load_8;
        store: __guest_mem_hook_store_1 __guest_mem_hook_store_2 __guest_mem_hook_store_4 __guest_mem_hook_store_8;
        fetch: __guest_mem_hook_fetch_parcel __guest_mem_hook_fetch_instruction;
    }
}

impl Singles for Scoped<'_> {
    singles! {
        this: self;
        operands: [
            by register,
            in("s2") core::ptr::from_ref::<ExitRecord>(self.0),
            in("s3") scoped_vector(),
            out("t5") _,
        ];
        load: __guest_mem_series_load_1 __guest_mem_series_load_2 __guest_mem_series_load_4
            __guest_mem_series_load_8;
        store: __guest_mem_series_store_1 __guest_mem_series_store_2 __guest_mem_series_store_4
            __guest_mem_series_store_8;
        fetch: __guest_mem_series_fetch_parcel __guest_mem_series_fetch_instruction;
    }
}

impl Singles for RecordInRegisters {
    singles! {
        this: self;
        operands: [
            by name,
            inlateout("a2") self.sepc => _,
            inlateout("a3") self.scause => _,
            inlateout("a4") self.stval => _,
            inlateout("a5") self.htval => _,
            inlateout("a6") self.htinst => _,
            inlateout("a7") self.sstatus => _,
            inlateout("t5") self.hstatus => _,
        ];
        load: __guest_mem_scoped_load_1 __guest_mem_scoped_load_2 __guest_mem_scoped_load_4
            __guest_mem_scoped_load_8;
        store: __guest_mem_scoped_store_1 __guest_mem_scoped_store_2 __guest_mem_scoped_store_4
            __guest_mem_scoped_store_8;
        fetch: __guest_mem_scoped_fetch_parcel __guest_mem_scoped_fetch_instruction;
    }
}
