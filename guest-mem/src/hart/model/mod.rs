//! A software hart that behaves as the specification says, so that code above [`Hart`](super::Hart) runs, and is tested,
//! on any machine.
//!
//! The one idea: the model is strict. What the specification leaves open is chosen by [`Machine`]; what would be a bug of
//! the host on a real machine (a guest access without a G-stage, with interrupts on, a double trap, or a second
//! [`LoadedVcpu`](crate::LoadedVcpu) of the hart) is a panic here.
//!
//! # Testing a hypervisor's own code
//!
//! Code that takes `&impl Hart`, or a [`LoadedVcpu`](crate::guest_virtual::LoadedVcpu) over one, runs unchanged:
//!
//! ```
//! use guest_mem::guest_virtual::LoadedVcpu;
//! use guest_mem::hart::Hart;
//! use guest_mem::hart::model::{ModelGuest, RamArray};
//! use guest_mem::translate::entry;
//! use guest_mem::{AccessError, AccessKind, Gpa, GuestMemory, GuestPrivilege, Gva, Resolution, Spa};
//!
//! // The code under test: the guest's kernel names a list of words, and wants their sum.
//! fn sum(vcpu: &LoadedVcpu<'_, impl Hart>, list: Gva, words: u64) -> Result<u64, AccessError> {
//!     let memory = vcpu.guest_virtual(GuestPrivilege::Supervisor);
//!     (0..words).try_fold(0, |sum, word| {
//!         let at = Gva::new(list.value().wrapping_add(word * 8));
//!         Ok(memory.read_obj::<u64>(at)?.wrapping_add(sum))
//!     })
//! }
//!
//! // A machine with 128 KiB of memory, and a guest in it. Guest-physical memory begins at 0x8000_0000.
//! let memory = RamArray::<32>::new();
//! let guest = ModelGuest::new(memory.at(Spa::new(0x8_0000_0000)))?;
//! let (list, page) = (Gva::new(0x10_0000), Gpa::new(0x8000_3000));
//! guest.map(list, page, entry::R | entry::W)?;
//! guest.write(page, &[1, 0, 0, 0, 0, 0, 0, 0, 2]).unwrap();
//! let hart = guest.hart();
//! // SAFETY: the guest is loaded on this hart, and nothing else runs on it.
//! let vcpu = unsafe { LoadedVcpu::new(&hart) };
//! assert_eq!(sum(&vcpu, list, 2), Ok(3));
//! assert_eq!(hart.counts().fences(), 0);
//!
//! // The hypervisor takes the page away; the guest keeps its mapping, so that the hypervisor has to help.
//! guest.unback(page)?;
//! let error = sum(&vcpu, list, 2).unwrap_err();
//! assert_eq!(error.fault.resolution(), Resolution::Resolve { gpa: page, access: AccessKind::Load });
//! # Ok::<(), guest_mem::translate::builder::BuildError>(())
//! ```

use core::cell::{Cell, RefCell};

use super::FenceState;
use crate::address::Spa;
use crate::translate::Purpose;

mod execute;
mod guest;
mod instructions;
mod lookup;
mod machine;
mod ram;
mod registers;
mod tlb;

#[cfg(test)]
mod tests;

pub use guest::ModelGuest;
pub use machine::{Counts, Machine, Misaligned, Protection, Quirks, Recovery, Translations};
pub use ram::{Ram, RamArray};
pub use registers::Register;

use registers::Registers;
use tlb::Tlb;

/// What `sepc` holds after a fault of a guest access: the pc of the one instruction that the model has.
pub const ACCESS_PC: u64 = 0x8020_0400;

/// Protections that a hart can have.
const PROTECTIONS: usize = 8;

/// One guest access that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The address, as the instruction names it.
    pub address: u64,
    /// The instruction.
    pub purpose: Purpose,
    /// Accesses before this one.
    pub index: u64,
}

/// A hart in HS-mode, in software.
pub struct ModelHart<'a> {
    ram: Ram<'a>,
    machine: Machine,
    registers: Registers,
    protections: RefCell<[Option<Protection>; PROTECTIONS]>,
    tlb: Tlb,
    counts: Cell<Counts>,
    before_access: Cell<Option<&'a dyn Fn(Event)>>,
    fences: FenceState,
    /// Whether a `LoadedVcpu` of this hart exists.
    has_token: Cell<bool>,
}

impl<'a> ModelHart<'a> {
    /// A hart of the given kind over `ram`. Its CSRs are zero: interrupts are off, and no guest is loaded.
    ///
    /// As with a real one, nothing is known of it: accesses fence as if its translations could be stale, until
    /// [`probe`](crate::probe::probe) says otherwise.
    pub const fn new(ram: Ram<'a>, machine: Machine) -> Self {
        Self::with_fences(ram, machine, FenceState::new())
    }

    /// A hart as [`new`](Self::new), of which is known what `machine` says: accesses fence exactly if it has
    /// [`Quirks::stale_vsatp`].
    pub const fn known(ram: Ram<'a>, machine: Machine) -> Self {
        Self::with_fences(
            ram,
            machine,
            FenceState::of(
                machine.quirks.stale_vsatp,
                machine.quirks.htinst_follows_access,
            ),
        )
    }

    const fn with_fences(ram: Ram<'a>, machine: Machine, fences: FenceState) -> Self {
        Self {
            ram,
            machine,
            registers: Registers::new(),
            protections: RefCell::new([const { None }; PROTECTIONS]),
            tlb: Tlb::new(),
            counts: Cell::new(Counts::ZERO),
            before_access: Cell::new(None),
            fences,
            has_token: Cell::new(false),
        }
    }

    /// The machine's memory.
    pub const fn ram(&self) -> Ram<'a> {
        self.ram
    }

    /// What kind of machine it is.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What a CSR holds. For a test's own use: it is not counted.
    pub fn register(&self, register: Register) -> u64 {
        self.registers.get(register)
    }

    /// Writes a CSR as the host would outside of guest accesses. Not counted. As on hardware, a mode that does not exist is
    /// not taken (R31, R41).
    pub fn set_register(&self, register: Register, value: u64) {
        self.registers.set(register, value);
    }

    /// Gives a range of machine memory fewer rights, also for the walks of page tables. The first protection that names an
    /// address decides.
    ///
    /// # Panics
    ///
    /// If the hart has eight already.
    pub fn protect(&self, protection: Protection) {
        let mut all = self.protections.borrow_mut();
        let free = all.iter_mut().find(|slot| slot.is_none());
        *free.expect("a hart has eight protections") = Some(protection);
    }

    /// Takes all protections back.
    pub fn unprotect(&self) {
        *self.protections.borrow_mut() = [const { None }; PROTECTIONS];
    }

    /// What the hart has done.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Counts from zero again.
    pub fn reset_counts(&self) {
        self.counts.set(Counts::ZERO);
    }

    /// Calls `hook` before each guest access: it may change memory, as another hart would.
    pub fn before_each_access(&self, hook: &'a dyn Fn(Event)) {
        self.before_access.set(Some(hook));
    }

    /// Enters the guest and leaves it again, as far as translations are concerned: the stale ones of
    /// [`Quirks::stale_vsatp`] are gone. Nothing else changes.
    pub fn enter_and_exit_guest(&self) {
        self.tlb.change_of_v();
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Whether physical memory protection and the memory map allow it (R15). `hlvx` needs X and R (R5).
    fn permits(&self, at: Spa, bytes: u64, purpose: Purpose) -> bool {
        let Some(last) = at.checked_add(bytes - 1) else {
            return false;
        };
        if self.ram.host_ptr(at).is_none() || self.ram.host_ptr(last).is_none() {
            return false;
        }
        let protections = self.protections.borrow();
        let protection = protections
            .iter()
            .flatten()
            .find(|protection| protection.range.start <= last && at < protection.range.end);
        protection.is_none_or(|protection| match purpose {
            Purpose::Load => protection.read,
            Purpose::Store => protection.write,
            Purpose::ExecutableLoad => protection.read && protection.execute,
            Purpose::Fetch => protection.execute,
        })
    }
}

impl core::fmt::Debug for ModelHart<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ModelHart")
            .field("machine", &self.machine)
            .field("registers", &self.registers)
            .field("counts", &self.counts.get())
            .finish_non_exhaustive()
    }
}
