//! What the slots cost: the guard, finding a slot, single accesses, the dirty log.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, PhysicalView, Reader};
use guest_mem::{Gpa, GuestMemory};

use crate::copies::{bytes, done};
use crate::measure::{Bench, Name};
use crate::memory::Guest;

type Memory = GuestPhysicalMemory<'static, 512, 1>;

/// In static memory, since its two tables are larger than a stack should hold.
static MEMORY: Memory = Memory::new(GMode::Sv39x4);

/// One bit for each page of the guest's memory.
static LOG: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// From one slot to the next.
const STRIDE: u64 = 0x1_0000;

fn guard(_: &(), reader: u64, _: *mut u8, _: usize) -> u64 {
    // SAFETY: the address of the only reader, which nothing else uses meanwhile.
    let reader = unsafe { &mut *(reader as *mut Reader<'static>) };
    reader.guard().generation()
}

fn lookup(view: &PhysicalView<'_>, at: u64, _: *mut u8, _: usize) -> u64 {
    view.slot_at(Gpa::new(at)).is_some().into()
}

fn load(view: &PhysicalView<'_>, at: u64, _: *mut u8, _: usize) -> u64 {
    done(view.load::<u64>(Gpa::new(at), Ordering::Relaxed))
}

fn store(view: &PhysicalView<'_>, at: u64, _: *mut u8, _: usize) -> u64 {
    done(view.store::<u64>(Gpa::new(at), 0, Ordering::Relaxed));
    0
}

fn exchange<T: guest_mem::guest_memory::GuestInteger>(
    view: &PhysicalView<'_>,
    at: u64,
    _: *mut u8,
    _: usize,
) -> u64 {
    let zero = T::from_register(0);
    match done(view.compare_exchange(Gpa::new(at), zero, zero, Ordering::SeqCst)) {
        Ok(_) => 1,
        Err(_) => panic!("another value at {at:#x}"),
    }
}

fn write(view: &PhysicalView<'_>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(view.write(Gpa::new(at), bytes(buffer, len)));
    0
}

fn lookups(bench: &Bench, guest: &Guest, reader: &mut Reader<'static>, slots: usize) {
    let view = reader.guard();
    let buffer = guest.buffer;
    let name = |operation| Name::plain(operation, "gpa-direct", slots);
    let last = (slots as u64 - 1) * STRIDE;
    bench.row(name("lookup-repeated"), lookup, &view, last, buffer, 0);
    let mut random = 1u64;
    let addresses: [u64; 256] = core::array::from_fn(|_| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % slots as u64 * STRIDE
    });
    let addresses = if bench.is_small() {
        &addresses[..16]
    } else {
        &addresses
    };
    bench.average(name("lookup-random"), lookup, &view, addresses, buffer, 0);
}

/// Measures them.
pub fn run(bench: &Bench, guest: &Guest) {
    let buffer = guest.buffer;
    let mut reader = MEMORY.reader(0).unwrap_or_else(|error| panic!("{error}"));
    let at = (&raw mut reader) as u64;
    bench.row(
        Name::plain("guard", "gpa-direct", 1),
        guard,
        &(),
        at,
        buffer,
        0,
    );

    let mut there = 0;
    let numbers: &[usize] = if bench.is_small() {
        &[1, 8]
    } else {
        &[1, 8, 64, 512]
    };
    for &slots in numbers {
        for slot in there..slots {
            MEMORY
                .add(guest.slot(slot as u64 * STRIDE, 4096), &mut NoGStage)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        there = slots;
        lookups(bench, guest, &mut reader, slots);
    }
    {
        let view = reader.guard();
        let row = |operation, size, function| {
            bench.row(
                Name::plain(operation, "gpa-direct", size),
                function,
                &view,
                0,
                buffer,
                size,
            );
        };
        row("load", 8, load);
        row("store", 8, store);
        row("compare-exchange", 8, exchange::<u64>);
        row("compare-exchange", 1, exchange::<u8>);
    }

    let base = Gpa::new(0);
    let slot = guest.slot(0, 4096).with_dirty_log(&LOG);
    let logged = MEMORY
        .replace(base, slot, &mut NoGStage)
        .and_then(|_| MEMORY.start_logging(base, &mut NoGStage));
    logged.unwrap_or_else(|error| panic!("{error}"));
    let view = reader.guard();
    bench.row(
        Name::plain("store-logged", "gpa-direct", 8),
        store,
        &view,
        0,
        buffer,
        8,
    );
    bench.row(
        Name::plain("write-logged", "gpa-direct", 4096),
        write,
        &view,
        0,
        buffer,
        4096,
    );
}
