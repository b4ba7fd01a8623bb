//! Single accesses of one size at one place, by every path, from four harts.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_mem::guest_memory::GuestInteger;
use guest_mem::hart::Hart;
use guest_mem::{AccessError, GuestMemory};

use super::{Hand, Path, Race, by_path, race, until, world_and_memory};
use crate::arena;
use crate::harness::{Outcome, Stop, Test, cases, count};
use crate::harts::{Crew, Part, Wrong};
use crate::tables::Page;

cases![
    r17_single_accesses_of_four_harts_never_tear_by_any_path,
    r17_exchanges_of_four_harts_lose_no_count,
];

/// Accesses of each hart.
const ACCESSES: u64 = 40_000;

/// Where the accesses of each width go: apart, so that a torn one is one of its own width.
const WIDTHS: [(u64, u64); 4] = [(0, 1), (64, 2), (128, 4), (192, 8)];

struct Tearing {
    page: Page,
}

impl Tearing {
    fn accesses<H: Hart>(&self, mut hand: Hand<'_, '_, H>) -> Part {
        for access in 0..ACCESSES {
            let path = hand.path();
            let (offset, width) = WIDTHS[hand.below(4) as usize];
            match width {
                1 => self.access::<u8, H>(&mut hand, path, offset, access),
                2 => self.access::<u16, H>(&mut hand, path, offset, access),
                4 => self.access::<u32, H>(&mut hand, path, offset, access),
                _ => self.access::<u64, H>(&mut hand, path, offset, access),
            }?;
        }
        Ok(())
    }

    /// A load, a store or an exchange of a value all of whose bytes are alike.
    fn access<T: GuestInteger, H: Hart>(
        &self,
        hand: &mut Hand<'_, '_, H>,
        path: Path,
        offset: u64,
        access: u64,
    ) -> Part {
        let value = T::from_register((hand.below(256) * 0x0101_0101_0101_0101) & T::WIDTH.mask());
        let kind = hand.below(3);
        let order = Ordering::Relaxed;
        let found = by_path!(hand, path, (0, self.page.gpa, offset) => |memory, at| match kind {
            0 => memory.store(at, value, order).map(|()| value),
            1 if path.exchanges() => memory
                .load::<T>(at, order)
                .and_then(|current| memory.compare_exchange(at, current, value, order))
                .map(|found| found.unwrap_or_else(|found| found)),
            _ => memory.load(at, order),
        });
        let what = format_args!("access {access}, {path:?}, {} bytes", T::WIDTH.bytes());
        match found.map(T::to_register) {
            Ok(found) if found == ((found & 0xff) * 0x0101_0101_0101_0101) & T::WIDTH.mask() => {
                Ok(())
            }
            Ok(found) => Err(Wrong::because(format_args!("{what}: {found:#x} is torn"))),
            Err(error) => Err(Wrong::because(format_args!("{what}: {error}"))),
        }
    }
}

impl Race for Tearing {
    fn there<H: Hart>(&self, hand: Hand<'_, '_, H>, _: &Crew) -> Part {
        self.accesses(hand)
    }

    fn here<H: Hart>(&self, hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        self.accesses(hand).map_err(Wrong::stop)?;
        count(
            ACCESSES * (crew.others as u64 + 1),
            "single accesses of racing harts, none torn",
        );
        Ok(())
    }
}

fn r17_single_accesses_of_four_harts_never_tear_by_any_path(_: &mut Test) -> Outcome {
    let (world, [page], memory) = world_and_memory()?;
    race(&world, &memory, &Tearing { page })
}

/// Increments of each hart at each counter.
const INCREMENTS: u64 = 5_000;

/// Counters of every width side by side in one double, and another double alone: offset and width.
const COUNTERS: [(u64, u64); 5] = [(0, 1), (1, 1), (2, 2), (4, 4), (8, 8)];

struct Counting {
    page: Page,
    finished: AtomicU64,
}

impl Counting {
    fn increments<H: Hart>(&self, mut hand: Hand<'_, '_, H>) -> Part {
        for round in 0..INCREMENTS {
            let path = [Path::Direct, Path::Backed, Path::Shown][hand.below(3) as usize];
            for (offset, width) in COUNTERS {
                match width {
                    1 => self.increment::<u8, H>(&mut hand, path, offset),
                    2 => self.increment::<u16, H>(&mut hand, path, offset),
                    4 => self.increment::<u32, H>(&mut hand, path, offset),
                    _ => self.increment::<u64, H>(&mut hand, path, offset),
                }
                .map_err(|error| Wrong::because(format_args!("round {round}: {error}")))?;
            }
        }
        self.finished.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn increment<T: GuestInteger, H: Hart>(
        &self,
        hand: &mut Hand<'_, '_, H>,
        path: Path,
        offset: u64,
    ) -> Result<(), AccessError> {
        let order = Ordering::AcqRel;
        by_path!(hand, path, (0, self.page.gpa, offset) => |memory, at| {
            let mut found = memory.load::<T>(at, Ordering::Relaxed)?;
            loop {
                let more = T::from_register((found.to_register() + 1) & T::WIDTH.mask());
                match memory.compare_exchange(at, found, more, order)? {
                    Ok(_) => return Ok(()),
                    Err(other) => found = other,
                }
            }
        })
    }
}

impl Race for Counting {
    fn there<H: Hart>(&self, hand: Hand<'_, '_, H>, _: &Crew) -> Part {
        self.increments(hand)
    }

    fn here<H: Hart>(&self, hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome {
        self.increments(hand).map_err(Wrong::stop)?;
        let harts = crew.others as u64 + 1;
        until(0, || self.finished.load(Ordering::Acquire) == harts)?;
        let total = INCREMENTS * harts;
        let (doubles, mut expected) = ([0, 8].map(|at| arena::read(self.page.spa + at)), [0; 2]);
        for (offset, width) in COUNTERS {
            let mask = u64::MAX >> (64 - 8 * width);
            expected[offset as usize / 8] |= (total & mask) << (offset % 8 * 8);
        }
        if doubles != expected {
            return Err(Stop::failed(format_args!(
                "counters {doubles:#x?} and not {expected:#x?}"
            )));
        }
        count(
            total * COUNTERS.len() as u64,
            "increments by exchanges of racing harts, none lost",
        );
        Ok(())
    }
}

fn r17_exchanges_of_four_harts_lose_no_count(_: &mut Test) -> Outcome {
    let (world, [page], memory) = world_and_memory()?;
    let finished = AtomicU64::new(0);
    race(&world, &memory, &Counting { page, finished })
}
