//! Causes that M-mode does not delegate and passes on, as SBI firmware does: what HS-mode and VS-mode find of them (R25).
//!
//! The one idea: a machine delegates all that the tests need or does not; what a trap leaves must be the same. So each is taken
//! twice here, delegated and not, and compared. GVA alone is M-mode's word, and what that has to be no rule here says.

use guest_mem::csr::{HSTATUS_GVA, STATUS_SIE, STATUS_SPIE, STATUS_SPP};

use crate::deviation::Deviation::{HtinstNotWritable, RedirectStaysInGuest};
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Outcome, Test, act_as_supervisor, cases, fail, skip};
use crate::machine::{self, undelegated};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::trap::Trap;
use crate::{csr, raw};

cases![
    r25_a_cause_that_is_redirected_leaves_what_a_delegated_one_leaves,
    r25_a_redirected_exit_of_a_guest_leaves_what_a_delegated_one_leaves,
    r25_what_the_guest_takes_itself_is_redirected_to_it,
];

const GVA: u64 = 0x20_1000;
const EBREAK: u32 = 0x0010_0073;
/// `csrr a0, hstatus`
const READ_HSTATUS: u32 = 0x6000_2573;
const ILLEGAL: u32 = 0;

/// Skips the test unless M-mode is the kernel's.
fn standalone() -> Outcome {
    if !machine::is_standalone() {
        skip!("M-mode is the firmware's");
    }
    Ok(())
}

/// Compares what two traps left. GVA has to be what M-mode found, where that is known.
fn same(t: &mut Test, cause: u64, direct: Trap, redirected: Trap, gva: Option<bool>) -> Outcome {
    t.equal("the cause", direct.info.scause, cause)?;
    t.equal("scause", redirected.info.scause, cause)?;
    t.equal("sepc", redirected.sepc, direct.sepc)?;
    t.equal("stval", redirected.info.stval, direct.info.stval)?;
    t.equal("htval", redirected.info.htval, direct.info.htval)?;
    let what = format_args!("htinst {:#x}", redirected.info.htinst);
    let htinst_is_same = redirected.info.htinst == direct.info.htinst;
    t.holds_or(what, htinst_is_same, HtinstNotWritable)?;
    let saved = STATUS_SPP | STATUS_SPIE | STATUS_SIE;
    t.equal(
        "SPP, SPIE, SIE",
        redirected.sstatus & saved,
        direct.sstatus & saved,
    )?;
    let found = redirected.hstatus & HSTATUS_GVA != 0;
    t.equal("GVA", found, gva.unwrap_or(found))?;
    let others = |trap: Trap| trap.hstatus & !HSTATUS_GVA;
    t.equal("hstatus", others(redirected), others(direct))
}

fn r25_a_cause_that_is_redirected_leaves_what_a_delegated_one_leaves(t: &mut Test) -> Outcome {
    standalone()?;
    for (cause, vs_flags, g_flags, store) in [
        (13, 0, USER, false),
        (15, 0, USER, true),
        (21, SUPERVISOR, 0, false),
        (23, SUPERVISOR, 0, true),
    ] {
        World::with_page(GVA, vs_flags, g_flags);
        act_as_supervisor(true);
        let access = || {
            if store {
                raw::hsv_d(GVA + 8, 0)
            } else {
                raw::hlv_d(GVA + 8, 0)
            }
        };
        let Err(direct) = access() else {
            fail!("cause {cause}: no fault");
        };
        let (_, Some(taken)) = undelegated(cause, || machine::watched(access)) else {
            fail!("cause {cause}: M-mode did not take it");
        };
        let Err(redirected) = undelegated(cause, access) else {
            fail!("cause {cause}: nobody took it");
        };
        same(t, cause, direct, redirected, Some(taken.gva))?;
    }
    Ok(())
}

fn r25_a_redirected_exit_of_a_guest_leaves_what_a_delegated_one_leaves(t: &mut Test) -> Outcome {
    standalone()?;
    for mode in [Mode::Vs, Mode::Vu, Mode::U] {
        for (cause, code) in [(2, ILLEGAL), (3, EBREAK), (22, READ_HSTATUS), (10, ECALL)] {
            // U-mode has its own cause for a call, and none for what only a guest may not do.
            let cause = match (mode, cause) {
                (Mode::U, 22) => 2,
                (Mode::Vu | Mode::U, 10) => 8,
                (_, cause) => cause,
            };
            let (_world, mut guest) = guest::with_code(GVA, &[code], mode);
            let pc = guest.pc;
            let direct = guest.run(mode);
            guest.pc = pc;
            let redirected = undelegated(cause, || guest.run(mode));
            if mode != Mode::U && t.machine.has(RedirectStaysInGuest) {
                // M-mode's `mret` ends in VS-mode at the address of the host's vector, which the guest does not map.
                let ends = (redirected.info.scause, redirected.sepc);
                t.equal("the end", ends, (12, guest::exit_address()))?;
                t.equal("the cause", direct.info.scause, cause)?;
                t.deviates(RedirectStaysInGuest);
                continue;
            }
            same(t, cause, direct, redirected, None)?;
        }
    }
    Ok(())
}

fn r25_what_the_guest_takes_itself_is_redirected_to_it(t: &mut Test) -> Outcome {
    standalone()?;
    // SAFETY: the guest of this test has a handler; the runner puts it back.
    unsafe { csr::hedeleg::write(1 << 3) };
    for mode in [Mode::Vs, Mode::Vu] {
        // The handler is the second instruction, in a page of the kernel's.
        const HANDLER: u64 = 0x30_0000;
        let (mut world, mut guest) = guest::with_code(GVA, &[EBREAK], mode);
        let handler = world.page_at(HANDLER, USER & !crate::tables::bits::U);
        guest::write_code(handler, &[ECALL]);
        world.load();
        let run = |guest: &mut guest::Guest| {
            guest.pc = GVA;
            // SAFETY: of the guest's own state, which nobody else relies on.
            unsafe {
                csr::vstvec::write(HANDLER);
                csr::vscause::write(0);
                csr::vsepc::write(0);
            }
            let exit = guest.run(mode);
            let own = [
                csr::vsepc::read(),
                csr::vscause::read(),
                csr::vstval::read(),
                csr::vsstatus::read(),
            ];
            (exit.info.scause, exit.sepc, exit.hstatus, own)
        };
        let direct = run(&mut guest);
        t.equal("the handler's call", (direct.0, direct.1), (10, HANDLER))?;
        t.equal("the guest's cause", direct.3[1], 3)?;
        let redirected = undelegated(3, || run(&mut guest));
        t.equal("what the guest finds", redirected, direct)?;
    }
    Ok(())
}
