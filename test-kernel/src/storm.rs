//! An interrupt storm: what a test asks for to see that an access window keeps interrupts out.
//!
//! The one idea: the handler looks at what a host's interrupt handler would be hurt by (`vsatp`, `vsstatus`, `hstatus.SPVP`) and counts every interrupt that found one borrowed (R26).

use guest_mem::csr::HSTATUS_SPVP;

use crate::csr;
use crate::global::Global;
use crate::machine;
use crate::trap::Frame;

/// `sie`/`sip`: supervisor software interrupt.
const SOFTWARE: u64 = 1 << 1;
/// `sie`/`sip`: supervisor timer interrupt.
const TIMER: u64 = 1 << 5;

/// What must hold in every interrupt handler, and how often it did.
#[derive(Clone, Copy, Default)]
pub struct Storm {
    /// Ticks of `time` between two interrupts.
    pub period: u64,
    /// `vsatp` outside of access windows.
    pub vsatp: u64,
    /// `vsstatus` outside of access windows.
    pub vsstatus: u64,
    /// `hstatus.SPVP` outside of access windows.
    pub spvp: u64,
    /// Interrupts taken.
    pub taken: u64,
    /// Interrupts that found either changed.
    pub violations: u64,
    /// Where the last interrupt came.
    pub last: u64,
}

static STORM: Global<Storm> = Global::new(Storm {
    period: 0,
    vsatp: 0,
    vsstatus: 0,
    spvp: 0,
    taken: 0,
    violations: 0,
    last: 0,
});

/// A function, and its argument.
type Besides = (fn(*const ()), *const ());

/// What each interrupt does besides.
static BESIDES: Global<Option<Besides>> = Global::new(None);

/// Runs `body`, while each interrupt calls `besides` with the address of `with`.
pub fn nesting<T, R>(with: &T, besides: fn(*const ()), body: impl FnOnce() -> R) -> R {
    BESIDES.set(Some((besides, (&raw const *with).cast())));
    let result = body();
    BESIDES.set(None);
    result
}

/// Expects interrupts, of software or of the timer every `period` ticks, where they are enabled in `sstatus`.
pub fn expect(period: u64) {
    STORM.set(Storm {
        period,
        vsatp: csr::vsatp::read(),
        vsstatus: csr::vsstatus::read(),
        spvp: csr::hstatus::read() & HSTATUS_SPVP,
        ..Storm::default()
    });
    sbi_rt::set_timer(machine::time() + period);
    // SAFETY: the handler of these interrupts is `interrupt` below.
    unsafe { csr::sie::write(TIMER | SOFTWARE) };
}

/// Expects no more interrupts, and answers what they saw since [`expect`].
pub fn over() -> Storm {
    // SAFETY: interrupts off is how the kernel runs everywhere else.
    unsafe {
        csr::sstatus::clear(guest_mem::csr::STATUS_SIE);
        csr::sie::write(0);
    }
    sbi_rt::set_timer(u64::MAX);
    STORM.replace(Storm::default())
}

/// Runs `body` with a timer interrupt every `period` ticks, and answers what the interrupts saw.
pub fn during(period: u64, body: impl FnOnce()) -> Storm {
    expect(period);
    // SAFETY: the handler of these interrupts is `interrupt` below.
    unsafe { csr::sstatus::set(guest_mem::csr::STATUS_SIE) };
    body();
    over()
}

/// Makes a software interrupt pend: it is taken as soon as interrupts are enabled.
pub fn pend() {
    // SAFETY: the handler of this interrupt is `interrupt`.
    unsafe { csr::sip::set(SOFTWARE) };
}

/// How many interrupts the storm has brought so far.
pub fn taken() -> u64 {
    STORM.get().taken
}

/// Takes an interrupt: looks, counts, and arms the next.
pub fn interrupt(frame: &mut Frame) {
    let mut storm = STORM.get();
    storm.taken += 1;
    storm.last = frame.sepc;
    let as_before = csr::vsatp::read() == storm.vsatp
        && csr::vsstatus::read() == storm.vsstatus
        && frame.hstatus & HSTATUS_SPVP == storm.spvp;
    if !as_before {
        storm.violations += 1;
    }
    STORM.set(storm);
    // SAFETY: clearing a pending software interrupt.
    unsafe { csr::sip::clear(SOFTWARE) };
    if storm.period == 0 {
        // A late interrupt of a storm that is over.
        // SAFETY: nothing waits for an interrupt outside of a storm.
        unsafe { csr::sie::write(0) };
        sbi_rt::set_timer(u64::MAX);
    } else {
        if let Some((besides, with)) = BESIDES.get() {
            besides(with);
        }
        sbi_rt::set_timer(machine::time() + storm.period);
    }
}
