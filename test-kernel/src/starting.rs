//! Starting the machine's other harts.
//!
//! The one idea: a hart begins at the program's entry, and its hart id tells it where to go on. Nothing else can be believed:
//! firmware may let a hart go before it has written down where to, so that the hart begins where it was sent the last time, or
//! at the program's entry if it never was (OpenSBI 1.1, seen once in a hundred boots).

use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::MAX_HARTS;

global_asm!(
    r#"
    # Not in the entry's section: `_start` is the first there.
    .section .text
    .balign 4
    .globl __supervisor_entry
__supervisor_entry:
    # In: HS-mode, a0 = hart id, a1 = device tree on the first hart that comes, satp = 0.
    # Out: the first goes on to __first_start, any other to where `start` sends it, with a1 as it says.
    lla     t0, __has_begun
    li      t1, 1
    .option push
    .option arch, +a
    amoswap.w.aqrl t1, t1, (t0)
    .option pop
    bnez    t1, 1f
    tail    __first_start
1:  lla     t0, {places}
    slli    t1, a0, 4
    add     t0, t0, t1
    ld      a1, 8(t0)
    ld      t0, 0(t0)
    jr      t0

    .section .data
    .balign 4
    .globl __has_begun
__has_begun:
    .word   0
    .section .text
    "#,
    places = sym PLACES,
);

unsafe extern "C" {
    fn __supervisor_entry();
}

/// Where a hart goes on, and with what in a1.
#[repr(C)]
struct Place {
    entry: AtomicUsize,
    argument: AtomicUsize,
}

/// By hart id.
static PLACES: [Place; MAX_HARTS] = [const {
    Place {
        entry: AtomicUsize::new(0),
        argument: AtomicUsize::new(0),
    }
}; MAX_HARTS];

/// Asks firmware to start a hart, which goes on at `entry` in HS-mode with its hart id in a0 and `argument` in a1; answers
/// whether it will.
///
/// # Panics
///
/// If there can be no such hart.
pub fn start(hart: usize, entry: unsafe extern "C" fn(), argument: usize) -> bool {
    let place = &PLACES[hart];
    place.entry.store(entry as usize, Ordering::Relaxed);
    place.argument.store(argument, Ordering::Release);
    sbi_rt::hart_start(hart, __supervisor_entry as *const () as usize, 0).is_ok()
}
