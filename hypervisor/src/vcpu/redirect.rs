//! Whether an illegal instruction of a guest can reach the host on this machine.
//!
//! The one idea: try it. No firmware delegates cause 2 to HS-mode; it takes the trap and redirects it (R25), with `mret` and
//! `mstatus.MPV` cleared. On QEMU 10.0.13 and 11.1 MPV is not writable, and the redirect lands in the *guest*, at the address of
//! the host's trap vector, with the guest's own pc lost. There the guest has to take such exceptions itself: `hedeleg` tells
//! the firmware so, and what it does then needs no MPV.

use core::arch::asm;

use guest_mem::{Spa, cause};

use super::context::Context;
use crate::csr;
use crate::memory::frames::FRAME;
use crate::memory::host::{self, HostTables};
use crate::memory::page_table::{Flags, MODE_SV39, MapError, PageSize, PageTable, Stage};

/// Where the one instruction of the trial is: the first of a page of zeroes, which no implementation has an instruction for.
const TRIAL: u64 = 0x1000;

/// Runs a guest whose first instruction is illegal, and says whether its trap arrives in the host as it should.
///
/// # Errors
///
/// No memory for its tables.
pub fn reaches_host() -> Result<bool, MapError> {
    let table = PageTable::new(&mut HostTables, Stage::Guest)?;
    let page = host::allocate_zeroed(1, FRAME).ok_or(MapError::OutOfMemory)?;
    table.map(
        &mut HostTables,
        TRIAL,
        page,
        PageSize::Small,
        Flags::READ | Flags::EXECUTE,
    )?;
    let mut context = Context {
        pc: TRIAL,
        sstatus: csr::read!("sstatus") | csr::SSTATUS_SPP,
        hstatus: csr::HSTATUS_SPV | csr::HSTATUS_VSXL_64,
        ..Context::default()
    };
    load(table.root());
    // SAFETY: the G-stage that was just loaded shows one page, which nobody else uses.
    unsafe { context.enter() };
    // SAFETY: no guest is loaded from here on.
    unsafe { csr::write!("hgatp", 0) };
    fence();
    Ok(context.trap.scause == cause::ILLEGAL_INSTRUCTION && context.pc == TRIAL)
}

/// Loads the trial's G-stage, with everything a guest may take itself left to the host.
fn load(root: Spa) {
    // SAFETY: the registers govern V=1 only, and no guest is loaded. R32: vsatp is Bare before hgatp changes.
    unsafe {
        csr::write!("hedeleg", 0);
        csr::write!("vsatp", 0);
        csr::write!("hgatp", MODE_SV39 << 60 | root.page_number());
    }
    fence();
}

fn fence() {
    // SAFETY: a fence only forgets translations (R41).
    unsafe {
        asm!(
            ".option push",
            ".option arch, +h",
            "hfence.gvma",
            "hfence.vvma",
            ".option pop",
            options(nostack)
        );
    }
}
