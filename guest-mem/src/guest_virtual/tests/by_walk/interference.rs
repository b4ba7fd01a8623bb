//! What another hart does between the steps of a walk, and what is updated before the walk is done.

use super::*;

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
    loaded_guest!(guest, view, hart, vcpu);
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
    loaded_guest!(guest, view, hart, vcpu);
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
fn r55_a_walk_leaves_a_and_d_clear_where_the_page_itself_refuses() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    Setting::new(true, 0).put(&hart);
    let vcpu = load(&hart);
    let clean = gpa(0).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    // Absent to the slots and to the hardware.
    let pages = [const { PageEntry::absent() }; 1];
    let frame = host_of(&guest, ram, gpa(0));
    guest.unback(gpa(0)).unwrap();
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
        // The hardware, where it is asked, has its own idea of when to set them.
        if walk_always {
            assert_eq!(vs_entry(&guest), clean);
        }
        guest.set_entry(GVA, clean).unwrap();
    }
    // SAFETY: the guest's memory, as in `slots`.
    unsafe { pages[0].set(HostPage::Writable(frame)) };
    let view = reader.guard();
    let environment = Setting::new(true, 0).environment();
    hart.reset_counts();
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
fn a_measurement_finds_the_size_from_which_walks_are_faster() {
    loaded_guest!(guest, view, hart, vcpu);
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
