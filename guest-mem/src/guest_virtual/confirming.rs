//! Accesses by the hardware whose faults are doubted: a walk of the guest's tables says whether a fault stands, and what it was.
//!
//! The one idea: a fault tells of tables that may have changed since (R46), and sometimes too little (R16, R22, R59). A walk that
//! leaves no trace knows better than nothing; where the two disagree the hardware is asked once more, and then believed.

use super::UNMASKED_BITS;
use super::backed::BackedVirtual;
use crate::address::Gva;
use crate::cause;
use crate::fault::{AccessError, Fault, FaultKind};
use crate::guest_memory::GuestMemory;
use crate::guest_physical::BackingMemory;
use crate::hart::Hart;

/// Whether a fault of the hardware is true.
enum Verdict {
    /// It is, as this fault says.
    Stands(Fault),
    /// The guest's tables say otherwise by now.
    Raced(Fault),
}

/// Whether a walk may know better than a fault of the hardware.
fn is_doubtful(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::Page => true,
        // It may be a page fault (R59). A hardware error is none, and a walk might meet it again.
        FaultKind::Access => fault
            .trap
            .is_some_and(|trap| trap.scause != cause::HARDWARE_ERROR),
        FaultKind::GuestPage { .. } => fault.gpa.is_none(),
        _ => false,
    }
}

/// What an access has left to do when it faults.
#[derive(Clone, Copy)]
struct Rest {
    gva: Gva,
    len: usize,
}

impl Rest {
    /// `fault` with its address only if that lies in what was left to do: some machines give another (R93).
    fn locate(self, fault: Fault) -> Fault {
        // Pointer masking changes the bits above (R14).
        const UNUSED: u32 = u64::BITS - UNMASKED_BITS;
        let gva = fault.gva.filter(|gva| {
            let behind = gva.value().wrapping_sub(self.gva.value()) << UNUSED >> UNUSED;
            behind < self.len as u64
        });
        Fault { gva, ..fault }
    }
}

impl<H: Hart, M: BackingMemory> BackedVirtual<'_, '_, H, M> {
    pub(super) fn read_by_hardware(
        &self,
        gva: Gva,
        destination: &mut [u8],
    ) -> Result<(), AccessError> {
        self.confirmed(gva, destination.len(), |at, done| {
            self.hardware.read(at, &mut destination[done..])
        })
    }

    pub(super) fn write_by_hardware(&self, gva: Gva, source: &[u8]) -> Result<(), AccessError> {
        self.confirmed(gva, source.len(), |at, done| {
            self.hardware.write(at, &source[done..])
        })
    }

    pub(super) fn fill_by_hardware(
        &self,
        gva: Gva,
        byte: u8,
        len: usize,
    ) -> Result<(), AccessError> {
        self.confirmed(gva, len, |at, done| {
            self.hardware.fill(at, byte, len - done)
        })
    }

    /// Runs `access` from an offset, until it is done or its fault stands. A fault that a walk does not confirm is retried
    /// once at each page (R46).
    pub(super) fn confirmed(
        &self,
        gva: Gva,
        len: usize,
        mut access: impl FnMut(Gva, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        let mut done = 0;
        let mut retried_page = None;
        loop {
            let at = Gva::new(gva.value().wrapping_add(done as u64));
            let Err(error) = access(at, done) else {
                return Ok(());
            };
            done += error.completed;
            let rest = Rest {
                gva: Gva::new(gva.value().wrapping_add(done as u64)),
                len: len - done,
            };
            let fault = rest.locate(error.fault);
            let page = Some(fault.gva.unwrap_or(rest.gva).page_base());
            match self.classify_in(fault, rest) {
                Verdict::Stands(fault) => return Err(fault.after(done)),
                Verdict::Raced(_) if done < len && retried_page != page => {
                    retried_page = page;
                    // Of everything: a fence of one address orders its leaf entry only (R40).
                    self.vcpu().hart.hfence_vvma(None);
                }
                Verdict::Raced(fault) => return Err(fault.after(done)),
            }
        }
    }

    /// What a hardware fault of what was left of an access was. If it has no address in there, it is looked for where the
    /// access stopped: the library's accesses are aligned (R10), and so the instruction that faulted began there (R93).
    fn classify_in(&self, fault: Fault, rest: Rest) -> Verdict {
        if !is_doubtful(&fault) {
            return Verdict::Stands(fault);
        }
        if let Some(gva) = fault.gva {
            return self.classify(fault, gva);
        }
        match self.classify(fault, rest.gva) {
            Verdict::Stands(found) => Verdict::Stands(found.at_gva(rest.gva)),
            raced => raced,
        }
    }

    /// What a hardware fault at `gva` was, by a walk that leaves no trace.
    fn classify(&self, fault: Fault, gva: Gva) -> Verdict {
        let Ok(regime) = self.regime(fault.operation) else {
            return Verdict::Stands(fault);
        };
        let stands = |kind, gpa| Verdict::Stands(Fault { kind, gpa, ..fault });
        match (
            fault.kind,
            self.walk(&regime.looking(), fault.operation, gva),
        ) {
            // The walk knows more.
            (FaultKind::Access, Err(walked))
                if matches!(walked.kind, FaultKind::Page | FaultKind::ShadowStack) =>
            {
                stands(walked.kind, fault.gpa)
            }
            // The walk agrees.
            (FaultKind::Page, Err(walked)) if walked.kind == FaultKind::Page => {
                Verdict::Stands(fault)
            }
            (FaultKind::GuestPage { .. }, Err(walked))
                if matches!(walked.kind, FaultKind::GuestPage { .. }) =>
            {
                stands(walked.kind, walked.gpa)
            }
            // Something other than the VS-stage refuses where the hardware's G-stage does: no slot, or one that is emulated.
            (FaultKind::GuestPage { .. }, Err(walked)) if walked.gpa.is_some() => {
                stands(fault.kind, walked.gpa)
            }
            // The slots have the page and the G-stage table does not (yet).
            (FaultKind::GuestPage { .. }, Ok(found)) => stands(fault.kind, Some(found.gpa)),
            // A page that the walk needs is absent: not there yet, or on its way to another frame. What the fault was is known
            // when it is there (R59, I13).
            (FaultKind::Access, Err(walked))
                if matches!(walked.kind, FaultKind::GuestPage { .. }) =>
            {
                stands(walked.kind, walked.gpa)
            }
            (FaultKind::Access, Err(_)) => Verdict::Stands(fault),
            // The walk disagrees: the tables changed since, and the next access will tell. An access fault is believed only
            // after that, since it may have been a page fault (R59).
            _ => Verdict::Raced(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Operation, Space, TrapInfo};

    fn fault(scause: u64, stval: u64) -> Fault {
        let trap = TrapInfo {
            scause,
            stval,
            ..TrapInfo::default()
        };
        Fault::from_trap(Operation::Read, Space::Virtual, trap)
    }

    #[test]
    fn r92_a_hardware_error_is_not_looked_into() {
        assert!(is_doubtful(&fault(cause::LOAD_ACCESS, 0x5000)));
        let corrupt = fault(cause::HARDWARE_ERROR, 0x5000);
        assert_eq!(corrupt.kind, FaultKind::Access);
        assert!(!is_doubtful(&corrupt));
    }

    #[test]
    fn r93_an_address_counts_only_in_what_was_left_of_the_access() {
        let rest = Rest {
            gva: Gva::new(0x5ff8),
            len: 16,
        };
        for (stval, counts) in [
            (0x5ff7, false),
            (0x5ff8, true),
            (0x6007, true),
            (0x6008, false),
            (0, false),
            // As pointer masking left it, and not.
            (0xff00_0000_0000_5ff8, true),
        ] {
            let located = rest.locate(fault(cause::LOAD_PAGE, stval));
            assert_eq!(located.gva.is_some(), counts, "{stval:#x}");
        }
    }
}
