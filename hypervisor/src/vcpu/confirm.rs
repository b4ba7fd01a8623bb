//! A guest-page fault whose trap says too little: what a walk makes of it (R22, R76).
//!
//! The one idea: a walk reads the tables as they are now. If it finds nothing wrong, the tables
//! have changed since the hart looked, or the hart still remembers what was absent. Both end with a
//! fence and one more try of the guest (R46).

use guest_mem::hart::Hart;
use guest_mem::{Fault, Resolution};

/// This hart forgets how it translates anything of the guest, what it knows to be absent included.
pub fn forget_translations(hart: &impl Hart) {
    hart.hfence_gvma(None);
    hart.hfence_vvma(None);
}

/// The fault as `walk` completes it where that is needed. `None` if `walk` finds nothing: then the
/// hart remembers nothing either, and the guest tries again.
pub fn confirmed(
    fault: Fault,
    hart: &impl Hart,
    walk: impl FnOnce(&Fault) -> Option<Fault>,
) -> Option<Fault> {
    if fault.resolution() != Resolution::Walk {
        return Some(fault);
    }
    let found = walk(&fault);
    if found.is_none() {
        forget_translations(hart);
    }
    found
}

#[cfg(test)]
mod tests {
    use guest_mem::fault::GuestExit;
    use guest_mem::guest_virtual::LoadedVcpu;
    use guest_mem::hart::model::{Machine, ModelGuest, Ram, RamArray, Translations};
    use guest_mem::probe::MachineProfile;
    use guest_mem::translate::{
        EntryMemory, GRegime, GTables, Refused, StageRules, VsCsrs, VsRegime, entry,
    };
    use guest_mem::{
        AccessError, AccessKind, Gpa, GuestMemory, GuestPrivilege, Gva, Spa, TrapInfo, Width, cause,
    };

    use super::*;

    const GVA: Gva = Gva::new(0x10_0000);
    const PAGE: Gpa = Gpa::new(0x8000_3000);

    /// The machine's memory, of which page-table entries are only read.
    struct Entries<'a>(Ram<'a>);

    impl EntryMemory for Entries<'_> {
        fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
            self.0.load(at, Width::Double).ok_or(Refused)
        }

        fn compare_exchange_entry(
            &self,
            _: Spa,
            _: u64,
            _: u64,
        ) -> Result<Result<u64, u64>, Refused> {
            Err(Refused)
        }
    }

    /// A load of the guest's, made by the hart that runs it.
    fn load(hart: &impl Hart) -> Result<u64, AccessError> {
        // SAFETY: the guest is loaded on this hart, which has one token at a time.
        let loaded = unsafe { LoadedVcpu::new(hart) };
        loaded
            .guest_virtual(GuestPrivilege::Supervisor)
            .read_obj::<u64>(GVA)
    }

    /// A hart without `htval` knows a page as absent. Another hart brings the page in, so the walk
    /// finds nothing: without a fence the guest would fault here for ever.
    #[test]
    fn r46_a_fault_that_no_walk_confirms_is_fenced_away() {
        let memory = RamArray::<32>::new();
        let ram = memory.at(Spa::new(0x8_0000_0000));
        let guest = ModelGuest::new(ram).unwrap();
        guest.map(GVA, PAGE, entry::R).unwrap();
        guest.write(PAGE, &[7]).unwrap();
        guest.unback(PAGE).unwrap();
        let hart = guest.hart_of(Machine {
            translations: Translations::Lazy,
            keeps_refusals: true,
            writes_htval: false,
            ..Machine::new()
        });
        let csrs = VsCsrs {
            vsatp: guest.vsatp(),
            vsstatus: 0,
            sstatus: 0,
            hstatus: 0,
            henvcfg: 0,
            senvcfg: 0,
        };
        let vs = VsRegime::from_csrs(&csrs, StageRules::BASE).unwrap();
        let g = GRegime::from_csrs(guest.hgatp(), 0, StageRules::BASE).unwrap();
        let tables = GTables::new(g, Entries(ram));
        let walk = |fault: &Fault| fault.walked(&vs, &tables, GuestPrivilege::Supervisor);
        let exit = |htval| {
            let exit = GuestExit {
                trap: TrapInfo {
                    scause: cause::LOAD_GUEST_PAGE,
                    stval: GVA.value(),
                    htval,
                    htinst: 0,
                },
                pc: 0x8020_0000,
                privilege: GuestPrivilege::Supervisor,
                vsatp: guest.vsatp(),
            };
            Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED)
        };
        let resolve = Some(Resolution::Resolve {
            gpa: PAGE,
            access: AccessKind::Load,
        });

        assert!(load(&hart).is_err());
        let found = confirmed(exit(0), &hart, walk);
        assert_eq!(found.map(|fault| fault.resolution()), resolve);
        guest
            .back(PAGE, guest.spa(PAGE).unwrap(), entry::R)
            .unwrap();
        assert!(load(&hart).is_err(), "the hart remembers that it is absent");
        // Where the trap says enough, nothing is walked and nothing fenced.
        let found = confirmed(exit(PAGE.value() >> 2), &hart, |_| unreachable!());
        assert_eq!(found.map(|fault| fault.resolution()), resolve);
        assert!(load(&hart).is_err());

        assert_eq!(confirmed(exit(0), &hart, walk), None);
        assert_eq!(load(&hart), Ok(7));
    }
}
