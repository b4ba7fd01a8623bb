//! Recognizing a guest that gets nowhere: it faults at its own trap vector, takes that fault at its trap vector, and so on.
//!
//! The one idea: an exception whose pc is the first instruction of the trap vector itself leads back to the same pc with the
//! same registers. Once is possible (the handler is paged in later by another hart), a row of them is for ever.

/// Exceptions in a row at the trap vector's own address that are taken for endless.
const ENDLESS: u32 = 64;

/// Counts such exceptions of one vCPU.
#[derive(Debug, Default)]
pub struct Detector {
    row: u32,
    retried_at: u64,
    retries: u32,
}

impl Detector {
    /// Told of an exception that the guest takes at `pc` with its trap vector at `vstvec`. Answers whether this is endless.
    pub fn exception(&mut self, pc: u64, vstvec: u64) -> bool {
        self.row = if pc == vstvec & !0b11 {
            self.row + 1
        } else {
            0
        };
        self.row >= ENDLESS
    }

    /// Whether the guest may try the access at `pc` once more whose instruction did not fit its fault.
    pub fn may_retry(&mut self, pc: u64) -> bool {
        self.retries = if pc == self.retried_at {
            self.retries + 1
        } else {
            1
        };
        self.retried_at = pc;
        let may = self.retries < ENDLESS;
        if !may {
            self.retries = 0;
        }
        may
    }

    /// Told, on a tick, of a guest that was interrupted at `pc` when its last exception had come from `vsepc` with `vscause`.
    /// A guest that takes delegated exceptions in an endless row is always met there, and never causes an exit.
    pub fn tick(&mut self, pc: u64, vstvec: u64, vsepc: u64, vscause: u64) -> bool {
        const INTERRUPT: u64 = 1 << 63;
        let vector = vstvec & !0b11;
        if pc == vector && vsepc == vector && vscause & INTERRUPT == 0 {
            self.row += 1;
        } else {
            self.row = 0;
        }
        self.row >= ENDLESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_at_the_trap_vector_itself_are_endless() {
        let mut detector = Detector::default();
        for _ in 1..ENDLESS {
            assert!(!detector.exception(0x8000_0000, 0x8000_0001));
        }
        assert!(detector.exception(0x8000_0000, 0x8000_0001));
    }

    #[test]
    fn an_exception_elsewhere_is_progress() {
        let mut detector = Detector::default();
        for round in 0..1000 {
            let pc = if round % 2 == 0 {
                0x8000_0000
            } else {
                0x8000_0004
            };
            assert!(!detector.exception(pc, 0x8000_0000));
        }
    }

    #[test]
    fn an_access_is_not_retried_for_ever() {
        let mut detector = Detector::default();
        for round in 0..1000 {
            assert!(detector.may_retry(round % 2), "other accesses come between");
        }
        let row = (0..1000).position(|_| !detector.may_retry(7));
        assert_eq!(row, Some(ENDLESS as usize - 1));
    }

    #[test]
    fn ticks_find_a_guest_that_never_exits() {
        let mut detector = Detector::default();
        assert!(!detector.tick(0x10, 0x10, 0x14, 12));
        assert!(!detector.tick(0x10, 0x10, 0x10, 1 << 63 | 5));
        assert!((0..ENDLESS).any(|_| detector.tick(0x10, 0x10, 0x10, 12)));
    }
}
