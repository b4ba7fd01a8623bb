//! Every combination of the bits of an entry, at each stage, means to a walk what it means to the hardware.

use super::*;

#[test]
fn r51_every_entry_of_the_vs_stage_means_to_a_walk_what_it_means_to_the_hardware() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let hart = guest.hart();
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
                    let [backed, by_walk_only] = setting
                        .environments()
                        .map(|environment| space.with_memory(&view, environment));
                    // With the walk that classifies what an access fault was (R16).
                    let environment = setting.environment().with_walk_from(usize::MAX);
                    let by_hardware = space.with_memory(&view, environment);
                    let ways = [&by_hardware, &backed, &by_walk_only];
                    let [by_hardware, by_walk, by_walk_only] = ways.map(|way| {
                        put_back(&guest);
                        guest.set_entry(GVA, entry).unwrap();
                        let done = access(way, store);
                        left(&guest, done, [vs_entry(&guest), 0, 0])
                    });
                    let what = (setting.vsstatus, update, privilege, store);
                    assert_eq!(by_walk, by_hardware, "entry {entry:#x}, {what:?}");
                    assert_eq!(by_walk_only, by_hardware, "entry {entry:#x}, {what:?}");
                }
            }
        }
    }
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
                    let [backed, by_walk_only] = setting
                        .environments()
                        .map(|environment| space.with_memory(&stage, environment));
                    let [by_hardware, by_walk, by_walk_only] = [0, 1, 2].map(|way| {
                        put_back(&guest);
                        guest.set_entry(GVA, clean | entry::A | entry::D).unwrap();
                        ram.store(at, Width::Double, g_entry).unwrap();
                        let done = match way {
                            0 => access(&space, store),
                            1 => access(&backed, store),
                            _ => access(&by_walk_only, store),
                        };
                        let now = ram.load(at, Width::Double).unwrap();
                        left(&guest, done, [vs_entry(&guest), now, 0])
                    });
                    ram.store(at, Width::Double, whole).unwrap();
                    let what = (page, store, update);
                    assert_eq!(by_walk, by_hardware, "entry {g_entry:#x}, {what:?}");
                    assert_eq!(by_walk_only, by_hardware, "entry {g_entry:#x}, {what:?}");
                }
            }
        }
    }
}

#[test]
fn r14_a_walk_masks_pointers_as_the_hardware_does() {
    loaded_guest!(guest, view, hart, vcpu);
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

#[test]
fn r74_a_walk_leaves_a_and_d_to_the_guest_where_it_was_told() {
    loaded_guest!(guest, view, hart, vcpu);
    // `hlv` follows `menvcfg`, so the probe measured updates (R65).
    let profile = MachineProfile {
        vs_stage_ad: AdPolicy::Update,
        ..MachineProfile::AS_SPECIFIED
    };
    let measured = VsEnvironment::new(&profile, StageRules::BASE, 0, 0).with_walk_from(0);
    let granted = measured.with_ad_policy(AdPolicy::Fault);
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    for (environment, updates) in [(granted, false), (measured, true)] {
        hart.set_register(Register::Henvcfg, 0);
        guest.set_entry(GVA, clean).unwrap();
        let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
        let done = space.read(GVA, &mut [0; 8]);
        assert_eq!(done.is_ok(), updates, "{done:?}");
        assert_eq!(vs_entry(&guest) & entry::A != 0, updates);
        let refused = done.err().map(|error| error.fault.kind);
        assert_eq!(refused, (!updates).then_some(FaultKind::Page));
    }
}
