//! Section F: the software walk agrees with the hardware, entry by entry and bit by bit.

use guest_mem::csr::{GMode, STATUS_SUM, VsMode};
use guest_mem::translate::Purpose;

use crate::harness::{Outcome, Test, act_as_supervisor, cases, one_in};
use crate::oracle::{Oracle, mark};
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{World, supports};
use crate::{arena, csr};

cases![
    r49_canonical_edges_of_every_mode,
    r50_the_widest_addresses_of_every_g_stage_mode,
    r51_every_bit_of_every_vs_stage_entry,
    r51_every_bit_of_every_g_stage_entry,
    r51_every_bit_of_the_g_stage_entry_of_a_page_table,
    r51_every_combination_of_permissions_at_the_vs_stage,
    r54_every_combination_of_permissions_at_the_g_stage,
    r56_every_mix_of_page_sizes,
];

const PURPOSES: [Purpose; 3] = [Purpose::Load, Purpose::Store, Purpose::ExecutableLoad];

/// Modes of both stages that this machine has.
fn modes() -> impl Iterator<Item = (VsMode, GMode)> {
    [
        (VsMode::Sv39, GMode::Sv39x4),
        (VsMode::Sv48, GMode::Sv48x4),
        (VsMode::Sv57, GMode::Sv57x4),
    ]
    .into_iter()
    .filter(|&(vs_mode, g_mode)| supports(g_mode, vs_mode))
}

const GVA: u64 = 0x20_1000;

fn r49_canonical_edges_of_every_mode(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for (mode, bits) in [(VsMode::Sv39, 39), (VsMode::Sv48, 48), (VsMode::Sv57, 57)] {
        if !supports(GMode::Sv39x4, mode) {
            continue;
        }
        let mut world = World::new(GMode::Sv39x4, mode);
        let half = 1u64 << (bits - 1);
        // The pages at both ends of both halves exist.
        let mapped = [0, half - 4096, half.wrapping_neg(), 0u64.wrapping_sub(4096)];
        for gva in mapped {
            mark(world.page_at(gva, SUPERVISOR).spa);
        }
        world.load();
        act_as_supervisor(true);
        let beyond = [
            half,
            half + 4096,
            half.wrapping_neg() - 4096,
            1 << bits,
            1 << 63,
            mapped[1] | 1 << 63,
            mapped[2] & !(1 << 63),
        ];
        for gva in mapped.into_iter().chain(beyond) {
            for offset in [0, 8, 4094] {
                for purpose in PURPOSES {
                    oracle.agrees(t, format_args!("{mode:?}"), gva + offset, purpose, &[])?;
                }
            }
        }
    }
    Ok(())
}

fn r50_the_widest_addresses_of_every_g_stage_mode(t: &mut Test) -> Outcome {
    use crate::deviation::Deviation::WideGpa;
    let oracle = Oracle::measure()?;
    for (mode, bits) in [
        (GMode::Sv39x4, 41),
        (GMode::Sv48x4, 50),
        (GMode::Sv57x4, 59),
    ] {
        if !supports(mode, VsMode::Bare) {
            continue;
        }
        let mut world = World::new(mode, VsMode::Bare);
        let page = arena::page();
        mark(page);
        let top = (1u64 << bits) - 4096;
        for gpa in [0x1000, top, 1 << (bits - 1), (1 << (bits - 2)) - 4096] {
            world.map_g(gpa, page, USER, 0);
        }
        world.load();
        act_as_supervisor(true);
        let sign_extended = t.machine.has(WideGpa);
        for gpa in [
            0x1000,
            (1 << (bits - 2)) - 4096,
            1 << (bits - 1),
            top,
            1 << bits,
            1 << bits | 0x1000,
            1 << 63,
            u64::MAX - 4095,
        ] {
            // There, the upper half of the space is refused and its sign extension is not.
            if sign_extended && gpa >> (bits - 1) != 0 {
                t.deviates(WideGpa);
                continue;
            }
            for purpose in PURPOSES {
                oracle.agrees(t, format_args!("{mode:?}"), gpa, purpose, &[])?;
            }
        }
    }
    Ok(())
}

/// Both privileges, and SUM for the supervisor.
const RIGHTS: [(bool, u64); 3] = [(false, 0), (true, 0), (true, STATUS_SUM)];

/// Compares every purpose under every right after `entry` became `value`; puts it back. `entries` may be changed.
fn with_entry(
    t: &mut Test,
    oracle: &Oracle,
    what: core::fmt::Arguments<'_>,
    entry: u64,
    value: u64,
    entries: &[u64],
) -> Outcome {
    let old = arena::read(entry);
    arena::write(entry, value);
    for (supervisor, sum) in RIGHTS {
        act_as_supervisor(supervisor);
        // SAFETY: guest state.
        unsafe { csr::vsstatus::write(sum) };
        for purpose in PURPOSES {
            let what = format_args!(
                "{what}, entry {value:#x}, SPVP={supervisor}, SUM={}",
                sum != 0
            );
            oracle.agrees(t, what, GVA + 0x128, purpose, entries)?;
        }
    }
    arena::write(entry, old);
    Ok(())
}

/// The bits of an entry that can be flipped without it leading out of the arena: all but the page number.
fn other_bits() -> impl Iterator<Item = u32> {
    (0..10).chain(54..64)
}

fn r51_every_bit_of_every_vs_stage_entry(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for (vs_mode, g_mode) in modes().step_by(one_in(4)) {
        for flags in [SUPERVISOR, USER] {
            let mut world = World::new(g_mode, vs_mode);
            mark(world.page_at(GVA, flags).spa);
            world.load();
            let leaf = world.vs_entry(GVA, 0).spa;
            for level in 0..vs_mode.levels() {
                let entry = world.vs_entry(GVA, level).spa;
                let old = arena::read(entry);
                // The page number too: what it leads to is the G-stage's to refuse.
                for bit in (0..64).step_by(one_in(29)) {
                    let what = format_args!("{vs_mode:?}, level {level}, bit {bit}");
                    with_entry(t, &oracle, what, entry, old ^ 1 << bit, &[leaf, entry])?;
                }
            }
            arena::release_all();
        }
    }
    Ok(())
}

fn r51_every_bit_of_every_g_stage_entry(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for (vs_mode, g_mode) in modes().step_by(one_in(4)) {
        let mut world = World::new(g_mode, vs_mode);
        // Far from the page tables, so that every level but the root's is the page's own.
        let spa = arena::page();
        mark(spa);
        let gpa = 1 << 38 | 0x5000;
        world.map_g(gpa, spa, USER, 0);
        world.map(GVA, gpa, SUPERVISOR, 0);
        world.load();
        let leaf = world.g_entry(gpa, 0);
        for level in 0..g_mode.levels() {
            let entry = world.g_entry(gpa, level);
            let old = arena::read(entry);
            for bit in other_bits().step_by(one_in(7)) {
                let what = format_args!("{g_mode:?}, level {level}, bit {bit}");
                with_entry(t, &oracle, what, entry, old ^ 1 << bit, &[leaf, entry])?;
            }
        }
        arena::release_all();
    }
    Ok(())
}

fn r51_every_bit_of_the_g_stage_entry_of_a_page_table(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    for level in 0..3 {
        let mut world = World::sv39();
        mark(world.page_at(GVA, SUPERVISOR).spa);
        world.load();
        let leaf = world.vs_entry(GVA, 0).spa;
        let table = world.vs_entry(GVA, level).gpa;
        let entry = world.g_entry(table, 0);
        let old = arena::read(entry);
        for bit in other_bits().step_by(one_in(7)) {
            let what = format_args!("page table of level {level}, bit {bit}");
            with_entry(t, &oracle, what, entry, old ^ 1 << bit, &[leaf, entry])?;
        }
        arena::release_all();
    }
    Ok(())
}

fn r51_every_combination_of_permissions_at_the_vs_stage(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    let mut world = World::sv39();
    mark(world.page_at(GVA, SUPERVISOR).spa);
    world.load();
    let entry = world.vs_entry(GVA, 0).spa;
    let old = arena::read(entry);
    for flags in (0..256).step_by(one_in(17)) {
        let what = format_args!("VS-stage flags {flags:#x}");
        with_entry(t, &oracle, what, entry, old & !0xff | flags, &[entry])?;
    }
    Ok(())
}

fn r54_every_combination_of_permissions_at_the_g_stage(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    let mut world = World::sv39();
    let page = world.page_at(GVA, SUPERVISOR);
    mark(page.spa);
    world.load();
    let entry = world.g_entry(page.gpa, 0);
    let old = arena::read(entry);
    for flags in (0..256).step_by(one_in(17)) {
        let what = format_args!("G-stage flags {flags:#x}");
        with_entry(t, &oracle, what, entry, old & !0xff | flags, &[entry])?;
    }
    Ok(())
}

fn r56_every_mix_of_page_sizes(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    let size = |level: usize| 1u64 << (12 + 9 * level);
    for (vs_mode, g_mode) in modes().step_by(one_in(4)) {
        for vs_level in 0..vs_mode.levels() {
            for g_level in 0..g_mode.levels() {
                let mut world = World::new(g_mode, vs_mode);
                let spa = arena::page();
                mark(spa);
                // Each stage maps the page by a page of its own size, clear of the page tables at RAM.
                let g_base = if g_level == 0 {
                    1 << 32
                } else {
                    2 * size(g_level)
                };
                let gpa = g_base + (spa & (size(g_level) - 1));
                world.map_g(gpa, spa & !(size(g_level) - 1), USER, g_level);
                let vs_base = if vs_level == 0 { GVA } else { size(vs_level) };
                let gva = vs_base + (gpa & (size(vs_level) - 1));
                world.map(gva, gpa & !(size(vs_level) - 1), SUPERVISOR, vs_level);
                world.load();
                act_as_supervisor(true);
                let entries = [
                    world.vs_entry(gva, vs_level).spa,
                    world.g_entry(gpa, g_level),
                ];
                for purpose in PURPOSES {
                    for offset in [0, 0x128, 0xffe] {
                        let what = format_args!(
                            "{vs_mode:?} level {vs_level}, {g_mode:?} level {g_level}"
                        );
                        oracle.agrees(t, what, gva + offset, purpose, &entries)?;
                    }
                }
                // A page number that is no multiple of the page's size.
                for (level, entry) in [(vs_level, entries[0]), (g_level, entries[1])] {
                    for bit in (10..10 + 9 * level as u32).step_by(one_in(5)) {
                        let what = format_args!(
                            "{vs_mode:?} level {vs_level}, {g_mode:?} level {g_level}, page number bit {bit}"
                        );
                        let old = arena::read(entry);
                        arena::write(entry, old ^ 1 << bit);
                        oracle.agrees(t, what, gva, Purpose::Load, &entries)?;
                        arena::write(entry, old);
                    }
                }
                arena::release_all();
            }
        }
    }
    Ok(())
}
