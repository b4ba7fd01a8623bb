//! Several harts at once: what an access costs while others do the same. Times only, since QEMU's `-icount` has one thread.
//!
//! The one idea: every hart has its own pages and its own reader, as the vCPUs of a VM have; they share the slot table, the
//! page tables, and whatever the machine makes them share. The slowest hart counts.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_mem::csr::{GMode, HSTATUS_SPVP};
use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Reader};
use guest_mem::hart::riscv64::{HandlerHook, Riscv64};
use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
use test_kernel::library::loaded;
use test_kernel::{csr, machine, starting, trap};

use crate::copies::{bytes, done};
use crate::measure::{Bench, Name};
use crate::memory::Guest;

/// Harts at once, at most.
const HARTS: usize = 4;

/// Log2 of the bytes of each other hart's stack.
const STACK: usize = 14;

/// Calls that are timed together.
const CALLS: usize = 20_000;

global_asm!(
    r#"
    .section .text
    .balign 4
__bench_other:
    # In: HS-mode, a0 = hart id, a1 = the number of this hart among the other ones, from 1 on; satp = 0.
    lla     sp, __bench_stacks
    slli    t0, a1, {stack}
    add     sp, sp, t0
    mv      a0, a1
    tail    {other}

    .section .stacks, "aw", @nobits
    .balign 4096
__bench_stacks:
    .space {others} << {stack}
    .section .text
    "#,
    stack = const STACK,
    others = const HARTS - 1,
    other = sym other,
);

unsafe extern "C" {
    fn __bench_other();
}

/// What the harts are to do: index of the job, and how many of them. Written before [`ROUND`].
static JOB: AtomicUsize = AtomicUsize::new(0);
static TAKE_PART: AtomicUsize = AtomicUsize::new(0);
/// Counts the jobs.
static ROUND: AtomicUsize = AtomicUsize::new(0);
/// Harts at the start, and at the end, of this round.
static READY: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
/// Ticks of each.
static TICKS: [AtomicU64; HARTS] = [const { AtomicU64::new(0) }; HARTS];

/// The boot hart's CSRs, for the others: satp, hgatp, vsatp.
static REGIME: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Where guest memory begins: as a GVA, as a GPA; and the host's buffer.
static PLACES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

static MEMORY: GuestPhysicalMemory<'static, 1, HARTS> = GuestPhysicalMemory::new(GMode::Sv39x4);

/// One hart's means.
struct Own<'h> {
    vcpu: LoadedVcpu<'h, Riscv64<HandlerHook>>,
    reader: Reader<'static>,
    gva: Gva,
    gpa: Gpa,
    buffer: *mut u8,
}

type Job = fn(&mut Own<'_>);

fn gva_read(own: &mut Own<'_>) {
    let space = own.vcpu.guest_virtual(GuestPrivilege::Supervisor);
    done(space.read(own.gva, bytes(own.buffer, 64)));
}

fn direct_read(own: &mut Own<'_>) {
    done(own.reader.guard().read(own.gpa, bytes(own.buffer, 64)));
}

fn guard(own: &mut Own<'_>) {
    core::hint::black_box(own.reader.guard().generation());
}

/// What is measured: operation, path, bytes.
const JOBS: [(Job, &str, usize); 3] = [
    (gva_read, "gva-hook", 64),
    (direct_read, "gpa-direct", 64),
    (guard, "guard", 1),
];

/// The other harts: they do every job that needs them.
extern "C" fn other(number: usize) -> ! {
    let [satp, hgatp, vsatp] = [0, 1, 2].map(|index| REGIME[index].load(Ordering::Acquire));
    trap::install();
    // SAFETY: the boot hart's own tables, under which all code and data are where they are.
    unsafe {
        csr::satp::write(satp);
        csr::vsatp::write(0);
        csr::hgatp::write(hgatp);
        csr::vsatp::write(vsatp);
        csr::vsstatus::write(0);
        csr::hstatus::set(HSTATUS_SPVP);
    }
    // SAFETY: HS-mode with the H extension; the trap handler calls `try_fixup`; everything is mapped.
    let hart = unsafe { Riscv64::new_conforming() };
    let mut own = own(&hart, number);
    let mut seen = 0;
    loop {
        let round = ROUND.load(Ordering::Acquire);
        if round != seen {
            seen = round;
            if number < TAKE_PART.load(Ordering::Relaxed) {
                take_part(&mut own, number);
            }
        }
        core::hint::spin_loop();
    }
}

fn own<'h>(hart: &'h Riscv64<HandlerHook>, number: usize) -> Own<'h> {
    let [gva, gpa, buffer] = [0, 1, 2].map(|index| PLACES[index].load(Ordering::Acquire));
    let offset = number as u64 * 4096;
    Own {
        vcpu: loaded(hart),
        reader: MEMORY
            .reader(number)
            .unwrap_or_else(|error| panic!("{error}")),
        gva: Gva::new(gva + offset),
        gpa: Gpa::new(gpa + offset),
        buffer: (buffer + offset) as *mut u8,
    }
}

/// One round, from when all harts are ready.
fn take_part(own: &mut Own<'_>, number: usize) {
    let (job, ..) = JOBS[JOB.load(Ordering::Relaxed)];
    let harts = TAKE_PART.load(Ordering::Relaxed);
    READY.fetch_add(1, Ordering::AcqRel);
    while READY.load(Ordering::Acquire) < harts {
        core::hint::spin_loop();
    }
    let before = machine::time();
    for _ in 0..CALLS {
        job(own);
    }
    TICKS[number].store(machine::time() - before, Ordering::Relaxed);
    DONE.fetch_add(1, Ordering::AcqRel);
}

/// Measures them, with as many harts as the machine has.
pub fn run(bench: &Bench, guest: &Guest) {
    let regime = [csr::satp::read(), csr::hgatp::read(), csr::vsatp::read()];
    let places = [guest.gva, guest.gpa, guest.buffer as u64];
    for index in 0..3 {
        REGIME[index].store(regime[index], Ordering::Release);
        PLACES[index].store(places[index], Ordering::Release);
    }
    MEMORY
        .add(guest.slot(guest.gpa, guest.len), &mut NoGStage)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut there = 1;
    // SAFETY: as on the other harts.
    let hart = unsafe { Riscv64::new_conforming() };
    let mut own = own(&hart, 0);
    for (harts, operation) in [(1, "on-1-hart"), (2, "on-2-harts"), (4, "on-4-harts")] {
        // Those that are not needed yet sleep: one that waits would take time from the machine that emulates it. The boot
        // hart, which runs, is refused.
        for id in 0..2 * HARTS {
            if there < harts && starting::start(id, __bench_other, there) {
                there += 1;
            }
        }
        if harts > there {
            continue;
        }
        for (index, &(_, path, size)) in JOBS.iter().enumerate() {
            JOB.store(index, Ordering::Relaxed);
            TAKE_PART.store(harts, Ordering::Relaxed);
            READY.store(0, Ordering::Relaxed);
            DONE.store(0, Ordering::Relaxed);
            ROUND.fetch_add(1, Ordering::Release);
            take_part(&mut own, 0);
            while DONE.load(Ordering::Acquire) < harts {
                core::hint::spin_loop();
            }
            let ticks = |it: &AtomicU64| it.load(Ordering::Relaxed);
            let slowest = TICKS[..harts].iter().map(ticks).max().unwrap_or(0);
            bench.print(Name::plain(operation, path, size), slowest, CALLS);
        }
    }
}
