//! The guest as the library has it, and what happens to it and to the oracle together.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::{ATP_PPN, GMode, STATUS_MXR, STATUS_SUM, VsMode};
use guest_mem::guest_physical::{GuestPhysicalMemory, Reader, Slot, StageMirror as _};
use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::hart::Hart;
use guest_mem::hart::model::{
    Machine, Misaligned, ModelGuest, ModelHart, RamArray, Recovery, Register, Translations,
};
use guest_mem::translate::entry;
use guest_mem::{
    AccessError, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa, Width,
};

use crate::action::{Action, At, Kind};
use crate::oracle::{
    DATA_PAGES, Entry, GPA_BASE, GVA_BASE, LARGE, Operation, Oracle, Outcome, PAGE, PAGES,
    SLOT_PAGES, SLOTS, SlotState, Space, Stop, bits,
};
use crate::stage::Stage;

/// Pages of the machine: guest memory and the host's 12 pages of tables.
const RAM_PAGES: usize = PAGES + 12;

fn stop_of(error: &AccessError) -> (usize, Stop) {
    let _ = error.to_string();
    let stop = match error.fault.kind {
        FaultKind::Page => Stop::Page,
        FaultKind::GuestPage { .. } => Stop::GuestPage,
        FaultKind::NoSlot => Stop::NoSlot,
        FaultKind::ReadOnlySlot => Stop::ReadOnlySlot,
        FaultKind::Misaligned => Stop::Misaligned,
        FaultKind::OutOfRange => Stop::OutOfRange,
        FaultKind::AtomicUnavailable => Stop::AtomicUnavailable,
        _ => panic!("{error}"),
    };
    (error.completed, stop)
}

/// Does an access by the library.
fn access<M: GuestMemory>(memory: &M, address: M::Address, operation: Operation) -> Outcome {
    const UNTOUCHED: u8 = 0x5a;
    let order = Ordering::SeqCst;
    let width = Width::from_bytes(operation.len()).unwrap_or(Width::Byte);
    let mut found = Vec::new();
    let value = |value: u64| value.to_le_bytes()[..width.bytes()].to_vec();
    let result = match operation {
        Operation::Read { .. } => {
            found = vec![UNTOUCHED; operation.len()];
            let result = memory.read(address, &mut found);
            let completed = result
                .as_ref()
                .map_or_else(|error| error.completed, |()| found.len());
            let rest = found.split_off(completed);
            assert!(rest.iter().all(|&byte| byte == UNTOUCHED));
            result
        }
        Operation::Write { .. } => memory.write(address, &operation.source()),
        Operation::Fill { byte, .. } => memory.fill(address, byte, operation.len()),
        Operation::Load { .. } => memory
            .load_width(address, width, order)
            .map(|loaded| found = value(loaded)),
        Operation::Store { value, .. } => memory.store_width(address, width, value, order),
        Operation::CompareExchange { current, new, .. } => memory
            .compare_exchange_width(address, width, current.into(), new, order)
            .map(|old| found = value(old)),
    };
    Outcome {
        stop: result.err().as_ref().map(stop_of),
        found,
    }
}

/// Runs `actions` on a fresh guest, and compares after each.
pub fn run(kind: Kind, actions: &[Action]) {
    let ram = Box::new(RamArray::<RAM_PAGES>::new());
    let vs_mode = [VsMode::Sv39, VsMode::Sv48, VsMode::Sv57][usize::from(kind.modes[0] % 3)];
    let g_mode = [GMode::Sv39x4, GMode::Sv48x4, GMode::Sv57x4][usize::from(kind.modes[1] % 3)];
    let guest = ModelGuest::with_modes(ram.at(Spa::new(0x8_0000_0000)), vs_mode, g_mode).unwrap();
    assert_eq!(guest.len(), PAGES as u64 * PAGE);
    for page in 0..DATA_PAGES as u64 {
        let gva = Gva::new(GVA_BASE + page * PAGE);
        guest.map(gva, ModelGuest::BASE, entry::R).unwrap();
        guest.set_entry(gva, 0).unwrap();
    }
    let mut machine = Machine::new();
    if kind.lazy {
        machine.translations = Translations::Lazy;
    }
    machine.keeps_refusals = kind.keeps_refusals;
    if kind.misaligned_works {
        machine.misaligned = Misaligned::Works;
    }
    if kind.scoped {
        machine.recovery = Recovery::ScopedStvec;
    }
    machine.quirks.hlvx_faults_as_fetch = kind.hlvx_faults_as_fetch;
    let hart = guest.hart_of(machine);
    let logs: [[AtomicU64; 1]; SLOTS] = core::array::from_fn(|_| [AtomicU64::new(0)]);
    let oracle = RefCell::new(Oracle {
        bytes: vec![0; PAGES * PAGE as usize],
        entries: [Entry::default(); DATA_PAGES],
        large: 0,
        gpa_end: 1 << g_mode.gpa_bits(),
        rights: [0; PAGES],
        slots: [None; SLOTS],
        dirty: Default::default(),
        sum: false,
        mxr: false,
    });
    let memory = GuestPhysicalMemory::<{ SLOTS + 1 }, 1>::new(g_mode);
    let mut world = World {
        guest: &guest,
        hart: &hart,
        oracle: &oracle,
        logs: &logs,
        memory: &memory,
        large_entry: large_entry(&guest, vs_mode),
    };
    world.begin();
    let mut reader = memory.reader(0).unwrap();
    for &action in actions {
        world.step(&mut reader, action);
    }
    let mut bytes = vec![0; PAGES * PAGE as usize];
    read(&guest, &hart, 0, &mut bytes);
    assert!(bytes == oracle.borrow().bytes, "guest memory differs");
}

/// Reads whole pages of guest memory from page `first` on, past everything, a word at a time: it is read often.
fn read(guest: &ModelGuest<'_>, hart: &ModelHart<'_>, first: usize, bytes: &mut [u8]) {
    let start = guest.spa(Gpa::new(GPA_BASE + first as u64 * PAGE)).unwrap();
    for (at, bytes) in (start.value()..)
        .step_by(8)
        .zip(bytes.as_chunks_mut::<8>().0)
    {
        let double = hart.ram().load(Spa::new(at), Width::Double).unwrap();
        *bytes = double.to_le_bytes();
    }
}

/// Where the guest's entry of the large page is: beside that of the table for the other pages.
fn large_entry(guest: &ModelGuest<'_>, mode: VsMode) -> Gpa {
    let gva = GVA_BASE + LARGE;
    let mut table = (guest.vsatp() & ATP_PPN) << 12;
    let index = |level: usize| gva >> (12 + 9 * level) & 0x1ff;
    for level in (2..mode.levels()).rev() {
        let mut bytes = [0; 8];
        let at = Gpa::new(table + index(level) * 8);
        guest.read(at, &mut bytes).unwrap();
        table = entry::address(u64::from_le_bytes(bytes));
    }
    Gpa::new(table + index(1) * 8)
}

/// Everything that an action may touch.
struct World<'a> {
    guest: &'a ModelGuest<'a>,
    hart: &'a ModelHart<'a>,
    oracle: &'a RefCell<Oracle>,
    logs: &'a [[AtomicU64; 1]; SLOTS],
    memory: &'a GuestPhysicalMemory<'a, { SLOTS + 1 }, 1>,
    large_entry: Gpa,
}

impl<'a> World<'a> {
    fn stage(&self) -> Stage<'a> {
        Stage {
            guest: self.guest,
            hart: self.hart,
            oracle: self.oracle,
        }
    }

    /// Pages from the first of a slot or of the tables, as a slot.
    fn linear(&self, first: usize, pages: usize) -> Slot<'a> {
        let gpa = Gpa::new(GPA_BASE + first as u64 * PAGE);
        let spa = self.guest.spa(gpa).unwrap();
        let host = self.hart.ram().host_ptr(spa).unwrap();
        // SAFETY: the memory is the model's, made of atomics, and outlives the slots; the range lies in it.
        unsafe { Slot::linear(gpa, pages as u64 * PAGE, host) }
    }

    /// At first everything is there and allowed: actions take it away. The tables can be read by everybody and written by
    /// nobody.
    fn begin(&self) {
        let tables = self.linear(DATA_PAGES, PAGES - DATA_PAGES).read_only();
        self.memory.add(tables, &mut self.stage()).unwrap();
        for slot in 0..SLOTS as u8 {
            let read_only = false;
            self.change_slots(Action::AddSlot { slot, read_only });
        }
        let stage = self.stage();
        for page in 0..PAGES {
            let all = bits::R | bits::W | bits::X;
            stage.set(page, if page < DATA_PAGES { all } else { bits::R });
        }
        for page in 0..DATA_PAGES {
            let bits = ordinary(page);
            self.edit(page, Entry { frame: page, bits });
        }
        self.edit_large(0, ordinary(0));
    }

    /// Writes an entry of the guest's tables, and fences.
    fn edit(&self, page: usize, entry: Entry) {
        let Entry { frame, bits } = entry;
        let raw = entry::pack(GPA_BASE + frame as u64 * PAGE, 0) & !entry::V;
        let gva = Gva::new(GVA_BASE + page as u64 * PAGE);
        self.guest.set_entry(gva, raw | u64::from(bits)).unwrap();
        self.hart.hfence_vvma(Some(gva.value()));
        self.oracle.borrow_mut().entries[page] = entry;
        self.read_tables();
    }

    /// Writes the entry of the large page, and fences one of its addresses.
    fn edit_large(&self, page: u16, bits: u8) {
        // It stays a page, or nothing: the oracle knows of one table only.
        let rights = bits::R | bits::W | bits::X;
        let bits = if bits & rights == 0 {
            bits | bits::X
        } else {
            bits
        };
        let entry = entry::pack(GPA_BASE, 0) & !entry::V | u64::from(bits);
        self.guest
            .write(self.large_entry, &entry.to_le_bytes())
            .unwrap();
        let offset = u64::from(page) * PAGE % LARGE;
        self.hart.hfence_vvma(Some(GVA_BASE + LARGE + offset));
        self.oracle.borrow_mut().large = bits;
        self.read_tables();
    }

    /// The oracle knows what the tables hold, not what they mean.
    fn read_tables(&self) {
        let mut oracle = self.oracle.borrow_mut();
        let (_, tables) = oracle.bytes.split_at_mut(DATA_PAGES * PAGE as usize);
        read(self.guest, self.hart, DATA_PAGES, tables);
    }

    fn step(&mut self, reader: &mut Reader<'a>, action: Action) {
        match action {
            Action::Access {
                space,
                at,
                operation,
            } => self.access(reader, space, at, operation),
            Action::Fetch { at, user } => {
                let address = at.address(GVA_BASE);
                let expected = self.oracle.borrow().fetch(address, user);
                // SAFETY: the guest is loaded on this hart, and stays it.
                let vcpu = unsafe { LoadedVcpu::new(self.hart) };
                let fetched = vcpu.fetch_instruction(Gva::new(address), privilege(user));
                let fetched = fetched.map(|instruction| instruction.bits());
                assert_eq!(
                    fetched.map_err(|error| stop_of(&error)),
                    expected,
                    "{action:x?}"
                );
            }
            Action::Edit { page, frame, flips } => {
                let page = usize::from(page) % DATA_PAGES;
                // Some lead past guest memory.
                let frame = usize::from(frame) % (PAGES + 4);
                let bits = ordinary(page) ^ (flips[0] & flips[1] & flips[2]);
                self.edit(page, Entry { frame, bits });
            }
            Action::EditLarge { page, flips } => {
                let bits = ordinary(usize::from(page)) ^ (flips[0] & flips[1] & flips[2]);
                self.edit_large(page, bits);
            }
            Action::Sum(on) => {
                self.set_vsstatus(STATUS_SUM, on);
                self.oracle.borrow_mut().sum = on;
            }
            Action::Mxr(on) => {
                self.set_vsstatus(STATUS_MXR, on);
                self.oracle.borrow_mut().mxr = on;
            }
            Action::Back { page, rights } => self.back(reader, page, rights),
            _ => self.change_slots(action),
        }
    }

    fn set_vsstatus(&self, bit: u64, on: bool) {
        let old = self.hart.register(Register::Vsstatus);
        let new = if on { old | bit } else { old & !bit };
        self.hart.set_register(Register::Vsstatus, new);
    }

    fn access(&self, reader: &mut Reader<'a>, space: Space, at: At, operation: Operation) {
        let base = match space {
            Space::Slots | Space::LoadedPhysical => GPA_BASE,
            Space::Virtual { .. } | Space::Backed { .. } => GVA_BASE,
        };
        let address = at.address(base);
        let expected = self.oracle.borrow_mut().access(space, operation, address);
        let csrs = |register| self.hart.register(register);
        let before = [Register::Sstatus, Register::Vsstatus, Register::Vsatp].map(csrs);
        let view = reader.guard();
        // SAFETY: the guest is loaded on this hart, and stays it.
        let vcpu = unsafe { LoadedVcpu::new(self.hart) };
        let (gva, gpa) = (Gva::new(address), Gpa::new(address));
        let outcome = match space {
            Space::Slots => access(&view, gpa, operation),
            Space::LoadedPhysical => access(&vcpu.guest_physical(), gpa, operation),
            Space::Virtual { user } => access(&vcpu.guest_virtual(privilege(user)), gva, operation),
            Space::Backed { user } => {
                let space = vcpu.guest_virtual(privilege(user));
                access(
                    &space.with_memory(&view, VsEnvironment::BASE),
                    gva,
                    operation,
                )
            }
        };
        assert_eq!(
            outcome, expected,
            "{space:?} {operation:x?} at {address:#x}"
        );
        let after = [Register::Sstatus, Register::Vsstatus, Register::Vsatp].map(csrs);
        // Of `sstatus`, SIE counts: the rest is the record of a trap.
        assert_eq!(before[0] & 2, after[0] & 2);
        assert_eq!(before[1..], after[1..]);
    }

    /// What a hypervisor does with a guest-page fault: it asks the slots, marks a page that it makes writable, and maps it.
    fn back(&self, reader: &mut Reader<'a>, page: u8, rights: u8) {
        let page = usize::from(page) % DATA_PAGES;
        let mut rights = rights & (bits::R | bits::W | bits::X);
        match self.oracle.borrow().slots[page / SLOT_PAGES] {
            None => rights = 0,
            Some(slot) if slot.read_only => rights &= !bits::W,
            Some(_) => {}
        }
        if rights & bits::R == 0 {
            rights &= !bits::W;
        }
        let mut stage = self.stage();
        stage.set(page, rights);
        stage.shoot_down();
        if rights & bits::W != 0 {
            reader
                .guard()
                .mark_dirty(Gpa::new(GPA_BASE + page as u64 * PAGE));
            self.oracle.borrow_mut().mark(page);
        }
    }

    fn change_slots(&self, action: Action) {
        let (Action::AddSlot { slot, .. }
        | Action::RemoveSlot { slot }
        | Action::ReadOnly { slot, .. }
        | Action::StartLogging { slot }
        | Action::StopLogging { slot }
        | Action::Harvest { slot }) = action
        else {
            return;
        };
        let index = usize::from(slot) % SLOTS;
        let first = index * SLOT_PAGES;
        let base = Gpa::new(GPA_BASE + first as u64 * PAGE);
        let is_there = self.oracle.borrow().slots[index];
        let memory = self.memory;
        let stage = &mut self.stage();
        let (done, now) = match action {
            Action::AddSlot { read_only, .. } => {
                let mut slot = self
                    .linear(first, SLOT_PAGES)
                    .with_dirty_log(&self.logs[index]);
                if read_only {
                    slot = slot.read_only();
                }
                let added = memory.add(slot, stage);
                assert_eq!(added.is_ok(), is_there.is_none(), "{added:?}");
                (
                    true,
                    is_there.or(Some(SlotState {
                        read_only,
                        logging: false,
                    })),
                )
            }
            Action::RemoveSlot { .. } => (memory.remove(base, stage).is_ok(), None),
            Action::ReadOnly { read_only, .. } => (
                memory.set_read_only(base, read_only, stage).is_ok(),
                is_there.map(|slot| SlotState { read_only, ..slot }),
            ),
            Action::StartLogging { .. } => {
                if is_there.is_some_and(|slot| !slot.logging) {
                    let dirty = &mut self.oracle.borrow_mut().dirty;
                    dirty.retain(|page| page / SLOT_PAGES != index);
                }
                let started = memory.start_logging(base, stage).is_ok();
                (
                    started,
                    is_there.map(|slot| SlotState {
                        logging: true,
                        ..slot
                    }),
                )
            }
            Action::StopLogging { .. } => (
                memory.stop_logging(base, stage).is_ok(),
                is_there.map(|slot| SlotState {
                    logging: false,
                    ..slot
                }),
            ),
            _ => {
                let mut visited = Vec::new();
                let visit = |gpa: Gpa| visited.push(((gpa.value() - GPA_BASE) / PAGE) as usize);
                let harvested = memory.harvest(base, stage, visit).is_ok();
                assert_eq!(harvested, is_there.is_some_and(|slot| slot.logging));
                if harvested {
                    let dirty = &mut self.oracle.borrow_mut().dirty;
                    let expected: Vec<_> = (first..first + SLOT_PAGES)
                        .filter(|page| dirty.remove(page))
                        .collect();
                    assert_eq!(visited, expected);
                }
                (is_there.is_some(), is_there)
            }
        };
        if !matches!(action, Action::AddSlot { .. }) {
            assert_eq!(done, is_there.is_some(), "{action:?}");
        }
        self.oracle.borrow_mut().slots[index] = now;
    }
}

fn privilege(user: bool) -> GuestPrivilege {
    if user {
        GuestPrivilege::User
    } else {
        GuestPrivilege::Supervisor
    }
}

/// The bits of an entry that allows everything, to the user or to the supervisor in turn.
fn ordinary(page: usize) -> u8 {
    let all = bits::V | bits::R | bits::W | bits::X | bits::A | bits::D;
    all | if page / 4 % 2 == 0 { bits::U } else { 0 }
}
