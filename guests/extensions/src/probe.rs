//! What a probe is, and how it executes an instruction that may trap.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::AtomicU64;

use guest_kit::trap::Trap;

/// What a probe saw.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The extension does what it promises.
    Works,
    /// It does something else: this came out.
    Wrong(u64),
    /// The state that it would add is not there: it reads as zero after it was set.
    Absent,
    /// The first instruction of it trapped.
    Trapped(Trap),
    /// Nothing that a program can observe decides it.
    Undecidable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("it works"),
            Self::Wrong(value) => write!(f, "it gives {value:#x}"),
            Self::Absent => f.write_str("its bits stay zero"),
            Self::Trapped(trap) => write!(f, "{trap}"),
            Self::Undecidable => f.write_str("nothing that a program can observe decides it"),
        }
    }
}

/// Whether a hypervisor can hide the extension.
#[derive(Clone, Copy, Debug)]
pub enum Hiding {
    /// It can: a guest that tries it takes an illegal-instruction exception.
    Traps,
    /// It can: a page-table entry that uses it is a page fault.
    Faults,
    /// It cannot, for this reason.
    Cannot(&'static str),
}

/// An extension, and how to try it.
pub struct Probe {
    /// Its name in the device tree.
    pub name: &'static str,
    /// Names of which it is a part.
    pub part_of: &'static [&'static str],
    /// Whether it can be hidden.
    pub hiding: Hiding,
    /// Tries it.
    pub run: fn() -> Outcome,
}

impl Probe {
    /// One that traps where it is hidden.
    pub const fn new(name: &'static str, run: fn() -> Outcome) -> Self {
        Self {
            name,
            part_of: &[],
            hiding: Hiding::Traps,
            run,
        }
    }

    /// One that is also there where another name says so.
    pub const fn part_of(
        name: &'static str,
        part_of: &'static [&'static str],
        run: fn() -> Outcome,
    ) -> Self {
        Self {
            part_of,
            ..Self::new(name, run)
        }
    }

    /// The same, where machines have it without its name.
    pub const fn without_name(self, reason: &'static str) -> Self {
        Self {
            hiding: Hiding::Cannot(reason),
            ..self
        }
    }

    /// One of page-table entries.
    pub const fn of_entries(name: &'static str, run: fn() -> Outcome) -> Self {
        Self {
            hiding: Hiding::Faults,
            ..Self::new(name, run)
        }
    }

    /// One that nobody can hide.
    pub const fn open(name: &'static str, reason: &'static str, run: fn() -> Outcome) -> Self {
        Self {
            hiding: Hiding::Cannot(reason),
            ..Self::new(name, run)
        }
    }
}

/// Tries each of the `probes` that `names` lists. Returns the first outcome that is not as it
/// should be.
pub fn all_of(probes: &[Probe], names: &[&str]) -> Outcome {
    for &name in names {
        let probe = probes.iter().find(|probe| probe.name == name);
        match probe.map(|probe| (probe.run)()) {
            Some(Outcome::Works) => {}
            Some(other) => return other,
            None => return Outcome::Wrong(0),
        }
    }
    Outcome::Works
}

/// Judges a value.
pub fn expect((value, trap): (u64, Option<Trap>), expected: u64) -> Outcome {
    match trap {
        Some(trap) => Outcome::Trapped(trap),
        None if value == expected => Outcome::Works,
        None => Outcome::Wrong(value),
    }
}

/// Memory for probes: 64-byte blocks.
#[repr(C, align(4096))]
struct Area(UnsafeCell<[u64; 512]>);

// SAFETY: only the boot hart runs.
unsafe impl Sync for Area {}

static AREA: Area = Area(UnsafeCell::new([0; 512]));

/// The address of the memory for probes, with `content` in its first words.
pub fn area(content: &[u64]) -> u64 {
    let start = AREA.0.get().cast::<u64>();
    for (index, &word) in content.iter().enumerate().take(512) {
        // SAFETY: in bounds, and nobody has a reference.
        unsafe { start.add(index).write_volatile(word) };
    }
    start as u64
}

/// A word of it.
pub fn area_word(index: usize) -> u64 {
    // SAFETY: callers pass small numbers; nobody has a reference.
    unsafe { AREA.0.get().cast::<u64>().add(index % 512).read_volatile() }
}

/// The size of a cache block that the device tree names, or 0 if it names none.
pub static CACHE_BLOCK: AtomicU64 = AtomicU64::new(0);

/// Executes instructions of an extension, with two operands in a0 and a1; gives what is then in a2,
/// and the trap that it met.
#[macro_export]
macro_rules! execute {
    ($arch:literal, $first:expr, $second:expr, $($instruction:expr),+) => {
        guest_kit::trap::catch_first(|| {
            let (first, second) = (u64::from($first), u64::from($second));
            let result: u64;
            // SAFETY: the instructions use these registers and the memory for probes; one that
            // traps is stepped over.
            unsafe {
                core::arch::asm!(
                    ".option push",
                    ".option norvc",
                    concat!(".option arch, ", $arch),
                    $($instruction),+,
                    ".option pop",
                    inout("a0") first => _,
                    inout("a1") second => _,
                    inout("a2") 0_u64 => result,
                    out("a3") _,
                    out("fa0") _,
                    out("fa1") _,
                );
            }
            result
        })
    };
}

/// A probe function of one `execute!` and the result that it must give.
#[macro_export]
macro_rules! gives {
    ($expected:expr; $($arguments:tt)+) => {
        || $crate::probe::expect($crate::execute!($($arguments)+), $expected)
    };
}
