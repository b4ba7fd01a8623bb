//! What a hart finds in its registers when it starts: what firmware hands over (R71), and nothing of its earlier life or of the
//! hypervisor.
//!
//! The one idea: the second hart lives twice. In its first life it writes to every register that it can and stops itself; in
//! its second it stores what it finds, before anything else, and stops again.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_kit::vectors::has_vectors;
use guest_kit::{sbi, wait_until};
use sbi_spec::hsm::hart_state;

use crate::report::Report;

/// Words of what a life sees: x1 to x31 by number, f0 to f31, then the CSRs.
const WORDS: usize = 64 + CSRS.len();

/// `sstatus.VS`: Dirty, where there are vectors.
const VECTORS_ON: u64 = 3 << 9;

/// The CSRs after the registers, with the values of R71. SIE and the previous mode in `sstatus` are off; UXL says 64, floating
/// point is Dirty, and so SD is set.
const CSRS: [(&str, u64); 13] = [
    ("sstatus", 1 << 63 | 2 << 32 | 3 << 13),
    ("fcsr", 0),
    ("sie", 0),
    ("stvec", 0),
    ("sscratch", 0),
    ("sepc", 0),
    ("scause", 0),
    ("stval", 0),
    ("sip", 0),
    ("satp", 0),
    ("scounteren", 7),
    ("senvcfg", 0),
    // Only with Sstc: a deadline that never comes.
    ("stimecmp", u64::MAX),
];

/// What the lives are told, and what the second one tells. Its layout is known to the assembly.
#[repr(C)]
struct Life {
    seen: [u64; WORDS],
    has_stimecmp: u64,
}

struct Shared(UnsafeCell<Life>);

// SAFETY: the hart whose turn it is has it to itself: it is started and has stopped before the other one looks.
unsafe impl Sync for Shared {}

static LIFE: Shared = Shared(UnsafeCell::new(Life {
    seen: [0; WORDS],
    has_stimecmp: 0,
}));

unsafe extern "C" {
    fn tour_first_life();
    fn tour_second_life();
}

// Contract of both, entered as hart_start does with a1 = `Life`: no stack, satp Bare; end in hart_stop.
//   tour_first_life:  every writable bit of every register of the lists above is set, as far as that is harmless
//   tour_second_life: what was found is in `Life::seen`
global_asm!(
    ".pushsection .text.tour_reset, \"ax\", @progbits",
    ".option push",
    ".option arch, +d",
    ".balign 4",
    "tour_first_life:",
    "li t0, -1",
    "li t1, {fs}",
    "csrs sstatus, t1",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"fmv.d.x f\n, t0",
    ".endr",
    "csrw fcsr, t0",
    "li t1, {spp_spie_sum_mxr}",
    "csrs sstatus, t1",
    ".irp csr, sie,stvec,sscratch,sepc,scause,stval,scounteren,0x10a",
    r"csrw \csr, t0",
    ".endr",
    "csrsi sip, 2",
    "ld t1, {has_stimecmp}(a1)",
    "beqz t1, 1f",
    "csrw 0x14d, zero",
    "1:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"li x\n, -1",
    ".endr",
    "j 2f",
    "",
    "tour_second_life:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"sd x\n, 8*\n(a1)",
    ".endr",
    "csrr t0, sstatus",
    "sd t0, 512(a1)",
    "li t1, {fs}",
    "csrs sstatus, t1",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    r"fsd f\n, 256+8*\n(a1)",
    ".endr",
    "addi t1, a1, 520",
    ".irp csr, fcsr,sie,stvec,sscratch,sepc,scause,stval,sip,satp,scounteren,0x10a",
    r"csrr t0, \csr",
    "sd t0, 0(t1)",
    "addi t1, t1, 8",
    ".endr",
    "ld t2, {has_stimecmp}(a1)",
    "beqz t2, 2f",
    "csrr t0, 0x14d",
    "sd t0, 0(t1)",
    "2:",
    "fence rw, rw",
    "li a7, {hsm}",
    "li a6, {hart_stop}",
    "ecall",
    "3: j 3b",
    ".option pop",
    ".popsection",
    fs = const 3 << 13,
    spp_spie_sum_mxr = const 1 << 8 | 1 << 5 | 1 << 18 | 1 << 19,
    has_stimecmp = const core::mem::offset_of!(Life, has_stimecmp),
    hsm = const sbi_spec::hsm::EID_HSM,
    hart_stop = const sbi_spec::hsm::HART_STOP,
);

/// Starts the stopped hart for one life, and waits until it has stopped again.
fn live(hart: u64, life: unsafe extern "C" fn(), patience: u64) -> bool {
    let started = sbi::hart_start(hart, life as usize as u64, LIFE.0.get() as u64);
    let stopped = || sbi::hart_status(hart).value == hart_state::STOPPED;
    started.error == 0 && wait_until(patience, stopped)
}

/// The steps, with a `hart` that has stopped.
pub fn visit(report: &mut Report<'_>, hart: u64, patience: u64) {
    if !report.machine.under_hypervisor {
        report.skip("a hart starts with nothing", "the SBI asks for less");
        return;
    }
    let life = LIFE.0.get();
    let has_stimecmp = report.machine.has("sstc");
    // SAFETY: the other hart has stopped.
    unsafe { (&raw mut (*life).has_stimecmp).write_volatile(has_stimecmp.into()) };
    let lived = live(hart, tour_first_life, patience) && live(hart, tour_second_life, patience);
    // SAFETY: the other hart has stopped, or this step is wrong anyway.
    let seen = unsafe { (&raw const (*life).seen).read_volatile() };

    let arguments = (seen[10], seen[11]) == (hart, life as u64);
    let others = seen[..64].iter().enumerate();
    let left = others
        .filter(|&(index, &value)| value != 0 && index != 10 && index != 11)
        .count();
    report.step(
        "a hart that is started again finds a0, a1 and zeroes in every register",
        lived && arguments && left == 0,
        format_args!("{left} of x1 to x31 and f0 to f31 hold something"),
    );

    let mut wrong = None;
    let mut judged = 0;
    for ((name, expected), &value) in CSRS.into_iter().zip(&seen[64..]) {
        if name == "stimecmp" && !has_stimecmp {
            continue;
        }
        judged += 1;
        let units = match name {
            "sstatus" if has_vectors(report.machine) => VECTORS_ON,
            _ => 0,
        };
        if value != expected | units {
            wrong = wrong.or(Some((name, value)));
        }
    }
    let claim = "and nothing of its earlier life in its CSRs";
    match wrong {
        None => report.step(claim, lived, format_args!("{judged} of them")),
        Some((name, value)) => report.step(claim, false, format_args!("{name} is {value:#x}")),
    }
}
