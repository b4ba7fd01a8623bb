//! Extensions of the privileged architecture, as S-mode sees them.

use guest_kit::trap::{interrupt, taken};
use guest_kit::{csr_clear, csr_set, csr_write, now, wait_until};

use crate::paging;
use crate::probe::{Outcome, Probe, expect};
use crate::{execute, gives};

const SENVCFG: &str = "the guest needs senvcfg for its U-mode, which has this bit, too";

/// The probes.
pub const PROBES: &[Probe] = &[
    Probe::new("sstc", timer),
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
    Probe::part_of("sha", &["h"], gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x680")),
    Probe::new("shvstvala", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x243")),
    Probe::new("ssaia", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0xdb0")),
    Probe::new("sscsrind", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x151")),
    Probe::new("ssccfg", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x120")),
    Probe::new("ssstateen", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x10c")),
    Probe::new("ssctr", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x14e")),
    Probe::new("sscofpmf", || {
        bits(execute!("+m", 0u32, 0u32, "csrr a2, 0xda0"), u64::MAX)
    }),
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
    Probe::new("sdtrig", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x5a8")),
    Probe::new("smaia", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x350")),
    Probe::new("smepmp", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x747")),
    Probe::new("smrnmi", gives!(0; "+m", 0u32, 0u32, "csrr a2, 0x744")),
    Probe::open("ssnpm", SENVCFG, || {
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
    }),
];

/// A deadline that has passed interrupts. (QEMU 7.2 does not show it in `sip`.)
fn timer() -> Outcome {
    const SIE: u64 = 1 << 1;
    let before = taken(interrupt::TIMER);
    let (_, trap) = execute!("+m", now(), 0u32, "csrw 0x14d, a0");
    if let Some(trap) = trap {
        return Outcome::Trapped(trap);
    }
    // SAFETY: the interrupt is counted and switched off by the trap handler; the deadline then never comes.
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

/// State that stays zero is not there.
fn bits((value, trap): (u64, Option<guest_kit::trap::Trap>), mask: u64) -> Outcome {
    match trap {
        Some(trap) => Outcome::Trapped(trap),
        None if value & mask == 0 => Outcome::Absent,
        None => Outcome::Works,
    }
}
