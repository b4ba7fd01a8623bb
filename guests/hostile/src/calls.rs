//! SBI calls with arguments that nobody asked for.

use guest_kit::sbi;
use guest_kit::trap::catch;
use guest_kit::{csr_write, now};
use sbi_spec::{base, dbcn, hsm, legacy, nacl, pmu, rfnc, spi, srst, sta, susp, time};

use crate::layout::Layout;
use crate::random::Random;
use crate::second;

/// What pointers point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// Anything.
    Anywhere,
    /// The caller's own page tables, the edges of memory, and the seam between the host's slots.
    Tables,
}

const EXTENSIONS: [usize; 14] = [
    base::EID_BASE,
    time::EID_TIME,
    spi::EID_SPI,
    rfnc::EID_RFNC,
    rfnc::EID_RFNC,
    hsm::EID_HSM,
    srst::EID_SRST,
    dbcn::EID_DBCN,
    dbcn::EID_DBCN,
    dbcn::EID_DBCN,
    pmu::EID_PMU,
    susp::EID_SUSP,
    sta::EID_STA,
    nacl::EID_NACL,
];

/// Extensions whose calls carry a buffer.
const WITH_BUFFERS: [usize; 5] = [
    dbcn::EID_DBCN,
    dbcn::EID_DBCN,
    legacy::LEGACY_SEND_IPI,
    legacy::LEGACY_REMOTE_FENCE_I,
    legacy::LEGACY_REMOTE_SFENCE_VMA_ASID,
];

/// Whether the call may be the last one of its hart or of the guest.
fn is_last(extension: usize, function: usize) -> bool {
    match extension {
        hsm::EID_HSM => matches!(function, hsm::HART_STOP | hsm::HART_SUSPEND),
        srst::EID_SRST | legacy::LEGACY_SHUTDOWN => true,
        _ => false,
    }
}

fn buffer(layout: &Layout, random: &mut Random) -> u64 {
    match random.below(5) {
        0 => random.address(layout),
        1 => layout.ram.end - random.below(64),
        2 => layout.seam - random.below(64),
        3 => layout.tables.start + random.below(0x1000),
        _ => layout.tables.start + random.below(layout.tables.end - layout.tables.start),
    }
}

/// One call, whatever comes of it.
pub fn step(layout: &Layout, random: &mut Random, buffers: Buffers, reckless: bool) {
    let extension = match (buffers, random.below(16)) {
        (Buffers::Tables, 0..14) => random.one_of(&WITH_BUFFERS),
        (_, 0) => random.next() as usize,
        (_, 1..5) => random.below(17) as usize,
        _ => random.one_of(&EXTENSIONS),
    };
    let function = match random.below(16) {
        0 => random.next() as usize,
        _ => random.below(8) as usize,
    };
    let mut arguments = core::array::from_fn(|_| random.value(layout));
    if buffers == Buffers::Tables {
        let pointer = buffer(layout, random);
        arguments = match extension {
            dbcn::EID_DBCN => [random.short(), pointer, 0, 0, 0],
            _ => [pointer, 0, random.short(), random.next(), 0],
        };
    } else if random.one_in(4) {
        // A hart mask that may be right.
        arguments[0] = random.below(4);
        arguments[1] = random.below(2);
    } else if extension == hsm::EID_HSM && random.one_in(2) {
        arguments[0] = random.below(2);
        let buffer = buffer(layout, random);
        arguments[1] = random.one_of(&[second::entry(), layout.code, buffer]);
    }
    if is_last(extension, function) && !reckless {
        if function != hsm::HART_SUSPEND {
            return;
        }
        // It wakes at once.
        sbi::set_timer(now());
        // SAFETY: interrupts stay off, so it only wakes.
        unsafe { csr_write!("sie", 1u64 << 5) };
    }
    let _ = catch(|| sbi::call(extension, function, arguments));
    // SAFETY: as above.
    unsafe { csr_write!("sie", 0u64) };
}
