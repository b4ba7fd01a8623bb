//! One bit of one entry at a time, at every level of both stages (R51 to R54).

use super::*;
use crate::translate::entry::{G, N, PBMT_SHIFT, V};

/// Whether an entry with `bit` flipped refuses, on a hart without extensions. `leaf` says what the entry is; as a leaf it
/// allows everything, as a pointer it has V only.
fn flip_refuses(leaf: bool, bit: u32, purpose: Purpose) -> bool {
    match 1u64 << bit {
        V => true,
        G => false,
        _ if bit == 8 || bit == 9 => false,
        // A pointer with R or X is a page, here a misaligned or a foreign one; with W alone, or A, D or U, it is reserved.
        _ if !leaf => true,
        W | D => purpose == Purpose::Store,
        X => matches!(purpose, Purpose::ExecutableLoad | Purpose::Fetch),
        // R: what is writable has to be readable.
        _ => true,
    }
}

#[test]
fn r51_r52_each_bit_of_each_entry_at_all_levels_of_both_stages_counts() {
    for vs_mode in VS_MODES {
        for g_mode in G_MODES {
            let mut world = World::new(vs_mode, g_mode);
            let steps = world.steps();
            for (index, step) in steps.iter().enumerate() {
                let at = world.place(step);
                if steps[..index]
                    .iter()
                    .any(|earlier| world.place(earlier) == at)
                {
                    continue;
                }
                let entry = world.memory.get(at);
                let leaf = matches!(step.outcome, Outcome::Leaf(_));
                let last = step.stage == Stage::G && step.input & !0xfff == TARGET.value();
                for bit in (0..10).chain(54..64) {
                    for purpose in PURPOSES {
                        // An entry on the way to a table of the guest's is walked for a read of that table.
                        let asked = match step.stage {
                            Stage::G if !last => Purpose::Load,
                            _ => purpose,
                        };
                        world.access.purpose = purpose;
                        world.memory.set(at, entry ^ 1 << bit);
                        let expected = flip_refuses(leaf, bit, asked);
                        let found = world.translate();
                        let context =
                            std::format!("{vs_mode:?} {g_mode:?} {step} bit {bit} {purpose:?}");
                        assert_eq!(found.is_err(), expected, "{context}");
                        if let Err(fault) = found {
                            let kind = match step.stage {
                                Stage::Vs => FaultKind::Page,
                                Stage::G if last => guest_page(match purpose {
                                    Purpose::ExecutableLoad => AccessKind::Fetch,
                                    other => other.access_kind(),
                                }),
                                Stage::G => implicit(AccessKind::Load),
                            };
                            assert_eq!(fault.kind, kind, "{context}");
                            assert_eq!(fault.gva, Some(PAGE), "{context}");
                            let gpa = (step.stage == Stage::G).then_some(Gpa::new(step.input));
                            assert_eq!(fault.gpa, gpa, "{context}");
                        }
                        world.memory.set(at, entry);
                    }
                }
            }
        }
    }
}

#[test]
fn r47_no_entry_is_read_twice() {
    let world = World::new(VsMode::Sv57, GMode::Sv57x4);
    world.translate().unwrap();
    let steps = world.steps();
    // Five levels, each behind five, and the page behind five: 35 entries.
    assert_eq!(steps.len(), 35);
    world.memory.reads.borrow_mut().clear();
    world.translate().unwrap();
    let expected: Vec<u64> = steps.iter().map(|step| world.place(step)).collect();
    assert_eq!(*world.memory.reads.borrow(), expected);
}

/// The kind that a changed VS-stage leaf, and a changed G-stage leaf of the page, lead to.
fn kinds_with(
    world: &World,
    change: impl Fn(u64) -> u64,
) -> (Option<FaultKind>, Option<FaultKind>) {
    let (vs, g) = world.leaves();
    let with = |at: u64| {
        let entry = world.memory.get(at);
        world.memory.set(at, change(entry));
        let kind = world.kind();
        world.memory.set(at, entry);
        kind
    };
    (with(vs), with(g))
}

const REFUSED: (Option<FaultKind>, Option<FaultKind>) = (
    Some(FaultKind::Page),
    Some(FaultKind::GuestPage {
        access: AccessKind::Load,
        implicit: false,
    }),
);

#[test]
fn r52_memory_types_need_pbmte_of_their_stage_and_three_is_always_reserved() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    for pbmt in 0..4 {
        for (vs, g) in [(false, false), (false, true), (true, false), (true, true)] {
            (world.vs.rules.pbmt, world.g.rules.pbmt) = (vs, g);
            let allowed = |on| pbmt == 0 || on && pbmt != 3;
            let expected = (
                REFUSED.0.filter(|_| !allowed(vs)),
                REFUSED.1.filter(|_| !allowed(g)),
            );
            assert_eq!(
                kinds_with(&world, |entry| entry | pbmt << PBMT_SHIFT),
                expected
            );
        }
    }
}

#[test]
fn r53_the_guests_memory_type_goes_before_the_hosts() {
    use MemoryType::{Io, NonCacheable, Pma};
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    (world.vs.rules.pbmt, world.g.rules.pbmt) = (true, true);
    let (vs, g) = world.leaves();
    let (vs_entry, g_entry) = (world.memory.get(vs), world.memory.get(g));
    let table = [
        (0, 0, Pma),
        (0, 1, NonCacheable),
        (0, 2, Io),
        (1, 0, NonCacheable),
        (1, 2, NonCacheable),
        (2, 1, Io),
    ];
    for (of_vs, of_g, expected) in table {
        world.memory.set(vs, vs_entry | of_vs << PBMT_SHIFT);
        world.memory.set(g, g_entry | of_g << PBMT_SHIFT);
        assert_eq!(world.translate().unwrap().memory_type(), expected);
    }
}

#[test]
fn r52_bits_60_and_59_are_softwares_with_svrsw60t59b_only() {
    let mut world = World::new(VsMode::Sv48, GMode::Sv48x4);
    for bit in 54..61 {
        let expected = if bit >= 59 { (None, None) } else { REFUSED };
        (world.vs.rules.svrsw60t59b, world.g.rules.svrsw60t59b) = (true, true);
        assert_eq!(kinds_with(&world, |entry| entry | 1 << bit), expected);
        (world.vs.rules.svrsw60t59b, world.g.rules.svrsw60t59b) = (false, false);
        assert_eq!(kinds_with(&world, |entry| entry | 1 << bit), REFUSED);
    }
}

#[test]
fn r53_a_64_kib_page_takes_four_bits_of_the_page_number_from_the_address() {
    let mut world = World::new(VsMode::Sv39, GMode::Sv39x4);
    let rules = |svnapot| StageRules {
        svnapot,
        ..StageRules::BASE
    };
    let (vs, g) = world.leaves();
    for at in [vs, g] {
        let entry = world.memory.get(at);
        for low in 0..16 {
            let napot = entry & !(0xf << 10) | low << 10 | N;
            world.memory.set(at, napot);
            (world.vs.rules, world.g.rules) = (rules(true), rules(true));
            let found = world.translate();
            if low == 8 {
                let found = found.unwrap();
                let base = entry::address(entry) & !0xffff;
                let (leaf, input, output) = if at == vs {
                    (found.vs.unwrap(), PAGE.value(), found.gpa.value())
                } else {
                    let leaf = found.page.leaf.unwrap();
                    (leaf, found.gpa.value(), found.page.spa.value())
                };
                assert_eq!((leaf.base, leaf.page_shift), (base, 16));
                assert_eq!(output, base | input & 0xffff);
            } else {
                assert!(found.is_err(), "low bits {low:#x}");
            }
            (world.vs.rules, world.g.rules) = (rules(false), rules(false));
            assert!(world.translate().is_err(), "without Svnapot");
        }
        world.memory.set(at, entry);
    }
}

#[test]
fn r53_a_64_kib_encoding_above_the_last_level_is_reserved() {
    let mut world = superpages(VsMode::Sv39, 1, GMode::Sv39x4, 1).0;
    (world.vs.rules.svnapot, world.g.rules.svnapot) = (true, true);
    assert_eq!(kinds_with(&world, |entry| entry | N | 8 << 10), REFUSED);
}

/// A world with pages of the given levels, and where its access leads.
fn superpages(
    vs_mode: VsMode,
    vs_level: usize,
    g_mode: GMode,
    g_level: usize,
) -> (World, Gpa, Spa) {
    let (vs_size, g_size) = (
        1u64 << entry::level_shift(vs_level),
        1u64 << entry::level_shift(g_level),
    );
    let g_base = g_size.max(1 << 30);
    let g_target = 3 * g_size.max(1 << 36);
    let offset = 0x234 + if g_level > 0 { 0x15_5000 } else { 0 };
    let gpa = g_base + offset;
    let vs_target = gpa & !(vs_size - 1);
    let mut world = World::with_pages(
        vs_mode,
        (Gva::new(vs_size), Gpa::new(vs_target), vs_level),
        g_mode,
        (Gpa::new(g_base), Spa::new(g_target), g_level),
    );
    world.access.gva = Gva::new(vs_size + (gpa - vs_target));
    (world, Gpa::new(gpa), Spa::new(g_target + offset))
}

#[test]
fn r56_superpages_of_every_size_combine_and_the_smaller_stage_bounds_the_piece() {
    for vs_mode in VS_MODES {
        for g_mode in G_MODES {
            for vs_level in 0..vs_mode.levels() {
                for g_level in 0..g_mode.levels() {
                    let (world, gpa, spa) = superpages(vs_mode, vs_level, g_mode, g_level);
                    let found = world.translate().unwrap();
                    assert_eq!((found.gpa, found.page.spa), (gpa, spa));
                    assert_eq!(found.page_shift(), 12 + 9 * vs_level.min(g_level) as u32);
                }
            }
        }
    }
}

#[test]
fn r51_a_superpage_whose_number_is_not_a_multiple_of_its_size_faults() {
    for vs_mode in VS_MODES {
        for level in 1..3 {
            let (world, ..) = superpages(vs_mode, level, GMode::Sv57x4, level);
            for low in 0..9 * level {
                let refused = kinds_with(&world, |entry| entry ^ 1 << (10 + low));
                assert_eq!(refused, REFUSED, "level {level} bit {low}");
            }
        }
    }
}
