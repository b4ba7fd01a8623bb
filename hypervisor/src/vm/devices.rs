//! The emulated devices of a guest, as its harts share them.
//!
//! The one idea: whoever makes an access or delivers a typed byte may move the interrupt line of
//! any hart; the harts whose line has moved are told after the lock is free again, whatever became
//! of the access (R88).

use guest_mem::{Gpa, Width};
use spin::Mutex;

use crate::clock::Clock;
use crate::console;
use crate::devices::finisher::Finish;
use crate::devices::{Board, BusError, Wiring};
use crate::sbi::arguments::HartSet;

/// All of them.
pub struct Devices {
    board: Mutex<Board<fn(u8)>>,
    clock: Clock,
}

impl Devices {
    /// The devices of a guest with `harts` harts, at reset.
    ///
    /// # Errors
    ///
    /// Never with addresses that do not overlap.
    pub fn new(harts: usize, clock: Clock) -> Result<Self, BusError> {
        let output: fn(u8) = |byte| console::put_guest(&[byte]);
        Ok(Self {
            board: Mutex::new(Board::new(Wiring::VIRT, harts, output)?),
            clock,
        })
    }

    /// Carries out an access, at `gpa` if it is one of the guest's loads or stores, and tells the
    /// harts whose external interrupt is not what it was. Time alone may have moved a line.
    fn with<T>(
        &self,
        gpa: Option<Gpa>,
        tell: impl FnOnce(HartSet),
        access: impl FnOnce(&mut Board<fn(u8)>) -> T,
    ) -> T {
        let (answer, changed) = {
            let mut board = self.board.lock();
            if board.wants_time(gpa) {
                board.set_time(self.clock.now());
            }
            let answer = access(&mut board);
            (answer, HartSet(board.take_changed_interrupts()))
        };
        tell(changed);
        answer
    }

    /// A load of the guest, zero-extended; `None` if no device is there. A driver that has read all
    /// that the serial port held gets what was typed meanwhile at once: else a paste would come in
    /// pieces of its FIFO's size, one a tick of the host.
    pub fn read(&self, gpa: Gpa, width: Width, tell: impl FnOnce(HartSet)) -> Option<u64> {
        self.with(Some(gpa), tell, |board| {
            let value = board.read(gpa, width);
            if board.take_drained() {
                board.type_in(console::get);
            }
            value
        })
    }

    /// A store of the guest, and how it asks for its end by that; `None` if no device is there.
    pub fn write(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        tell: impl FnOnce(HartSet),
    ) -> Option<Option<Finish>> {
        self.with(Some(gpa), tell, |board| {
            board.write(gpa, width, value)?;
            Some(board.take_finish())
        })
    }

    /// Gives the serial port what was typed: whatever `next` yields, until the port is full.
    /// Returns whether there was something.
    pub fn type_in(&self, next: impl FnMut() -> Option<u8>, tell: impl FnOnce(HartSet)) -> bool {
        self.with(None, tell, |board| board.type_in(next))
    }

    /// The next typed byte for a guest that asks the SBI for it, of what the serial port holds and
    /// then of what `next` yields.
    pub fn typed(
        &self,
        next: impl FnOnce() -> Option<u8>,
        tell: impl FnOnce(HartSet),
    ) -> Option<u8> {
        self.with(None, tell, |board| board.typed(next))
    }

    /// Whether the external interrupt of hart `index` is asserted.
    pub fn external_interrupt(&self, index: usize) -> bool {
        self.board.lock().external_interrupt(index)
    }
}
