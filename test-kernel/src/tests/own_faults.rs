//! Faults of the host's own at an instruction that is a guest access: its fetch, too, can meet a hardware error, and `stval` is
//! then no guest-virtual address (R92).
//!
//! The one idea: no machine here raises what is asked for, so each guest access of the library is replaced by a jump to code that
//! leaves what the trap would leave, and goes on where `stvec` points to.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use guest_mem::csr::HSTATUS_GVA;
use guest_mem::hart::Hart;
use guest_mem::hart::riscv64;
use guest_mem::{AccessError, FaultKind, GuestMemory, GuestPrivilege, Gva};

use crate::guest::fence_i;
use crate::harness::{Outcome, Test, cases, check, fail};
use crate::library::{in_both_forms, loaded};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::trap::{self, Trap};

cases![r92_a_hardware_error_is_the_guests_only_with_gva];

const GVA: u64 = 0x20_1000;
const STORE_ACCESS: u64 = 7;
const HARDWARE_ERROR: u64 = 19;

// Raises the trap that the three words below say, as if the instruction before the return address in t1 had. No single access has
// anything in t1 and t2, and a copy takes them for lost after a fault.
global_asm!(
    "    .pushsection .text.own_fault, \"ax\", @progbits",
    "    .balign 4",
    "    .globl  __own_fault",
    "__own_fault:",
    "    addi    t1, t1, -4",
    "    csrw    sepc, t1",
    "    lla     t1, __own_fault_words",
    "    ld      t2, 0(t1)",
    "    csrw    scause, t2",
    "    ld      t2, 8(t1)",
    "    csrw    stval, t2",
    // GVA and SPV.
    "    li      t2, 0xc0",
    "    csrc    0x600, t2",
    "    ld      t2, 16(t1)",
    "    csrs    0x600, t2",
    // From HS-mode with interrupts off.
    "    li      t2, 0x20",
    "    csrc    sstatus, t2",
    "    li      t2, 0x100",
    "    csrs    sstatus, t2",
    "    csrr    t1, stvec",
    "    andi    t1, t1, -4",
    "    jr      t1",
    "    .popsection",
    "    .pushsection .data.own_fault, \"aw\", @progbits",
    "    .balign 8",
    "    .globl  __own_fault_words",
    "__own_fault_words:",
    "    .dword  0, 0, 0",
    "    .popsection",
);

unsafe extern "C" {
    #[link_name = unit_symbol!(__guest_mem_access_start)]
    static __guest_mem_access_start: u8;
    static __own_fault: u8;
    static mut __own_fault_words: [u64; 3];
}

/// `jal t1, distance`
fn jump(distance: i64) -> u32 {
    let bits = distance as u32;
    let at = |from: u32, count: u32| bits >> from & ((1 << count) - 1);
    at(20, 1) << 31 | at(1, 10) << 21 | at(11, 1) << 20 | at(12, 8) << 12 | 6 << 7 | 0x6f
}

/// Runs `body` with every guest access of the library raising `cause`.
fn raising<R>(cause: u64, gva: bool, body: impl FnOnce() -> R) -> R {
    // SAFETY: one hart uses the words, and the assembly reads them when an access is made.
    unsafe {
        (&raw mut __own_fault_words).write([cause, GVA, if gva { HSTATUS_GVA } else { 0 }]);
    }
    let start = &raw const __guest_mem_access_start as u64;
    let stub = &raw const __own_fault as u64;
    let mut saved = [0u32; 1024];
    let sites = || {
        riscv64::exception_table()
            .iter()
            .map(|entry| (start + u64::from(entry.instruction)) as *mut u32)
    };
    for (site, saved) in sites().zip(&mut saved) {
        let jump = jump((stub as i64).wrapping_sub(site as i64));
        // SAFETY: the kernel maps its code writable; each entry is a 4-byte instruction that nobody executes meanwhile.
        unsafe {
            *saved = site.read_volatile();
            site.write_volatile(jump);
        }
    }
    fence_i();
    let result = body();
    for (site, saved) in sites().zip(saved) {
        // SAFETY: what was there.
        unsafe { site.write_volatile(saved) };
    }
    fence_i();
    result
}

fn r92_a_hardware_error_is_the_guests_only_with_gva(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        type Tried = Result<Result<(), AccessError>, Trap>;
        World::with_page(GVA, SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
        let at = Gva::new(GVA);
        let order = Ordering::Relaxed;
        let loads = || -> [Tried; 3] {
            [
                trap::catch(|| guest.read(at, &mut [0; 64])),
                trap::catch(|| guest.load::<u64>(at, order).map(drop)),
                trap::catch(|| {
                    vcpu.fetch_instruction(at, GuestPrivilege::Supervisor)
                        .map(drop)
                }),
            ]
        };
        let stores = || -> [Tried; 2] {
            [
                trap::catch(|| guest.write(at, &[0; 64])),
                trap::catch(|| guest.store(at, 1u64, order)),
            ]
        };
        // Of a guest's memory: the guest's.
        for (cause, tried) in [
            (STORE_ACCESS, raising(STORE_ACCESS, true, loads).as_slice()),
            (HARDWARE_ERROR, &raising(HARDWARE_ERROR, true, loads)),
            (HARDWARE_ERROR, &raising(HARDWARE_ERROR, true, stores)),
        ] {
            for tried in tried {
                let Ok(Err(error)) = tried else {
                    fail!("cause {cause} with GVA is {tried:?}");
                };
                t.equal(
                    "scause",
                    error.fault.trap.map(|trap| trap.scause),
                    Some(cause),
                )?;
                t.equal("kind", error.fault.kind, FaultKind::Access)?;
                t.equal("bytes done", error.completed, 0)?;
            }
        }
        // Of the host's own fetch: the host's. The windows are left open; the runner puts the CSRs back.
        for (cause, tried) in [
            (STORE_ACCESS, raising(STORE_ACCESS, false, loads).as_slice()),
            (HARDWARE_ERROR, &raising(HARDWARE_ERROR, false, loads)),
            (HARDWARE_ERROR, &raising(HARDWARE_ERROR, false, stores)),
        ] {
            for tried in tried {
                let Err(trap) = tried else {
                    fail!("cause {cause} without GVA is taken for the guest's: {tried:?}");
                };
                t.equal("scause", trap.info.scause, cause)?;
                t.equal("stval", trap.info.stval, GVA)?;
                check!(trap.hstatus & HSTATUS_GVA == 0, "GVA is set");
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}
