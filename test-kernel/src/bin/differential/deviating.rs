//! Guest-physical memory and page-table entries as a machine with deviations has them.
//!
//! The one idea: the library's walk of the VS-stage asks a [`Machine`] for each entry and for the page, and that asks the
//! library's walk of the G-stage, whose entries come through [`Entries`]: between the three there is room for each deviation,
//! and without any, the library's own code is all that runs.

use core::cell::Cell;

use guest_mem::translate::{EntryMemory, GPage, GRegime, GStage, GTables, Purpose, Refused};
use guest_mem::{AccessKind, FaultKind, Gpa, Spa};
use test_kernel::deviation::Deviation;
use test_kernel::tables::bits::{N, R, U, W, X};

use crate::block::{Block, Refusal};
use crate::deviations::Deviations;

/// Bits 60:54 of an entry.
const RESERVED: u64 = 0x7f << 54;
/// The low bits of the page number that make a 64 KiB page, and where they are.
const NAPOT: u64 = 0b1000 << 10;
const NAPOT_FIELD: u64 = 0xf << 10;
/// The two bits of the memory type.
const PBMT: u64 = 3 << 61;

/// Memory and the G-stage as the machine with its deviations has them.
pub struct Machine<'a> {
    block: &'a Block,
    deviations: Deviations,
    regime: GRegime,
    /// The G-stage, for explicit accesses and, without deviations, for entries.
    tables: GTables<Entries<'a>>,
    /// The G-stage for page-table accesses.
    implicit: GTables<Entries<'a>>,
    /// The VS-stage met a 64 KiB page with a reserved encoding.
    reserved_page: Cell<bool>,
    table_unreachable: Cell<bool>,
}

impl<'a> Machine<'a> {
    /// The machine with `deviations`, whose G-stage is `regime`.
    pub fn new(block: &'a Block, regime: GRegime, deviations: Deviations) -> Self {
        let entries = Entries {
            block,
            deviations,
            of_any_user: false,
        };
        Self {
            block,
            deviations,
            regime,
            tables: GTables::new(regime, entries),
            implicit: GTables::new(regime, entries.of_implicit_walks()),
            reserved_page: Cell::new(false),
            table_unreachable: Cell::new(false),
        }
    }

    fn has(&self, deviation: Deviation) -> bool {
        self.deviations.has(deviation)
    }

    fn entries(&self) -> Entries<'a> {
        Entries {
            block: self.block,
            deviations: self.deviations,
            of_any_user: false,
        }
    }

    /// A guest-physical address as the machine looks at it: `None` if it is too wide.
    fn narrow(&self, at: Gpa) -> Option<Gpa> {
        if !self.has(Deviation::WideGpa) {
            return Some(at);
        }
        let bits = self.regime.mode.gpa_bits();
        let top = at.value().cast_signed() >> (bits - 1);
        matches!(top, 0 | -1).then(|| Gpa::new(at.value() & ((1 << bits) - 1)))
    }

    /// Where a page-table entry of the guest's is, as for a load.
    fn entry(&self, at: Gpa) -> Result<GPage, FaultKind> {
        let kinds = [Deviation::MxrOnPageTables, Deviation::VsMxrAtGStage];
        let mxr = self.regime.mxr && kinds.iter().any(|&kind| self.has(kind));
        let regime = GRegime { mxr, ..self.regime };
        let refused = FaultKind::GuestPage {
            access: AccessKind::Load,
            implicit: true,
        };
        let narrow = self.narrow(at).ok_or(refused)?;
        // The library says whether the entry may be read; a load finds where it is.
        let by_library = self.implicit.read_entry(narrow);
        let readable = !matches!(by_library, Err(FaultKind::GuestPage { .. }));
        let tables = GTables::new(regime, self.entries().of_implicit_walks());
        let found = self.unless_reserved(refused, || tables.locate(narrow, Purpose::Load));
        let located = !matches!(found, Err(FaultKind::GuestPage { .. }));
        if !mxr && readable != located && !self.block.reserved_page.get() {
            // No machine reports this: the case is a disagreement.
            return Err(FaultKind::UnexpectedCause);
        }
        // Whatever the G-stage does not find is its page fault.
        match found {
            Err(FaultKind::Access)
                if self.has(Deviation::MissingTableIsPageFault)
                    || self.has(Deviation::GTableIsGuestPage) =>
            {
                Err(refused)
            }
            other => other,
        }
    }

    /// The explicit access was refused because nothing is where a table of the G-stage should be.
    pub fn table_unreachable(&self) -> bool {
        self.table_unreachable.get()
    }
}

impl Machine<'_> {
    /// A walk of the G-stage, refused if its page has a reserved encoding that was not seen on the way.
    fn unless_reserved(
        &self,
        refused: FaultKind,
        walk: impl FnOnce() -> Result<GPage, FaultKind>,
    ) -> Result<GPage, FaultKind> {
        self.block.reserved_page.set(false);
        match (walk(), self.block.reserved_page.get()) {
            (Ok(_), true) => Err(refused),
            (found, _) => found,
        }
    }
}

impl GStage for Machine<'_> {
    type Page = GPage;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        if self.deviations.is_empty() {
            return self.tables.read_entry(at);
        }
        let spa = self.entry(at)?.spa;
        self.block.reserved_page.set(false);
        let entry = self.entries().read_entry(spa);
        self.reserved_page.set(self.block.reserved_page.get());
        entry.map_err(|Refused| {
            let missing = self.block.refusal.get() == Refusal::Nothing;
            match missing && self.has(Deviation::MissingTableIsPageFault) {
                true => FaultKind::Page,
                false => FaultKind::Access,
            }
        })
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        if !self.has(Deviation::UpdateIgnoresG) {
            return match self.narrow(at) {
                Some(at) => self.implicit.compare_exchange_entry(at, current, new),
                None => Err(FaultKind::Access),
            };
        }
        let spa = self.entry(at)?.spa;
        self.entries()
            .compare_exchange_entry(spa, current, new)
            .map_err(|Refused| FaultKind::Access)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<GPage, FaultKind> {
        let refused = FaultKind::GuestPage {
            access: purpose.access_kind(),
            implicit: false,
        };
        if self.reserved_page.get() {
            return Err(FaultKind::Page);
        }
        let at = self.narrow(at).ok_or(refused)?;
        let found = self.unless_reserved(refused, || self.tables.locate(at, purpose));
        let as_guest_page = match self.block.refusal.get() {
            Refusal::Nothing => Deviation::MissingTableIsPageFault,
            Refusal::Protected => Deviation::ProtectionIsGuestPage,
        };
        match found {
            Err(FaultKind::Access) if self.has(as_guest_page) => Err(refused),
            Err(FaultKind::Access) => {
                self.table_unreachable
                    .set(self.block.refusal.get() == Refusal::Nothing);
                Err(FaultKind::Access)
            }
            other => other,
        }
    }
}

/// Entries in memory as the machine with its deviations looks at them.
#[derive(Clone, Copy)]
pub struct Entries<'a> {
    /// Where they are.
    pub block: &'a Block,
    /// What the machine makes of them.
    pub deviations: Deviations,
    /// Leaves have U, whether it is set or not.
    pub of_any_user: bool,
}

impl Entries<'_> {
    /// The same for the G-stage's walks to page tables of the guest's.
    fn of_implicit_walks(self) -> Self {
        Self {
            of_any_user: self.deviations.has(Deviation::TableNeedsNoUser),
            ..self
        }
    }

    /// Bits of `entry` that the machine takes for set.
    fn added(&self, entry: u64) -> u64 {
        match self.of_any_user && entry & (R | X) != 0 {
            true => U & !entry,
            false => 0,
        }
    }

    /// Bits of `entry` that the machine does not look at.
    fn unseen(&self, entry: u64) -> u64 {
        let mut unseen = 0;
        if self.deviations.has(Deviation::ReservedIgnored) {
            unseen |= entry & RESERVED;
        }
        // The reserved memory type is taken for another.
        if self.deviations.has(Deviation::PbmtReservedAllowed) && entry & PBMT == PBMT {
            unseen |= 1 << 62;
        }
        if self.is_late(entry) {
            unseen |= N;
        }
        unseen
    }

    /// Whether the entry is one of a 64 KiB page whose encoding is reserved, which the machine sees too late. A shadow stack
    /// has W alone; where there are none, such an entry is refused before.
    fn is_late(&self, entry: u64) -> bool {
        let reserved = entry & N != 0 && entry & (R | W | X) != 0 && entry & NAPOT_FIELD != NAPOT;
        reserved && self.deviations.has(Deviation::NapotAfterUpdate)
    }
}

impl EntryMemory for Entries<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        let entry = self.block.read_entry(at)?;
        if self.is_late(entry) {
            self.block.reserved_page.set(true);
        }
        Ok(entry & !self.unseen(entry) | self.added(entry))
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let entry = self.block.read_entry(at)?;
        let (unseen, added) = (self.unseen(entry), self.added(entry));
        let as_it_is = |seen: u64| seen & !added | unseen;
        self.block
            .compare_exchange_entry(at, as_it_is(current), as_it_is(new))
    }
}
