//! A and D bits (R55), memory that refuses (R15), and CSR values.

use super::*;
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_SSE, HSTATUS_VSBE, STATUS_MXR, STATUS_SUM};

const POLICIES: [AdPolicy; 3] = [AdPolicy::Fault, AdPolicy::Update, AdPolicy::Ignore];

#[test]
fn r55_a_and_d_fault_or_are_set_by_the_policy_of_their_stage() {
    for (vs_policy, g_policy) in POLICIES
        .into_iter()
        .flat_map(|vs| POLICIES.map(|g| (vs, g)))
    {
        for (vs_bits, g_bits) in AD.into_iter().flat_map(|vs| AD.map(|g| (vs, g))) {
            for purpose in PURPOSES {
                let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
                (world.vs.rules.ad, world.g.rules.ad) = (vs_policy, g_policy);
                let (vs, g) = world.leaves();
                let change =
                    |at, bits| world.memory.set(at, world.memory.get(at) & !(A | D) | bits);
                change(vs, vs_bits);
                change(g, g_bits);
                let wanted = A | if purpose == Purpose::Store { D } else { 0 };
                let kind = world
                    .translate_for(purpose, GuestPrivilege::User)
                    .err()
                    .map(|fault| fault.kind);
                let refuses = |policy, bits: u64| policy == AdPolicy::Fault && wanted & !bits != 0;
                let asked = match purpose {
                    Purpose::ExecutableLoad => AccessKind::Fetch,
                    other => other.access_kind(),
                };
                let expected = if refuses(vs_policy, vs_bits) {
                    Some(FaultKind::Page)
                } else if refuses(g_policy, g_bits) {
                    Some(guest_page(asked))
                } else {
                    None
                };
                let context =
                    std::format!("{vs_policy:?} {vs_bits:#x} {g_policy:?} {g_bits:#x} {purpose:?}");
                assert_eq!(kind, expected, "{context}");
                let after = |policy, bits| match policy {
                    AdPolicy::Update => bits | wanted,
                    _ => bits,
                };
                assert_eq!(
                    world.memory.get(vs) & (A | D),
                    after(vs_policy, vs_bits),
                    "{context}"
                );
                if !refuses(vs_policy, vs_bits) {
                    assert_eq!(
                        world.memory.get(g) & (A | D),
                        after(g_policy, g_bits),
                        "{context}"
                    );
                }
            }
        }
    }
}

const AD: [u64; 3] = [0, A, A | D];

#[test]
fn r55_bits_that_are_set_already_cause_no_write() {
    let mut world = World::new(VsMode::Sv57, GMode::Sv57x4);
    (world.vs.rules.ad, world.g.rules.ad) = (AdPolicy::Update, AdPolicy::Update);
    for purpose in PURPOSES {
        world.translate_for(purpose, GuestPrivilege::User).unwrap();
    }
    assert!(world.memory.writes.borrow().is_empty());
}

#[test]
fn r55_an_update_of_a_guest_entry_is_an_implicit_store_at_the_g_stage() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    world.vs.rules.ad = AdPolicy::Update;
    let (vs, _) = world.leaves();
    let table_leaf = world.leaf_of_table();
    let (entry, table) = (world.memory.get(vs), world.memory.get(table_leaf));
    let refused = [table & !W, table & !D];
    for table in refused {
        world.memory.set(vs, entry & !A);
        world.memory.set(table_leaf, table);
        for purpose in PURPOSES {
            let fault = world
                .translate_for(purpose, GuestPrivilege::User)
                .unwrap_err();
            assert_eq!(fault.kind, implicit(AccessKind::Store));
            assert_eq!(fault.gpa, Some(Gpa::new(vs - OFFSET)));
            let trap = trap_of(&fault, purpose).unwrap();
            // The cause is the original one, however the entry was touched.
            let cause = trap_of(
                &Fault {
                    kind: guest_page(AccessKind::Load),
                    ..fault
                },
                purpose,
            );
            assert_eq!(trap.scause, cause.unwrap().scause);
            assert_eq!((trap.htval, trap.htinst), ((vs - OFFSET) >> 2, 0x3020));
        }
        assert_eq!(world.memory.get(vs), entry & !A);
    }
    // With the G-stage updating as well, its D is set for the table's page.
    world.g.rules.ad = AdPolicy::Update;
    world.memory.set(table_leaf, table & !D);
    assert_eq!(world.kind(), None);
    assert_eq!(world.memory.get(vs), entry);
    assert_eq!(world.memory.get(table_leaf), table);
}

#[test]
fn r55_a_refused_access_leaves_the_guests_bits_alone() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    world.vs.rules.ad = AdPolicy::Update;
    let (vs, _) = world.leaves();
    let entry = world.memory.get(vs) & !(A | D | W);
    world.memory.set(vs, entry);
    world
        .translate_for(Purpose::Store, GuestPrivilege::User)
        .unwrap_err();
    assert_eq!(world.memory.get(vs), entry);
}

#[test]
fn r47_an_entry_that_changes_under_an_update_is_walked_again_and_not_forever() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    world.vs.rules.ad = AdPolicy::Update;
    let (vs, _) = world.leaves();
    world.memory.set(vs, world.memory.get(vs) & !A);
    world.memory.races.set(3);
    assert_eq!(world.kind(), None);
    assert_eq!(world.memory.get(vs) & A, A);
    // The other hart's change survived: three flips of a software bit.
    assert_eq!(world.memory.get(vs) >> 8 & 1, 1);

    world.memory.set(vs, world.memory.get(vs) & !A);
    world.memory.races.set(usize::MAX);
    assert_eq!(world.kind(), Some(FaultKind::Unresolved));
}

#[test]
fn r55_looking_leaves_no_trace_and_still_faults_where_hardware_does() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (vs, g) = world.leaves();
    for at in [vs, g] {
        world.memory.set(at, world.memory.get(at) & !(A | D));
    }
    (world.vs, world.g) = (world.vs.looking(), world.g.looking());
    assert_eq!(world.kind(), Some(FaultKind::Page));
    (world.vs.rules.ad, world.g.rules.ad) = (AdPolicy::Update, AdPolicy::Update);
    (world.vs, world.g) = (world.vs.looking(), world.g.looking());
    assert_eq!(world.kind(), None);
    assert!(world.memory.writes.borrow().is_empty());
}

#[test]
fn r15_a_machine_that_refuses_an_entry_is_an_access_fault() {
    let world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let table = world.vs.root.value();
    for step in world.steps() {
        world.memory.refused.set(Some(world.place(&step)));
        let fault = world.translate().unwrap_err();
        assert_eq!(fault.kind, FaultKind::Access, "{step}");
        assert_eq!(trap_of(&fault, Purpose::Store).unwrap().scause, 7);
        assert_eq!(fault.gva, Some(PAGE));
        assert!(fault.gpa.is_some_and(|gpa| gpa.value() >= table));
    }
}

#[test]
fn csr_values_become_a_regime() {
    let csrs = VsCsrs {
        vsatp: 9 << 60 | 0x1234 << 44 | 0x8_0123,
        vsstatus: STATUS_SUM,
        sstatus: STATUS_MXR,
        hstatus: 0,
        henvcfg: ENVCFG_ADUE | ENVCFG_PBMTE | ENVCFG_SSE | 2 << 32,
        senvcfg: 3 << 32,
    };
    let rules = StageRules {
        svnapot: true,
        ..StageRules::BASE
    };
    let expected = VsRegime {
        mode: VsMode::Sv48,
        root: Gpa::new(0x8012_3000),
        rules: StageRules {
            ad: AdPolicy::Update,
            pbmt: true,
            svnapot: true,
            svrsw60t59b: false,
        },
        sum: true,
        mxr: true,
        shadow_stack: true,
        supervisor_mask: PointerMask::Seven,
        user_mask: PointerMask::Sixteen,
    };
    assert_eq!(VsRegime::from_csrs(&csrs, rules), Ok(expected));
    assert_eq!(
        VsRegime::from_csrs(&VsCsrs::default(), StageRules::BASE),
        Ok(VsRegime::BARE)
    );
    // sstatus.SUM has no say (R3).
    let host_sum = VsCsrs {
        sstatus: STATUS_SUM,
        ..VsCsrs::default()
    };
    assert!(!VsRegime::from_csrs(&host_sum, rules).unwrap().sum);
}

#[test]
fn r9_r41_regimes_that_a_walk_cannot_follow_are_refused() {
    let big_endian = VsCsrs {
        hstatus: HSTATUS_VSBE,
        ..VsCsrs::default()
    };
    let modes = (1..16).filter(|mode| !(8..=10).contains(mode));
    let unknown = modes.clone().map(|mode| VsCsrs {
        vsatp: mode << 60,
        ..VsCsrs::default()
    });
    for csrs in unknown.chain([big_endian]) {
        let refused = VsRegime::from_csrs(&csrs, StageRules::BASE);
        assert_eq!(refused, Err(FaultKind::UnsupportedRegime), "{csrs:?}");
    }
    let misaligned = (1..4).map(|low| 8 << 60 | 0x8_0000 | low);
    for hgatp in modes.map(|mode| mode << 60).chain(misaligned) {
        let refused = GRegime::from_csrs(hgatp, 0, StageRules::BASE);
        assert_eq!(refused, Err(FaultKind::UnsupportedRegime), "{hgatp:#x}");
    }
    assert!(
        GRegime::from_csrs(8 << 60 | 0x8_0000, STATUS_MXR, StageRules::BASE)
            .unwrap()
            .mxr
    );
}
