//! Single accesses through the loaded vCPU, fetches, faults, and a software walk.

use core::sync::atomic::Ordering;

use guest_mem::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SIE};
use guest_mem::hart::riscv64::{Recovery, Riscv64};
use guest_mem::translate::{
    Access, AdPolicy, GRegime, GTables, StageRules, VsCsrs, VsRegime, translate,
};
use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
use test_kernel::library::{ArenaMemory, loaded};
use test_kernel::{arena, csr};

use crate::copies::{bytes, done, harts};
use crate::measure::{Bench, Name};
use crate::memory::Guest;

type Vcpu<'h, R> = LoadedVcpu<'h, Riscv64<R>>;

const SUPERVISOR: GuestPrivilege = GuestPrivilege::Supervisor;

fn gva_load<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, _: *mut u8, _: usize) -> u64 {
    done(
        vcpu.guest_virtual(SUPERVISOR)
            .load::<u64>(Gva::new(at), Ordering::Relaxed),
    )
}

fn gpa_load<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, _: *mut u8, _: usize) -> u64 {
    done(
        vcpu.guest_physical()
            .load::<u64>(Gpa::new(at), Ordering::Relaxed),
    )
}

fn fetch<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, _: *mut u8, _: usize) -> u64 {
    done(vcpu.fetch_instruction(Gva::new(at), SUPERVISOR))
        .bits()
        .into()
}

/// A read that has to fault.
fn fault<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    let space = vcpu.guest_virtual(SUPERVISOR);
    match space.read(Gva::new(at), bytes(buffer, len)) {
        Err(error) => error.completed as u64,
        Ok(()) => panic!("no fault at {at:#x}"),
    }
}

/// A single load that has to fault.
fn fault_of_load<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, _: *mut u8, _: usize) -> u64 {
    let space = vcpu.guest_virtual(SUPERVISOR);
    match space.load::<u64>(Gva::new(at), Ordering::Relaxed) {
        Err(error) => error.completed as u64,
        Ok(_) => panic!("no fault at {at:#x}"),
    }
}

/// Both stages of the guest as the walk sees them.
struct Tables {
    vs: VsRegime,
    g: GTables<ArenaMemory>,
}

impl Tables {
    fn of_loaded() -> Self {
        let rules = StageRules {
            ad: AdPolicy::Fault,
            pbmt: false,
            svnapot: false,
            svrsw60t59b: false,
        };
        let csrs = VsCsrs {
            vsatp: csr::vsatp::read(),
            vsstatus: csr::vsstatus::read(),
            sstatus: csr::sstatus::read() & STATUS_MXR,
            hstatus: csr::hstatus::read(),
            henvcfg: 0,
            senvcfg: 0,
        };
        let vs = VsRegime::from_csrs(&csrs, rules).unwrap_or_else(|kind| panic!("{kind}"));
        let g = GRegime::from_csrs(csr::hgatp::read(), csrs.sstatus, rules)
            .unwrap_or_else(|kind| panic!("{kind}"));
        Self {
            vs,
            g: GTables::new(g, ArenaMemory { ignored: 0 }),
        }
    }
}

fn walk(tables: &Tables, at: u64, _: *mut u8, _: usize) -> u64 {
    let access = Access::load(Gva::new(at), SUPERVISOR);
    match translate(&tables.vs, &tables.g, access) {
        Ok(found) => found.page.spa.value(),
        Err(fault) => panic!("{fault}"),
    }
}

fn of_form<R: Recovery>(
    bench: &Bench,
    guest: &Guest,
    vcpu: &Vcpu<'_, R>,
    [gva, gpa]: [&'static str; 2],
) {
    let buffer = guest.buffer;
    let row = |name, operation, at, len| bench.row(name, operation, vcpu, at, buffer, len);
    row(Name::plain("load", gva, 8), gva_load, guest.gva, 0);
    row(Name::plain("load", gpa, 8), gpa_load, guest.gpa, 0);
    // As in a handler that runs with interrupts on, after an exit from the guest's user.
    // SAFETY: no interrupt is enabled; SPVP is read by guest accesses only.
    unsafe {
        csr::sstatus::set(STATUS_SIE);
        csr::hstatus::clear(HSTATUS_SPVP);
    }
    row(
        Name::plain("load-borrowing", gva, 8),
        gva_load,
        guest.gva,
        0,
    );
    // SAFETY: as above.
    unsafe {
        csr::sstatus::clear(STATUS_SIE);
        csr::hstatus::set(HSTATUS_SPVP);
    }
    row(Name::plain("fetch", gva, 2), fetch, guest.gva, 0);
    row(Name::plain("fetch", gva, 4), fetch, guest.gva + 4, 0);
    let crossing = Name {
        shape: "crossing",
        ..Name::plain("fetch", gva, 4)
    };
    row(crossing, fetch, guest.gva + 4094, 0);
    row(
        Name::plain("fault-of-load", gva, 8),
        fault_of_load,
        guest.lost,
        8,
    );
    row(
        Name::plain("fault-at-first", gva, 64),
        fault,
        guest.lost,
        64,
    );
    row(
        Name::plain("fault-in-middle", gva, 64),
        fault,
        guest.lost - 32,
        64,
    );
}

/// Measures them.
pub fn run(bench: &Bench, guest: &Guest) {
    /// `c.nop`, and `nop` twice: in the middle of a page and across its end.
    const CODE: [(u64, u16); 5] = [(0, 1), (4, 0x13), (6, 0), (4094, 0x13), (4096, 0)];
    for (at, parcel) in CODE {
        arena::write_bytes(guest.spa + at, parcel.to_le_bytes());
    }
    let (hook, scoped) = harts();
    of_form(bench, guest, &loaded(&hook), ["gva-hook", "gpa-hlv-hook"]);
    of_form(
        bench,
        guest,
        &loaded(&scoped),
        ["gva-scoped", "gpa-hlv-scoped"],
    );
    let name = Name::plain("translate", "walk", 8);
    bench.row(name, walk, &Tables::of_loaded(), guest.gva, guest.buffer, 0);
}
