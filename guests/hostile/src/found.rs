//! What a hart finds when it starts, and what it should.
//!
//! The one idea: the first instructions store every register before they use one. `a0`, the hart's number, is the only
//! register whose value is known, so it serves as the base address, and is told wrong if it was another.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt;

use guest_kit::csr_read;
use guest_kit::machine::Machine;
use guest_kit::vectors::{Vectors, has_vectors};

use crate::layout::{PLIC, UART};
use crate::stamp;

/// Something that should not be there.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What is there.
    pub value: u64,
}

/// Where something was found.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In this integer register of this hart.
    Integer(u64, usize),
    /// In this floating-point register of this hart.
    Float(u64, usize),
    /// In this CSR of this hart, or in a vector register.
    Csr(u64, &'static str),
    /// At this address.
    Memory(u64),
    /// In this device register.
    Device(u64),
    /// In what the host answered about what a hart had just stored.
    Answer(&'static str),
    /// The second hart did not start.
    NoSecondHart,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Integer(hart, register) => write!(f, "in x{register} of hart {hart}: ")?,
            Place::Float(hart, register) => write!(f, "in f{register} of hart {hart}: ")?,
            Place::Csr(hart, name) => write!(f, "in {name} of hart {hart}: ")?,
            Place::Memory(address) => write!(f, "at {address:#x}: ")?,
            Place::Device(address) => write!(f, "in the device register {address:#x}: ")?,
            Place::Answer(what) => write!(f, "in the host's answer about {what}: ")?,
            Place::NoSecondHart => write!(f, "no second hart: ")?,
        }
        match stamp::seed_in(self.value) {
            Some(seed) => write!(f, "the stamp of guest {seed}"),
            None => write!(f, "{:#x}", self.value),
        }
    }
}

/// `sstatus.VS`: Dirty, which is how the unit starts where there is one (R71).
const VECTORS_ON: u64 = 3 << 9;

/// CSRs, in the order in which they are stored, with what a hart is to find there (R71).
const CSRS: [(&str, u64); 12] = [
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
];

/// What one hart found. Its layout is known to the assembly.
#[repr(C)]
struct Found {
    x: [u64; 32],
    f: [u64; 32],
    csrs: [u64; CSRS.len()],
}

const BYTES: usize = size_of::<Found>();

#[repr(transparent)]
struct Both(UnsafeCell<[Found; 2]>);

// SAFETY: each hart writes to its own, before it tells the other one that it has.
unsafe impl Sync for Both {}

/// In a section that the way in does not clear.
#[unsafe(link_section = ".data.found")]
static FOUND: Both = Both(UnsafeCell::new(
    [const {
        Found {
            x: [0; 32],
            f: [0; 32],
            csrs: [0; CSRS.len()],
        }
    }; 2],
));

// hostile_start: where either hart starts, with a0 = its number and a1 = what the SBI says; goes on at the kit's ways in.
global_asm!(
    r#"
    .section .text.entry, "ax", @progbits
    .option push
    .option arch, +d
    .balign 4
    .globl hostile_start
hostile_start:
    bnez    a0, 1f
    la      a0, {found}
    j       2f
1:  la      a0, {found} + {bytes}
2:
    .irp n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(a0)
    .endr
    csrr    t0, sstatus
    sd      t0, 512(a0)
    li      t1, 1 << 13
    csrs    sstatus, t1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fsd     f\n, 256 + 8*\n(a0)
    .endr
    addi    t1, a0, 520
    .irp csr, fcsr, sie, stvec, sscratch, sepc, scause, stval, sip, satp, scounteren, 0x10a
    csrr    t0, \csr
    sd      t0, 0(t1)
    addi    t1, t1, 8
    .endr
    fence   rw, rw
    la      t0, {found}
    bne     a0, t0, 3f
    li      a0, 0
    j       _start
3:  li      a0, 1
    j       guest_second_hart
    .option pop
    "#,
    found = sym FOUND,
    bytes = const BYTES,
);

unsafe extern "C" {
    fn hostile_start();
}

/// Where the second hart is to be started, to go on at `main`.
pub fn entry(main: extern "C" fn(u64, u64) -> !) -> u64 {
    guest_kit::entry::second_hart_entry(main);
    hostile_start as *const () as u64
}

/// Looks at what hart `hart` found, which was to start with `opaque` in `a1`.
pub fn hart(machine: &Machine, hart: u64, opaque: u64) -> Result<(), Finding> {
    // SAFETY: in bounds; the hart has written it and does not again.
    let found = unsafe { &(*FOUND.0.get())[hart as usize] };
    for (register, &value) in found.x.iter().enumerate() {
        // a0 was used to store the others.
        let expected = if register == 11 { opaque } else { 0 };
        if value != expected && register != 10 {
            let place = Place::Integer(hart, register);
            return Err(Finding { place, value });
        }
    }
    for (register, &value) in found.f.iter().enumerate() {
        if value != 0 {
            let place = Place::Float(hart, register);
            return Err(Finding { place, value });
        }
    }
    for ((name, expected), &value) in CSRS.into_iter().zip(&found.csrs) {
        let units = match name {
            "sstatus" if has_vectors(machine) => VECTORS_ON,
            _ => 0,
        };
        if value != expected | units {
            let place = Place::Csr(hart, name);
            return Err(Finding { place, value });
        }
    }
    if hart == 0 && machine.has("sstc") {
        let value = csr_read!("0x14d");
        if value != u64::MAX {
            let place = Place::Csr(hart, "stimecmp");
            return Err(Finding { place, value });
        }
    }
    Ok(())
}

/// Looks at the vector unit of this hart, `hart`, which has used it for nothing and has it.
pub fn vectors(hart: u64) -> Result<(), Finding> {
    // SAFETY: the device tree lists the instructions: caller.
    let found = unsafe { Vectors::read() };
    let registers = [
        ("a vector register", found.register, 0),
        ("vl", found.vl, 0),
        ("vtype", found.vtype, Vectors::INVALID_TYPE),
        ("vstart", found.vstart, 0),
        ("vcsr", found.vcsr, 0),
    ];
    match registers.into_iter().find(|(_, value, due)| value != due) {
        None => Ok(()),
        Some((name, value, _)) => Err(Finding {
            place: Place::Csr(hart, name),
            value,
        }),
    }
}

/// Looks at the device registers that a guest can leave something in.
pub fn devices() -> Result<(), Finding> {
    let byte = |address: u64| {
        // SAFETY: a load from a device register.
        (
            address,
            u64::from(unsafe { (address as *const u8).read_volatile() }),
        )
    };
    let word = |address: u64| {
        // SAFETY: a load from a device register.
        (
            address,
            u64::from(unsafe { (address as *const u32).read_volatile() }),
        )
    };
    let serial = [1, 3, 4, 7].map(|register| byte(UART + register));
    let controller = [4, 40, 124, 0x1000, 0x2000, 0x2080, 0x20_0000, 0x20_1000]
        .map(|offset| word(PLIC + offset));
    for (address, value) in serial.into_iter().chain(controller) {
        if value != 0 {
            let place = Place::Device(address);
            return Err(Finding { place, value });
        }
    }
    Ok(())
}
