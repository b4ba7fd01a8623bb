//! The block of memory that cases lie in: put in, looked at, put back.
//!
//! The one idea: between cases the block is as [`differential::mark`] says, so that a case is written and taken away word by
//! word; what a case may change are its own words and one that it stores to.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use differential::{BLOCK, Place, World, mark, marks};
use guest_mem::translate::{EntryMemory, Refused};
use guest_mem::{Spa, TrapInfo};
use test_kernel::arena;
use test_kernel::deviation::{Deviation, FIRMWARE, Machine, NOWHERE, firmware_is_protected};

/// Bytes from the start of memory that the firmware keeps to itself at least.
const FIRMWARE_BYTES: u64 = 0x3_0000;

/// From here on no machine has anything.
const BEYOND: u64 = 1 << 40;

/// What became of an access, as far as it can be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The value of a load (0 for a store), or the trap. `htinst` is 0 where it is the transformed instruction.
    pub outcome: Result<u64, TrapInfo>,
    /// The words of the tables afterwards.
    pub entries: [u64; differential::WORDS],
    /// Another word that changed: its offset, and what it holds.
    pub stored: Option<(u64, u64)>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(value) => write!(f, "value {value:#x}")?,
            Err(trap) => write!(
                f,
                "cause {} stval {:#x} htval {:#x} htinst {:#x}",
                trap.scause, trap.stval, trap.htval, trap.htinst
            )?,
        }
        f.write_str("; entries")?;
        for entry in self.entries.iter().filter(|&&entry| entry != 0) {
            write!(f, " {entry:x}")?;
        }
        match self.stored {
            Some((offset, value)) => write!(f, "; [{offset:#x}] = {value:#x}"),
            None => Ok(()),
        }
    }
}

/// Who refused an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Physical memory protection.
    Protected,
    /// There is nothing.
    Nothing,
}

/// The block.
pub struct Block {
    /// Where it is.
    pub place: Place,
    /// PMP refuses [`FIRMWARE`].
    protects: bool,
    /// An access where there is nothing is refused.
    has_bus_faults: bool,
    /// Why the last entry was refused.
    pub refusal: Cell<Refusal>,
    /// A walk led to what is neither the block's nor refused for sure: devices, the kernel itself, or what no bus refuses.
    pub leads_outside: Cell<bool>,
    /// An entry was read that a deviating machine would find reserved only later.
    pub reserved_page: Cell<bool>,
}

impl Block {
    /// Takes it from the arena. A place that `machine` does not refuse is no place to lead a case to: the other stands for it,
    /// or, if it refuses neither, the block itself.
    pub fn take(machine: &Machine) -> Self {
        let (protects, has_bus_faults) = (
            firmware_is_protected(),
            !machine.has(Deviation::NoBusFaults),
        );
        let start = arena::take(BLOCK);
        let mut block = Self {
            place: Place {
                block: start,
                refused: match (protects, has_bus_faults) {
                    (true, true) => [FIRMWARE, NOWHERE],
                    (true, false) => [FIRMWARE; 2],
                    (false, true) => [NOWHERE; 2],
                    (false, false) => [start; 2],
                },
            },
            protects,
            has_bus_faults,
            refusal: Cell::new(Refusal::Nothing),
            leads_outside: Cell::new(false),
            reserved_page: Cell::new(false),
        };
        block.clear();
        block
    }

    /// Makes all of it as it is between cases.
    pub fn clear(&mut self) {
        for offset in (0..BLOCK).step_by(8) {
            arena::write(self.place.block + offset, 0);
        }
        for offset in marks() {
            self.set(offset, mark(offset));
        }
    }

    fn set(&mut self, offset: u64, value: u64) {
        arena::write(self.place.block + offset, value);
    }

    /// The first word that is not as it is between cases.
    pub fn first_stain(&self) -> Option<u64> {
        (0..BLOCK)
            .step_by(8)
            .find(|&offset| arena::read(self.place.block + offset) != mark(offset))
    }

    /// Writes the case's words.
    pub fn put(&mut self, world: &World) {
        for word in world.words() {
            self.set(word.offset, word.value);
        }
    }

    /// Takes the case's words away.
    pub fn put_back(&mut self, world: &World) {
        for word in world.words() {
            self.set(word.offset, mark(word.offset));
        }
    }

    /// What became of the access. Takes back what it stored, unless that was to an entry.
    pub fn seen(&mut self, world: &World, outcome: Result<u64, TrapInfo>) -> Seen {
        let mut entries = [0; differential::WORDS];
        for (entry, word) in entries.iter_mut().zip(world.words()) {
            *entry = arena::read(self.place.block + word.offset);
        }
        // Whatever page it reaches, it reaches it at this offset.
        let in_page = world.address & 0xff8;
        let changed = (in_page..BLOCK).step_by(4096).find_map(|offset| {
            let value = arena::read(self.place.block + offset);
            let is_entry = || world.words().iter().any(|word| word.offset == offset);
            (value != mark(offset) && !is_entry()).then_some((offset, value))
        });
        if let Some((offset, _)) = changed {
            self.set(offset, mark(offset));
        }
        Seen {
            outcome,
            entries,
            stored: changed,
        }
    }

    /// Whether `at` is in the block.
    pub fn contains(&self, at: u64) -> bool {
        at.wrapping_sub(self.place.block) < BLOCK
    }

    fn entry(&self, at: Spa) -> Result<&'static AtomicU64, Refused> {
        let at = at.value();
        if !self.contains(at) {
            let protected = self.protects && at.wrapping_sub(FIRMWARE) < FIRMWARE_BYTES;
            let nothing = self.has_bus_faults && at >= BEYOND;
            if !protected && !nothing {
                self.leads_outside.set(true);
            }
            self.refusal.set(match protected {
                true => Refusal::Protected,
                false => Refusal::Nothing,
            });
            return Err(Refused);
        }
        // SAFETY: an aligned double of the block, which is the arena's and mapped for all of the run; whoever else touches
        // it does so by volatile or guest accesses.
        Ok(unsafe { AtomicU64::from_ptr(at as *mut u64) })
    }
}

impl EntryMemory for Block {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        Ok(self.entry(at)?.load(Ordering::Relaxed))
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let entry = self.entry(at)?;
        Ok(entry.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
    }
}
