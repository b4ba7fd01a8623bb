//! The real instructions: a [`Hart`] over the H extension of the hart that runs this code.
//!
//! The one idea: the access unit (`access/*.S`) is the only place with guest-access instructions. It is called through one of
//! two forms of fault recovery, chosen by type: [`HandlerHook`], where the host's trap handler calls [`try_fixup`] first
//! thing, and [`ScopedStvec`], which puts a vector of its own into `stvec` around each access.

use core::arch::{asm, global_asm};
use core::marker::PhantomData;

use super::recovery::{self, ExceptionTable, SITE_CAUSES, TrapContext, WITHOUT_GVA};
use super::{Csr, FenceState, Hart, Interrupted};
use crate::access::Width;
use crate::cause;
use crate::csr::{HSTATUS_GVA, HSTATUS_SPV, STATUS_SDT, STATUS_SPELP, STATUS_SPIE, STATUS_SPP};
use crate::fault::TrapInfo;

/// Reads a CSR by its name, or by its number, for which the assembler needs no extension.
macro_rules! read_csr {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a CSR of a trap, of an address space or of a status in HS-mode has no effect.
        unsafe {
            core::arch::asm!(concat!("csrr {value}, ", $name), value = out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// The name of a symbol of the access unit. It ends in the crate's version, so that a program may have two versions (R78).
macro_rules! symbol {
    ($name:ident) => {
        concat!(
            stringify!($name),
            "_v",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
        )
    };
}

mod forms;
mod parts;
mod record;
mod routines;
mod series;

pub use forms::{HandlerHook, Recovery, ScopedStvec};
use record::frame;
use routines::Singles;
pub use series::Series;

global_asm!(
    include_str!("access/unit.S"),
    include_str!("access/copies.S"),
    include_str!("access/merges.S"),
    include_str!("access/singles.S"),
    include_str!("access/scoped.S"),
    include_str!("access/end.S"),
    load_causes = const SITE_CAUSES[0],
    fetch_causes = const SITE_CAUSES[1],
    store_causes = const SITE_CAUSES[2],
    without_gva = const WITHOUT_GVA,
    spv_and_gva = const HSTATUS_SPV | HSTATUS_GVA,
    gva = const HSTATUS_GVA,
    // The bits of sstatus that a trap changes; SIE is clear in a window anyway.
    trap_status = const STATUS_SPP | STATUS_SPIE | STATUS_SPELP | STATUS_SDT,
    first_page_fault = const cause::INSTRUCTION_PAGE,
    frame_sepc = const frame::SEPC,
    frame_scause = const frame::SCAUSE,
    frame_stval = const frame::STVAL,
    frame_htval = const frame::HTVAL,
    frame_htinst = const frame::HTINST,
    frame_sstatus = const frame::SSTATUS,
    frame_hstatus = const frame::HSTATUS,
    frame_t1 = const frame::SCRATCH,
    frame_t2 = const frame::SCRATCH + 8,
    frame_t3 = const frame::SCRATCH + 16,
    frame_t4 = const frame::SCRATCH + 24,
    frame_a4 = const frame::SCRATCH + 32,
    frame_s3 = const frame::SCRATCH + 40,
    unit_bits = const UNIT_BITS,
    // From the causes to the table.
    extable = const size_of::<[u64; SITE_CAUSES.len()]>(),
    major = const number(env!("CARGO_PKG_VERSION_MAJOR")),
    minor = const number(env!("CARGO_PKG_VERSION_MINOR")),
    patch = const number(env!("CARGO_PKG_VERSION_PATCH")),
    separate = const cfg!(feature = "fence-guest-accesses") as u8,
);

/// The access unit has fewer bytes than two to the power of this, and its table a place for each four of these.
const UNIT_BITS: u32 = 14;

/// A part of the crate's version.
const fn number(digits: &str) -> u64 {
    match u64::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("the parts of a version are numbers"),
    }
}

unsafe extern "C" {
    #[link_name = symbol!(__guest_mem_access_start)]
    static __guest_mem_access_start: [u8; 0];
    #[link_name = symbol!(__guest_mem_extable_start)]
    static __guest_mem_extable_start: [u16; 1 << UNIT_BITS >> 2];
}

/// The exception table of the access unit.
#[inline]
pub fn exception_table() -> ExceptionTable<'static> {
    // SAFETY: the access unit emits so many of them into one section: initialized, read-only, 8-aligned, and never moved.
    ExceptionTable(unsafe { &__guest_mem_extable_start })
}

/// Sends the trap in `context` to its fixup if a guest access of this crate raised it, and says whether it did.
///
/// For the [`HandlerHook`] form: the host's trap handler calls it first thing for a trap from HS-mode, and on `true` returns
/// to the context at once. It is also right to call it for every trap: one that is not a guest-access fault of this crate
/// (an interrupt, a trap from the guest, another pc, a cause that the instruction cannot raise: R21) is left alone.
///
/// Each version of the crate in a program knows its own guest accesses only (R78): the handler calls `try_fixup` of every
/// version that uses this form, in any order, until one returns `true`.
///
/// The handler must not enable interrupts before it returns (R26), and a trap overwrites the record of the last guest exit,
/// so that the host saves that before its first guest access (R20).
#[inline]
pub fn try_fixup(context: &mut impl TrapContext) -> bool {
    let start = (&raw const __guest_mem_access_start) as usize;
    recovery::recover(exception_table(), start, context)
}

impl TrapInfo {
    /// Reads the trap CSRs of this hart: the last trap it took into HS-mode.
    #[inline]
    pub fn from_csrs() -> Self {
        let (scause, stval, htval, htinst);
        // SAFETY: reading these CSRs in HS-mode has no effect.
        unsafe {
            asm!(
                "csrr {scause}, scause",
                "csrr {stval}, stval",
                "csrr {htval}, 0x643",
                "csrr {htinst}, 0x64a",
                scause = out(reg) scause,
                stval = out(reg) stval,
                htval = out(reg) htval,
                htinst = out(reg) htinst,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self {
            scause,
            stval,
            htval,
            htinst,
        }
    }
}

/// This hart, with faults recovered by `R`. One value belongs to one hart and never leaves it.
#[derive(Debug)]
pub struct Riscv64<R: Recovery> {
    fences: FenceState,
    /// Neither `Send` nor `Sync`: it is this hart.
    this_hart: PhantomData<(R, *mut ())>,
}

impl<R: Recovery> Riscv64<R> {
    /// The hart that runs this code, of which nothing is known yet.
    ///
    /// Until [`probe`](crate::probe::probe) says otherwise, translations are taken to outlive writes of `vsatp` (R34): accesses
    /// are right on every machine, and fence wherever a machine as specified needs none (R35). Probe each hart once, then make
    /// further values by [`with_profile`](Self::with_profile).
    ///
    /// # Safety
    ///
    /// The hart is in HS-mode of a machine with the H extension, and the value stays on this hart. For [`HandlerHook`], its
    /// trap handler calls [`try_fixup`]. The host's stack and this code are mapped; faults 5, 7, 13, 15, 21 and 23, and 1, 12
    /// and 20, which some machines raise for `hlvx` (R60), are delegated to HS-mode, or redirected to it by the firmware (R25).
    pub const unsafe fn new() -> Self {
        // SAFETY: the caller makes the promises of `with_fences`.
        unsafe { Self::with_fences(FenceState::new()) }
    }

    /// The hart that runs this code, which is known to behave as the specification says: nothing is fenced.
    ///
    /// ```no_run
    /// use guest_mem::hart::Hart;
    /// use guest_mem::hart::riscv64::{Riscv64, ScopedStvec};
    ///
    /// // SAFETY: this is HS-mode of such a core; it is no QEMU before 9.0.
    /// let hart = unsafe { Riscv64::<ScopedStvec>::new_conforming() };
    /// assert!(!hart.fence_state().may_be_stale());
    /// ```
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new). A write of `vsatp` or `hgatp` takes effect at once on this machine (R28, R41), as the
    /// specification says. It does not on QEMU before 9.0: there an access would reach another page of the guest, or of
    /// another guest.
    pub const unsafe fn new_conforming() -> Self {
        // SAFETY: the caller makes the promises of `with_fences`.
        unsafe { Self::with_fences(FenceState::conforming()) }
    }

    /// The hart that runs this code, of which `fences` is known.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new). `fences` is true of this hart.
    pub(crate) const unsafe fn with_fences(fences: FenceState) -> Self {
        Self {
            fences,
            this_hart: PhantomData,
        }
    }
}

macro_rules! csr_access {
    ($instruction:literal, $csr:expr, $value:expr) => {{
        let old: u64;
        // Numbers, so that the assembler needs no extension: sstatus, hstatus, hgatp, vsatp, vsstatus.
        match $csr {
            Csr::Sstatus => csr_access!(@ $instruction, "sstatus", $value, old),
            Csr::Hstatus => csr_access!(@ $instruction, "0x600", $value, old),
            Csr::Hgatp => csr_access!(@ $instruction, "0x680", $value, old),
            Csr::Vsatp => csr_access!(@ $instruction, "0x280", $value, old),
            Csr::Vsstatus => csr_access!(@ $instruction, "0x200", $value, old),
        }
        old
    }};
    (@ $instruction:literal, $name:literal, $value:expr, $old:ident) => {
        // SAFETY: the CSR exists in HS-mode; what its new value does is the caller's promise. Not `nomem`: a change of
        // SIE, of translation or of privilege orders memory accesses around it for the compiler.
        unsafe {
            asm!(concat!($instruction, " {old}, ", $name, ", {value}"), old = out(reg) $old, value = in(reg) $value,
                options(nostack, preserves_flags))
        }
    };
}

// SAFETY: the accesses are those of a series of one; the CSR methods do what their names say.
unsafe impl<R: Recovery> Hart for Riscv64<R> {
    type Series<'s> = Series<'s, R>;

    #[inline(always)]
    fn read_csr(&self, csr: Csr) -> u64 {
        match csr {
            Csr::Sstatus => read_csr!("sstatus"),
            Csr::Hstatus => read_csr!("0x600"),
            Csr::Hgatp => read_csr!("0x680"),
            Csr::Vsatp => read_csr!("0x280"),
            Csr::Vsstatus => read_csr!("0x200"),
        }
    }

    #[inline(always)]
    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64 {
        csr_access!("csrrw", csr, value)
    }

    #[inline(always)]
    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        csr_access!("csrrs", csr, bits)
    }

    #[inline(always)]
    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        csr_access!("csrrc", csr, bits)
    }

    #[inline(always)]
    fn series(&self) -> Series<'_, R> {
        Series::begin(self)
    }

    #[inline(always)]
    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.series().copy_from_guest(source, destination, len) }
    }

    #[inline(always)]
    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.series().copy_to_guest(destination, source, len) }
    }

    #[inline]
    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.series().fill_guest(destination, byte, len) }
    }

    #[inline(always)]
    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { R::once().load(address, width) }
    }

    #[inline(always)]
    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { R::once().store(address, width, value) }
    }

    #[inline(always)]
    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { R::once().fetch_parcel(address) }
    }

    #[inline(always)]
    unsafe fn fetch_instruction(&self, address: u64) -> Result<u32, Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { R::once().fetch_instruction(address) }
    }

    fn hfence_vvma(&self, gva: Option<u64>) {
        // SAFETY: a fence only forgets cached translations.
        unsafe {
            match gva {
                Some(gva) => asm!(
                    ".option push", ".option arch, +h", "hfence.vvma {}, zero", ".option pop",
                    in(reg) gva, options(nostack, preserves_flags)
                ),
                None => asm!(
                    ".option push",
                    ".option arch, +h",
                    "hfence.vvma zero, zero",
                    ".option pop",
                    options(nostack, preserves_flags)
                ),
            }
        }
    }

    fn hfence_gvma(&self, gpa: Option<u64>) {
        // SAFETY: a fence only forgets cached translations.
        unsafe {
            match gpa {
                // The operand is the address shifted right by 2 (R38).
                Some(gpa) => asm!(
                    ".option push", ".option arch, +h", "hfence.gvma {}, zero", ".option pop",
                    in(reg) gpa >> 2, options(nostack, preserves_flags)
                ),
                None => asm!(
                    ".option push",
                    ".option arch, +h",
                    "hfence.gvma zero, zero",
                    ".option pop",
                    options(nostack, preserves_flags)
                ),
            }
        }
    }

    fn fence_i(&self) {
        // SAFETY: a fence only forgets fetched instructions.
        unsafe { asm!("fence.i", options(nostack, preserves_flags)) }
    }

    fn fence_state(&self) -> &FenceState {
        &self.fences
    }
}
