//! The two forms of fault recovery against the traps around them: what a scoped `stvec` leaves as it was, and traps that are
//! not the library's (R20, R21, R27).

use guest_mem::csr::{HSTATUS_GVA, HSTATUS_SPV, STATUS_SPIE, STATUS_SPP};
use guest_mem::hart::Hart;
use guest_mem::hart::riscv64::{self, HandlerHook, ScopedStvec};
use guest_mem::{FaultKind, GuestMemory, GuestPrivilege, Gva};

use crate::deviation::Deviation::HtinstNotWritable;
use crate::guest::{self, ECALL, Mode};
use crate::harness::{Outcome, Test, act_as_supervisor, cases, check, fail};
use crate::library::{in_both_forms, loaded, probed};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::trap::{self, Trap};
use crate::{arena, boot, csr, raw};

cases![
    r20_a_scoped_fault_leaves_the_exit_record_as_it_was,
    r20_i1_a_guest_goes_on_after_a_faulting_access_of_either_form,
    r21_i6_i7_a_cause_that_the_instruction_cannot_raise_is_the_hosts,
    r27_a_fault_on_the_hosts_buffer_is_forwarded_as_the_hardware_raised_it,
    r27_a_copy_goes_on_after_the_host_resolved_its_own_fault,
    r27_stvec_is_put_back_also_in_vectored_mode,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;

/// The eight fields of the exit record: sepc, scause, stval, htval, htinst, SPP with SPIE, SPV, GVA.
fn exit_record() -> [u64; 8] {
    [
        csr::sepc::read(),
        csr::scause::read(),
        csr::stval::read(),
        csr::htval::read(),
        csr::htinst::read(),
        csr::sstatus::read() & (STATUS_SPP | STATUS_SPIE),
        csr::hstatus::read() & HSTATUS_SPV,
        csr::hstatus::read() & HSTATUS_GVA,
    ]
}

fn write_exit_record(set: bool) {
    // SAFETY: the record of a trap; nothing returns by it before it is written anew.
    unsafe {
        csr::sepc::write(0x1111_2222);
        csr::scause::write(21);
        csr::stval::write(0x3333_4444);
        csr::htval::write(0x5555_6666);
        csr::htinst::write(0x3000);
        if set {
            csr::sstatus::set(STATUS_SPP | STATUS_SPIE);
            csr::hstatus::set(HSTATUS_SPV | HSTATUS_GVA);
        } else {
            csr::sstatus::clear(STATUS_SPP | STATUS_SPIE);
            csr::hstatus::clear(HSTATUS_SPV | HSTATUS_GVA);
        }
    }
}

fn r20_a_scoped_fault_leaves_the_exit_record_as_it_was(t: &mut Test) -> Outcome {
    let (hart, _) = probed::<ScopedStvec>()?;
    World::with_page(GVA, 0, USER);
    let vcpu = loaded(&hart);
    for (set, privilege) in [
        (false, GuestPrivilege::User),
        (false, GuestPrivilege::Supervisor),
        (true, GuestPrivilege::User),
        (true, GuestPrivilege::Supervisor),
    ] {
        // So that htinst holds another value than the faults below leave, also where it cannot be written.
        check!(raw::hsv_d(GVA, 0).is_err(), "no fault");
        write_exit_record(set);
        let before = exit_record();
        let guest = vcpu.guest_virtual(privilege);
        let kinds = [
            guest
                .read(Gva::new(GVA), &mut [0; 64])
                .map_err(|error| error.fault.kind),
            guest
                .write(Gva::new(GVA), &[0; 64])
                .map_err(|error| error.fault.kind),
            guest
                .fill(Gva::new(GVA), 0, 64)
                .map_err(|error| error.fault.kind),
            vcpu.fetch_instruction(Gva::new(GVA), privilege)
                .map(drop)
                .map_err(|error| error.fault.kind),
        ];
        let after = exit_record();
        t.equal("the faults", kinds, [Err(FaultKind::Page); 4])?;
        t.holds_or(
            "htinst is not put back",
            after[4] == before[4],
            HtinstNotWritable,
        )?;
        let but_htinst = |mut record: [u64; 8]| {
            record[4] = 0;
            record
        };
        t.equal("the exit record", but_htinst(after), but_htinst(before))?;
        t.equal("stvec", csr::stvec::read(), trap::entry())?;
    }
    drop(vcpu);
    // The handler hook has no such promise: the record is the fault's.
    let (hook, _) = probed::<HandlerHook>()?;
    World::with_page(GVA, 0, USER);
    write_exit_record(true);
    let before = exit_record();
    let result = loaded(&hook)
        .guest_virtual(GuestPrivilege::Supervisor)
        .read(Gva::new(GVA), &mut [0; 8]);
    check!(result.is_err(), "no fault");
    check!(
        exit_record() != before,
        "the hook's fault left the exit record alone"
    );
    Ok(())
}

fn r20_i1_a_guest_goes_on_after_a_faulting_access_of_either_form(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        /// `addi a0, a0, 1`
        const INCREMENT: u32 = 0x0015_0513;
        let code = [ECALL, INCREMENT, ECALL];
        let (_world, mut guest) = guest::with_code(GVA, &code, Mode::Vs);
        guest.x[10] = 1;
        let exit = guest.run(Mode::Vs);
        t.equal("the first exit", (exit.info.scause, exit.sepc), (10, GVA))?;
        let error = loaded(hart)
            .guest_virtual(GuestPrivilege::Supervisor)
            .write(Gva::new(GVA + PAGE), &[0; 8]);
        check!(error.is_err(), "no fault");
        guest.pc += 4;
        let exit = guest.run(Mode::Vs);
        t.equal(
            "the second exit",
            (exit.info.scause, exit.sepc),
            (10, GVA + 8),
        )?;
        check!(
            exit.hstatus & HSTATUS_SPV != 0 && exit.sstatus & STATUS_SPP != 0,
            "not from VS-mode"
        );
        t.equal("a0", guest.x[10], 2)
    }
    in_both_forms!(t, body)
}

unsafe extern "C" {
    #[link_name = unit_symbol!(__guest_mem_access_start)]
    static __guest_mem_access_start: u8;
}

/// `ebreak` of 4 bytes.
const EBREAK: u32 = 0x0010_0073;

/// Runs `body` with every guest access of the library replaced by a breakpoint.
fn with_breakpoints<R>(body: impl FnOnce() -> R) -> R {
    let start = &raw const __guest_mem_access_start as u64;
    let mut saved = [0u32; 1024];
    let sites = || {
        riscv64::exception_table()
            .iter()
            .map(|entry| (start + u64::from(entry.instruction)) as *mut u32)
    };
    for (site, saved) in sites().zip(&mut saved) {
        // SAFETY: the kernel maps its code writable; each entry is a 4-byte instruction that nobody executes meanwhile.
        unsafe {
            *saved = site.read_volatile();
            site.write_volatile(EBREAK);
        }
    }
    guest::fence_i();
    let result = body();
    for (site, saved) in sites().zip(saved) {
        // SAFETY: what was there.
        unsafe { site.write_volatile(saved) };
    }
    guest::fence_i();
    result
}

fn r21_i6_i7_a_cause_that_the_instruction_cannot_raise_is_the_hosts(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        World::with_page(GVA, SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
        let mut buffer = [0; 64];
        let trapped = with_breakpoints(|| {
            [
                trap::catch(|| guest.read(Gva::new(GVA), &mut buffer)),
                trap::catch(|| guest.write(Gva::new(GVA), &[0; 64])),
                trap::catch(|| {
                    vcpu.fetch_instruction(Gva::new(GVA), GuestPrivilege::Supervisor)
                        .map(drop)
                }),
            ]
        });
        let start = &raw const __guest_mem_access_start as u64;
        for result in trapped {
            let Err(trap) = result else {
                fail!("the library took a breakpoint for a fault: {result:?}");
            };
            t.equal("cause", trap.info.scause, 3)?;
            let offset = trap.sepc - start;
            let known = riscv64::exception_table()
                .iter()
                .any(|entry| u64::from(entry.instruction) == offset);
            check!(known, "sepc {:#x} is not in the table", trap.sepc);
            t.equal(
                "stvec in the host's handler",
                csr::stvec::read(),
                trap::entry(),
            )?;
        }
        // The windows were left open: their token is of no use any more. The runner puts the CSRs back.
        Ok(())
    }
    in_both_forms!(t, body)
}

/// A copy whose buffer the host does not map, and what the host's handler saw of it.
fn host_fault<H: Hart>(hart: &H, write: bool) -> (Result<(), Trap>, [u64; 32]) {
    World::with_page(GVA, SUPERVISOR, USER);
    act_as_supervisor(true);
    let result = trap::catch(|| {
        // SAFETY: nothing is at the buffer's address, so that the host's access to it only traps, which is what the test is
        // about; the trap ends the copy. Interrupts are off, SPVP is set, and the G-stage is on.
        let result = unsafe {
            if write {
                hart.copy_to_guest(GVA, boot::UNMAPPED as *const u8, 256)
            } else {
                hart.copy_from_guest(GVA, boot::UNMAPPED as *mut u8, 256)
            }
        };
        // Not reached.
        assert!(result.is_ok());
    });
    (result, trap::caught_registers())
}

fn r27_a_fault_on_the_hosts_buffer_is_forwarded_as_the_hardware_raised_it(t: &mut Test) -> Outcome {
    for (write, cause) in [(false, 15), (true, 13)] {
        let (hook, _) = probed::<HandlerHook>()?;
        let (by_hook, hook_registers) = host_fault(&hook, write);
        boot::reset_csrs(csr::satp::read());
        let (scoped, _) = probed::<ScopedStvec>()?;
        let (by_stub, stub_registers) = host_fault(&scoped, write);
        t.equal(
            "stvec in the host's handler",
            csr::stvec::read(),
            trap::entry(),
        )?;
        let (Err(by_hook), Err(by_stub)) = (by_hook, by_stub) else {
            fail!("no trap reached the host: {by_hook:?}, {by_stub:?}");
        };
        t.equal("cause", by_stub.info.scause, cause)?;
        t.equal("stval", by_stub.info.stval, boot::UNMAPPED)?;
        t.equal(
            "GVA and SPV",
            by_stub.hstatus & (HSTATUS_GVA | HSTATUS_SPV),
            0,
        )?;
        t.equal("the trap CSRs", by_stub.info, by_hook.info)?;
        t.equal("sstatus", by_stub.sstatus, by_hook.sstatus)?;
        t.equal("hstatus", by_stub.hstatus, by_hook.hstatus)?;
        // a0 to a7 and t0 to t3 hold addresses and data of the copy, the same in both forms; a3 points to the TrapInfo, and
        // a4 is the routine until data replaces it.
        let registers = if write {
            &[10, 11, 12][..]
        } else {
            &[10, 11, 12, 14, 15, 16, 17, 5, 6, 7, 28][..]
        };
        for &x in registers {
            t.equal(format_args!("x{x}"), stub_registers[x], hook_registers[x])?;
        }
    }
    Ok(())
}

fn r27_a_copy_goes_on_after_the_host_resolved_its_own_fault(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        // The guest's second page faults, after the host's buffer did.
        let (_world, page) = World::with_page(GVA, SUPERVISOR, USER);
        act_as_supervisor(true);
        for write in [false, true] {
            let buffer = arena::page();
            let (from, to) = if write {
                (buffer, page.spa)
            } else {
                (page.spa, buffer)
            };
            let before = 3000;
            let guest_at = PAGE - before;
            let (from, to) = if write {
                (from, to + guest_at)
            } else {
                (from + guest_at, to)
            };
            for at in 0..before {
                arena::write_bytes(from + at, [at as u8 ^ 0x5a]);
            }
            boot::arm_demand_page(buffer);
            // SAFETY: the buffer's page is there as soon as it is touched, by the host's own handler; a fault of the guest
            // ends the copy before the buffer's end. Interrupts are off, SPVP is set, and the G-stage is on.
            let result = unsafe {
                if write {
                    hart.copy_to_guest(GVA + guest_at, boot::DEMAND_PAGE as *const u8, 3100)
                } else {
                    hart.copy_from_guest(GVA + guest_at, boot::DEMAND_PAGE as *mut u8, 3100)
                }
            };
            boot::arm_demand_page(0);
            let completed = result.map_err(|interrupted| interrupted.completed as u64);
            t.equal(
                format_args!("write={write}: completed"),
                completed,
                Err(before),
            )?;
            for at in 0..before {
                let found = arena::read_byte(to + at);
                check!(
                    found == at as u8 ^ 0x5a,
                    "write={write}: byte {at} is {found:#x}"
                );
            }
            t.equal("stvec", csr::stvec::read(), trap::entry())?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r27_stvec_is_put_back_also_in_vectored_mode(t: &mut Test) -> Outcome {
    let (hart, _) = probed::<ScopedStvec>()?;
    let (mut world, page) = World::with_page(GVA, SUPERVISOR, USER);
    let vcpu = loaded(&hart);
    let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
    let vectored = trap::entry() | 1;
    // SAFETY: exceptions go to the same entry; interrupts are off.
    unsafe { csr::stvec::write(vectored) };
    if csr::stvec::read() != vectored {
        crate::harness::skip!("stvec has no vectored mode");
    }
    t.equal("a read", guest.read(Gva::new(GVA), &mut [0; 100]), Ok(()))?;
    t.equal("stvec after it", csr::stvec::read(), vectored)?;
    world.map_g(page.gpa, page.spa, 0, 0);
    world.fence();
    let fault = guest.read(Gva::new(GVA), &mut [0; 100]);
    check!(fault.is_err(), "no fault");
    t.equal("stvec after a fault", csr::stvec::read(), vectored)?;
    // A trap that is not the library's reaches the base.
    let mut buffer = [0; 8];
    let breakpoint = with_breakpoints(|| trap::catch(|| guest.read(Gva::new(GVA), &mut buffer)));
    let cause = breakpoint.map(drop).map_err(|trap| trap.info.scause);
    t.equal("a breakpoint", cause, Err(3))?;
    t.equal("stvec after it", csr::stvec::read(), vectored)
}
