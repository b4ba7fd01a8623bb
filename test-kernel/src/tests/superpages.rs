//! Section F: superpages of the G-stage, by every instruction.
//!
//! A page of the arena is reached through a leaf of each level, with `vsatp` Bare and translating. The leaf covers more of
//! the machine's memory than that page; nothing else of it is accessed.

use guest_mem::csr::{GMode, VsMode};

use crate::harness::{Outcome, Test, act_as_supervisor, cases, check, fail};
use crate::oracle::mark;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{World, supports};
use crate::trap::Trap;
use crate::{arena, boot, raw};

cases![
    r50_superpages_of_the_g_stage_are_read_by_every_width,
    r50_superpages_of_the_g_stage_are_written_by_every_width,
    r50_superpages_of_the_g_stage_are_fetched_from,
];

/// Where the guest maps the page if its VS-stage translates.
const GVA: u64 = 0x20_1000;
/// Bytes of the page that the accesses are made at.
const OFFSETS: [u64; 3] = [0, 0x238, 0xff8];
/// Leaves of this number of their level are used: clear of what the guest's page tables are in.
const INDEX: u64 = 3;

/// One instruction: its name, itself, its bytes.
type Instruction = (&'static str, fn(u64, u64) -> Result<u64, Trap>, usize);

/// What a superpage leads to.
struct Scene {
    g_mode: GMode,
    vs_mode: VsMode,
    level: usize,
    /// The page's address for the instructions.
    address: u64,
    /// The page in the machine's memory.
    page: u64,
    /// The superpage's entry.
    entry: u64,
}

/// Runs `body` on a page behind a leaf of each level of each mode, with the VS-stage Bare and translating.
fn in_every_superpage(mut body: impl FnMut(&Scene) -> Outcome) -> Outcome {
    let mut seen = 0;
    for g_mode in [GMode::Sv39x4, GMode::Sv48x4, GMode::Sv57x4] {
        for vs_mode in [VsMode::Bare, VsMode::Sv39] {
            if !supports(g_mode, vs_mode) {
                continue;
            }
            for level in 1..g_mode.levels() {
                let mut world = World::new(g_mode, vs_mode);
                let page = arena::page();
                mark(page);
                let size = 1u64 << (12 + 9 * level);
                let gpa = INDEX * size + page % size;
                world.map_g(INDEX * size, page - page % size, USER, level);
                if vs_mode != VsMode::Bare {
                    world.map(GVA, gpa, SUPERVISOR, 0);
                }
                let entry = world.g_entry(INDEX * size, level);
                world.load();
                act_as_supervisor(true);
                body(&Scene {
                    g_mode,
                    vs_mode,
                    level,
                    address: if vs_mode == VsMode::Bare { gpa } else { GVA },
                    page,
                    entry,
                })?;
                seen += 1;
                arena::release_all();
            }
        }
    }
    check!(seen >= 4, "only {seen} superpages");
    Ok(())
}

impl Scene {
    /// Makes an access first, then again, then refused without the leaf, and then with the leaf again; `judge` is told of
    /// each that has to work.
    fn access(
        &self,
        t: &mut Test,
        (name, instruction, _): Instruction,
        offset: u64,
        value: u64,
        mut judge: impl FnMut(&mut Test, core::fmt::Arguments<'_>, u64) -> Outcome,
    ) -> Outcome {
        let Self {
            g_mode,
            vs_mode,
            level,
            ..
        } = self;
        let address = self.address + offset;
        let mut works = |t: &mut Test, when: &str| {
            let what = format_args!(
                "{name} at {address:#x}, {vs_mode:?}, {g_mode:?}, level {level}, {when}"
            );
            match instruction(address, value) {
                Ok(value) => judge(t, what, value),
                Err(trap) => fail!("{what}: {trap:?}"),
            }
        };
        boot::fence_everything();
        works(t, "first")?;
        works(t, "again")?;
        let leaf = arena::read(self.entry);
        arena::write(self.entry, 0);
        boot::fence_everything();
        let refused = instruction(address, value);
        check!(
            refused.is_err_and(|trap| matches!(trap.info.scause, 12 | 21 | 23)),
            "{name} at {address:#x}, {vs_mode:?}, {g_mode:?}, level {level}: without a leaf {refused:x?}"
        );
        arena::write(self.entry, leaf);
        boot::fence_everything();
        works(t, "after a fault")
    }
}

/// The bytes of the page at an offset, zero-extended.
fn bytes(page: u64, offset: u64, len: usize) -> u64 {
    let mut value = [0; 8];
    for (at, byte) in (0..).zip(&mut value[..len]) {
        *byte = arena::read_byte(page + offset + at);
    }
    u64::from_le_bytes(value)
}

fn r50_superpages_of_the_g_stage_are_read_by_every_width(t: &mut Test) -> Outcome {
    const LOADS: [Instruction; 4] = [
        ("hlv.bu", raw::hlv_bu, 1),
        ("hlv.hu", raw::hlv_hu, 2),
        ("hlv.wu", raw::hlv_wu, 4),
        ("hlv.d", raw::hlv_d, 8),
    ];
    in_every_superpage(|scene| {
        for load in LOADS {
            for offset in OFFSETS {
                let expected = bytes(scene.page, offset, load.2);
                scene.access(t, load, offset, 0, |t, what, value| {
                    t.equal(what, value, expected)
                })?;
            }
        }
        Ok(())
    })
}

fn r50_superpages_of_the_g_stage_are_fetched_from(t: &mut Test) -> Outcome {
    const FETCHES: [Instruction; 2] = [("hlvx.hu", raw::hlvx_hu, 2), ("hlvx.wu", raw::hlvx_wu, 4)];
    in_every_superpage(|scene| {
        for fetch in FETCHES {
            for offset in OFFSETS {
                let expected = bytes(scene.page, offset, fetch.2);
                scene.access(t, fetch, offset, 0, |t, what, value| {
                    t.equal(what, value, expected)
                })?;
            }
        }
        Ok(())
    })
}

fn r50_superpages_of_the_g_stage_are_written_by_every_width(t: &mut Test) -> Outcome {
    const STORES: [Instruction; 4] = [
        ("hsv.b", raw::hsv_b, 1),
        ("hsv.h", raw::hsv_h, 2),
        ("hsv.w", raw::hsv_w, 4),
        ("hsv.d", raw::hsv_d, 8),
    ];
    const VALUE: u64 = 0xf1e2_d3c4_b5a6_9788;
    in_every_superpage(|scene| {
        for store in STORES {
            for offset in OFFSETS {
                let before = bytes(scene.page, offset, 8);
                let kept = u64::MAX.checked_shl(8 * store.2 as u32).unwrap_or(0);
                let expected = before & kept | VALUE & !kept;
                scene.access(t, store, offset, VALUE, |t, what, _| {
                    t.equal(what, bytes(scene.page, offset, 8), expected)?;
                    arena::write(scene.page + offset, before);
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}
