//! What is right: rule R71 as a table.

/// Bits of `sstatus`: VU-mode has 64 bits, floating point is on (Dirty), and therefore SD; V is Dirty.
const UXL_64: u64 = 2 << 32;
const FLOAT_DIRTY: u64 = 1 << 63 | 3 << 13;
const VECTOR_DIRTY: u64 = 3 << 9;

/// The counters, which count.
const COUNTERS: core::ops::RangeInclusive<usize> = 0xc00..=0xc1f;

/// Which life of a hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The boot hart's.
    Booted,
    /// That of a hart that was started by HSM.
    Started,
    /// That of a hart that was suspended without its registers, with these changed before, and is woken by an interrupt.
    Resumed,
}

/// A CSR that does not start as 0 on either side.
struct Csr {
    number: usize,
    name: &'static str,
    /// What OpenSBI leaves there; several values where its versions or the machines differ.
    firmware: &'static [u64],
    /// What the hypervisor leaves there.
    here: &'static [u64],
}

const TABLE: [Csr; 8] = [
    Csr {
        number: 0x100,
        name: "sstatus",
        // The second where there are vectors.
        firmware: &[UXL_64 | FLOAT_DIRTY, UXL_64 | FLOAT_DIRTY | VECTOR_DIRTY],
        here: &[UXL_64 | FLOAT_DIRTY, UXL_64 | FLOAT_DIRTY | VECTOR_DIRTY],
    },
    Csr {
        number: 0x105,
        name: "stvec",
        // Filled in by `is_right`: where the hart started.
        firmware: &[],
        here: &[0],
    },
    Csr {
        number: 0x106,
        name: "scounteren",
        // CY, TM and IR up to OpenSBI 1.6, TM in 1.9.
        firmware: &[0b111, 0b010],
        here: &[0b111],
    },
    Csr {
        number: 0x120,
        name: "scountinhibit",
        firmware: &[0x7fff8],
        here: &[0],
    },
    Csr {
        number: 0x14d,
        name: "stimecmp",
        // No deadline that was ever set; some machines show it as pending.
        firmware: &[0],
        here: &[u64::MAX],
    },
    Csr {
        number: 0xc21,
        name: "vtype",
        firmware: &[1 << 63],
        here: &[1 << 63],
    },
    Csr {
        number: 0xc22,
        name: "vlenb",
        firmware: &[16],
        here: &[16],
    },
    Csr {
        number: 0xda0,
        name: "scountovf",
        firmware: &[0x7fff8],
        // A bit for each counter that the guest may read, as the firmware left it.
        here: &[0, 0x7fff8],
    },
];

/// `sip`: a timer that some machines show as pending under firmware, and the interrupt that resumes a hart.
const SIP: usize = 0x144;
const TIMER: u64 = 1 << 5;
const SOFTWARE: u64 = 1 << 1;

/// What a trap writes (`sepc`, `scause`, `stval`), `sscratch`, and the deadline: firmware does not reset them for a hart that
/// resumes.
const LEFT_ALONE: [usize; 5] = [0x140, 0x141, 0x142, 0x143, 0x14d];

/// The name of a CSR of the table.
pub fn name(number: usize) -> &'static str {
    let known = TABLE.iter().find(|csr| csr.number == number);
    known.map_or("", |csr| csr.name)
}

/// Whether a hart may find `value` in CSR `number` when it starts at `entry`.
pub fn is_right(number: usize, value: u64, entry: u64, life: Life, under_hypervisor: bool) -> bool {
    let resumed_by_firmware = life == Life::Resumed && !under_hypervisor;
    if COUNTERS.contains(&number) || resumed_by_firmware && LEFT_ALONE.contains(&number) {
        return true;
    }
    if number == SIP {
        let expected = if life == Life::Resumed { SOFTWARE } else { 0 };
        let ignored = if under_hypervisor { 0 } else { TIMER };
        return value & !ignored == expected;
    }
    if number == 0x105 && !under_hypervisor {
        return value == entry;
    }
    match TABLE.iter().find(|csr| csr.number == number) {
        Some(csr) if under_hypervisor => csr.here.contains(&value),
        Some(csr) => csr.firmware.contains(&value),
        None => value == 0,
    }
}
