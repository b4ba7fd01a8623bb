//! Shootdowns between the harts of a test: an interrupt, a fence, an acknowledgement (R44).
//!
//! The one idea: each hart has two numbers, how often it was asked and how often it has answered. Who asks adds one to the first
//! and waits for the second, and answers its own requests meanwhile, so that two harts that ask at once do not wait for each
//! other for ever. A hart answers from its interrupt handler, which no access window lets in, or where it waits itself.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::harts::{OTHERS, Patience};
use crate::{boot, csr};

/// `sie`/`sip`: supervisor software interrupt.
const SOFTWARE: u64 = 1 << 1;

struct Mailbox {
    hart: AtomicUsize,
    asked: AtomicU64,
    answered: AtomicU64,
}

static MAILBOXES: [Mailbox; OTHERS + 1] = [const {
    Mailbox {
        hart: AtomicUsize::new(0),
        asked: AtomicU64::new(0),
        answered: AtomicU64::new(0),
    }
}; OTHERS + 1];

/// Harts beside the boot hart.
static HARTS: AtomicUsize = AtomicUsize::new(0);

/// An answer to all that will ever be asked: of a hart that uses no translation any more.
const GONE: u64 = u64::MAX;

/// Nobody has asked for anything.
pub fn reset() {
    HARTS.store(0, Ordering::Relaxed);
    for mailbox in &MAILBOXES {
        mailbox.asked.store(0, Ordering::Relaxed);
        mailbox.answered.store(0, Ordering::Release);
    }
}

/// Says which machine hart the other hart of this number is.
pub fn is_hart(other: usize, hart: usize) {
    MAILBOXES[other].hart.store(hart, Ordering::Relaxed);
}

/// Says how many others there are.
pub fn set_others(others: usize) {
    HARTS.store(others, Ordering::Release);
}

/// Lets shootdowns interrupt this hart, one of the others.
pub fn enable() {
    // SAFETY: the trap handler calls `interrupted`.
    unsafe {
        csr::sie::write(SOFTWARE);
        csr::sstatus::set(guest_mem::csr::STATUS_SIE);
    }
}

/// Keeps them out again.
pub fn disable() {
    // SAFETY: as the harts run everywhere else.
    unsafe {
        csr::sstatus::clear(guest_mem::csr::STATUS_SIE);
        csr::sie::write(0);
    }
}

/// Interrupts the others, so that none sleeps.
pub fn wake(others: usize) {
    for mailbox in &MAILBOXES[1..=others] {
        let hart = mailbox.hart.load(Ordering::Relaxed);
        sbi_rt::send_ipi(sbi_rt::HartMask::from_mask_base(1, hart));
    }
}

/// Sleeps until an interrupt, one of the others with shootdowns enabled, unless there is something to do.
pub fn sleep_unless(is_awake: impl Fn() -> bool) {
    // Off, so that no interrupt is taken between the look and the sleep, which a pending one ends all the same.
    // SAFETY: as in `disable`.
    unsafe { csr::sstatus::clear(guest_mem::csr::STATUS_SIE) };
    if !is_awake() {
        // SAFETY: changes no state.
        unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) };
    }
    // SAFETY: as in `enable`.
    unsafe { csr::sstatus::set(guest_mem::csr::STATUS_SIE) };
}

/// This hart uses no translation any more, and is not to be waited for.
pub fn retire(me: usize) {
    MAILBOXES[me].answered.store(GONE, Ordering::Release);
}

/// Takes the interrupt.
pub fn interrupted(me: usize) {
    // SAFETY: clearing a pending software interrupt. Cleared first: what is asked from here on interrupts again.
    unsafe { csr::sip::clear(SOFTWARE) };
    serve(me);
}

/// Answers what this hart was asked for.
pub fn serve(me: usize) {
    let mailbox = &MAILBOXES[me];
    // Acquire: what the hart that asks has written into tables before.
    let asked = mailbox.asked.load(Ordering::Acquire);
    if mailbox.answered.load(Ordering::Relaxed) < asked {
        boot::fence_everything();
        // Not a store: the handler may have answered more meanwhile. Release: accesses of this hart came before.
        mailbox.answered.fetch_max(asked, Ordering::Release);
    }
}

/// Fences here and on every other hart, and waits until all have. What was written into tables before counts from here on.
///
/// # Panics
///
/// If a hart does not answer for a long time.
pub fn shoot_down(me: usize) {
    let harts = HARTS.load(Ordering::Acquire);
    let mut tickets = [0; OTHERS + 1];
    for (other, ticket) in tickets.iter_mut().enumerate().take(harts + 1) {
        if other != me {
            let mailbox = &MAILBOXES[other];
            *ticket = mailbox.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if other != 0 {
                let hart = mailbox.hart.load(Ordering::Relaxed);
                sbi_rt::send_ipi(sbi_rt::HartMask::from_mask_base(1, hart));
            }
        }
    }
    boot::fence_everything();
    let patience = Patience::new();
    for (other, ticket) in tickets.into_iter().enumerate().take(harts + 1) {
        // Acquire: pairs with the release of the answer.
        while other != me && MAILBOXES[other].answered.load(Ordering::Acquire) < ticket {
            serve(me);
            assert!(
                !patience.is_over(),
                "hart {other} does not answer a shootdown"
            );
        }
    }
}
