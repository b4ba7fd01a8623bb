//! Section A, shapes: widths, alignment, byte order, protected memory, and what a racing hart sees.

use core::sync::atomic::Ordering;

use guest_mem::csr::HSTATUS_VSBE;
use guest_mem::hart::riscv64::HandlerHook;
use guest_mem::{Gpa, GuestMemory};

use crate::deviation::Deviation::{
    FetchCauses, MisalignedIsAccessFault, NapotAfterUpdate, ProtectionIsGuestPage,
};
use crate::deviation::{FIRMWARE, firmware_is_protected};
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases, fail, skip};
use crate::harts::{Crew, together};
use crate::library::{loaded, probed};
use crate::tables::World;
use crate::tables::bits::{A, D, N, R, SUPERVISOR, USER, V, W};
use crate::{arena, boot, csr, machine, raw};

cases![
    r8_hlvx_reads_parcels_of_two_and_four_bytes,
    r9_data_of_a_big_endian_guest_is_swapped,
    r10_loads_of_every_width_extend_and_may_be_misaligned,
    r11_a_store_across_pages_faults_at_the_second,
    r15_protected_memory_raises_access_faults,
    r16_a_shadow_stack_page_is_read_and_refuses_stores,
    r16_r53_a_reserved_64_kib_shadow_stack_is_a_page_fault,
    r17_an_aligned_double_never_tears,
];

const GVA: u64 = 0x20_1000;
const PATTERN: u64 = 0x8182_8384_8586_8788;

/// An access of [`raw`].
type Access = fn(u64, u64) -> Result<u64, crate::trap::Trap>;

fn r8_hlvx_reads_parcels_of_two_and_four_bytes(t: &mut Test) -> Outcome {
    let (_, page) = World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    arena::write(page.spa, PATTERN);
    for offset in [0, 2, 4, 6] {
        let half = PATTERN >> (8 * offset) & 0xffff;
        t.access(
            "hlvx.hu",
            raw::hlvx_hu(GVA + offset, 0),
            Expect::Value(half),
        )?;
    }
    for offset in [0, 4] {
        let word = PATTERN >> (8 * offset) & 0xffff_ffff;
        t.access(
            "hlvx.wu",
            raw::hlvx_wu(GVA + offset, 0),
            Expect::Value(word),
        )?;
    }
    Ok(())
}

fn r9_data_of_a_big_endian_guest_is_swapped(t: &mut Test) -> Outcome {
    // SAFETY: guest state.
    unsafe { csr::hstatus::set(HSTATUS_VSBE) };
    if csr::hstatus::read() & HSTATUS_VSBE == 0 {
        skip!("hstatus.VSBE is read-only zero");
    }
    let mut world = World::guest_physical();
    let page = world.page(USER);
    world.load();
    arena::write(page.spa, PATTERN);
    act_as_supervisor(true);
    let result = raw::hlv_d(page.gpa, 0);
    // SAFETY: as it was.
    unsafe { csr::hstatus::clear(HSTATUS_VSBE) };
    t.access("hlv.d", result, Expect::Value(PATTERN.swap_bytes()))
}

fn r10_loads_of_every_width_extend_and_may_be_misaligned(t: &mut Test) -> Outcome {
    let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
    let next = world.page_at(GVA + 4096, SUPERVISOR);
    world.fence();
    act_as_supervisor(true);
    let loads: [(&str, Access, u32, bool); 7] = [
        ("hlv.b", raw::hlv_b, 1, true),
        ("hlv.bu", raw::hlv_bu, 1, false),
        ("hlv.h", raw::hlv_h, 2, true),
        ("hlv.hu", raw::hlv_hu, 2, false),
        ("hlv.w", raw::hlv_w, 4, true),
        ("hlv.wu", raw::hlv_wu, 4, false),
        ("hlv.d", raw::hlv_d, 8, false),
    ];
    let stores: [(&str, Access, u32); 4] = [
        ("hsv.b", raw::hsv_b, 1),
        ("hsv.h", raw::hsv_h, 2),
        ("hsv.w", raw::hsv_w, 4),
        ("hsv.d", raw::hsv_d, 8),
    ];
    for offset in (0..16).chain(4080..4096) {
        let bytes: [u8; 8] =
            core::array::from_fn(|at| 0x80 + (offset as u8).wrapping_add(at as u8) % 0x70);
        let value = u64::from_le_bytes(bytes);
        let spa = |at: u64| {
            if at < 4096 {
                page.spa + at
            } else {
                next.spa + at - 4096
            }
        };
        for (name, load, width, signed) in loads {
            for (at, &byte) in bytes.iter().enumerate() {
                // SAFETY: a byte of the arena.
                unsafe { (spa(offset + at as u64) as *mut u8).write_volatile(byte) };
            }
            let shift = 64 - 8 * width;
            let expected = if signed {
                ((value << shift) as i64 >> shift) as u64
            } else {
                value << shift >> shift
            };
            let result = load(GVA + offset, 0);
            let aligned = offset % u64::from(width) == 0;
            let refused = !aligned && result.is_err_and(|trap| trap.info.scause == 4);
            if !refused {
                let deviations = [(MisalignedIsAccessFault, Expect::Cause(5))];
                t.access_or(
                    format_args!("{name} at {offset:#x}"),
                    result,
                    Expect::Value(expected),
                    if aligned { &[] } else { &deviations },
                )?;
            }
        }
        for (name, store, width) in stores {
            let result = store(GVA + offset, PATTERN);
            let aligned = offset % u64::from(width) == 0;
            if !aligned && result.is_err_and(|trap| trap.info.scause == 6) {
                continue;
            }
            t.access(format_args!("{name} at {offset:#x}"), result, Expect::Works)?;
            for at in 0..width {
                // SAFETY: a byte of the arena.
                let byte = unsafe { (spa(offset + u64::from(at)) as *const u8).read_volatile() };
                t.equal(
                    format_args!("{name}, byte {at}"),
                    byte,
                    (PATTERN >> (8 * at)) as u8,
                )?;
            }
        }
    }
    Ok(())
}

fn r11_a_store_across_pages_faults_at_the_second(t: &mut Test) -> Outcome {
    // Who refuses the second page, and as what.
    for (vs_flags, g_flags, cause) in [
        (V | R | A | D, USER, 15),
        (SUPERVISOR, USER & !W & !D, 23),
        (SUPERVISOR, 0, 23),
    ] {
        for offset in 1..8 {
            let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
            let second = world.page(g_flags);
            world.map(GVA + 4096, second.gpa, vs_flags, 0);
            world.fence();
            act_as_supervisor(true);
            let start = 4096 - offset;
            let Err(trap) = raw::hsv_d(GVA + start, u64::MAX) else {
                fail!("a store into a page that refuses it went through");
            };
            if trap.info.scause == 6 {
                continue;
            }
            t.equal("cause", trap.info.scause, cause)?;
            t.equal("stval", trap.info.stval, GVA + 4096)?;
            if cause == 23 {
                t.equal("guest-physical address", trap.gpa(), second.gpa)?;
            }
            t.equal("the second page", arena::read(second.spa), 0)?;
            let before = arena::read(first.spa + 4096 - 16);
            t.equal("what lies before the store", before, 0)?;
            arena::release_all();
        }
    }
    Ok(())
}

fn r15_protected_memory_raises_access_faults(t: &mut Test) -> Outcome {
    if !firmware_is_protected() {
        skip!("no PMP");
    }
    let mut world = World::guest_physical();
    let gpa = crate::tables::RAM;
    world.map_g(gpa, FIRMWARE, USER, 0);
    world.load();
    act_as_supervisor(true);
    for (name, result, cause, guest_page, fetch) in [
        ("hlv.d", raw::hlv_d(gpa, 0), 5, 21, 5),
        ("hsv.d", raw::hsv_d(gpa, 0), 7, 23, 7),
        ("hlvx.hu", raw::hlvx_hu(gpa, 0), 5, 21, 1),
    ] {
        let deviations = [
            (FetchCauses, Expect::Cause(fetch)),
            (ProtectionIsGuestPage, Expect::Cause(guest_page)),
        ];
        t.access_or(name, result, Expect::Cause(cause), &deviations)?;
        let Err(trap) = result else {
            fail!("{name}: no trap");
        };
        t.equal("stval", trap.info.stval, gpa)?;
        if trap.info.scause < 20 {
            t.equal("htval", trap.info.htval, 0)?;
        }
    }
    Ok(())
}

/// `menvcfg.SSE`, `henvcfg.SSE`: shadow stacks (Zicfiss).
const SSE: u64 = 1 << 3;

fn r16_a_shadow_stack_page_is_read_and_refuses_stores(t: &mut Test) -> Outcome {
    with_shadow_stacks(|| shadow_stack(t))
}

fn r16_r53_a_reserved_64_kib_shadow_stack_is_a_page_fault(t: &mut Test) -> Outcome {
    with_shadow_stacks(|| reserved_shadow_stack(t))
}

/// Runs `body` with the guest's shadow stacks on, if the machine has any.
fn with_shadow_stacks(body: impl FnOnce() -> Outcome) -> Outcome {
    let body = || {
        // SAFETY: shadow stacks of a guest that is the test's.
        unsafe { csr::henvcfg::set(SSE) };
        if csr::henvcfg::read() & SSE == 0 {
            skip!("no Zicfiss: henvcfg.SSE is read-only zero");
        }
        let outcome = body();
        // SAFETY: as it was.
        unsafe { csr::henvcfg::clear(SSE) };
        boot::fence_everything();
        outcome
    };
    // Firmware may have left them off; the kernel's own shim turns them on for the test.
    if machine::is_standalone() {
        machine::in_environment(SSE, body)
    } else {
        body()
    }
}

fn shadow_stack(t: &mut Test) -> Outcome {
    World::with_page(GVA, V | W | A | D, USER);
    act_as_supervisor(true);
    t.access("hlv.d", raw::hlv_d(GVA, 0), Expect::Value(0))?;
    t.access("hsv.d", raw::hsv_d(GVA, 0), Expect::Cause(7))
}

/// Whether N is reserved or its encoding, such an entry is refused before it is a shadow stack's.
fn reserved_shadow_stack(t: &mut Test) -> Outcome {
    // The low bits of the page number, of which only 1000 is 64 KiB.
    const LOW: u64 = 0xf << 12;
    let mut world = World::sv39();
    let page = world.page(USER);
    world.map(GVA, page.gpa & !LOW | 0x1000, V | W | A | D | N, 0);
    world.load();
    act_as_supervisor(true);
    t.access("hlv.d", raw::hlv_d(GVA, 0), Expect::Cause(13))?;
    let stored = raw::hsv_d(GVA, 0);
    let late = [(NapotAfterUpdate, Expect::Cause(7))];
    t.access_or("hsv.d", stored, Expect::Cause(15), &late)?;
    let fetched = raw::hlvx_hu(GVA, 0);
    let other = [
        (FetchCauses, Expect::Cause(12)),
        (NapotAfterUpdate, Expect::Cause(1)),
    ];
    t.access_or("hlvx.hu", fetched, Expect::Cause(13), &other)
}

fn r17_an_aligned_double_never_tears(t: &mut Test) -> Outcome {
    let mut world = World::guest_physical();
    let page = world.page(USER);
    let (hart, _) = probed::<HandlerHook>()?;
    world.load();
    let vcpu = loaded(&hart);
    let physical = vcpu.guest_physical();
    let write_in_turn = |_, crew: &Crew| {
        while crew.goes_on() {
            for value in [0, u64::MAX] {
                arena::write(page.spa, value);
            }
        }
        Ok(())
    };
    together(&write_in_turn, |_| {
        let mut seen = [false; 2];
        for round in 0..20_000_000 {
            // Until both values were seen: the other harts may not run for a while.
            if round >= 200_000 && seen == [true; 2] {
                break;
            }
            match raw::hlv_d(page.gpa, 0) {
                Ok(0) => seen[0] = true,
                Ok(u64::MAX) => seen[1] = true,
                other => fail!("neither all zeros nor all ones: {other:#x?}"),
            }
            // And through the library, whose single accesses promise it.
            match physical.load(Gpa::new(page.gpa), Ordering::Relaxed) {
                Ok(0 | u64::MAX) => {}
                other => fail!("neither all zeros nor all ones: {other:#x?}"),
            }
        }
        t.equal("whether both values were seen", seen, [true; 2])
    })
}
