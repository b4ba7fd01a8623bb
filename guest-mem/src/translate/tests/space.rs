//! Which addresses a mode translates at all (R12 to R14, R49, R50).

use super::*;

#[test]
fn r49_an_address_that_is_not_canonical_faults_before_any_entry_is_read() {
    for (mode, bits) in VS_MODES.into_iter().zip([39u32, 48, 57]) {
        let mut world = World::new(mode, GMode::Sv57x4);
        let half = 1u64 << (bits - 1);
        let table = [
            (half - 1, true),
            (half, false),
            (half.wrapping_neg() - 1, false),
            (half.wrapping_neg(), true),
            (u64::MAX, true),
            (0, true),
            (1 << 63, false),
        ];
        for (gva, canonical) in table {
            world.access.gva = Gva::new(gva);
            world.memory.reads.borrow_mut().clear();
            // Nothing but one page is mapped, so that all fault; what differs is whether a table was asked.
            assert_eq!(world.kind(), Some(FaultKind::Page), "{mode:?} {gva:#x}");
            let asked = !world.memory.reads.borrow().is_empty();
            assert_eq!(asked, canonical, "{mode:?} {gva:#x}");
        }
    }
}

#[test]
fn r13_a_guest_physical_address_wider_than_the_mode_is_a_guest_page_fault() {
    for (mode, bits) in G_MODES.into_iter().zip([41, 50, 59]) {
        let mut world = World::new(VsMode::Sv39, mode);
        world.vs = VsRegime::BARE;
        for bit in bits..64 {
            let gpa = TARGET.value() | 1 << bit;
            world.access.gva = Gva::new(gpa);
            world.memory.reads.borrow_mut().clear();
            let fault = world.translate().unwrap_err();
            assert_eq!(
                fault.kind,
                guest_page(AccessKind::Load),
                "{mode:?} bit {bit}"
            );
            assert_eq!(fault.gpa, Some(Gpa::new(gpa)));
            assert!(world.memory.reads.borrow().is_empty());
        }
    }
}

#[test]
fn r13_a_guest_table_beyond_the_guest_physical_space_is_an_implicit_guest_page_fault() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    world.vs.root = Gpa::new(1 << 41);
    let fault = world.translate().unwrap_err();
    assert_eq!(fault.kind, implicit(AccessKind::Load));
    assert_eq!(fault.gpa.unwrap().value() & !0xfff, 1 << 41);
}

#[test]
fn r50_the_root_of_the_g_stage_has_2048_entries() {
    for (mode, bits) in G_MODES.into_iter().zip([41, 50, 59]) {
        let level = mode.levels() - 1;
        let top = Gpa::new(2047 << (bits - 11));
        let to = Spa::new(1 << entry::level_shift(level));
        let page = (top, to, level);
        let vs_page = (PAGE, TARGET, 0);
        let mut world = World::with_pages(VsMode::Sv39, vs_page, mode, page);
        world.vs = VsRegime::BARE;
        world.access.gva = Gva::new(top.value() + 0x123);
        let found = world.translate().unwrap();
        assert_eq!(found.page.spa.value(), to.value() + 0x123);
        let at = world.g.root.value() + 2047 * 8;
        assert_eq!(*world.memory.reads.borrow(), [at]);
    }
}

#[test]
fn r12_bare_at_either_stage_passes_the_address_through() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (vs, g) = (world.vs, world.g);
    world.vs = VsRegime::BARE;
    world.access.gva = Gva::new(TARGET.value() + 5);
    let found = world.translate().unwrap();
    assert_eq!((found.gpa, found.vs), (Gpa::new(TARGET.value() + 5), None));
    assert_eq!(found.page.spa.value(), to_spa(TARGET.value() + 5));

    world.g.mode = GMode::Bare;
    let found = world.translate().unwrap();
    assert_eq!(
        (found.page.spa.value(), found.page.leaf),
        (TARGET.value() + 5, None)
    );
    assert_eq!(found.page_shift(), 64);

    // Tables of the VS-stage are then at machine addresses.
    world.vs = VsRegime {
        root: Gpa::new(to_spa(vs.root.value())),
        ..vs
    };
    world.access.gva = PAGE;
    // The root's next table is named by its guest-physical address, where the machine has nothing.
    assert_eq!(world.kind(), Some(FaultKind::Page));
    world.g = g;
    world.vs = vs;
    assert!(world.translate().is_ok());
}

#[test]
fn r14_pointer_masking_drops_high_bits_of_data_addresses_only() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let (low, high) = (
        world.access.gva,
        Gva::new(PAGE.value().wrapping_neg() & !0xfff),
    );
    let table = [
        (PointerMask::Off, 0u32),
        (PointerMask::Seven, 7),
        (PointerMask::Sixteen, 16),
    ];
    for (mask, dropped) in table {
        (world.vs.supervisor_mask, world.vs.user_mask) = (PointerMask::Off, mask);
        for bit in 39..64 {
            for gva in [low, high] {
                let tagged = Gva::new(gva.value() ^ 1 << bit);
                for purpose in PURPOSES {
                    for privilege in PRIVILEGES {
                        let access = Access {
                            gva: tagged,
                            purpose,
                            privilege,
                        };
                        let masked = matches!(purpose, Purpose::Load | Purpose::Store)
                            && privilege == GuestPrivilege::User;
                        let expected = match bit {
                            _ if !masked => tagged,
                            _ if bit >= 64 - dropped => gva,
                            // The highest bit that stays is copied to those above it.
                            _ if bit == 63 - dropped => Gva::new(gva.value() ^ u64::MAX << bit),
                            _ => tagged,
                        };
                        assert_eq!(world.vs.effective_address(access), expected);
                    }
                }
            }
        }
    }
    // Under Bare the address is zero-extended, and MXR turns masking off.
    world.vs.user_mask = PointerMask::Seven;
    world.vs.mode = VsMode::Bare;
    world.access.gva = Gva::new(u64::MAX);
    assert_eq!(
        world.vs.effective_address(world.access).value(),
        u64::MAX >> 7
    );
    world.vs.mxr = true;
    assert_eq!(world.vs.effective_address(world.access).value(), u64::MAX);
}

#[test]
fn r14_a_fault_shows_the_masked_address() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    world.vs.user_mask = PointerMask::Seven;
    world.access.gva = Gva::new(PAGE.value() | 0x55 << 57);
    assert_eq!(world.translate().unwrap().gva, PAGE);
    world.access.gva = Gva::new(0x1000 | 0x55 << 57);
    assert_eq!(world.translate().unwrap_err().gva, Some(Gva::new(0x1000)));
}
