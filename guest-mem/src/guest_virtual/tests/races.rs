//! The guest-virtual space with the guest's memory beside it: races with the guest, faults that say too little, atomics.

use core::cell::{Cell, RefCell};

use super::*;
use crate::Width;
use crate::fault::Fault;
use crate::guest_virtual::{BackedVirtual, BackingMemory, VsEnvironment};
use crate::translate::{GStage, Purpose};

/// The memory of a model guest, as a host that maps all of it has it.
struct Slots<'g, 'a> {
    guest: &'g ModelGuest<'a>,
    logging: bool,
    written: RefCell<Vec<u64>>,
    /// Called before each page-table entry is read, as another hart of the guest would interfere.
    interfere: &'g dyn Fn(),
    accesses: Cell<usize>,
}

impl<'g, 'a> Slots<'g, 'a> {
    fn new(guest: &'g ModelGuest<'a>) -> Self {
        Self {
            guest,
            logging: false,
            written: RefCell::default(),
            interfere: &|| {},
            accesses: Cell::new(0),
        }
    }
}

impl GStage for Slots<'_, '_> {
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
        unreachable!("A and D are the guest's to set here")
    }

    fn locate(&self, at: Gpa, _: Purpose) -> Result<Spa, FaultKind> {
        self.guest.spa(at).ok_or(FaultKind::NoSlot)
    }
}

impl BackingMemory for Slots<'_, '_> {
    fn is_logging(&self) -> bool {
        self.logging
    }
}

impl GuestMemory for Slots<'_, '_> {
    type Address = Gpa;

    fn read(&self, address: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        self.accesses.set(self.accesses.get() + 1);
        let refused = Fault::new(Operation::Read, FaultKind::NoSlot).at_gpa(address);
        self.guest
            .read(address, destination)
            .ok_or(refused.after(0))
    }

    fn write(&self, address: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.accesses.set(self.accesses.get() + 1);
        let refused = Fault::new(Operation::Write, FaultKind::NoSlot).at_gpa(address);
        self.guest.write(address, source).ok_or(refused.after(0))?;
        self.written.borrow_mut().push(address.value());
        Ok(())
    }

    fn fill(&self, address: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.write(address, &vec![byte; len])
    }

    fn load_width(&self, address: Gpa, width: Width, _: Ordering) -> Result<u64, AccessError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes[..width.bytes()])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn store_width(
        &self,
        address: Gpa,
        width: Width,
        value: u64,
        _: Ordering,
    ) -> Result<(), AccessError> {
        self.write(address, &value.to_le_bytes()[..width.bytes()])
    }

    fn compare_exchange_width(
        &self,
        address: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        let found = self.load_width(address, width, order)?;
        if found == current {
            self.store_width(address, width, new, order)?;
        }
        Ok(found)
    }
}

fn backed<'v, 'h, 'a, 'g>(
    vcpu: &'v LoadedVcpu<'h, ModelHart<'a>>,
    slots: &'v Slots<'g, 'a>,
) -> BackedVirtual<'v, 'h, ModelHart<'a>, Slots<'g, 'a>> {
    vcpu.guest_virtual(USER)
        .with_memory(slots, VsEnvironment::BASE)
}

const LAZY: Machine = Machine {
    translations: Translations::Lazy,
    ..Machine::new()
};

/// The guest's entry for its first page, with other rights.
fn entry_with(bits: u64) -> u64 {
    (gpa(PAGES[0]).value() >> 2) | bits | entry::V | entry::A | entry::D
}

#[test]
fn r46_a_fault_that_the_tables_do_not_confirm_is_fenced_and_tried_once_more() {
    // R59: on some machines the fault comes as an access fault.
    for page_faults_as_access_faults in [false, true] {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        guest
            .set_entry(GVA, entry_with(entry::R | entry::U))
            .unwrap();
        let hart = guest.hart_of(Machine {
            quirks: Quirks {
                page_faults_as_access_faults,
                ..Quirks::default()
            },
            ..LAZY
        });
        let slots = Slots::new(&guest);
        let vcpu = load(&hart);
        vcpu.guest_virtual(USER).read(GVA, &mut [0]).unwrap();
        // The guest allows writes; the hart still has the old rights.
        guest.set_entry(GVA, entry_with(RWU)).unwrap();
        assert!(vcpu.guest_virtual(USER).write(GVA, &[1]).is_err());
        hart.reset_counts();
        let start = Gva::new(GVA.value() + 4094);
        backed(&vcpu, &slots).write(start, &[1, 2, 3, 4]).unwrap();
        assert_eq!((hart.counts().faults, hart.counts().fences()), (1, 1));
        assert_eq!(virtual_bytes(&guest)[4094..4098], [1, 2, 3, 4]);
        assert_eq!(slots.accesses.get(), 0, "not by the host's mapping");
    }
}

#[test]
fn r46_a_guest_that_keeps_changing_its_tables_gets_its_fault_after_one_retry() {
    for page_faults_as_access_faults in [false, true] {
        let memory = RamArray::<64>::new();
        let guest = guest(memory.at(RAM_BASE), RWU);
        let taken_away = |_| guest.set_entry(GVA, 0).unwrap();
        let quirks = Quirks {
            page_faults_as_access_faults,
            ..Quirks::default()
        };
        let hart = guest.hart_of(Machine {
            quirks,
            ..Machine::new()
        });
        hart.before_each_access(&taken_away);
        let given_back = || guest.set_entry(GVA, entry_with(RWU)).unwrap();
        let slots = Slots {
            interfere: &given_back,
            ..Slots::new(&guest)
        };
        let vcpu = load(&hart);
        let error = backed(&vcpu, &slots).read(GVA, &mut [0; 8]).unwrap_err();
        assert_eq!((error.completed, hart.counts().accesses()), (0, 2));
    }
}

#[test]
fn r59_an_access_fault_that_the_tables_explain_is_the_guests() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let quirks = Quirks {
        page_faults_as_access_faults: true,
        ..Quirks::default()
    };
    let hart = guest.hart_of(Machine {
        quirks,
        ..Machine::new()
    });
    let slots = Slots::new(&guest);
    let vcpu = load(&hart);
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let error = backed(&vcpu, &slots).read(hole, &mut [0]).unwrap_err();
    let injection = Injection {
        cause: 13,
        tval: hole.value(),
    };
    assert_eq!(error.fault.resolution(), Resolution::Inject(injection));
    // Memory that the machine protects stays an access fault.
    let start = guest.spa(gpa(PAGES[0])).unwrap();
    hart.protect(Protection {
        range: start..Spa::new(start.value() + 4096),
        read: false,
        write: false,
        execute: false,
    });
    let error = backed(&vcpu, &slots).read(GVA, &mut [0]).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Access);
    assert_eq!(error.fault.resolution(), Resolution::Refuse);
}

#[test]
fn r22_without_htval_a_walk_finds_the_guest_physical_address() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart_of(Machine {
        writes_htval: false,
        ..LAZY
    });
    let slots = Slots::new(&guest);
    let vcpu = load(&hart);
    let space = backed(&vcpu, &slots);
    let resolution = |gva| space.read(gva, &mut [0]).unwrap_err().fault.resolution();
    let resolve = |gpa| Resolution::Resolve {
        gpa,
        access: AccessKind::Load,
    };
    // A page that the G-stage table does not have yet.
    guest.unback(gpa(PAGES[1])).unwrap();
    let second = Gva::new(GVA.value() + 4096 + 5);
    assert_eq!(
        resolution(second),
        resolve(Gpa::new(gpa(PAGES[1]).value() + 5))
    );
    // A device: no memory at all.
    let device = Gva::new(0x50_0000);
    guest.map(device, Gpa::new(0x1000_0000), RWU).unwrap();
    assert_eq!(resolution(device), resolve(Gpa::new(0x1000_0000)));

    // The guest takes the mapping away while the hart still has it: then it is the guest's own fault.
    let third = Gva::new(GVA.value() + 2 * 4096);
    assert!(space.read(third, &mut [0]).is_ok());
    guest.unback(gpa(PAGES[2])).unwrap();
    hart.hfence_gvma(None);
    guest.set_entry(third, 0).unwrap();
    let injection = Injection {
        cause: 13,
        tval: third.value(),
    };
    assert_eq!(resolution(third), Resolution::Inject(injection));
}

#[test]
fn r17_compare_exchange_goes_by_the_hosts_mapping() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let slots = Slots::new(&guest);
    let vcpu = load(&hart);
    let space = backed(&vcpu, &slots);
    let at = Gva::new(GVA.value() + 4096 + 8);
    space.store(at, 7u32, Ordering::Relaxed).unwrap();
    hart.reset_counts();
    let results = [(7u32, 8, Ok(7)), (7, 9, Err(8))].map(|(current, new, expected)| {
        let found = space.compare_exchange(at, current, new, Ordering::SeqCst);
        (found.unwrap(), expected)
    });
    assert!(results.iter().all(|(found, expected)| found == expected));
    assert_eq!(hart.counts().accesses(), 0);
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let error = space
        .compare_exchange(hole, 0u64, 1, Ordering::SeqCst)
        .unwrap_err();
    let injection = Injection {
        cause: 15,
        tval: hole.value(),
    };
    assert_eq!(error.fault.resolution(), Resolution::Inject(injection));
    let odd = Gva::new(at.value() + 2);
    let error = space
        .compare_exchange(odd, 0u32, 1, Ordering::SeqCst)
        .unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Misaligned);
}

#[test]
fn writes_of_every_kind_are_seen_by_the_log_while_one_runs() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let slots = Slots {
        logging: true,
        ..Slots::new(&guest)
    };
    let vcpu = load(&hart);
    let space = backed(&vcpu, &slots);
    let start = Gva::new(GVA.value() + 4090);
    space.write(start, &[9; 10]).unwrap();
    space.fill(GVA, 8, 3).unwrap();
    space.store(GVA, 7u16, Ordering::Release).unwrap();
    let at = |page: usize, offset| gpa(PAGES[page]).value() + offset;
    assert_eq!(
        *slots.written.borrow(),
        [at(0, 4090), at(1, 0), at(0, 0), at(0, 0)]
    );
    assert_eq!(hart.counts().accesses(), 0);
    assert_eq!(virtual_bytes(&guest)[..3], [7, 0, 8]);
    // A fault on the way leaves what came before it.
    let last = Gva::new(GVA.value() + 4 * 4096 - 2);
    let error = space.write(last, &[1; 4]).unwrap_err();
    assert_eq!((error.completed, error.fault.kind), (2, FaultKind::Page));
}
