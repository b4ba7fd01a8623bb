//! Traps of the host's own in the middle of a routine that has a vector of the library in `stvec` (R27).
//!
//! The one idea: such a trap reaches the host's handler as if the library's vector were not there, whichever instruction it comes
//! at: so once the vector is made to jump to the handler at once, and what that finds is compared. Then the routine goes on
//! as if nothing had been, and a copy finds its faults with the vector again, though the trap has taken that away: the
//! realistic trap is that of a host whose buffer is paged in, at a load or store of it.

use guest_mem::hart::riscv64::ScopedStvec;

use super::{Call, Run, Scene, Shown, instruction, main_part, recovery_part, vector_of_frames};
use crate::breakpoints;
use crate::deviation::Deviation::HtinstNotWritable;
use crate::deviation::firmware_is_protected;
use crate::harness::{self, Outcome, Test, cases, check, fail, one_in};
use crate::library::probed;
use crate::registers::A0;
use crate::tests::routines::{Form, Kind, Routine, copies, singles};
use crate::{boot, csr, trap};

cases![
    r27_a_trap_of_the_hosts_at_any_instruction_of_a_scoped_routine_is_as_without_the_vector,
    r27_a_scoped_copy_recovers_its_faults_after_a_trap_of_the_hosts_at_any_access_to_the_buffer,
];

const T1: usize = 6;
const T2: usize = 7;
const T3: usize = 28;
const T4: usize = 29;
const T6: usize = 31;

/// A copy's bytes: for a wide one a body of the greatest groups, a batch, and single doubles; for a narrow one single elements.
fn len(routine: &Routine<Kind>) -> u64 {
    match routine.bytes {
        8 => 512 + 64 + 24,
        bytes => 11 * bytes,
    }
}

/// A guest, where the handler knows nothing of the library.
fn scene() -> Result<Scene, harness::Stop> {
    probed::<ScopedStvec>()?;
    boot::reset_csrs(csr::satp::read());
    Ok(Scene::new())
}

fn r27_a_trap_of_the_hosts_at_any_instruction_of_a_scoped_routine_is_as_without_the_vector(
    t: &mut Test,
) -> Outcome {
    let scene = scene()?;
    for routine in copies() {
        if routine.form == Form::Frame {
            let len = len(&routine);
            // Half of it in each page.
            let mut call = Call::copy(&scene, &routine, len, len / 16 * 8);
            forward(t, &mut call, vector_of_frames())?;
        }
    }
    for routine in singles() {
        let mut call = Call::single(&scene, &routine);
        match routine.form {
            Form::Hook => {}
            Form::Frame => forward(t, &mut call, vector_of_frames())?,
            Form::Registers => {
                // By its third instruction the routine puts t2 into stvec.
                let Some(met) = call.run(&[call.address + 8], &|| ()).met else {
                    fail!("{}: no third instruction", call.name);
                };
                forward(t, &mut call, met.x[T2])?;
            }
        }
    }
    Ok(())
}

/// A trap at each instruction that the routine executes.
fn forward(t: &mut Test, call: &mut Call<'_>, vector: u64) -> Outcome {
    let peace = call.in_peace();
    match call.kind {
        Some(Kind::Fill) | None => {}
        Some(_) => t.equal(call.name, peace.x[A0], 0)?,
    }
    if call.kind.is_some() {
        call.copied(call.len, true)?;
    }
    if call.name.ends_with("fetch_instruction") {
        let bytes = arena_word(call.guest_spa());
        t.equal(call.name, peace.x[A0], bytes)?;
    }
    let (mut met, mut missed) = (0, 0);
    for pc in main_part(call.address).step_by(4 * one_in(16)) {
        breakpoints::bypass(vector);
        let without = call.run(&[pc], &|| ());
        breakpoints::lift();
        let with = call.run(&[pc], &|| ());
        let at = format_args!("{} + {:#x}", call.name, pc - call.address);
        let (with_vector, without_vector) = match (with.met, without.met) {
            (Some(with_vector), Some(without_vector)) => (with_vector, without_vector),
            (None, None) => {
                missed += 1;
                continue;
            }
            _ => fail!("{at} is executed with the vector or without, and not the other way"),
        };
        met += 1;
        for x in 1..32 {
            // What no routine has a use for; no single access has one for t2 to t4 either.
            let is_free = x == T6 || call.form == Form::Registers && [T2, T3, T4].contains(&x);
            if !is_free {
                t.equal(
                    format_args!("x{x} at {at}"),
                    with_vector.x[x],
                    without_vector.x[x],
                )?;
            }
        }
        t.equal(at, with_vector.trap, without_vector.trap)?;
        t.equal(at, with_vector.stvec, trap::entry())?;
        same(t, at, &with, &peace, &[T1, T2, T3, T4])?;
    }
    most(call.name, met, missed)
}

/// Fails unless the two calls came to the same, but for what `free` and t6 hold.
fn same(
    t: &mut Test,
    at: core::fmt::Arguments<'_>,
    disturbed: &Run,
    peace: &Run,
    free: &[usize],
) -> Outcome {
    for x in 1..32 {
        if x == T6 || free.contains(&x) {
            continue;
        }
        let (found, expected) = (disturbed.x[x], peace.x[x]);
        if x == T4 && found != expected {
            // Of a fault that came through firmware this is htinst as the trap before it had left it.
            let what = format_args!("t4 after {at}: saw {found:#x}, expected {expected:#x}");
            t.holds_or(what, false, HtinstNotWritable)?;
        } else {
            t.equal(format_args!("x{x} after {at}"), found, expected)?;
        }
    }
    t.equal(
        format_args!("stvec after {at}"),
        csr::stvec::read(),
        trap::entry(),
    )?;
    check!(
        disturbed.memory == peace.memory,
        "{at}: other bytes were copied"
    );
    Ok(())
}

/// The word at an address of the arena.
fn arena_word(at: u64) -> u64 {
    crate::arena::read(at) & 0xffff_ffff
}

fn r27_a_scoped_copy_recovers_its_faults_after_a_trap_of_the_hosts_at_any_access_to_the_buffer(
    t: &mut Test,
) -> Outcome {
    let scene = scene()?;
    for routine in copies() {
        if routine.form == Form::Frame && routine.kind != Kind::Fill {
            recover(t, &scene, &routine)?;
        }
    }
    Ok(())
}

/// Fails unless most of the instructions that were tried are executed: those that are not belong to other lengths, or other
/// faults, than those here.
fn most(name: &str, met: usize, missed: usize) -> Outcome {
    check!(
        met > 4 * missed,
        "{name}: {missed} of {} are not executed",
        met + missed
    );
    Ok(())
}

/// Whether the instruction is a load or a store of the host's.
fn is_host_access(pc: u64) -> bool {
    matches!(instruction(pc) & 0x7f, 0x03 | 0x23)
}

/// Faults of a copy, each after a trap at each access to the host's side, and at each instruction of the fault's recovery.
fn recover(t: &mut Test, scene: &Scene, routine: &Routine<Kind>) -> Outcome {
    let len = len(routine);
    let elements = len / routine.bytes;
    let address = routine.address as u64;
    let host_accesses = main_part(address)
        .step_by(4)
        .filter(|&pc| is_host_access(pc));
    let pcs = host_accesses.chain(recovery_part(address).step_by(4));
    let step = if elements > 20 { 5 } else { 1 };
    let (mut met, mut missed) = (0, 0);
    for pc in pcs.step_by(one_in(61)) {
        let mut reached = false;
        for refusal in [Shown::Absent, Shown::Protected] {
            if refusal == Shown::Protected && !firmware_is_protected() {
                continue;
            }
            scene.show([Shown::Present, refusal]);
            for element in (0..=elements).step_by(step) {
                let at = element * routine.bytes;
                let mut call = Call::copy(scene, routine, len, at);
                let peace = call.in_peace();
                let left = peace.x[A0];
                match routine.kind {
                    // The last elements of a batch are not looked for.
                    Kind::MergeFrom | Kind::MergeTo => {
                        check!(left >= len - at && left < len - at + 64, "{left} are left");
                    }
                    _ => t.equal(routine.name, left, len - at)?,
                }
                call.copied(len - left, routine.kind != Kind::MergeTo)?;
                let disturbed = call.run(&[pc], &|| ());
                reached |= disturbed.met.is_some();
                let what = format_args!(
                    "a trap at {} + {:#x}, {refusal:?} from {at} of {len} on",
                    routine.name,
                    pc - address
                );
                same(t, what, &disturbed, &peace, &[])?;
            }
        }
        if reached {
            met += 1;
        } else {
            missed += 1;
        }
    }
    most(routine.name, met, missed)
}
