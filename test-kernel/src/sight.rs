//! What a machine looks at in the entries of its tables: all that is specified, or less by a deviation.
//!
//! The one idea: the library's walk runs over entries that are as the machine sees them. One that does not ask for U where the
//! guest's page tables are sees it set there, and there alone.

use guest_mem::translate::{
    Access, EntryMemory, GPage, GRegime, GStage, GTables, Purpose, Refused, Translation, VsRegime,
    translate,
};
use guest_mem::{Fault, FaultKind, Gpa, Spa};

use crate::library::ArenaMemory;
use crate::tables::bits::{R, U, X};

/// Bits of an entry that no extension of these machines uses.
pub const RESERVED: u64 = 0x7f << 54;

/// What a machine looks at.
#[derive(Clone, Copy)]
pub struct Sight {
    /// Bits that it takes for 0.
    ignored: u64,
    /// At the G-stage, the U bit of a page with page tables of the guest's.
    user_of_tables: bool,
}

impl Sight {
    /// Everything.
    pub const ALL: Self = Self {
        ignored: 0,
        user_of_tables: true,
    };
    /// All but [`RESERVED`].
    pub const NOT_RESERVED: Self = Self {
        ignored: RESERVED,
        ..Self::ALL
    };
    /// All but U of the G-stage where page tables are.
    pub const NOT_USER_OF_TABLES: Self = Self {
        user_of_tables: false,
        ..Self::ALL
    };

    /// The walk of an access over the arena's tables, as a machine sees them.
    pub fn translate(
        self,
        vs: &VsRegime,
        g: GRegime,
        access: Access,
    ) -> Result<Translation<GPage>, Fault> {
        let memory = || ArenaMemory {
            ignored: self.ignored,
        };
        let tables = GTables::new(g, memory());
        if self.user_of_tables {
            return translate(vs, &tables, access);
        }
        let of_any_user = TablesOfAnyUser {
            memory: memory(),
            tables,
            implicit: GTables::new(g, AnyUser(memory())),
        };
        translate(vs, &of_any_user, access)
    }
}

/// The G-stage of a machine that does not ask for U where the guest's page tables are.
struct TablesOfAnyUser {
    memory: ArenaMemory,
    tables: GTables<ArenaMemory>,
    implicit: GTables<AnyUser>,
}

impl GStage for TablesOfAnyUser {
    type Page = GPage;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        // The guest's own entry is as it is.
        self.implicit.read_entry(at)?;
        let page = self.implicit.locate(at, Purpose::Load)?;
        self.memory
            .read_entry(page.spa)
            .map_err(|Refused| FaultKind::Access)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        self.implicit.compare_exchange_entry(at, current, new)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<GPage, FaultKind> {
        self.tables.locate(at, purpose)
    }
}

/// Entries with U in each leaf.
struct AnyUser(ArenaMemory);

/// What is added to an entry.
const fn added(entry: u64) -> u64 {
    if entry & (R | X) != 0 { U & !entry } else { 0 }
}

impl EntryMemory for AnyUser {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        let entry = self.0.read_entry(at)?;
        Ok(entry | added(entry))
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let added = added(self.0.read_entry(at)?);
        let result = self
            .0
            .compare_exchange_entry(at, current & !added, new & !added)?;
        Ok(result.map_err(|found| found | added))
    }
}
