//! What a copy says that it did, where the guest loses a page while a fault is recovered (R11, invariant 4).
//!
//! The one idea: a fault in the middle of a batch is followed by a second try of it, element by element. In between, the page that
//! the batches before it were copied from or to may go: another hart unmaps it, or the guest does. So the breakpoint is where
//! a fault's recovery begins, and takes away the guest's first page; what lay there was copied, counts, and is not asked for
//! again.

use guest_mem::hart::riscv64::{self, HandlerHook, ScopedStvec};

use super::{Call, Scene, Shown, instruction, main_part, recovery_part};
use crate::deviation::firmware_is_protected;
use crate::harness::{Outcome, Test, cases, fail, one_in};
use crate::library::probed;
use crate::tests::routines::{Form, Kind, Routine, copies};
use crate::{arena, boot, csr};

cases![r11_batches_before_a_fault_count_though_their_page_is_gone_before_it_is_recovered];

/// Two bodies of the hook's form, one of the other, a batch of either, and single doubles.
const LEN: u64 = 512 + 64 + 24;

/// Whether a long copy goes by groups: in the form with a frame, and where the build has fences between batches, which the
/// code shows.
fn has_groups(routine: &Routine<Kind>) -> bool {
    /// `fence rw, rw`
    const FENCE: u32 = 0x0330_000f;
    let mut code = main_part(routine.address as u64).step_by(4);
    routine.form == Form::Frame || code.any(|pc| instruction(pc) == FENCE)
}

/// Where the batch begins that has the byte `at` in it, and whether it is more than one double.
fn batch(routine: &Routine<Kind>, at: u64) -> (u64, bool) {
    let is_merge = matches!(routine.kind, Kind::MergeFrom | Kind::MergeTo);
    let is_hook = routine.form == Form::Hook;
    let bytes = match (is_merge, is_hook) {
        _ if at >= LEN & !63 => 8,
        (false, _) if at < LEN & !511 && has_groups(routine) => 128,
        (false, _) => 64,
        (true, false) if at < LEN & !255 => 64,
        (true, _) => 32,
    };
    (at - at % bytes, bytes > 8)
}

/// The bytes left after a fault at `at`, where the first page is gone and the second is there when the batch is tried again.
fn left(routine: &Routine<Kind>, at: u64, cause: u64) -> u64 {
    /// Page faults and guest-page faults, which name their address, have no lower cause.
    const FIRST_PAGE_FAULT: u64 = 12;
    let (start, is_batch) = batch(routine, at);
    let is_merge = matches!(routine.kind, Kind::MergeFrom | Kind::MergeTo);
    // Only a batch that lies in the second page as a whole can be had again. A merging copy leaves that to its caller, and so
    // does a fault that names the batch's first byte: nobody has to look for it.
    if !is_merge && is_batch && start == at && cause < FIRST_PAGE_FAULT {
        0
    } else {
        LEN - start
    }
}

/// Where the routine goes on after its faults, each once; then zeros.
fn fixups(routine: &Routine<Kind>) -> [u64; 16] {
    unsafe extern "C" {
        #[link_name = unit_symbol!(__guest_mem_access_start)]
        static __guest_mem_access_start: u8;
    }
    let start = (&raw const __guest_mem_access_start) as u64;
    let address = routine.address as u64;
    let code = main_part(address).start..recovery_part(address).end;
    let mut fixups = [0; 16];
    let mut count = 0;
    for entry in riscv64::exception_table().iter() {
        let fixup = start + u64::from(entry.fixup);
        if code.contains(&(start + u64::from(entry.instruction))) && !fixups.contains(&fixup) {
            fixups[count] = fixup;
            count += 1;
        }
    }
    fixups
}

/// Every fault of a routine.
fn recount(t: &Test, scene: &Scene, routine: &Routine<Kind>) -> Outcome {
    let fixups = fixups(routine);
    let fixups = fixups.split(|&fixup| fixup == 0).next().unwrap_or_default();
    for refusal in [Shown::Absent, Shown::Protected] {
        if refusal == Shown::Protected && !firmware_is_protected() {
            continue;
        }
        for at in (8..LEN).step_by(8 * one_in(17)) {
            let mut call = Call::copy(scene, routine, LEN, at);
            scene.show([Shown::Present, refusal]);
            let run = call.run(fixups, &|| scene.show([Shown::Absent, Shown::Present]));
            let what = format_args!("{}, {refusal:?} from {at} of {LEN} on", routine.name);
            let Some(fault) = run.met else {
                fail!("{what}: no fault");
            };
            // At a fixup, t1 is the cause.
            let expected = left(routine, at, fault.x[6]);
            t.equal(what, run.x[crate::registers::A0], expected)?;
            // What a batch stored before it faulted is there, though it does not count.
            let exact = batch(routine, at).0 == at || !call.to_guest;
            call.copied(LEN - expected, exact)?;
        }
    }
    Ok(())
}

fn r11_batches_before_a_fault_count_though_their_page_is_gone_before_it_is_recovered(
    t: &mut Test,
) -> Outcome {
    for form in [Form::Hook, Form::Frame] {
        // Says whether the handler calls the library.
        if form == Form::Hook {
            probed::<HandlerHook>()?;
        } else {
            probed::<ScopedStvec>()?;
        }
        boot::reset_csrs(csr::satp::read());
        let scene = Scene::new();
        for routine in copies() {
            if routine.form == form && routine.bytes == 8 && routine.kind != Kind::Fill {
                recount(t, &scene, &routine)?;
            }
        }
        boot::reset_csrs(csr::satp::read());
        arena::release_all();
    }
    Ok(())
}
