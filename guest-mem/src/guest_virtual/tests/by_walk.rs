//! Copies by one walk a page: the same as the hardware's, and when they are not made at all.
//!
//! The one idea: the model's hardware is exact, so each case runs twice, by walks and by `hlv` and `hsv`, and has to come out
//! the same: bytes, fault, and the entries afterwards.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use super::*;
use crate::Width;
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_PMM_SHIFT, ENVCFG_SSE};
use crate::guest_physical::{
    GuestPhysicalMemory, HostPage, MachineMemory, NoGStage, PageEntry, PhysicalView, Slot,
    StageView,
};
use crate::guest_virtual::{BackingMemory, VsEnvironment};
use crate::translate::{AdPolicy, EntryMemory, GRegime, GStage, Purpose, Refused, StageRules};

type Slots<'m> = GuestPhysicalMemory<'m, 2, 1>;

/// The guest's memory as the host has it.
fn host_of(guest: &ModelGuest<'_>, ram: Ram<'_>, at: Gpa) -> NonNull<u8> {
    ram.host_ptr(guest.spa(at).unwrap()).unwrap()
}

/// All of the guest's memory as one slot.
fn slots<'m>(guest: &ModelGuest<'m>, ram: Ram<'m>) -> Slots<'m> {
    // SAFETY: the guest's memory is contiguous in `ram`, which outlives the slots and is accessed as atomics only.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host_of(guest, ram, gpa(0))) };
    let memory = Slots::new(GMode::Sv39x4);
    memory.add(slot, &mut NoGStage).unwrap();
    memory
}

/// Machine memory of the model.
struct ModelMemory<'a>(Ram<'a>);

impl EntryMemory for ModelMemory<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        self.0.load(at, Width::Double).ok_or(Refused)
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let word = self.0.word(at).ok_or(Refused)?;
        Ok(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
    }
}

// SAFETY: the model's memory is never given back, and accessed as atomics only.
unsafe impl MachineMemory for ModelMemory<'_> {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        self.0.host_ptr(at)
    }
}

const ALL_BY_WALK: VsEnvironment = VsEnvironment::BASE.with_walk_from(0);

/// Both stages' registers and what a walk has to know of them.
#[derive(Clone, Copy)]
struct Setting {
    update: bool,
    henvcfg: u64,
    menvcfg: u64,
    vsstatus: u64,
}

impl Setting {
    fn new(update: bool, vsstatus: u64) -> Self {
        let policy = if update { ENVCFG_ADUE } else { 0 };
        Self {
            update,
            henvcfg: policy | ENVCFG_PBMTE | ENVCFG_SSE,
            menvcfg: policy | ENVCFG_PBMTE,
            vsstatus,
        }
    }

    fn rules(&self) -> StageRules {
        StageRules {
            ad: match self.update {
                true => AdPolicy::Update,
                false => AdPolicy::Fault,
            },
            pbmt: true,
            svnapot: true,
            svrsw60t59b: true,
        }
    }

    fn environment(&self) -> VsEnvironment {
        VsEnvironment {
            rules: self.rules(),
            henvcfg: self.henvcfg,
            ..ALL_BY_WALK
        }
    }

    fn put(&self, hart: &ModelHart<'_>) {
        hart.set_register(Register::Menvcfg, self.menvcfg);
        hart.set_register(Register::Henvcfg, self.henvcfg);
        hart.set_register(Register::Vsstatus, self.vsstatus);
    }

    /// The view as the guest's own G-stage table shows it.
    fn shown<'v, 'g, 'm>(
        &self,
        view: &'v PhysicalView<'g>,
        guest: &ModelGuest<'_>,
        ram: Ram<'m>,
    ) -> StageView<'v, 'g, ModelMemory<'m>> {
        let rules = StageRules {
            ad: match self.menvcfg & ENVCFG_ADUE {
                0 => AdPolicy::Fault,
                _ => AdPolicy::Update,
            },
            ..self.rules()
        };
        let regime = GRegime::from_csrs(guest.hgatp(), 0, rules).unwrap();
        // SAFETY: the table is the guest's, and all of the model's memory is atomics.
        unsafe { view.shown_by(regime, ModelMemory(ram)) }
    }
}

/// Bits of an entry beyond the lowest eight that say something.
const HIGH: [u64; 6] = [0, 1 << 63, 1 << 61, 2 << 61, 3 << 61, 1 << 54];

fn entry_bits() -> impl Iterator<Item = u64> {
    let step = if cfg!(miri) { 37 } else { 1 };
    HIGH.into_iter()
        .flat_map(|high| (0..256).map(move |low| high | low))
        .step_by(step)
}

/// An access, how it came out, and what it left.
#[derive(Debug, PartialEq)]
struct Left {
    result: Result<(), (usize, FaultKind, Option<Gva>, Option<Gpa>)>,
    bytes: [u8; 12],
    entries: [u64; 3],
}

/// The last 12 bytes of the first page and of the second: its first 4.
const START: Gva = Gva::new(GVA.value() + 4096 - 8);

/// Bytes of the host's that are aligned like the guest's.
#[repr(align(8))]
struct Aligned([u8; 12]);

fn access(
    space: &impl GuestMemory<Address = Gva>,
    store: bool,
) -> (Result<(), AccessError>, [u8; 12]) {
    let mut bytes = Aligned([if store { 0x5a } else { 0xee }; 12]);
    let result = match store {
        true => space.write(START, &bytes.0),
        false => space.read(START, &mut bytes.0),
    };
    (result, bytes.0)
}

fn left(
    guest: &ModelGuest<'_>,
    (result, bytes): (Result<(), AccessError>, [u8; 12]),
    entries: [u64; 3],
) -> Left {
    let mut data = [0; 12];
    let (first, second) = data.split_at_mut(8);
    let end = Gpa::new(gpa(PAGES[0]).value() + 4088);
    guest.read(end, first).unwrap();
    guest.read(gpa(PAGES[1]), second).unwrap();
    // What was written and what was read, in one.
    for (byte, read) in data.iter_mut().zip(bytes) {
        *byte ^= read;
    }
    Left {
        result: result.map_err(|error| {
            let fault = error.fault;
            (error.completed, fault.kind, fault.gva, fault.gpa)
        }),
        bytes: data,
        entries,
    }
}

fn put_back(guest: &ModelGuest<'_>) {
    let end = Gpa::new(gpa(PAGES[0]).value() + 4088);
    guest.write(end, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    guest.write(gpa(PAGES[1]), &[9, 10, 11, 12]).unwrap();
}

fn vs_entry(guest: &ModelGuest<'_>) -> u64 {
    let mut raw = [0; 8];
    guest.read(guest.entry(GVA).unwrap(), &mut raw).unwrap();
    u64::from_le_bytes(raw)
}

#[test]
fn r51_every_entry_of_the_vs_stage_means_to_a_walk_what_it_means_to_the_hardware() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let mut walked = 0;
    for update in [false, true] {
        for vsstatus in [0, STATUS_SUM, STATUS_MXR, STATUS_SUM | STATUS_MXR] {
            let setting = Setting::new(update, vsstatus);
            setting.put(&hart);
            let vcpu = load(&hart);
            for bits in entry_bits() {
                let entry = gpa(PAGES[0]).value() >> 2 | bits;
                for (privilege, store) in [
                    (USER, false),
                    (USER, true),
                    (SUPERVISOR, false),
                    (SUPERVISOR, true),
                ] {
                    let space = vcpu.guest_virtual(privilege);
                    let backed = space.with_memory(&view, setting.environment());
                    // With the walk that classifies what an access fault was (R16).
                    let environment = setting.environment().with_walk_from(usize::MAX);
                    let by_hardware = space.with_memory(&view, environment);
                    let [by_hardware, by_walk] = [false, true].map(|walk| {
                        put_back(&guest);
                        guest.set_entry(GVA, entry).unwrap();
                        let before = hart.counts().accesses();
                        let done = match walk {
                            true => access(&backed, store),
                            false => access(&by_hardware, store),
                        };
                        walked += u64::from(walk && hart.counts().accesses() == before);
                        left(&guest, done, [vs_entry(&guest), 0, 0])
                    });
                    let what = (setting.vsstatus, update, privilege, store);
                    assert_eq!(by_walk, by_hardware, "entry {entry:#x}, {what:?}");
                }
            }
        }
    }
    // Only pages of another memory type are the hardware's.
    assert!(walked > 0);
}

/// Where the G-stage's entry for a page of the guest's is, as the builder made it: found by looking for it.
fn g_word(guest: &ModelGuest<'_>, ram: Ram<'_>, page: Gpa) -> Spa {
    let frame = guest.spa(page).unwrap().value() >> 12;
    (0..ram.len() as u64)
        .step_by(8)
        .map(|offset| Spa::new(RAM_BASE.value() + offset))
        .find(|&at| {
            let leaf = ram.load(at, Width::Double).unwrap();
            leaf >> 10 == frame && leaf & 0xff == 0xdf
        })
        .unwrap()
}

#[test]
fn r54_every_entry_of_the_g_stage_means_to_a_walk_what_it_means_to_the_hardware() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let table = guest.entry(GVA).unwrap().page_base();
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    let data = (gpa(PAGES[0]), g_word(&guest, ram, gpa(PAGES[0])));
    let tables = (table, g_word(&guest, ram, table));
    for update in [false, true] {
        let setting = Setting::new(update, 0);
        setting.put(&hart);
        let vcpu = load(&hart);
        let stage = setting.shown(&view, &guest, ram);
        for (page, at) in [data, tables] {
            let whole = ram.load(at, Width::Double).unwrap();
            for bits in entry_bits() {
                let g_entry = guest.spa(page).unwrap().value() >> 2 | bits;
                for store in [false, true] {
                    let space = vcpu.guest_virtual(USER);
                    let backed = space.with_memory(&stage, setting.environment());
                    let [by_hardware, by_walk] = [false, true].map(|walk| {
                        put_back(&guest);
                        guest.set_entry(GVA, clean | entry::A | entry::D).unwrap();
                        ram.store(at, Width::Double, g_entry).unwrap();
                        let done = match walk {
                            true => access(&backed, store),
                            false => access(&space, store),
                        };
                        let now = ram.load(at, Width::Double).unwrap();
                        left(&guest, done, [vs_entry(&guest), now, 0])
                    });
                    ram.store(at, Width::Double, whole).unwrap();
                    assert_eq!(
                        by_walk, by_hardware,
                        "entry {g_entry:#x} at {page}, store {store}, update {update}"
                    );
                }
            }
        }
    }
}

#[test]
fn r14_a_walk_masks_pointers_as_the_hardware_does() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    for pmm in [0u64, 2, 3] {
        let pmm = pmm << ENVCFG_PMM_SHIFT;
        hart.set_register(Register::Senvcfg, pmm);
        let environment = VsEnvironment {
            senvcfg: pmm,
            ..ALL_BY_WALK
        };
        let space = vcpu.guest_virtual(USER);
        let backed = space.with_memory(&view, environment);
        for tag in [0u64, 1 << 63, 1 << 57, 1 << 48, 1 << 40, 0xffff << 48] {
            let at = Gva::new((GVA.value() + 4090) | tag);
            let (mut by_walk, mut by_hardware) = ([0; 16], [0; 16]);
            let kind = |result: Result<(), AccessError>| result.map_err(|error| error.fault.kind);
            assert_eq!(
                kind(backed.read(at, &mut by_walk)),
                kind(space.read(at, &mut by_hardware)),
                "tag {tag:#x}, PMM {pmm:#x}"
            );
            assert_eq!(by_walk, by_hardware);
        }
    }
}

/// A view that lets another hart interfere where a race would hurt.
struct Interfered<'v, 'g> {
    view: &'v PhysicalView<'g>,
    /// Called after a page was located.
    located: &'v dyn Fn(),
    /// Called before an entry is exchanged.
    exchanged: &'v dyn Fn(),
}

impl GStage for Interfered<'_, '_> {
    type Page = Option<NonNull<u8>>;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        self.view.read_entry(at)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        (self.exchanged)();
        self.view.compare_exchange_entry(at, current, new)
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<Self::Page, FaultKind> {
        let page = self.view.locate(at, purpose);
        (self.located)();
        page
    }
}

// SAFETY: the view's own.
unsafe impl BackingMemory for Interfered<'_, '_> {
    fn is_logging(&self) -> bool {
        BackingMemory::is_logging(self.view)
    }

    fn direct(&self, page: &Self::Page) -> Option<NonNull<u8>> {
        self.view.direct(page)
    }

    fn mark_dirty(&self, gpa: Gpa) {
        BackingMemory::mark_dirty(self.view, gpa);
    }
}

impl GuestMemory for Interfered<'_, '_> {
    type Address = Gpa;

    fn read(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        self.view.read(gpa, destination)
    }

    fn write(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.view.write(gpa, source)
    }

    fn fill(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.view.fill(gpa, byte, len)
    }

    fn load_width(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        self.view.load_width(gpa, width, order)
    }

    fn store_width(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        self.view.store_width(gpa, width, value, order)
    }

    fn compare_exchange_width(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        self.view
            .compare_exchange_width(gpa, width, current, new, order)
    }
}

#[test]
fn r47_no_walk_outlives_its_page() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    // Once the first page is found, the second leads elsewhere.
    let second = Gva::new(GVA.value() + 4096);
    let elsewhere = gpa(PAGES[3]).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    let interfered = Interfered {
        view: &view,
        located: &|| guest.set_entry(second, elsewhere).unwrap(),
        exchanged: &|| {},
    };
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&interfered, ALL_BY_WALK);
    let before = virtual_bytes(&guest);
    let mut bytes = vec![0; 8192];
    space.read(GVA, &mut bytes).unwrap();
    assert_eq!(bytes[..4096], before[..4096]);
    assert_eq!(bytes[4096..], before[3 * 4096..]);
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn r55_a_walk_starts_over_when_the_entry_changes_under_its_update() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let clean = |page: u64| gpa(page).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean(PAGES[0])).unwrap();
    let raced = Cell::new(0);
    let interfered = Interfered {
        view: &view,
        located: &|| {},
        exchanged: &|| {
            raced.set(raced.get() + 1);
            if raced.get() == 1 {
                guest.set_entry(GVA, clean(PAGES[3])).unwrap();
            }
        },
    };
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&interfered, Setting::new(true, 0).environment());
    space.write(GVA, b"new").unwrap();
    assert_eq!(raced.get(), 2);
    let mut found = [0; 3];
    guest.read(gpa(PAGES[3]), &mut found).unwrap();
    assert_eq!(&found, b"new");
    guest.read(gpa(PAGES[0]), &mut found).unwrap();
    assert_ne!(&found, b"new");
    assert_eq!(vs_entry(&guest), clean(PAGES[3]) | entry::A | entry::D);
}

#[test]
fn r55_a_and_d_stay_clear_where_the_page_itself_refuses() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let clean = gpa(0).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let pages = [const { PageEntry::absent() }; 1];
    let memory = Slots::new(GMode::Sv39x4);
    let rest = host_of(&guest, ram, gpa(1));
    // SAFETY: as in `slots`.
    let tables = unsafe { Slot::linear(gpa(1), guest.len() - 4096, rest) };
    memory.add(tables, &mut NoGStage).unwrap();
    memory
        .add(Slot::paged(gpa(0), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    for walk_always in [false, true] {
        let environment = VsEnvironment {
            walk_always,
            ..Setting::new(true, 0).environment()
        };
        let view = reader.guard();
        let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
        let error = space.write(GVA, &[1; 16]).unwrap_err();
        let resolve = Resolution::Resolve {
            gpa: gpa(0),
            access: AccessKind::Store,
        };
        assert_eq!(error.fault.resolution(), resolve);
        assert_eq!(vs_entry(&guest), clean);
    }
    let frame = host_of(&guest, ram, gpa(0));
    // SAFETY: the guest's memory, as in `slots`.
    unsafe { pages[0].set(HostPage::Writable(frame)) };
    let view = reader.guard();
    let environment = Setting::new(true, 0).environment();
    let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
    space.write(GVA, &[1; 16]).unwrap();
    assert_eq!(vs_entry(&guest), clean | entry::A | entry::D);
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn r55_the_g_stages_bits_are_set_also_where_the_vs_stages_are_the_guests_to_set() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    // Svade for the guest, hardware updates for the host.
    let setting = Setting {
        menvcfg: ENVCFG_ADUE | ENVCFG_PBMTE,
        ..Setting::new(false, 0)
    };
    setting.put(&hart);
    let stage = setting.shown(&view, &guest, ram);
    let page = gpa(PAGES[0]);
    let at_g_stage = g_word(&guest, ram, page);
    let clean = guest.spa(page).unwrap().value() >> 2 | RWU | entry::V;
    // No translation by the guest: no entry of its own is looked at.
    hart.set_register(Register::Vsatp, 0);
    let vcpu = load(&hart);
    let plain = vcpu.guest_virtual(USER);
    let backed = plain.with_memory(&stage, setting.environment());
    let at = Gva::new(page.value());
    for (store, set) in [(false, entry::A), (true, entry::A | entry::D)] {
        for walk in [false, true] {
            guest.set_g_entry(page, clean).unwrap();
            hart.reset_counts();
            match (walk, store) {
                (false, false) => plain.read(at, &mut [0; 8]),
                (false, true) => plain.write(at, &[0; 8]),
                (true, false) => backed.read(at, &mut [0; 8]),
                (true, true) => backed.write(at, &[0; 8]),
            }
            .unwrap();
            assert_eq!(hart.counts().accesses() == 0, walk);
            let now = ram.load(at_g_stage, Width::Double).unwrap();
            assert_eq!(now, clean | set, "store {store}, by a walk {walk}");
        }
    }
}

#[test]
fn a_single_access_by_a_walk_is_made_or_refused_when_its_page_is_taken_away_meanwhile() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let first = gpa(0).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, first).unwrap();
    let frame = host_of(&guest, ram, gpa(0));
    let pages = [const { PageEntry::absent() }; 1];
    let memory = Slots::new(GMode::Sv39x4);
    // SAFETY: as in `slots`.
    let tables = unsafe { Slot::linear(gpa(1), guest.len() - 4096, host_of(&guest, ram, gpa(1))) };
    memory.add(tables, &mut NoGStage).unwrap();
    memory
        .add(Slot::paged(gpa(0), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    // The guard keeps the page itself from being used for anything else.
    let interfered = Interfered {
        view: &view,
        located: &|| {
            pages[0].clear();
        },
        exchanged: &|| {},
    };
    let environment = VsEnvironment {
        walk_always: true,
        ..VsEnvironment::BASE
    };
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&interfered, environment);
    let contents = || {
        let mut raw = [0; 8];
        guest.read(gpa(0), &mut raw).unwrap();
        u64::from_le_bytes(raw)
    };
    let order = Ordering::SeqCst;
    let fresh = |value: u64| {
        guest.write(gpa(0), &value.to_le_bytes()).unwrap();
        // SAFETY: the guest's memory, as in `slots`.
        unsafe { pages[0].set(HostPage::Writable(frame)) };
    };
    fresh(7);
    if let Ok(found) = space.load::<u64>(GVA, order) {
        assert_eq!(found, 7);
    }
    fresh(0);
    if let Ok(exchanged) = space.compare_exchange(GVA, 0u64, 1, order) {
        assert_eq!((exchanged, contents()), (Ok(0), 1));
    }
    fresh(0);
    if space.store(GVA, 1u64, order).is_ok() {
        assert_eq!(contents(), 1);
    }
}

#[test]
fn r55_an_update_needs_a_table_that_the_g_stage_lets_be_written() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let setting = Setting::new(true, 0);
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let at = guest.entry(GVA).unwrap();
    let table = at.page_base();
    guest
        .back(table, guest.spa(table).unwrap(), entry::R)
        .unwrap();
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let stage = setting.shown(&view, &guest, ram);
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&stage, setting.environment());
    for write in [false, true] {
        let (result, _) = access(&space, write);
        let fault = result.unwrap_err().fault;
        let implicit = FaultKind::GuestPage {
            access: AccessKind::Store,
            implicit: true,
        };
        assert_eq!((fault.kind, fault.gpa), (implicit, Some(at)));
        assert_eq!(vs_entry(&guest), clean);
    }
}

#[test]
fn a_walk_for_speed_logs_the_table_that_it_updates_and_the_pages_that_it_writes() {
    let (memory, log) = (RamArray::<64>::new(), [AtomicU64::new(0)]);
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let host = host_of(&guest, ram, gpa(0));
    // SAFETY: as in `slots`.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host) }.with_dirty_log(&log);
    let memory = Slots::new(GMode::Sv39x4);
    memory.add(slot, &mut NoGStage).unwrap();
    memory.start_logging(gpa(0), &mut NoGStage).unwrap();
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let table = guest.entry(GVA).unwrap().page_base();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let environment = Setting::new(true, 0).environment();
    let mut reader = memory.reader(0).unwrap();
    let mut harvest = |access: &dyn Fn(&PhysicalView<'_>)| {
        let view = reader.guard();
        access(&view);
        drop(view);
        let mut pages = Vec::new();
        memory
            .harvest(gpa(0), &mut NoGStage, |page| pages.push(page))
            .unwrap();
        pages
    };
    let read = harvest(&|view| {
        let space = vcpu.guest_virtual(USER).with_memory(view, environment);
        space.read(START, &mut [0; 12]).unwrap();
    });
    assert_eq!(read, [table]);
    let written = harvest(&|view| {
        let space = vcpu.guest_virtual(USER).with_memory(view, environment);
        space.write(START, &[7; 12]).unwrap();
    });
    let mut expected = [gpa(PAGES[0]), gpa(PAGES[1]), table];
    expected.sort();
    assert_eq!(written, expected);
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn r53_pages_of_another_memory_type_are_the_hardwares() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let setting = Setting::new(false, 0);
    setting.put(&hart);
    let vcpu = load(&hart);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let stage = setting.shown(&view, &guest, ram);
    let leaf = entry::V | RWU | entry::A | entry::D;
    for memory_type in [1u64 << 61, 2 << 61] {
        // At the VS-stage, then at the G-stage.
        let vs = gpa(PAGES[0]).value() >> 2 | leaf | memory_type;
        guest.set_entry(GVA, vs).unwrap();
        for write in [false, true] {
            hart.reset_counts();
            let space = vcpu
                .guest_virtual(USER)
                .with_memory(&view, setting.environment());
            access(&space, write).0.unwrap();
            // One page by the hardware (one double), the other by a walk.
            assert_eq!(hart.counts().accesses(), 1);
        }
        guest.set_entry(GVA, vs & !memory_type).unwrap();
        let spa = guest.spa(gpa(PAGES[0])).unwrap();
        let g = spa.value() >> 2 | leaf | memory_type;
        guest.set_g_entry(gpa(PAGES[0]), g).unwrap();
        for write in [false, true] {
            hart.reset_counts();
            let space = vcpu
                .guest_virtual(USER)
                .with_memory(&stage, setting.environment());
            access(&space, write).0.unwrap();
            assert_eq!(hart.counts().accesses(), 1);
        }
        guest.set_g_entry(gpa(PAGES[0]), g & !memory_type).unwrap();
    }
}

#[test]
fn what_the_host_does_not_map_as_memory_is_the_hardwares() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let first = gpa(0).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, first).unwrap();
    let (host, rest) = (host_of(&guest, ram, gpa(0)), host_of(&guest, ram, gpa(1)));
    // SAFETY: memory stands for the registers.
    let device = unsafe { Slot::device(gpa(0), 4096, host) };
    for slot in [
        Some(device),
        Some(Slot::guest_only(gpa(0), 4096)),
        Some(Slot::trapped(gpa(0), 4096)),
        None,
    ] {
        let memory = Slots::new(GMode::Sv39x4);
        // SAFETY: as in `slots`.
        let tables = unsafe { Slot::linear(gpa(1), guest.len() - 4096, rest) };
        memory.add(tables, &mut NoGStage).unwrap();
        if let Some(slot) = slot {
            memory.add(slot, &mut NoGStage).unwrap();
        }
        let mut reader = memory.reader(0).unwrap();
        let view = reader.guard();
        let space = vcpu.guest_virtual(USER).with_memory(&view, ALL_BY_WALK);
        for write in [false, true] {
            hart.reset_counts();
            access(&space, write).0.unwrap();
            assert_eq!(hart.counts().accesses(), 1);
        }
        hart.reset_counts();
        space.fill(START, 3, 8).unwrap();
        assert!(hart.counts().stores > 0);
    }
}

#[test]
fn r17_aligned_units_of_a_copy_by_walk_never_tear() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let at = guest.spa(gpa(PAGES[0])).unwrap();
    // A double, and alone behind it a word, a half and a byte.
    guest.write(gpa(PAGES[0]), &[0; 16]).unwrap();
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let stop = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut all_ones = false;
            while !stop.load(Ordering::Relaxed) {
                let value = if all_ones { u64::MAX } else { 0 };
                ram.store(at, Width::Double, value).unwrap();
                let word = at.checked_add(8).unwrap();
                ram.store(word, Width::Word, value).unwrap();
                let half = at.checked_add(12).unwrap();
                ram.store(half, Width::Half, value).unwrap();
                all_ones = !all_ones;
            }
        });
        let mut reader = slots.reader(0).unwrap();
        let view = reader.guard();
        let space = vcpu.guest_virtual(USER).with_memory(&view, ALL_BY_WALK);
        let mut torn = 0;
        for _ in 0..rounds {
            let mut words = [0u64; 2];
            let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut words[..]);
            space.read(GVA, &mut bytes[..15]).unwrap();
            let uniform = |bytes: &[u8]| bytes.iter().all(|&byte| byte == bytes[0]);
            let whole = uniform(&bytes[..8]) && uniform(&bytes[8..12]) && uniform(&bytes[12..14]);
            torn += u32::from(!whole);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(torn, 0);
    });
}

#[test]
fn the_size_that_decides_is_the_environments() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let environment = VsEnvironment::BASE.with_walk_from(256);
    let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
    let mut bytes = [0; 256];
    space.read(GVA, &mut bytes[..255]).unwrap();
    assert!(hart.counts().accesses() > 0);
    hart.reset_counts();
    space.read(GVA, &mut bytes).unwrap();
    assert_eq!(hart.counts().accesses(), 0);
    // A single access is never large.
    let any = VsEnvironment::BASE.with_walk_from(0);
    let space = vcpu.guest_virtual(USER).with_memory(&view, any);
    space.load::<u64>(GVA, Ordering::Relaxed).unwrap();
    assert_eq!(hart.counts().accesses(), 1);
}

#[test]
fn a_measurement_finds_the_size_from_which_walks_are_faster() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
    let vcpu = load(&hart);
    // A clock of which each walk takes `walk` ticks, each double by the hardware one.
    for (walk, expected) in [(0, 64), (20, 256), (600, usize::MAX)] {
        let walks = Cell::new(0);
        let interfered = Interfered {
            view: &view,
            located: &|| walks.set(walks.get() + 1),
            exchanged: &|| {},
        };
        let space = vcpu
            .guest_virtual(USER)
            .with_memory(&interfered, VsEnvironment::BASE);
        let now = || hart.counts().loads + walk * walks.get();
        assert_eq!(space.measure_walk_from(GVA, now), Ok(expected));
    }
    let hole = Gva::new(GVA.value() + 4 * 4096);
    let space = vcpu
        .guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE);
    let error = space.measure_walk_from(hole, || 0).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Page);
}
