//! A window opened once for several small reads.
//!
//! The one idea: the same call with one read and with ten, so that their difference is nine further reads, and a tenth of the
//! latter what a read costs where ten share a window.

use core::cell::RefCell;
use core::sync::atomic::Ordering;

use guest_mem::guest_virtual::OpenWindow;
use guest_mem::hart::riscv64::{Recovery, Riscv64};
use guest_mem::{GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
use test_kernel::library::loaded;

use crate::copies::{bytes, done, harts};
use crate::measure::{Bench, Name};
use crate::memory::Guest;

/// The token, which is lent to one window at a time.
type Vcpu<'h, R> = RefCell<LoadedVcpu<'h, Riscv64<R>>>;

/// Reads of the longer call.
const MANY: usize = 10;

/// Runs `read` at `reads` places of `len` bytes one after another, in one window.
#[inline(always)]
fn in_window<R: Recovery>(
    vcpu: &Vcpu<'_, R>,
    at: u64,
    reads: usize,
    len: u64,
    mut read: impl FnMut(&OpenWindow<'_, '_, Riscv64<R>>, Gva) -> u64,
) -> u64 {
    let mut vcpu = vcpu.borrow_mut();
    let window = vcpu.open_window(GuestPrivilege::Supervisor);
    let end = at + reads as u64 * len;
    let (mut at, mut sum) = (at, 0);
    while at != end {
        sum ^= read(&window, Gva::new(at));
        at += len;
    }
    sum
}

fn loads<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, _: *mut u8, reads: usize) -> u64 {
    in_window(vcpu, at, reads, 8, |window, at| {
        done(window.load::<u64>(at, Ordering::Relaxed))
    })
}

fn copies<R: Recovery, const LEN: usize>(
    vcpu: &Vcpu<'_, R>,
    at: u64,
    buffer: *mut u8,
    reads: usize,
) -> u64 {
    in_window(vcpu, at, reads, LEN as u64, |window, at| {
        done(window.read(at, bytes(buffer, LEN)));
        0
    })
}

fn of_form<R: Recovery>(bench: &Bench, guest: &Guest, hart: &Riscv64<R>, path: &'static str) {
    let vcpu = RefCell::new(loaded(hart));
    let (at, buffer) = (guest.gva, guest.buffer);
    for reads in [1, MANY] {
        let name = Name::plain("loads-in-window", path, reads);
        bench.row(name, loads, &vcpu, at, buffer, reads);
    }
    macro_rules! shared {
        ($($len:literal)*) => {$(
            let name = Name::plain("read-in-window", path, $len);
            bench.shared(name, MANY, copies::<R, $len>, &vcpu, at, buffer, MANY);
        )*};
    }
    shared!(8 16 64 256);
}

/// Measures them.
pub fn run(bench: &Bench, guest: &Guest) {
    let (hook, scoped) = harts();
    of_form(bench, guest, &hook, "gva-hook");
    of_form(bench, guest, &scoped, "gva-scoped");
}
