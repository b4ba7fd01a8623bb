//! What the tests of the library share: harts in both forms of fault recovery, a hart that counts, and the machine's memory
//! as the software walk reads it.

use core::any::TypeId;
use core::cell::Cell;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::hart::riscv64::{HandlerHook, Recovery, Riscv64, ScopedStvec};
use guest_mem::hart::{Csr, FenceState, Hart, Interrupted};
use guest_mem::probe::{self, MachineProfile};
use guest_mem::translate::{EntryMemory, Refused};
use guest_mem::{AccessError, LoadedVcpu, Spa, TrapInfo, Width};

use crate::harness::{Stop, fail};
use crate::{arena, storm, trap};

/// This hart with a scoped `stvec`.
pub type Scoped = Riscv64<ScopedStvec>;

/// This hart, probed. No guest may be loaded. The trap handler calls the library from now on exactly if this form asks for it.
pub fn probed<R: Recovery + 'static>() -> Result<(Riscv64<R>, MachineProfile), Stop> {
    trap::set_hook(TypeId::of::<R>() == TypeId::of::<HandlerHook>());
    // SAFETY: HS-mode with the H extension; the trap handler calls `try_fixup` if this is the hook's form; everything is
    // mapped.
    let hart = unsafe { Riscv64::<R>::new() };
    let scratch = arena::take(probe::PROBE_BYTES.next_power_of_two() as u64);
    // SAFETY: the block is the arena's, identity-mapped, and taken for this; no vCPU is loaded.
    let profile = unsafe { probe::probe(&hart, scratch as *mut u64, Spa::new(scratch)) };
    match profile {
        Ok(profile) => Ok((hart, profile)),
        Err(error) => Err(Stop::failed(format_args!("probe: {error}"))),
    }
}

/// The token of the guest that the test has loaded.
pub fn loaded<H: Hart>(hart: &H) -> LoadedVcpu<'_, H> {
    // SAFETY: the test's guest is in the CSRs and stays there while it uses the token; its exit record is saved or of no
    // use; its tables lead to the arena only, or to what the test is about.
    unsafe { LoadedVcpu::new(hart) }
}

/// The error of an access that has to have one.
pub fn error_of<T: Debug>(result: Result<T, AccessError>) -> Result<AccessError, Stop> {
    match result {
        Err(error) => Ok(error),
        Ok(value) => fail!("no fault: {value:?}"),
    }
}

/// Runs `$body(test, &hart)` with a probed hart of each form.
macro_rules! in_both_forms {
    ($test:expr, $body:expr) => {{
        let (hart, _) = $crate::library::probed::<guest_mem::hart::riscv64::HandlerHook>()?;
        $body($test, &hart)?;
        $crate::boot::reset_csrs($crate::csr::satp::read());
        let (hart, _) = $crate::library::probed::<guest_mem::hart::riscv64::ScopedStvec>()?;
        $body($test, &hart)
    }};
}

pub(crate) use in_both_forms;

/// A hart that counts its fences and accesses, may show another value than a CSR's, and may interrupt itself.
pub struct Spy<'h, H> {
    hart: &'h H,
    /// Fences issued.
    pub fences: Cell<u32>,
    /// Accesses issued.
    pub accesses: Cell<u32>,
    /// A CSR, and what it reads as instead of its value.
    pub shown: Cell<Option<(Csr, u64)>>,
    /// Whether an interrupt comes with each access: inside the window.
    pub interrupts: Cell<bool>,
}

impl<'h, H: Hart> Spy<'h, H> {
    /// Watches `hart`.
    pub fn on(hart: &'h H) -> Self {
        Self {
            hart,
            fences: Cell::new(0),
            accesses: Cell::new(0),
            shown: Cell::new(None),
            interrupts: Cell::new(false),
        }
    }

    fn access(&self) -> &H {
        self.accesses.set(self.accesses.get() + 1);
        if self.interrupts.get() {
            storm::pend();
        }
        self.hart
    }

    fn fence(&self) -> &H {
        self.fences.set(self.fences.get() + 1);
        self.hart
    }
}

// SAFETY: every method is the watched hart's; only the value of a CSR that is shown may differ, and then nothing is accessed
// under it: the library refuses it, which is what the tests that set it look at.
unsafe impl<H: Hart> Hart for Spy<'_, H> {
    type Series<'s>
        = &'s Self
    where
        Self: 's;

    fn series(&self) -> &Self {
        self
    }

    fn read_csr(&self, csr: Csr) -> u64 {
        match self.shown.get() {
            Some((shown, value)) if shown == csr => value,
            _ => self.hart.read_csr(csr),
        }
    }

    unsafe fn swap_csr(&self, csr: Csr, value: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.swap_csr(csr, value) }
    }

    unsafe fn set_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.set_csr_bits(csr, bits) }
    }

    unsafe fn clear_csr_bits(&self, csr: Csr, bits: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.hart.clear_csr_bits(csr, bits) }
    }

    unsafe fn copy_from_guest(
        &self,
        source: u64,
        destination: *mut u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.access().copy_from_guest(source, destination, len) }
    }

    unsafe fn copy_to_guest(
        &self,
        destination: u64,
        source: *const u8,
        len: usize,
    ) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.access().copy_to_guest(destination, source, len) }
    }

    unsafe fn fill_guest(&self, destination: u64, byte: u8, len: usize) -> Result<(), Interrupted> {
        // SAFETY: the caller's promise.
        unsafe { self.access().fill_guest(destination, byte, len) }
    }

    unsafe fn load_guest(&self, address: u64, width: Width) -> Result<u64, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.access().load_guest(address, width) }
    }

    unsafe fn store_guest(&self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.access().store_guest(address, width, value) }
    }

    unsafe fn fetch_parcel(&self, address: u64) -> Result<u16, TrapInfo> {
        // SAFETY: the caller's promise.
        unsafe { self.access().fetch_parcel(address) }
    }

    fn hfence_vvma(&self, gva: Option<u64>) {
        self.fence().hfence_vvma(gva);
    }

    fn hfence_gvma(&self, gpa: Option<u64>) {
        self.fence().hfence_gvma(gpa);
    }

    fn fence_i(&self) {
        self.hart.fence_i();
    }

    fn fence_state(&self) -> &FenceState {
        self.hart.fence_state()
    }
}

/// The arena as machine memory: where the tests keep all their tables.
pub struct ArenaMemory {
    /// Bits of entries that read as zero: 0, or what a machine fails to look at.
    pub ignored: u64,
}

impl ArenaMemory {
    fn entry(at: Spa) -> Result<&'static AtomicU64, Refused> {
        if !arena::contains(at.value(), 8) || !at.value().is_multiple_of(8) {
            return Err(Refused);
        }
        // SAFETY: an aligned double of the arena, which is mapped for all of the run and whose users are volatile or atomic.
        Ok(unsafe { AtomicU64::from_ptr(at.value() as *mut u64) })
    }
}

impl EntryMemory for ArenaMemory {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        Ok(Self::entry(at)?.load(Ordering::Relaxed) & !self.ignored)
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let entry = Self::entry(at)?;
        let kept = entry.load(Ordering::Relaxed) & self.ignored;
        Ok(entry
            .compare_exchange(
                current | kept,
                new | kept,
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .map_err(|found| found & !self.ignored))
    }
}
