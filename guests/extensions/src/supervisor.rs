//! Extensions of the privileged architecture, as S-mode sees them.

use guest_kit::trap::{interrupt, taken};
use guest_kit::{csr_clear, csr_set, csr_write, now, wait_until};

use crate::paging;
use crate::probe::{Outcome, Probe, expect};
use crate::{execute, gives};

const SENVCFG: &str = "the guest needs senvcfg for its U-mode, which has this bit, too";

const PROMISE: &str = "it promises how S-mode behaves; the hypervisor does not";

/// An extension whose sign is a CSR.
macro_rules! csr {
    ($name:literal, $csr:literal) => {
        Probe::new($name, gives!(0; "+m", 0u32, 0u32, concat!("csrr a2, ", $csr)))
    };
}

/// The probes.
pub const PROBES: &[Probe] = &[
    Probe::new("sstc", timer),
    Probe::open(
        "svade",
        "a hart without the name may leave the bits to software, too",
        paging::faults_without_ad,
    ),
    Probe::open(
        "svadu",
        "a hart may update the bits without saying so",
        paging::updated_bits,
    ),
    Probe::new("svinval", || {
        expect(
            execute!(
                "+svinval",
                0u32,
                0u32,
                "sfence.w.inval",
                "sinval.vma zero, zero",
                "sfence.inval.ir"
            ),
            0,
        )
    }),
    Probe::of_entries("svnapot", paging::napot),
    Probe::of_entries("svpbmt", paging::memory_type),
    Probe::open(
        "svvptc",
        "it promises when a new entry is seen",
        paging::new_entry,
    ),
    // What a guest is not given.
    Probe::new(
        "h",
        gives!(0; "+h", crate::probe::area(&[0]), 0u32, "hlv.d a2, (a0)"),
    ),
    csr!("sha", "0x680"),
    csr!("shcounterenw", "0x606"),
    csr!("shgatpa", "0x680"),
    csr!("shtvala", "0x643"),
    csr!("shvsatpa", "0x280"),
    csr!("shvstvala", "0x243"),
    csr!("shvstvecd", "0x205"),
    csr!("ssaia", "0xdb0"),
    csr!("sscsrind", "0x151"),
    csr!("ssccfg", "0x120"),
    csr!("ssstateen", "0x10c"),
    csr!("ssctr", "0x14e"),
    Probe::open(
        "sscofpmf",
        "scountovf shows what the firmware left in counters that the guest may read, and there is no SBI PMU",
        || bits(execute!("+m", 0u32, 0u32, "csrr a2, 0xda0"), u64::MAX),
    ),
    Probe::new("ssdbltrp", || {
        const SDT: u64 = 1 << 24;
        let seen = execute!(
            "+m",
            SDT,
            0u32,
            "csrs sstatus, a0",
            "csrr a2, sstatus",
            "csrc sstatus, a0"
        );
        bits(seen, SDT)
    }),
    csr!("sdtrig", "0x5a8"),
    Probe::open(
        "ssstrict",
        "it promises that encodings which nothing defines trap, which the hypervisor does not",
        || Outcome::Undecidable,
    ),
    Probe::open(
        "svrsw60t59b",
        "it promises that the hardware ignores two bits of an entry, which a hart without it may do as well",
        || Outcome::Undecidable,
    ),
    csr!("smpmpmt", "0x3a0"),
    csr!("smaia", "0x350"),
    csr!("smcdeleg", "0x120"),
    csr!("smcntrpmf", "0x321"),
    csr!("smcsrind", "0x350"),
    csr!("smctr", "0x34e"),
    csr!("smmpm", "0x747"),
    csr!("smnpm", "0x30a"),
    csr!("smstateen", "0x30c"),
    csr!("smepmp", "0x747"),
    csr!("smrnmi", "0x744"),
    Probe::open("ssnpm", SENVCFG, pointer_masks),
    Probe::open("supm", SENVCFG, pointer_masks),
    Probe::open(
        "sspm",
        "henvcfg masks no pointer, which nobody can see",
        || Outcome::Undecidable,
    ),
    // Page tables lie in main memory.
    Probe::open("ssccptr", PROMISE, paging::new_entry),
    Probe::open(
        "sscounterenw",
        PROMISE,
        gives!(7; "+m", 7u32, 0u32, "csrrw a3, scounteren, a0", "csrrw a2, scounteren, a3"),
    ),
    Probe::open("sstvala", PROMISE, faulting_address),
    Probe::open(
        "sstvecd",
        PROMISE,
        gives!(0x1234_5674; "+m", 0x1234_5674u32, 0u32, "csrrw a3, stvec, a0", "csrrw a2, stvec, a3"),
    ),
    Probe::open(
        "ssu64xl",
        PROMISE,
        gives!(2; "+m", 0u32, 0u32, "csrr a2, sstatus", "srli a2, a2, 32", "andi a2, a2, 3"),
    ),
];

/// A deadline that has passed interrupts. (QEMU 7.2 does not show it in `sip`.)
fn timer() -> Outcome {
    const SIE: u64 = 1 << 1;
    let before = taken(interrupt::TIMER);
    let (_, trap) = execute!("+m", now(), 0u32, "csrw 0x14d, a0");
    if let Some(trap) = trap {
        return Outcome::Trapped(trap);
    }
    // SAFETY: the interrupt is counted and switched off by the trap handler; the deadline then
    // never comes.
    let came = unsafe {
        csr_set!("sie", 1_u64 << interrupt::TIMER);
        csr_set!("sstatus", SIE);
        let came = wait_until(1_000_000, || taken(interrupt::TIMER) > before);
        csr_clear!("sstatus", SIE);
        csr_write!("0x14d", u64::MAX);
        came
    };
    expect((came.into(), None), 1)
}

/// `stval` of a load that faults is its address.
fn faulting_address() -> Outcome {
    const NOWHERE: u64 = 0x0d00_0800;
    let (_, trap) = execute!("+m", NOWHERE, 0u32, "ld a2, 0(a0)");
    match trap {
        Some(trap) => expect((trap.value, None), NOWHERE),
        None => Outcome::Wrong(0),
    }
}

/// `senvcfg.PMM`: U-mode's pointers are masked.
fn pointer_masks() -> Outcome {
    const PMM: u64 = 3 << 32;
    let seen = execute!(
        "+m",
        PMM,
        0u32,
        "csrs 0x10a, a0",
        "csrr a2, 0x10a",
        "csrc 0x10a, a0"
    );
    bits(seen, PMM)
}

/// State that stays zero is not there.
fn bits((value, trap): (u64, Option<guest_kit::trap::Trap>), mask: u64) -> Outcome {
    match trap {
        Some(trap) => Outcome::Trapped(trap),
        None if value & mask == 0 => Outcome::Absent,
        None => Outcome::Works,
    }
}
