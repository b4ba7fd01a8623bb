//! Who may do what: truth tables of R2 to R7, R16 and R54, at both stages.

use super::*;
use crate::fault::Resolution;

/// Gives the leaf at `at` exactly `bits`.
fn set_bits(world: &World, at: u64, bits: u64) {
    let entry = world.memory.get(at);
    world.memory.set(at, entry & !0xff | bits | entry::V);
}

const RWX: [u64; 6] = [R, X, R | X, R | W, R | W | X, W];

#[test]
fn r4_r5_r54_permissions_of_both_stages_decide_for_every_purpose() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (vs_leaf, g_leaf) = world.leaves();
    for (vs, g) in RWX.into_iter().flat_map(|vs| RWX.map(|g| (vs, g))) {
        for (vs_mxr, g_mxr) in [(false, false), (true, false), (true, true)] {
            set_bits(&world, vs_leaf, vs | U | A | D);
            set_bits(&world, g_leaf, g | U | A | D);
            (world.vs.mxr, world.g.mxr) = (vs_mxr, g_mxr);
            for purpose in PURPOSES {
                let allows = |bits: u64, mxr: bool| match purpose {
                    _ if bits & (R | W) == W => false,
                    Purpose::Load => bits & R != 0 || mxr && bits & X != 0,
                    Purpose::Store => bits & W != 0,
                    Purpose::ExecutableLoad | Purpose::Fetch => bits & X != 0,
                };
                let kind = world
                    .translate_for(purpose, GuestPrivilege::User)
                    .err()
                    .map(|fault| fault.kind);
                let asked = match purpose {
                    Purpose::ExecutableLoad => AccessKind::Fetch,
                    other => other.access_kind(),
                };
                let expected = if !allows(vs, vs_mxr) {
                    Some(FaultKind::Page)
                } else if !allows(g, g_mxr) {
                    Some(guest_page(asked))
                } else {
                    None
                };
                assert_eq!(
                    kind, expected,
                    "{vs:#x} {g:#x} {vs_mxr} {g_mxr} {purpose:?}"
                );
            }
        }
    }
}

#[test]
fn r2_r3_r7_user_pages_privilege_and_sum() {
    let mut world = World::new(VsMode::Sv48, GMode::Sv48x4);
    let (vs_leaf, _) = world.leaves();
    for user_page in [false, true] {
        set_bits(&world, vs_leaf, ALL & !U | if user_page { U } else { 0 });
        for sum in [false, true] {
            world.vs.sum = sum;
            for purpose in PURPOSES {
                for privilege in PRIVILEGES {
                    let allowed = match privilege {
                        GuestPrivilege::User => user_page,
                        GuestPrivilege::Supervisor => {
                            !user_page || sum && purpose != Purpose::Fetch
                        }
                    };
                    let kind = world
                        .translate_for(purpose, privilege)
                        .err()
                        .map(|f| f.kind);
                    let expected = (!allowed).then_some(FaultKind::Page);
                    assert_eq!(
                        kind, expected,
                        "U={user_page} SUM={sum} {purpose:?} {privilege:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn r54_a_g_stage_page_without_u_refuses_everyone() {
    let world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (_, g_leaf) = world.leaves();
    set_bits(&world, g_leaf, ALL & !U);
    for purpose in PURPOSES {
        let fault = world.translate_for(purpose, GuestPrivilege::User);
        let kind = fault.unwrap_err().kind;
        assert!(matches!(
            kind,
            FaultKind::GuestPage {
                implicit: false,
                ..
            }
        ));
    }
    set_bits(&world, g_leaf, ALL);
    set_bits(&world, world.leaf_of_table(), ALL & !U);
    assert_eq!(world.kind(), Some(implicit(AccessKind::Load)));
}

#[test]
fn r5_r51_a_guest_table_needs_r_at_the_g_stage_and_neither_x_nor_mxr() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let table_leaf = world.leaf_of_table();
    set_bits(&world, table_leaf, R | U | A);
    for purpose in PURPOSES {
        assert!(world.translate_for(purpose, GuestPrivilege::User).is_ok());
    }
    (world.vs.mxr, world.g.mxr) = (true, true);
    set_bits(&world, table_leaf, X | U | A);
    for purpose in PURPOSES {
        let fault = world
            .translate_for(purpose, GuestPrivilege::User)
            .unwrap_err();
        assert_eq!(fault.kind, implicit(AccessKind::Load));
    }
}

#[test]
fn r16_a_shadow_stack_page_reads_and_answers_a_store_or_fetch_with_an_access_fault() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (vs_leaf, g_leaf) = world.leaves();
    set_bits(&world, vs_leaf, W | U | A | D);
    let kinds = |world: &World| {
        PURPOSES.map(|purpose| {
            let found = world.translate_for(purpose, GuestPrivilege::User);
            found.err().map(|fault| fault.kind)
        })
    };
    assert_eq!(kinds(&world), [Some(FaultKind::Page); 4]);
    world.vs.shadow_stack = true;
    let page = Some(FaultKind::Page);
    assert_eq!(
        kinds(&world),
        [
            None,
            Some(FaultKind::ShadowStack),
            page,
            Some(FaultKind::ShadowStack)
        ]
    );
    for (purpose, cause) in [(Purpose::Store, 7), (Purpose::Fetch, 1)] {
        let fault = world
            .translate_for(purpose, GuestPrivilege::User)
            .unwrap_err();
        assert_eq!(trap_of(&fault, purpose).unwrap().scause, cause);
        let Resolution::Inject(injection) = fault.resolution() else {
            panic!("{fault} is the guest's");
        };
        assert_eq!(injection.cause, cause);
    }
    // 110 stays reserved, U counts first, and the G-stage knows no shadow stacks.
    set_bits(&world, vs_leaf, W | X | U | A | D);
    assert_eq!(kinds(&world), [page; 4]);
    set_bits(&world, vs_leaf, W | A | D);
    assert_eq!(kinds(&world), [page; 4]);
    set_bits(&world, vs_leaf, ALL);
    set_bits(&world, g_leaf, W | U | A | D);
    assert_eq!(world.kind(), Some(guest_page(AccessKind::Load)));
}

#[test]
fn r18_r22_r58_the_trap_of_each_fault() {
    use crate::fault::{HTINST_PAGE_TABLE_READ, HTINST_PAGE_TABLE_WRITE};
    let gpa = 0x8000_1018;
    let all = [
        (FaultKind::Page, [13, 15, 13, 12], 0, 0),
        (guest_page(AccessKind::Load), [21, 23, 21, 20], gpa >> 2, 0),
        (
            implicit(AccessKind::Load),
            [21, 23, 21, 20],
            gpa >> 2,
            HTINST_PAGE_TABLE_READ,
        ),
        (
            implicit(AccessKind::Store),
            [21, 23, 21, 20],
            gpa >> 2,
            HTINST_PAGE_TABLE_WRITE,
        ),
        (FaultKind::Access, [5, 7, 5, 1], 0, 0),
        (FaultKind::Misaligned, [4, 6, 4, 0], 0, 0),
    ];
    for (kind, causes, htval, htinst) in all {
        for (purpose, scause) in PURPOSES.into_iter().zip(causes) {
            let fault = Fault::new(purpose.operation(), kind)
                .at_gva(PAGE)
                .at_gpa(Gpa::new(gpa));
            let stval = PAGE.value();
            let expected = crate::TrapInfo {
                scause,
                stval,
                htval,
                htinst,
            };
            assert_eq!(
                trap_of(&fault, purpose),
                Some(expected),
                "{kind:?} {purpose:?}"
            );
        }
    }
    // An entry at the very start of guest-physical space leaves htval 0, and then no pseudo-instruction is written.
    let fault = Fault::new(Operation::Load, implicit(AccessKind::Load))
        .at_gva(PAGE)
        .at_gpa(Gpa::new(0));
    assert_eq!(trap_of(&fault, Purpose::Load).unwrap().htinst, 0);
    let fault = Fault::new(Operation::Load, FaultKind::NoSlot).at_gva(PAGE);
    assert_eq!(trap_of(&fault, Purpose::Load), None);
}
