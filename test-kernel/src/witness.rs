//! What an access must leave as it was: callee-saved registers and CSRs, as an assembly witness sees them.
//!
//! The one idea: a call is made with a pattern in every register that belongs to its caller, and each is looked at when it
//! comes back. Compiled code that saves one of its own accord may hide that a routine below it lost that register; so the
//! routines are called by themselves, too (`registers`).
//! The CSRs are compared with a snapshot, under the promise that the form of fault recovery makes.

use core::arch::global_asm;
use core::mem::MaybeUninit;

use guest_mem::csr::{HSTATUS_GVA, HSTATUS_SPV, STATUS_SPIE, STATUS_SPP};

use crate::csr;

global_asm!(
    r#"
    .section .text
    .balign 4
    .globl __witness_call
__witness_call:
    # extern "C" fn(arguments: *mut [u64; 5], function) -> u64
    # Calls function(a0..a4) with the arguments; puts a0 and a1 in place of the first two. Answers a bit for each register
    # that came back changed: s0 to s11, gp, tp, sp.
    addi    sp, sp, -128
    sd      ra, 0(sp)
    sd      a0, 8(sp)
    sd      gp, 16(sp)
    sd      tp, 24(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd      s\n, 32+8*\n(sp)
    .endr
    lla     t0, __witness_stack
    sd      sp, 0(t0)
    mv      t1, a1
    li      t0, {pattern}
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    addi    s\n, t0, \n
    .endr
    addi    gp, t0, 12
    addi    tp, t0, 13
    ld      a4, 32(a0)
    ld      a3, 24(a0)
    ld      a2, 16(a0)
    ld      a1, 8(a0)
    ld      a0, 0(a0)
    jalr    t1
    li      t0, {pattern}
    li      a2, 0
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    addi    t1, t0, \n
    xor     t1, t1, s\n
    snez    t1, t1
    slli    t1, t1, \n
    or      a2, a2, t1
    .endr
    addi    t1, t0, 12
    xor     t1, t1, gp
    snez    t1, t1
    slli    t1, t1, 12
    or      a2, a2, t1
    addi    t1, t0, 13
    xor     t1, t1, tp
    snez    t1, t1
    slli    t1, t1, 13
    or      a2, a2, t1
    lla     t0, __witness_stack
    ld      t0, 0(t0)
    xor     t1, t0, sp
    snez    t1, t1
    slli    t1, t1, 14
    or      a2, a2, t1
    mv      sp, t0
    ld      t0, 8(sp)
    sd      a0, 0(t0)
    sd      a1, 8(t0)
    mv      a0, a2
    ld      ra, 0(sp)
    ld      gp, 16(sp)
    ld      tp, 24(sp)
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld      s\n, 32+8*\n(sp)
    .endr
    addi    sp, sp, 128
    ret

    .section .bss.witness, "aw", @nobits
    .balign 8
__witness_stack:
    .space  8
    .section .text
    "#,
    pattern = const 0x5ca1_ab1e_0dd5_e700_u64,
);

unsafe extern "C" {
    fn __witness_call(arguments: *mut [u64; 5], function: usize) -> u64;
}

/// What a witnessed call answered.
#[derive(Clone, Copy)]
pub struct Witnessed<R> {
    /// What it returned.
    pub result: R,
    /// A bit for each register that came back changed: s0 to s11, gp, tp, sp. 0 is as it has to be.
    pub registers: u64,
}

/// Calls a routine with up to five arguments. Answers a0 and a1. One call at a time: not from a handler.
///
/// # Safety
///
/// `function` is the address of code that follows the C calling convention but perhaps for the registers of its caller, and
/// the arguments are what it wants.
pub unsafe fn call(function: usize, mut arguments: [u64; 5]) -> Witnessed<[u64; 2]> {
    // SAFETY: the caller's; the witness saves for itself all that the function may change.
    let registers = unsafe { __witness_call(&raw mut arguments, function) };
    Witnessed {
        result: [arguments[0], arguments[1]],
        registers,
    }
}

struct Body<F, R> {
    function: Option<F>,
    result: MaybeUninit<R>,
}

unsafe extern "C" fn run_body<F: FnOnce() -> R, R>(data: *mut u8) {
    // SAFETY: `around` passes its own `Body` of these very types, which nothing else uses meanwhile.
    let body = unsafe { &mut *data.cast::<Body<F, R>>() };
    if let Some(function) = body.function.take() {
        body.result.write(function());
    }
}

/// Runs `function` and watches the registers of its caller.
pub fn around<F: FnOnce() -> R, R: Copy>(function: F) -> Witnessed<R> {
    let mut body = Body {
        function: Some(function),
        result: MaybeUninit::uninit(),
    };
    let data = (&raw mut body) as u64;
    // SAFETY: `run_body` takes the body, which lives until the call returns.
    let witnessed = unsafe { call(run_body::<F, R> as *const () as usize, [data, 0, 0, 0, 0]) };
    Witnessed {
        // SAFETY: the body ran to its end and wrote the result.
        result: unsafe { body.result.assume_init() },
        registers: witnessed.registers,
    }
}

/// What a form of fault recovery promises of the CSRs after a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Everything is as it was before the access: the scoped form.
    Everything,
    /// As [`Everything`](Self::Everything) but for `htinst`, on a machine that drops its writes.
    ButHtinst,
    /// Everything but the record of the guest's exit, which the host saved (R20): the handler hook.
    ButExitRecord,
}

macro_rules! watched {
    ($($name:ident $everything:expr, $but_htinst:expr, $but_record:expr;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Every CSR of HS-mode that an access, or a fault of one, could change.
        #[derive(Clone, Copy)]
        pub struct Csrs([u64; NAMES.len()]);

        impl Csrs {
            /// Reads them.
            pub fn read() -> Self {
                Self([$(csr::$name::read()),*])
            }

            /// The bits of each that count under a promise.
            const fn bits(promise: Promise) -> [u64; NAMES.len()] {
                match promise {
                    Promise::Everything => [$($everything),*],
                    Promise::ButHtinst => [$($but_htinst),*],
                    Promise::ButExitRecord => [$($but_record),*],
                }
            }
        }
    };
}

const ALL: u64 = u64::MAX;
/// The guest's software, timer and external interrupts: QEMU shows the host's own beside them while they pend.
const VS_INTERRUPTS: u64 = 1 << 2 | 1 << 6 | 1 << 10;

watched! {
    sstatus ALL, ALL, !(STATUS_SPP | STATUS_SPIE);
    hstatus ALL, ALL, !(HSTATUS_SPV | HSTATUS_GVA);
    sepc ALL, ALL, 0;
    scause ALL, ALL, 0;
    stval ALL, ALL, 0;
    htval ALL, ALL, 0;
    htinst ALL, 0, 0;
    stvec ALL, ALL, ALL;
    sscratch ALL, ALL, ALL;
    sie ALL, ALL, ALL;
    satp ALL, ALL, ALL;
    scounteren ALL, ALL, ALL;
    senvcfg ALL, ALL, ALL;
    hgatp ALL, ALL, ALL;
    hedeleg ALL, ALL, ALL;
    hideleg ALL, ALL, ALL;
    hie ALL, ALL, ALL;
    hvip VS_INTERRUPTS, VS_INTERRUPTS, VS_INTERRUPTS;
    hcounteren ALL, ALL, ALL;
    henvcfg ALL, ALL, ALL;
    vsatp ALL, ALL, ALL;
    vsstatus ALL, ALL, ALL;
    vsie ALL, ALL, ALL;
    vstvec ALL, ALL, ALL;
    vsscratch ALL, ALL, ALL;
    vsepc ALL, ALL, ALL;
    vscause ALL, ALL, ALL;
    vstval ALL, ALL, ALL;
}

impl Csrs {
    /// The first CSR that differs in what counts: its name, what it was, what it is.
    pub fn first_change(&self, now: &Self, promise: Promise) -> Option<(&'static str, u64, u64)> {
        let pairs = self.0.iter().zip(&now.0);
        pairs
            .zip(Self::bits(promise))
            .position(|((old, new), bits)| (old ^ new) & bits != 0)
            .map(|index| (NAMES[index], self.0[index], now.0[index]))
    }
}

/// Puts a value of its own into each CSR that nobody looks at while no guest runs, so that none is right by accident.
pub fn fill_bystanders() {
    // SAFETY: no guest runs, and the host has no use for sscratch.
    unsafe {
        csr::sscratch::write(0x1357_9bdf_0246_8ace);
        csr::vsscratch::write(0x2468_ace0_1357_9bdf);
        csr::vsepc::write(0x1111_2222_3330);
        csr::vscause::write(13);
        csr::vstval::write(0x4444_5555_6666);
        csr::vstvec::write(0x7777_8888_9990);
    }
}

/// Writes the record of a guest's exit that never was: each field as different as it can be from what a fault writes.
pub fn fill_exit_record() {
    // SAFETY: nothing returns by this record before it is written anew.
    unsafe {
        csr::sepc::write(0x1111_2222);
        csr::scause::write(10);
        csr::stval::write(0x3333_4444);
        csr::htval::write(0x5555_6666);
        csr::htinst::write(0x3000);
        csr::sstatus::clear(STATUS_SPP | STATUS_SPIE);
        csr::hstatus::set(HSTATUS_SPV);
        csr::hstatus::clear(HSTATUS_GVA);
    }
}
