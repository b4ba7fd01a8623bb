//! What a hart finds in its registers at its first instruction.
//!
//! The one idea: nothing is known of any register but `a0`, which is a small hart number. So `a0` alone is used to find the
//! place where all others are stored. After that every CSR number that S-mode may read is tried, under a trap vector that
//! steps over the reads that trap.

use core::arch::global_asm;
use core::cell::UnsafeCell;

/// Harts whose registers can be kept.
pub const HARTS: usize = 8;

/// CSR numbers: for each of the four kinds of access (bits 11 and 10) the user's and the supervisor's (bits 9 and 8).
const KINDS: usize = 4;
const PER_KIND: usize = 512;

/// What stands for a CSR whose read trapped.
const ABSENT: u64 = 0x7ab5_e4f0_1d2c_3b4a;

/// What one hart found. Its layout is known to the assembly.
#[repr(C)]
pub struct Found {
    /// `x1` to `x31` by number; `x10` is not stored, since it named this place.
    pub x: [u64; 32],
    /// `f0` to `f31`.
    pub f: [u64; 32],
    /// CSRs that the sweep itself changes, by their first value: `sstatus`, `stvec`, `sepc`, `scause`, `stval`.
    first: [u64; FIRST.len()],
    swept: [[u64; PER_KIND]; KINDS],
    /// 1 if the hart came here.
    here: u64,
}

/// The numbers of the CSRs in `first`.
const FIRST: [usize; 5] = [0x100, 0x105, 0x141, 0x142, 0x143];

const BYTES: usize = size_of::<Found>();

#[repr(transparent)]
struct All(UnsafeCell<[Found; HARTS]>);

// SAFETY: each hart writes to its own place, before it tells the others that it has.
unsafe impl Sync for All {}

/// In a section that the way in does not clear.
#[unsafe(link_section = ".data.found")]
static FOUND: All = All(UnsafeCell::new(
    [const {
        Found {
            x: [0; 32],
            f: [0; 32],
            first: [0; FIRST.len()],
            swept: [[0; PER_KIND]; KINDS],
            here: 0,
        }
    }; HARTS],
));

// handover_start: where every hart starts, with a0 = its number, and a1 and the rest as found. The boot hart goes on at the
// kit's `_start`, the others at `guest_second_hart`, with a0 and a1 as they were.
//   handover_absent: the trap vector of the sweep: the read gives `ABSENT`
global_asm!(
    r#"
    .section .text.entry, "ax", @progbits
    .option push
    .option arch, +d, +m, +a
    .balign 4
    .globl handover_start
handover_start:
    .set n, 0
    .rept {harts}
    bnez    a0, 1f
    la      a0, {found} + {bytes} * n
    j       3f
1:  addi    a0, a0, -1
    .set n, n + 1
    .endr
2:  j       2b

3:
    .irp n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(a0)
    .endr
    .set n, 0
    .irp csr, sstatus, stvec, sepc, scause, stval
    csrr    t0, \csr
    sd      t0, 512 + 8 * n(a0)
    .set n, n + 1
    .endr
    la      t0, handover_absent
    csrw    stvec, t0
    li      t1, 3 << 13
    csrs    sstatus, t1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fsd     f\n, 256 + 8*\n(a0)
    .endr
    addi    t1, a0, 512 + 8 * {first}
    .set kind, 0
    .rept {kinds}
    .set n, 0
    .rept {per_kind}
    .4byte  0x000022f3 | (kind * 1024 + n) << 20   # csrr t0, number
    sd      t0, 0(t1)
    addi    t1, t1, 8
    .set n, n + 1
    .endr
    .set kind, kind + 1
    .endr
    li      t0, 1
    sd      t0, 0(t1)
    fence   rw, rw

    la      t0, {found}
    sub     t0, a0, t0
    li      t1, {bytes}
    divu    a0, t0, t1
    la      t0, handover_boot_hart
    li      t1, 1
    amoswap.d t1, t1, (t0)
    bnez    t1, 4f
    tail    _start
4:  tail    guest_second_hart

    .balign 4
handover_absent:
    csrr    t0, sepc
    addi    t0, t0, 4
    csrw    sepc, t0
    li      t0, {absent}
    sret
    .option pop

    .section .data.found, "aw", @progbits
    .balign 8
handover_boot_hart:
    .dword  0
    .text
    "#,
    found = sym FOUND,
    bytes = const BYTES,
    harts = const HARTS,
    first = const FIRST.len(),
    kinds = const KINDS,
    per_kind = const PER_KIND,
    absent = const ABSENT,
);

unsafe extern "C" {
    fn handover_start();
}

/// Where another hart is to be started, or to go on, until it comes to `main`.
pub fn entry(main: extern "C" fn(u64, u64) -> !) -> u64 {
    guest_kit::entry::second_hart_entry(main);
    handover_start as *const () as u64
}

/// Forgets what hart `hart` found, which will come once more.
pub fn forget(hart: u64) {
    if (hart as usize) < HARTS {
        let found = FOUND.0.get().cast::<Found>().wrapping_add(hart as usize);
        // SAFETY: in bounds; the hart has stored everything and has not yet begun anew.
        unsafe { (&raw mut (*found).here).write_volatile(0) };
    }
}

/// What hart `hart` found, once it came.
pub fn of(hart: u64) -> Option<Found> {
    let found = FOUND.0.get().cast::<Found>().wrapping_add(hart as usize);
    // SAFETY: in bounds, as the comparison says.
    let came =
        (hart as usize) < HARTS && unsafe { (&raw const (*found).here).read_volatile() } == 1;
    // SAFETY: the hart has stored everything before it said so, and does not again until `forget`.
    came.then(|| unsafe { found.read_volatile() })
}

impl Found {
    /// Each CSR that can be read, by number.
    pub fn csrs(&self) -> impl Iterator<Item = (usize, u64)> {
        let kinds = self.swept.iter().enumerate();
        let swept = kinds.flat_map(|(kind, values)| {
            let values = values.iter().enumerate();
            values.map(move |(number, &value)| (1024 * kind + number, value))
        });
        swept
            .filter(|&(_, value)| value != ABSENT)
            .map(|(number, value)| {
                let first = FIRST.iter().position(|&changed| changed == number);
                (number, first.map_or(value, |index| self.first[index]))
            })
    }
}
