//! A guest in a few lines: memory, both stages' tables, and a hart that has it loaded.

use core::cell::RefCell;

use super::{Machine, ModelHart, Ram, Register};
use crate::access::Width;
use crate::address::{Address, Gpa, Gva, PAGE_SIZE, Spa};
use crate::csr::{GMode, VsMode};
use crate::translate::builder::{BuildError, GBuilder, TableStore, VsBuilder};
use crate::translate::entry::{A, D, R, U, W, X};

/// Pages for the host's tables: the root's four and enough for two regions of guest-physical memory in any mode.
const G_TABLE_PAGES: u64 = 12;
/// Pages for the guest's tables, at the end of its memory.
const VS_TABLE_PAGES: u64 = 12;
const VMID: u16 = 1;
const ASID: u16 = 1;

/// A guest that has part of a [`Ram`] as its memory, in 4 KiB pages, guest-physical from [`BASE`](Self::BASE) on.
///
/// The guest's own tables lie in the last 48 KiB of its memory, the host's in the first 48 KiB of the [`Ram`].
#[derive(Debug)]
pub struct ModelGuest<'a> {
    ram: Ram<'a>,
    pages: u64,
    g: RefCell<GBuilder<Tables<'a>>>,
    vs: RefCell<VsBuilder<Tables<'a>>>,
}

/// Table memory: `offset` is what has to be added to an address of the tables' own space to have the machine's.
#[derive(Clone, Copy, Debug)]
struct Tables<'a> {
    ram: Ram<'a>,
    offset: u64,
}

impl<A: Address> TableStore<A> for Tables<'_> {
    fn load(&mut self, at: A) -> Option<u64> {
        let at = Spa::new(at.to_u64().wrapping_add(self.offset));
        self.ram.load(at, Width::Double)
    }

    fn store(&mut self, at: A, entry: u64) -> Option<()> {
        let at = Spa::new(at.to_u64().wrapping_add(self.offset));
        self.ram.store(at, Width::Double, entry)
    }
}

impl<'a> ModelGuest<'a> {
    /// Where guest-physical memory begins.
    pub const BASE: Gpa = Gpa::new(0x8000_0000);

    /// A guest in Sv39 under Sv39x4. Its virtual memory is empty.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if `ram` has less than 100 KiB, or does not begin at a multiple of 16 KiB.
    pub fn new(ram: Ram<'a>) -> Result<Self, BuildError> {
        Self::with_modes(ram, VsMode::Sv39, GMode::Sv39x4)
    }

    /// As [`new`](Self::new), in the given modes, neither of which is Bare.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); [`BuildError::BadRequest`] for Bare.
    pub fn with_modes(ram: Ram<'a>, vs: VsMode, g: GMode) -> Result<Self, BuildError> {
        let pages = (ram.len() as u64 / PAGE_SIZE)
            .checked_sub(G_TABLE_PAGES)
            .filter(|&pages| pages > VS_TABLE_PAGES)
            .ok_or(BuildError::NoTable)?;
        let at = |base: u64, pages: u64| base + pages * PAGE_SIZE;
        let start = ram.base();
        let memory = Spa::new(at(start.value(), G_TABLE_PAGES));
        let mut g = GBuilder::new(g, start..memory, Tables { ram, offset: 0 })?;
        g.map_pages(Self::BASE, memory, pages, R | W | X | U | A | D)?;
        let offset = memory.value().wrapping_sub(Self::BASE.value());
        let first = Gpa::new(at(Self::BASE.value(), pages - VS_TABLE_PAGES));
        let end = Gpa::new(at(Self::BASE.value(), pages));
        let vs = VsBuilder::new(vs, first..end, Tables { ram, offset })?;
        Ok(Self {
            ram,
            pages,
            g: RefCell::new(g),
            vs: RefCell::new(vs),
        })
    }

    /// A hart of the usual kind with this guest loaded. It counts as probed.
    pub fn hart(&self) -> ModelHart<'a> {
        self.hart_of(Machine::new())
    }

    /// A hart of the given kind with this guest loaded. It counts as probed.
    pub fn hart_of(&self, machine: Machine) -> ModelHart<'a> {
        self.load_on(ModelHart::known(self.ram, machine))
    }

    /// A hart of the given kind with this guest loaded, which nobody has probed.
    pub fn unprobed_hart_of(&self, machine: Machine) -> ModelHart<'a> {
        self.load_on(ModelHart::new(self.ram, machine))
    }

    fn load_on(&self, hart: ModelHart<'a>) -> ModelHart<'a> {
        hart.set_register(Register::Hgatp, self.hgatp());
        hart.set_register(Register::Vsatp, self.vsatp());
        hart
    }

    /// Its `hgatp`, with VMID 1.
    pub fn hgatp(&self) -> u64 {
        self.g.borrow().hgatp(VMID)
    }

    /// Its `vsatp`, with ASID 1.
    pub fn vsatp(&self) -> u64 {
        self.vs.borrow().vsatp(ASID)
    }

    /// Its memory in bytes, its tables included.
    pub fn len(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// Whether it has none: never.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Where the memory at `gpa` is as the guest was made, whatever was mapped since. `None` outside of its memory.
    pub fn spa(&self, gpa: Gpa) -> Option<Spa> {
        let offset = gpa.value().checked_sub(Self::BASE.value())?;
        let start = self.ram.base().value() + G_TABLE_PAGES * PAGE_SIZE;
        (offset < self.len()).then(|| Spa::new(start + offset))
    }

    /// Maps a page in the guest: `bits` are its rights, as in [`entry`](crate::translate::entry); A and D are set.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn map(&self, gva: Gva, gpa: Gpa, bits: u64) -> Result<(), BuildError> {
        self.vs.borrow_mut().map(gva, gpa, 0, bits | A | D)
    }

    /// Maps consecutive pages in the guest, as [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn map_pages(&self, gva: Gva, gpa: Gpa, pages: u64, bits: u64) -> Result<(), BuildError> {
        self.vs
            .borrow_mut()
            .map_pages(gva, gpa, pages, bits | A | D)
    }

    /// Writes the guest's 4 KiB entry for `gva` as it is, A and D included. No fence is executed.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if nothing near was ever mapped.
    pub fn set_entry(&self, gva: Gva, entry: u64) -> Result<(), BuildError> {
        let at = self.vs.borrow_mut().entry(gva, 0)?;
        let spa = self.spa(at).ok_or(BuildError::NoMemory)?;
        self.put(spa, entry)
    }

    /// The guest-physical address of the guest's 4 KiB entry for `gva`.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if nothing near was ever mapped.
    pub fn entry(&self, gva: Gva) -> Result<Gpa, BuildError> {
        self.vs.borrow_mut().entry(gva, 0)
    }

    /// Backs a page of guest-physical memory by a page of the machine's, with the G-stage rights of `bits`; U, A and D are set.
    /// No fence is executed.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn back(&self, gpa: Gpa, spa: Spa, bits: u64) -> Result<(), BuildError> {
        self.g.borrow_mut().map(gpa, spa, 0, bits | U | A | D)
    }

    /// Takes the backing of a page of guest-physical memory away. No fence is executed.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if nothing near was ever backed.
    pub fn unback(&self, gpa: Gpa) -> Result<(), BuildError> {
        self.set_g_entry(gpa, 0)
    }

    /// Writes the host's 4 KiB entry for `gpa` as it is, U, A and D included. No fence is executed.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoTable`] if nothing near was ever backed.
    pub fn set_g_entry(&self, gpa: Gpa, entry: u64) -> Result<(), BuildError> {
        let at = self.g.borrow_mut().entry(gpa, 0)?;
        self.put(at, entry)
    }

    /// Copies guest memory out, past all translation. `None` outside of its memory.
    pub fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> Option<()> {
        self.ram.read(self.spa(gpa)?, bytes)
    }

    /// Copies bytes into guest memory, past all translation. `None` outside of its memory.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> Option<()> {
        self.ram.write(self.spa(gpa)?, bytes)
    }

    fn put(&self, at: Spa, entry: u64) -> Result<(), BuildError> {
        self.ram
            .store(at, Width::Double, entry)
            .ok_or(BuildError::NoMemory)
    }
}
