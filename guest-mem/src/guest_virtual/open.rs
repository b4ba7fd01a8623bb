//! A window that stays open over several small accesses.
//!
//! The one idea: what a single access pays for its window (CSRs read, borrowed and put back, and in the scoped form the record
//! of the guest's exit saved) is paid once; after that an access is little more than its one instruction.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::Ordering;

use super::LoadedVcpu;
use super::access::{self, HardwareSpace};
use super::window::{Borrow, Window};
use crate::access::{GuestPrivilege, Width};
use crate::address::Gva;
use crate::fault::{AccessError, Fault, Operation, Space};
use crate::guest_memory::GuestMemory;
use crate::hart::Hart;

impl<'h, H: Hart> LoadedVcpu<'h, H> {
    /// Opens the guest-virtual space, with the rights of `privilege`, for several small accesses: a ring's entries, a list, the
    /// frames of a stack.
    ///
    /// The window has all of [`GuestMemory`], with the same answers as [`guest_virtual`](Self::guest_virtual) gives. While it
    /// is open:
    ///
    /// - **interrupts are off** (R26): keep it short, or call [`let_interrupts_in`](OpenWindow::let_interrupts_in). An access
    ///   to several pages lets them in between two pages;
    /// - `hstatus.SPVP` is `privilege`, and `sstatus.MXR` and `sstatus.SDT` are clear;
    /// - nothing else is accessed through the token. What a trap handler of the host does meanwhile is right there, and here
    ///   too unless the hart may keep translations across `vsatp` writes
    ///   ([`may_be_stale`](crate::hart::FenceState::may_be_stale): QEMU before 9.0, or not probed): it then has to fence before
    ///   it returns (R35);
    /// - a fault is an error like everywhere, and the window stays open. With a scoped `stvec`, the record of the guest's exit
    ///   is then as it was when the window was opened; between accesses `stvec` is the host's.
    ///
    /// The window borrows the token exclusively, so that a second one cannot be opened before the first is dropped:
    ///
    /// ```compile_fail,E0499
    /// # use guest_mem::hart::Hart;
    /// # use guest_mem::{GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
    /// fn two_windows(vcpu: &mut LoadedVcpu<'_, impl Hart>) {
    ///     let kernel = vcpu.open_window(GuestPrivilege::Supervisor);
    ///     let user = vcpu.open_window(GuestPrivilege::User);
    ///     let _ = kernel.read(Gva::new(0x5000), &mut [0; 8]); // with the rights of the user
    ///     drop((kernel, user));
    /// }
    /// ```
    ///
    /// Nor can the token be used beside it:
    ///
    /// ```compile_fail,E0502
    /// # use guest_mem::hart::Hart;
    /// # use guest_mem::{GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
    /// fn beside_a_window(vcpu: &mut LoadedVcpu<'_, impl Hart>) {
    ///     let window = vcpu.open_window(GuestPrivilege::Supervisor);
    ///     let _ = vcpu.guest_virtual(GuestPrivilege::User).read(Gva::new(0x5000), &mut [0; 8]);
    ///     drop(window);
    /// }
    /// ```
    ///
    /// Dropping it puts everything back. It cannot leave this hart. One that is forgotten (`mem::forget`) leaves interrupts
    /// off and the borrowed CSRs as they are.
    ///
    /// ```
    /// # use core::sync::atomic::Ordering;
    /// # use guest_mem::hart::model::{ModelGuest, RamArray, Register};
    /// # use guest_mem::translate::entry::{R, W};
    /// # use guest_mem::csr::STATUS_SIE;
    /// use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W)?;
    /// # let hart = guest.hart();
    /// # hart.set_register(Register::Sstatus, STATUS_SIE);
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let mut vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// let window = vcpu.open_window(GuestPrivilege::Supervisor);
    /// for word in 0..10u64 {
    ///     window.store(Gva::new(0x5000 + 8 * word), word * word, Ordering::Relaxed)?;
    /// }
    /// assert_eq!(window.load::<u64>(Gva::new(0x5048), Ordering::Relaxed)?, 81);
    /// assert!(window.load::<u64>(Gva::new(0x6000), Ordering::Relaxed).is_err()); // not mapped
    /// assert_eq!(window.read_obj::<[u64; 2]>(Gva::new(0x5008))?, [1, 4]);
    /// # assert_eq!(hart.register(Register::Sstatus) & STATUS_SIE, 0);
    /// drop(window); // interrupts are on again
    /// # assert_eq!(hart.register(Register::Sstatus) & STATUS_SIE, STATUS_SIE);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn open_window(&mut self, privilege: GuestPrivilege) -> OpenWindow<'_, 'h, H> {
        // SAFETY: the token promises that its CSRs are in the hart.
        let window = unsafe { Window::open(self.hart, &self.csrs, Borrow::Virtual(privilege)) };
        OpenWindow {
            // Interrupts are off by now: none changes the record.
            series: self.hart.series(),
            ready: self.check_regime(Operation::Read, privilege).is_ok()
                && !self.hart.fence_state().htinst_may_mislead(),
            window: Cell::new(Some(window)),
            vcpu: self,
            privilege,
        }
    }
}

/// The guest-virtual space of a loaded vCPU, opened for several accesses: [`LoadedVcpu::open_window`].
pub struct OpenWindow<'v, 'h, H: Hart + 'h> {
    series: H::Series<'h>,
    /// Whether accesses are possible, and need not go the long way (R76).
    ready: bool,
    privilege: GuestPrivilege,
    /// `Some`, but while it is closed for a moment.
    window: Cell<Option<Window<'h, H>>>,
    /// The only user of the token, though it needs no more than to read it.
    vcpu: &'v LoadedVcpu<'h, H>,
}

impl<H: Hart> OpenWindow<'_, '_, H> {
    /// Closes the window and opens it again, so that interrupts that are pending are taken if they were on before.
    ///
    /// ```
    /// # use guest_mem::hart::model::{ModelGuest, RamArray};
    /// # use guest_mem::translate::entry::R;
    /// use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
    ///
    /// # let ram = RamArray::<32>::new();
    /// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
    /// # guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R)?;
    /// # let hart = guest.hart();
    /// # // SAFETY: the guest is loaded on the hart.
    /// # let mut vcpu = unsafe { LoadedVcpu::new(&hart) };
    /// let mut window = vcpu.open_window(GuestPrivilege::User);
    /// for round in 0..1000 {
    ///     let _ = window.read(Gva::new(0x5000), &mut [0; 8]);
    ///     if round % 100 == 99 {
    ///         window.let_interrupts_in();
    ///     }
    /// }
    /// # Ok::<(), guest_mem::translate::builder::BuildError>(())
    /// ```
    pub fn let_interrupts_in(&mut self) {
        self.open_again();
    }

    #[cold]
    fn open_again(&self) {
        drop(self.window.take());
        let borrow = Borrow::Virtual(self.privilege);
        // SAFETY: the token promises that its CSRs are in the hart.
        let window = unsafe { Window::open(self.vcpu.hart, &self.vcpu.csrs, borrow) };
        self.window.set(Some(window));
    }
}

impl<H: Hart> fmt::Debug for OpenWindow<'_, '_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenWindow")
            .field("privilege", &self.privilege)
            .finish_non_exhaustive()
    }
}

impl<'h, H: Hart> HardwareSpace for &OpenWindow<'_, 'h, H> {
    type Hart = H::Series<'h>;
    type Address = Gva;
    type Window = ();

    #[inline(always)]
    fn hart(&self) -> &H::Series<'h> {
        &self.series
    }

    /// Interrupts are off for one page of copying at most, as without a window that stays open.
    fn open(&self, offset: usize) {
        if offset != 0 {
            self.open_again();
        }
    }

    #[inline(always)]
    fn open_unfenced(&self) {}

    /// The fence was made when the window was opened.
    #[inline(always)]
    fn is_plain(&self, _: Gva, _: usize) -> bool {
        self.ready
    }

    fn check(&self, operation: Operation, _: Gva, _: usize) -> Result<(), Fault> {
        self.vcpu.check_regime(operation, self.privilege)
    }

    fn locate(&self, fault: Fault, gva: Gva) -> Fault {
        fault.at_gva(gva)
    }

    #[inline(always)]
    fn space(&self) -> Space {
        self.vcpu.virtual_space()
    }

    fn completed(&self, error: AccessError) -> AccessError {
        let completed = self.vcpu.completed(error);
        // The look at the entry may have left translations of its own, which the window's next access must not use (R35).
        if self.vcpu.hart.fence_state().may_be_stale() {
            self.open_again();
        }
        completed
    }
}

impl<H: Hart> GuestMemory for OpenWindow<'_, '_, H> {
    type Address = Gva;

    #[inline]
    fn read(&self, address: Gva, destination: &mut [u8]) -> Result<(), AccessError> {
        access::read(self, address, destination)
    }

    #[inline]
    fn write(&self, address: Gva, source: &[u8]) -> Result<(), AccessError> {
        access::write(self, address, source)
    }

    #[inline]
    fn fill(&self, address: Gva, byte: u8, len: usize) -> Result<(), AccessError> {
        access::fill(self, address, byte, len)
    }

    #[inline]
    fn load_width(&self, address: Gva, width: Width, order: Ordering) -> Result<u64, AccessError> {
        access::load(self, address, width, order)
    }

    #[inline]
    fn store_width(
        &self,
        address: Gva,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        access::store(self, address, width, value, order)
    }

    fn compare_exchange_width(
        &self,
        address: Gva,
        width: Width,
        _current: u64,
        _new: u64,
        _order: Ordering,
    ) -> Result<u64, AccessError> {
        Err(access::no_compare_exchange(self, address, width))
    }
}
