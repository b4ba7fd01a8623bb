//! What `StageView`s, which ask the G-stage table, ask of those that take memory away.

use core::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::address::Spa;
use crate::csr::GMode;
use crate::translate::entry::{A, D, R, U, V, W};
use crate::translate::{EntryMemory, GRegime, GStage, Purpose, Refused, StageRules};

/// Where the slot is, and the machine's memory behind it: both begin a GiB.
const BASE: u64 = 0x8000_0000;

/// A machine with a G-stage table of one entry, which maps the GiB of the slot.
struct Machine<'a> {
    entry: AtomicU64,
    frames: &'a Frames,
}

const ROOT: u64 = 0x4000;
const ENTRY: Spa = Spa::new(ROOT + (BASE >> 30) * 8);
const READABLE: u64 = BASE >> 2 | V | R | U | A | D;

impl EntryMemory for &Machine<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        Ok(match at {
            ENTRY => self.entry.load(Ordering::Relaxed),
            _ => 0,
        })
    }

    fn compare_exchange_entry(&self, _: Spa, _: u64, _: u64) -> Result<Result<u64, u64>, Refused> {
        Err(Refused)
    }
}

// SAFETY: the frames outlive the machine, and are accessed by the library only.
unsafe impl MachineMemory for &Machine<'_> {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        let offset = at.value().checked_sub(BASE)?;
        // SAFETY: within the frames.
        (offset < self.frames.len()).then(|| unsafe { self.frames.start().add(offset as usize) })
    }
}

/// Where the machine's table leads for a store.
fn store_of(machine: &Machine<'_>, view: &PhysicalView<'_>) -> Option<NonNull<u8>> {
    let hgatp = 8 << 60 | ROOT >> 12; // Sv39x4
    let regime = GRegime::from_csrs(hgatp, 0, StageRules::BASE).unwrap();
    // SAFETY: the table leads to the frames only.
    let shown = unsafe { view.shown_by(regime, machine) };
    shown.locate(Gpa::new(BASE), Purpose::Store).ok().flatten()
}

/// Another hart asks the table just before the host takes something out of it, and goes on using what it found.
struct Late<'r, 'a> {
    machine: &'r Machine<'r>,
    reader: Option<&'r mut Reader<'a>>,
    using: Option<PhysicalView<'r>>,
}

impl Late<'_, '_> {
    fn change(&mut self, entry: u64) {
        let view = self.reader.take().unwrap().guard();
        assert_eq!(
            store_of(self.machine, &view),
            Some(self.machine.frames.start())
        );
        self.using = Some(view);
        self.machine.entry.store(entry, Ordering::Relaxed);
    }
}

impl StageMirror for Late<'_, '_> {
    fn unmap(&mut self, _: Gpa, _: u64) {
        self.change(0);
    }

    fn write_protect(&mut self, _: Gpa, _: u64) {
        self.change(READABLE);
    }

    fn shoot_down(&mut self) {
        assert!(self.using.is_some(), "no shootdown ends a plain store");
    }

    fn serve(&mut self) {
        self.using = None;
    }
}

#[test]
fn a_change_returns_after_the_guards_that_found_the_memory_in_the_g_stage_table() {
    type Memory<'m> = GuestPhysicalMemory<'m, 1, 1>;
    type Change = fn(&Memory<'_>, &mut Late<'_, '_>);
    let changes: [(&str, Change); 3] = [
        ("remove", |memory, late| {
            memory.remove(Gpa::new(BASE), late).unwrap();
        }),
        ("replace", |memory, late| {
            let trapped = Slot::trapped(Gpa::new(BASE), PAGE_SIZE);
            memory.replace(Gpa::new(BASE), trapped, late).unwrap();
        }),
        ("set_read_only", |memory, late| {
            memory.set_read_only(Gpa::new(BASE), true, late).unwrap();
        }),
    ];
    for (name, change) in changes {
        let frames = Frames::new(1);
        let machine = Machine {
            entry: AtomicU64::new(READABLE | W),
            frames: &frames,
        };
        let memory = Memory::new(GMode::Sv39x4);
        memory.add(frames.linear(BASE), &mut NoGStage).unwrap();
        let mut reader = memory.reader(0).unwrap();
        let mut late = Late {
            machine: &machine,
            reader: Some(&mut reader),
            using: None,
        };
        change(&memory, &mut late);
        assert!(
            late.reader.is_none(),
            "{name} asked for no change of the table"
        );
        assert!(late.using.is_none(), "{name} returned under a guard");
        drop(late);
        assert_eq!(store_of(&machine, &reader.guard()), None, "{name}");
    }
}
