//! Breakpoints of HS-mode itself: a trap at a chosen instruction of code that raises none there.
//!
//! The one idea: the first breakpoint that is met lifts them all, does what the test asked for, and the interrupted code goes on
//! with the instruction that was there. What the trap handler found, and what the code came to, is for the test to judge.
//!
//! Only instructions of 4 bytes can have one: those of the library's access unit are.

use crate::csr;
use crate::global::Global;
use crate::guest::fence_i;
use crate::trap::{self, Frame, Trap};

/// `ebreak` of 4 bytes, and the cause of its trap.
const EBREAK: u32 = 0x0010_0073;
const CAUSE: u64 = 3;

/// Instructions that can be replaced at a time.
const MOST: usize = 16;

/// An instruction that was replaced; at 0: none.
#[derive(Clone, Copy)]
struct Patch {
    address: u64,
    original: u32,
}

impl Patch {
    const NONE: Self = Self {
        address: 0,
        original: 0,
    };

    /// Replaces the instruction at `address`, which is one of this program's.
    fn apply(address: u64, instruction: u32) -> Self {
        let place = address as *mut u32;
        // SAFETY: the kernel maps its code writable, and nobody executes this instruction meanwhile.
        let original = unsafe { place.read_volatile() };
        // SAFETY: as above.
        unsafe { place.write_volatile(instruction) };
        Self { address, original }
    }

    /// Puts the instruction back.
    fn lift(self) {
        if self.address != 0 {
            // SAFETY: what was there.
            unsafe { (self.address as *mut u32).write_volatile(self.original) };
        }
    }
}

static PATCHES: Global<[Patch; MOST]> = Global::new([Patch::NONE; MOST]);

/// The vector that leads to the kernel's at once.
static VECTOR: Global<Patch> = Global::new(Patch::NONE);

/// A function, and its argument.
type Then = (fn(*const ()), *const ());

/// What the first breakpoint does.
static THEN: Global<Option<Then>> = Global::new(None);

/// What the handler found at the breakpoint that was met.
#[derive(Clone, Copy)]
pub struct Met {
    /// The general registers.
    pub x: [u64; 32],
    /// The CSRs of the trap.
    pub trap: Trap,
    /// `stvec`.
    pub stvec: u64,
}

static MET: Global<Option<Met>> = Global::new(None);

/// Runs `body` with breakpoints at these instructions of the program's, 4 bytes each. The first that is met lifts them and does
/// `then`. Answers what was found there, too.
///
/// # Panics
///
/// If there are more of them than fit.
pub fn at<F: Fn(), R>(
    pcs: impl IntoIterator<Item = u64>,
    then: &F,
    body: impl FnOnce() -> R,
) -> (R, Option<Met>) {
    fn call<F: Fn()>(then: *const ()) {
        // SAFETY: the address of the `F` that `at` was given, which lives until `at` returns.
        unsafe { (*then.cast::<F>())() }
    }
    let mut patches = [Patch::NONE; MOST];
    for (index, pc) in pcs.into_iter().enumerate() {
        patches[index] = Patch::apply(pc, EBREAK);
    }
    PATCHES.set(patches);
    THEN.set(Some((call::<F>, (&raw const *then).cast())));
    MET.set(None);
    fence_i();
    let result = body();
    lift_breakpoints();
    THEN.set(None);
    (result, MET.get())
}

/// Makes the trap vector at `vector`, an address in the program, lead to the kernel's with its first instruction, until
/// [`lift`].
///
/// # Panics
///
/// If a jump does not reach that far.
pub fn bypass(vector: u64) {
    let offset = trap::entry().wrapping_sub(vector);
    let reach = 1 << 20;
    assert!(
        (-reach..reach).contains(&(offset as i64)),
        "a jump is too short"
    );
    let offset = offset as u32;
    let bits = |from: u32, count: u32, to: u32| (offset >> from & ((1 << count) - 1)) << to;
    let jump = 0x6f | bits(12, 8, 12) | bits(11, 1, 20) | bits(1, 10, 21) | bits(20, 1, 31);
    VECTOR.set(Patch::apply(vector, jump));
    fence_i();
}

fn lift_breakpoints() {
    for patch in PATCHES.replace([Patch::NONE; MOST]) {
        patch.lift();
    }
    fence_i();
}

/// Puts everything back that was replaced.
pub fn lift() {
    lift_breakpoints();
    VECTOR.replace(Patch::NONE).lift();
    fence_i();
}

/// Takes the trap if it is that of a breakpoint.
pub fn answers(frame: &Frame) -> bool {
    let is_here = |patch: &Patch| patch.address == frame.sepc;
    if frame.info.scause != CAUSE || !PATCHES.get().iter().any(is_here) {
        return false;
    }
    lift_breakpoints();
    MET.set(Some(Met {
        x: frame.x,
        trap: Trap::of(frame),
        stvec: csr::stvec::read(),
    }));
    if let Some((then, with)) = THEN.get() {
        then(with);
    }
    true
}
