//! A slot: a range of guest-physical memory and what backs it.

use core::fmt;
use core::ptr::NonNull;

use super::page_entry::PageEntry;
use crate::address::{Gpa, PAGE_SIZE};
use crate::atomic::AtomicU64;

/// What is behind a slot.
#[derive(Clone, Copy, Debug)]
pub enum Backing<'m> {
    /// Host-contiguous memory.
    Linear {
        /// The host address of the slot's first byte.
        host: NonNull<u8>,
    },
    /// A host page, or none, for each guest page.
    Paged {
        /// One entry for each 4 KiB page of the slot.
        pages: &'m [PageEntry],
    },
    /// Memory that the host does not map: reached by `hlv` and `hsv` with `vsatp` Bare, through a loaded vCPU that the view
    /// was given ([`PhysicalView::with_vcpu`](super::PhysicalView::with_vcpu)).
    GuestOnly,
    /// A passed-through device: exact-width single accesses, never a copy.
    Device {
        /// The host address of the slot's first byte.
        host: NonNull<u8>,
    },
    /// An emulated device: every access is [`FaultKind::Trapped`](crate::FaultKind::Trapped).
    Trapped,
}

/// A range of guest-physical memory with its backing. Start and length are multiples of 4096 bytes.
///
/// The constructors check nothing; [`GuestPhysicalMemory::add`](super::GuestPhysicalMemory::add) checks everything.
#[derive(Clone, Copy)]
pub struct Slot<'m> {
    pub(super) base: Gpa,
    pub(super) len: u64,
    pub(super) backing: Backing<'m>,
    pub(super) read_only: bool,
    pub(super) logging: bool,
    pub(super) dirty_log: Option<&'m [AtomicU64]>,
}

// SAFETY: the pointers of a slot are addresses of guest memory, which its constructors require to be accessible from any
// hart; all else in it is `Send` and `Sync`.
unsafe impl Send for Slot<'_> {}
// SAFETY: as above; a shared slot is only read.
unsafe impl Sync for Slot<'_> {}

impl<'m> Slot<'m> {
    /// What an unused place of a slot table holds: no address is in it.
    pub(super) const EMPTY: Self = Self::new(Gpa::new(0), 0, Backing::Trapped);

    const fn new(base: Gpa, len: u64, backing: Backing<'m>) -> Self {
        Self {
            base,
            len,
            backing,
            read_only: false,
            logging: false,
            dirty_log: None,
        }
    }

    /// `len` bytes of memory that lie together at `host`, which is page-aligned.
    ///
    /// # Safety
    ///
    /// While this slot or a copy of it is in a memory (from `add` until `remove` or `replace` has returned, or the memory is
    /// dropped), the `len` bytes at `host` are valid for reads and, unless the slot is read-only, writes by any hart, and
    /// nothing but guests and this library accesses them, unless in order with that, or as R77 says (assembly, or atomics of single
    /// bytes). A copy is a slot that safe code may add.
    pub const unsafe fn linear(base: Gpa, len: u64, host: NonNull<u8>) -> Self {
        Self::new(base, len, Backing::Linear { host })
    }

    /// Memory whose pages the host has anywhere, or nowhere yet: `pages.len()` pages at `base`. What each entry may hold is
    /// the contract of [`PageEntry::set`].
    pub const fn paged(base: Gpa, pages: &'m [PageEntry]) -> Self {
        let len = (pages.len() as u64).saturating_mul(PAGE_SIZE);
        Self::new(base, len, Backing::Paged { pages })
    }

    /// `len` bytes of memory that only `hlv` and `hsv` reach.
    pub const fn guest_only(base: Gpa, len: u64) -> Self {
        Self::new(base, len, Backing::GuestOnly)
    }

    /// `len` bytes of a passed-through device whose registers the host has at `host`, which is page-aligned.
    ///
    /// # Safety
    ///
    /// For the time that [`linear`](Self::linear) names, every naturally aligned volatile access of 1, 2, 4 or 8 bytes within
    /// the range is sound by any hart, whatever it makes the device do.
    pub const unsafe fn device(base: Gpa, len: u64, host: NonNull<u8>) -> Self {
        Self::new(base, len, Backing::Device { host })
    }

    /// `len` bytes that the host emulates.
    pub const fn trapped(base: Gpa, len: u64) -> Self {
        Self::new(base, len, Backing::Trapped)
    }

    /// The same slot, whose memory the guest may not change: a write is
    /// [`FaultKind::ReadOnlySlot`](crate::FaultKind::ReadOnlySlot).
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The same slot with room for a dirty log: one bit a page. Logging begins with
    /// [`start_logging`](super::GuestPhysicalMemory::start_logging).
    pub const fn with_dirty_log(mut self, bits: &'m [AtomicU64]) -> Self {
        self.dirty_log = Some(bits);
        self
    }

    /// The first address.
    pub const fn base(&self) -> Gpa {
        self.base
    }

    /// The length in bytes.
    pub const fn byte_len(&self) -> u64 {
        self.len
    }

    /// What is behind it.
    pub const fn backing(&self) -> Backing<'m> {
        self.backing
    }

    /// Whether writes are refused.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether writes are logged.
    pub const fn is_logging(&self) -> bool {
        self.logging
    }

    /// Whether the address lies in the slot.
    #[inline]
    pub const fn contains(&self, gpa: Gpa) -> bool {
        gpa.value().wrapping_sub(self.base.value()) < self.len
    }

    /// Bytes from the slot's start to `gpa`, which lies in it.
    #[inline]
    pub(super) const fn offset_of(&self, gpa: Gpa) -> u64 {
        gpa.value() - self.base.value()
    }

    pub(super) const fn pages(&self) -> u64 {
        self.len / PAGE_SIZE
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.backing {
            Backing::Linear { .. } => "linear",
            Backing::Paged { .. } => "paged",
            Backing::GuestOnly => "guest-only",
            Backing::Device { .. } => "device",
            Backing::Trapped => "trapped",
        };
        write!(f, "{kind} slot {:#x}+{:#x}", self.base, self.len)?;
        if self.read_only {
            f.write_str(" read-only")?;
        }
        if self.logging {
            f.write_str(" logging")?;
        }
        Ok(())
    }
}

/// Why a change of the slot table was refused. The table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// The slot has no bytes.
    Empty {
        /// Its first address.
        base: Gpa,
    },
    /// The slot's address, length or host address is not a multiple of 4096.
    Misaligned {
        /// The number that is not.
        value: u64,
    },
    /// The slot reaches past the top of the 64-bit space or the width of a guest-physical address in the G-stage's mode.
    OutOfRange {
        /// Its first address.
        base: Gpa,
        /// Its length in bytes.
        len: u64,
        /// How many bits a guest-physical address has.
        gpa_bits: u32,
    },
    /// The slot overlaps one that is there.
    Overlap {
        /// The first address of the one that is there.
        existing: Gpa,
    },
    /// All places of the table are taken.
    Full {
        /// How many there are.
        slots: usize,
    },
    /// No slot begins at the address.
    NoSuchSlot {
        /// The address.
        base: Gpa,
    },
    /// The slot has no dirty log, or one with fewer bits than it has pages.
    NoDirtyLog {
        /// The slot's first address.
        base: Gpa,
    },
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { base } => write!(f, "slot at GPA {base} has no bytes"),
            Self::Misaligned { value } => write!(f, "{value:#x} is not a multiple of 4096"),
            Self::OutOfRange {
                base,
                len,
                gpa_bits,
            } => write!(
                f,
                "slot {base}+{len:#x} leaves the {gpa_bits}-bit guest-physical space"
            ),
            Self::Overlap { existing } => write!(f, "slot overlaps the one at GPA {existing}"),
            Self::Full { slots } => write!(f, "all {slots} slots are taken"),
            Self::NoSuchSlot { base } => write!(f, "no slot begins at GPA {base}"),
            Self::NoDirtyLog { base } => {
                write!(f, "slot at GPA {base} has no dirty log of its size")
            }
        }
    }
}

impl core::error::Error for SlotError {}
