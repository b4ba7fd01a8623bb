//! Races with a guest that edits its page tables while the hardware walks them (R46).

use core::cell::Cell;
use core::ptr::NonNull;

use super::*;
use crate::Width;
use crate::csr::ATP_PPN;
use crate::guest_physical::BackingMemory;
use crate::guest_virtual::{BackedVirtual, VsEnvironment};
use crate::translate::{GStage, Purpose};

/// The guest's tables as a walk in software reads them. Its memory is not to be reached this way: a race is no reason to
/// leave the hardware's path.
struct TablesOnly<'g, 'a> {
    guest: &'g ModelGuest<'a>,
    /// Called before each page-table entry is read, as another hart of the guest would interfere.
    interfere: &'g dyn Fn(),
}

impl GStage for TablesOnly<'_, '_> {
    type Page = Spa;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        (self.interfere)();
        let mut entry = [0; 8];
        self.guest.read(at, &mut entry).ok_or(FaultKind::NoSlot)?;
        Ok(u64::from_le_bytes(entry))
    }

    fn compare_exchange_entry(
        &self,
        _: Gpa,
        _: u64,
        _: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        unreachable!("a walk that classifies leaves no trace")
    }

    fn locate(&self, at: Gpa, _: Purpose) -> Result<Spa, FaultKind> {
        self.guest.spa(at).ok_or(FaultKind::NoSlot)
    }
}

// SAFETY: no address is answered.
unsafe impl BackingMemory for TablesOnly<'_, '_> {
    fn is_logging(&self) -> bool {
        false
    }

    fn direct(&self, _: &Spa) -> Option<NonNull<u8>> {
        None
    }

    fn mark_dirty(&self, _: Gpa) {
        unreachable!("{NOT_BY_MAPPING}")
    }
}

const NOT_BY_MAPPING: &str = "not by the host's mapping";

impl GuestMemory for TablesOnly<'_, '_> {
    type Address = Gpa;

    fn read(&self, _: Gpa, _: &mut [u8]) -> Result<(), AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }

    fn write(&self, _: Gpa, _: &[u8]) -> Result<(), AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }

    fn fill(&self, _: Gpa, _: u8, _: usize) -> Result<(), AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }

    fn load_width(&self, _: Gpa, _: Width, _: Ordering) -> Result<u64, AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }

    fn store_width(&self, _: Gpa, _: Width, _: u64, _: Ordering) -> Result<(), AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }

    fn compare_exchange_width(
        &self,
        _: Gpa,
        _: Width,
        _: u64,
        _: u64,
        _: Ordering,
    ) -> Result<u64, AccessError> {
        unreachable!("{NOT_BY_MAPPING}")
    }
}

fn backed<'v, 'h, 'a, 'g>(
    vcpu: &'v LoadedVcpu<'h, ModelHart<'a>>,
    tables: &'v TablesOnly<'g, 'a>,
) -> BackedVirtual<'v, 'h, ModelHart<'a>, TablesOnly<'g, 'a>> {
    vcpu.guest_virtual(USER)
        .with_memory(tables, VsEnvironment::BASE)
}

/// The guest's entry for its first page, with other rights.
fn entry_with(bits: u64) -> u64 {
    (gpa(PAGES[0]).value() >> 2) | bits | entry::V | entry::A | entry::D
}

/// Machines on which a refusal of the VS-stage comes as specified, and as an access fault (R59).
fn machines(translations: Translations) -> [Machine; 2] {
    [false, true].map(|page_faults_as_access_faults| Machine {
        translations,
        quirks: Quirks {
            page_faults_as_access_faults,
            ..Quirks::default()
        },
        ..Machine::new()
    })
}

#[test]
fn r46_a_fault_that_the_tables_do_not_confirm_is_fenced_and_tried_once_more() {
    for machine in machines(Translations::Lazy) {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        guest
            .set_entry(GVA, entry_with(entry::R | entry::U))
            .unwrap();
        let hart = guest.hart_of(machine);
        let tables = TablesOnly {
            guest: &guest,
            interfere: &|| {},
        };
        let vcpu = load(&hart);
        vcpu.guest_virtual(USER).read(GVA, &mut [0]).unwrap();
        // The guest allows writes; the hart still has the old rights.
        guest.set_entry(GVA, entry_with(RWU)).unwrap();
        assert!(vcpu.guest_virtual(USER).write(GVA, &[1]).is_err());
        hart.reset_counts();
        let start = Gva::new(GVA.value() + 4094);
        backed(&vcpu, &tables).write(start, &[1, 2, 3, 4]).unwrap();
        let counts = hart.counts();
        assert_eq!((counts.faults, counts.fences()), (1, 1));
        assert_eq!(counts.hfence_vvma, 1);
        assert_eq!(virtual_bytes(&guest)[4094..4098], [1, 2, 3, 4]);
    }
}

#[test]
fn r46_a_guest_that_keeps_changing_its_tables_gets_its_fault_after_one_retry() {
    for machine in machines(Translations::Lazy) {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        let taken_away = |_| guest.set_entry(GVA, 0).unwrap();
        let given_back = || guest.set_entry(GVA, entry_with(RWU)).unwrap();
        let hart = guest.hart_of(machine);
        hart.before_each_access(&taken_away);
        let tables = TablesOnly {
            guest: &guest,
            interfere: &given_back,
        };
        let vcpu = load(&hart);
        let error = backed(&vcpu, &tables).read(GVA, &mut [0; 8]).unwrap_err();
        assert_eq!((error.completed, hart.counts().accesses()), (0, 2));
    }
}

#[test]
fn r46_a_fault_that_the_tables_confirm_stands_at_once() {
    for machine in machines(Translations::Lazy) {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        // The entry goes away just before each access, and stays away.
        let asked = Cell::new(0);
        let taken_away = |_| {
            asked.set(asked.get() + 1);
            guest.set_entry(GVA, 0).unwrap();
        };
        let hart = guest.hart_of(machine);
        hart.before_each_access(&taken_away);
        let tables = TablesOnly {
            guest: &guest,
            interfere: &|| {},
        };
        let vcpu = load(&hart);
        let error = backed(&vcpu, &tables).read(GVA, &mut [0]).unwrap_err();
        assert_eq!((error.fault.kind, asked.get()), (FaultKind::Page, 1));
    }
}

#[test]
fn r40_r46_a_fault_through_a_table_that_the_guest_replaced_is_fenced_as_a_whole() {
    for machine in machines(Translations::Lazy) {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        let hart = guest.hart_of(machine);
        let tables = TablesOnly {
            guest: &guest,
            interfere: &|| {},
        };
        let vcpu = load(&hart);
        vcpu.guest_virtual(USER).read(GVA, &mut [0]).unwrap();
        // The guest leads the entry above to a copy of the table; the old one becomes a page of zeroes.
        let old = guest.entry(GVA).unwrap().page_base();
        let mut copy = [0; 4096];
        guest.read(old, &mut copy).unwrap();
        guest.write(gpa(20), &copy).unwrap();
        guest.write(old, &[0; 4096]).unwrap();
        let root = Gpa::new((guest.vsatp() & ATP_PPN) << 12);
        let mut above = [0; 8];
        guest.read(root, &mut above).unwrap();
        let above = Gpa::new(entry::address(u64::from_le_bytes(above)));
        let new = entry::pack(gpa(20).value(), 0);
        guest.write(above, &new.to_le_bytes()).unwrap();
        hart.reset_counts();
        backed(&vcpu, &tables)
            .write(Gva::new(GVA.value() + 4096), &[1, 2])
            .unwrap();
        assert_eq!((hart.counts().faults, hart.counts().fences()), (1, 1));
        assert_eq!(virtual_bytes(&guest)[4096..4098], [1, 2]);
    }
}
