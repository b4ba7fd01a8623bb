//! The emulated devices of a guest, as its harts share them.
//!
//! The one idea: whoever makes an access or delivers a typed byte may move the interrupt line of any hart; the harts whose
//! line has moved are told after the lock is free again.

use guest_mem::{Gpa, Width};
use spin::Mutex;

use crate::console;
use crate::devices::{Board, BusError, Wiring};
use crate::sbi::arguments::HartSet;

/// All of them.
pub struct Devices {
    inner: Mutex<Inner>,
}

struct Inner {
    board: Board<fn(u8)>,
    /// A typed byte that the serial port had no room for yet.
    waiting: Option<u8>,
}

/// What an access came to.
pub struct Answer<T> {
    /// The value, or `None` if no device is there.
    pub value: Option<T>,
    /// The harts whose external interrupt is not what it was.
    pub changed: HartSet,
}

impl Devices {
    /// The devices of a guest with `harts` harts, at reset.
    ///
    /// # Errors
    ///
    /// Never with addresses that do not overlap.
    pub fn new(harts: usize) -> Result<Self, BusError> {
        let output: fn(u8) = |byte| console::put_guest(&[byte]);
        Ok(Self {
            inner: Mutex::new(Inner {
                board: Board::new(Wiring::VIRT, harts, output)?,
                waiting: None,
            }),
        })
    }

    fn with<T>(&self, access: impl FnOnce(&mut Inner) -> Option<T>) -> Answer<T> {
        let mut inner = self.inner.lock();
        let value = access(&mut inner);
        Answer {
            value,
            changed: HartSet(inner.board.take_changed_interrupts()),
        }
    }

    /// A load of the guest, zero-extended.
    pub fn read(&self, gpa: Gpa, width: Width) -> Answer<u64> {
        self.with(|inner| inner.board.read(gpa, width))
    }

    /// A store of the guest.
    pub fn write(&self, gpa: Gpa, width: Width, value: u64) -> Answer<()> {
        self.with(|inner| inner.board.write(gpa, width, value))
    }

    /// Gives the serial port what was typed: whatever `next` yields, until the port is full.
    pub fn type_in(&self, mut next: impl FnMut() -> Option<u8>) -> HartSet {
        self.with(|inner| {
            while let Some(byte) = inner.waiting.take().or_else(&mut next) {
                if !inner.board.push_input(byte) {
                    inner.waiting = Some(byte);
                    break;
                }
            }
            Some(())
        })
        .changed
    }

    /// Whether the external interrupt of hart `index` is asserted.
    pub fn external_interrupt(&self, index: usize) -> bool {
        self.inner.lock().board.external_interrupt(index)
    }
}
