//! Reading a guest's exit: from what its trap left to a [`Fault`] of the guest's own access.
//!
//! The one idea: a hypervisor reads such a trap once, here, with what is known of the machine; its handler then only asks
//! [`Fault::resolution`].

use super::{Fault, FaultKind, Operation, Space, TrapInfo};
use crate::access::{AccessKind, GuestPrivilege};
use crate::address::{Gpa, Gva};
use crate::cause;
use crate::instruction::{Decoded, Instruction, decode};
use crate::probe::MachineProfile;
use crate::translate::{Access, AdPolicy, GStage, Purpose, VsRegime, translate};

/// A G-stage for a walk that only explains: an entry that the walk would update is asked for by rights, and stays as it is.
struct Untouched<'g, G>(&'g G);

impl<G: GStage> GStage for Untouched<'_, G> {
    type Page = G::Page;

    fn read_entry(&self, at: Gpa) -> Result<u64, FaultKind> {
        self.0.read_entry(at)
    }

    fn compare_exchange_entry(
        &self,
        at: Gpa,
        current: u64,
        _: u64,
    ) -> Result<Result<u64, u64>, FaultKind> {
        self.0.locate(at, Purpose::Store)?;
        Ok(Ok(current))
    }

    fn locate(&self, at: Gpa, purpose: Purpose) -> Result<G::Page, FaultKind> {
        self.0.locate(at, purpose)
    }
}

/// What a guest's trap into HS-mode left behind, as the exit path saved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestExit {
    /// The trap CSRs.
    pub trap: TrapInfo,
    /// `sepc`: where the guest was.
    pub pc: u64,
    /// Whose rights the guest had: [`GuestPrivilege::from_exit`] of the exit's `sstatus`.
    pub privilege: GuestPrivilege,
    /// `vsatp` of the guest.
    pub vsatp: u64,
}

/// How far from the pc the fault of a fetch can be: it is that of a parcel.
const FETCHED_BYTES: u64 = 4;

impl Fault {
    /// The fault that a guest's exit means, on a machine with this profile: who refused which access of the guest's own,
    /// and where. [`resolution`](Self::resolution) says what to do about it.
    ///
    /// The kind is [`FaultKind::UnexpectedCause`] if the cause is not that of a memory access. Of a guest-page fault that
    /// does not say enough the [`gpa`](Self::gpa) is `None`, and the resolution is [`Walk`](super::Resolution::Walk).
    ///
    /// ```
    /// use guest_mem::fault::GuestExit;
    /// use guest_mem::probe::MachineProfile;
    /// use guest_mem::{AccessKind, Fault, Gpa, GuestPrivilege, Resolution, TrapInfo, cause};
    ///
    /// // A store of the guest's met a page that the G-stage does not have yet.
    /// let exit = GuestExit {
    ///     trap: TrapInfo { scause: cause::STORE_GUEST_PAGE, stval: 0x5008, htval: 0x8000_3008 >> 2, htinst: 0 },
    ///     pc: 0x8020_0000,
    ///     privilege: GuestPrivilege::Supervisor,
    ///     vsatp: 8 << 60 | 0x8_0001,
    /// };
    /// let profile = MachineProfile::AS_SPECIFIED; // or what `probe` found
    /// let fault = Fault::from_guest_exit(&exit, &profile);
    /// let gpa = Gpa::new(0x8000_3008);
    /// assert_eq!(fault.resolution(), Resolution::Resolve { gpa, access: AccessKind::Store });
    /// // If nothing belongs there, the guest gets the access fault of a store.
    /// assert_eq!(fault.injection_when_unbacked().unwrap().cause, 7);
    /// ```
    pub fn from_guest_exit(exit: &GuestExit, profile: &MachineProfile) -> Self {
        let trap = exit.trap;
        let Some(refusal) = cause::refusal(trap.scause) else {
            return Self {
                trap: Some(trap),
                ..Self::new(Operation::GuestFetch, FaultKind::UnexpectedCause)
            };
        };
        let operation = Operation::of_guest(refusal.access);
        let mut fault = Self::from_trap(operation, Space::of_vsatp(exit.vsatp), trap);
        if !fault.is_of_page_table() {
            return fault;
        }
        // R67: every page-table access has the cause of a load there. The walk for the instruction comes before that for its
        // data, so one that faults at the pc is the fetch's.
        if profile.implicit_faults_are_loads
            && operation == Operation::GuestLoad
            && trap.stval.wrapping_sub(exit.pc) < FETCHED_BYTES
        {
            fault.operation = Operation::GuestFetch;
        }
        // R76: reads and updates look alike there.
        if profile.htinst_follows_access {
            fault.kind = FaultKind::GuestPage {
                access: AccessKind::Load,
                implicit: true,
            };
            if profile.vs_stage_ad == AdPolicy::Update {
                fault.gpa = None;
            }
        }
        fault
    }

    /// Whether the access that faulted is one of the VS-stage's walk to a page table.
    #[inline]
    pub const fn is_of_page_table(&self) -> bool {
        matches!(self.kind, FaultKind::GuestPage { implicit: true, .. })
    }

    /// Whether the type of the guest's own access has to be asked of the instruction at the pc: the machine gives each
    /// page-table fault the cause of a load (R67).
    #[inline]
    pub fn needs_instruction(&self, profile: &MachineProfile) -> bool {
        profile.implicit_faults_are_loads
            && self.operation == Operation::GuestLoad
            && self.is_of_page_table()
    }

    /// This fault of the guest's own, with the type that the instruction at its pc says: see
    /// [`needs_instruction`](Self::needs_instruction).
    ///
    /// ```
    /// use guest_mem::fault::GuestExit;
    /// use guest_mem::instruction::Instruction;
    /// use guest_mem::probe::MachineProfile;
    /// use guest_mem::{Fault, GuestPrivilege, TrapInfo, cause};
    ///
    /// // QEMU 7.2: a store, whose page table is nowhere, exits with the cause of a load.
    /// let profile = MachineProfile { implicit_faults_are_loads: true, ..MachineProfile::AS_SPECIFIED };
    /// let exit = GuestExit {
    ///     trap: TrapInfo { scause: cause::LOAD_GUEST_PAGE, stval: 0x5008, htval: 0x1000_0000 >> 2, htinst: 0x3000 },
    ///     pc: 0x8020_0000,
    ///     privilege: GuestPrivilege::Supervisor,
    ///     vsatp: 8 << 60 | 0x8_0001,
    /// };
    /// let fault = Fault::from_guest_exit(&exit, &profile);
    /// assert!(fault.needs_instruction(&profile));
    /// let sd = Instruction::from_bits(0x00b5_3423); // sd a1, 8(a0)
    /// assert_eq!(fault.of_instruction(sd).injection_when_unbacked().unwrap().cause, 7);
    /// ```
    #[must_use]
    pub const fn of_instruction(self, instruction: Instruction) -> Self {
        let is_store = match decode(instruction) {
            Decoded::Access(access) => matches!(access.access_kind(), AccessKind::Store),
            Decoded::NotEmulatable(refused) => {
                refused.kind.may_fault_as(AccessKind::Store)
                    && !refused.kind.may_fault_as(AccessKind::Load)
            }
            Decoded::NoMemoryAccess { .. } => false,
        };
        if is_store && matches!(self.operation, Operation::GuestLoad) {
            Self {
                operation: Operation::GuestStore,
                ..self
            }
        } else {
            self
        }
    }

    /// Completes a fault whose [`resolution`](Self::resolution) is [`Walk`](super::Resolution::Walk), by a walk over the
    /// guest's tables: what the G-stage refuses, and for what. `None` if it refuses nothing, or if the guest's own tables
    /// do by now: they have changed since the exit, and the guest tries again (R46).
    ///
    /// `vs` and `g` are the guest's stages as its own accesses meet them, and `privilege` that of the exit. The walk leaves the
    /// guest's A and D bits alone: no access is made, and the guest's own sets them when it is tried again (R94).
    ///
    /// # Errors
    ///
    /// None: a walk that ends in another way tells nothing about the exit.
    #[must_use]
    pub fn walked<G: GStage>(
        &self,
        vs: &VsRegime,
        g: &G,
        privilege: GuestPrivilege,
    ) -> Option<Self> {
        let access = Access {
            gva: self.gva?,
            purpose: Purpose::of(self.operation.access_kind()),
            privilege,
        };
        // A look finds what is refused of reads and of the page; only a walk that updates finds a refused update.
        let g = Untouched(g);
        let found = [vs.looking(), *vs].iter().find_map(|vs| {
            translate(vs, &g, access)
                .err()
                .filter(|fault| matches!(fault.kind, FaultKind::GuestPage { .. }))
        })?;
        Some(Self {
            kind: found.kind,
            gpa: found.gpa,
            ..*self
        })
    }

    /// The address of a fault that has one: what `stval` held.
    pub(crate) const fn stval(&self) -> Gva {
        match (self.gva, self.trap) {
            (Some(gva), _) => gva,
            (None, Some(trap)) => Gva::new(trap.stval),
            (None, None) => Gva::new(0),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::fault::Resolution;
    use crate::hart::model::{ModelGuest, Ram, RamArray};
    use crate::inject::Injection;
    use crate::translate::entry::{A, D, R, U, V, W};
    use crate::translate::{EntryMemory, GRegime, GTables, Refused, StageRules, VsCsrs};
    use crate::{Spa, Width};

    const PC: u64 = 0x8020_0000;
    const STVAL: u64 = 0x5ffe;
    const SV39: u64 = 8 << 60;

    fn exit(scause: u64, htval: u64, htinst: u64) -> GuestExit {
        GuestExit {
            trap: TrapInfo {
                scause,
                stval: STVAL,
                htval,
                htinst,
            },
            pc: PC,
            privilege: GuestPrivilege::Supervisor,
            vsatp: SV39,
        }
    }

    fn resolution(scause: u64, htval: u64, htinst: u64) -> Resolution {
        let exit = exit(scause, htval, htinst);
        Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED).resolution()
    }

    #[test]
    fn i14_every_refusal_of_an_exit_has_one_owner() {
        for scause in [0, 1, 4, 5, 6, 7, 12, 13, 15] {
            let tval = STVAL;
            let injection = Injection {
                cause: scause,
                tval,
            };
            assert_eq!(resolution(scause, 0, 0), Resolution::Inject(injection));
        }
        for (scause, access) in [
            (20, AccessKind::Fetch),
            (21, AccessKind::Load),
            (23, AccessKind::Store),
        ] {
            let gpa = Gpa::new(0x8000_1ffe);
            let resolve = Resolution::Resolve { gpa, access };
            assert_eq!(resolution(scause, 0x8000_1ffe >> 2, 0), resolve);
            assert_eq!(resolution(scause, 0, 0), Resolution::Walk);
            // A page table is read or updated, whatever it is for.
            for (htinst, access) in [(0x3000, AccessKind::Load), (0x3020, AccessKind::Store)] {
                let gpa = Gpa::new(0x8000_2ff8);
                let resolve = Resolution::Resolve { gpa, access };
                assert_eq!(resolution(scause, 0x8000_2ff8 >> 2, htinst), resolve);
            }
        }
        for scause in [2, 3, 8, 10, 19, 22, 31, 1 << 63 | 5] {
            assert_eq!(resolution(scause, 0, 0), Resolution::Refuse);
        }
    }

    #[test]
    fn r67_a_page_table_fault_at_the_pc_is_the_fetchs() {
        let profile = MachineProfile {
            implicit_faults_are_loads: true,
            ..MachineProfile::AS_SPECIFIED
        };
        for (distance, implicit, operation) in [
            (0, true, Operation::GuestFetch),
            (2, true, Operation::GuestFetch),
            (4, true, Operation::GuestLoad),
            (u64::MAX, true, Operation::GuestLoad),
            (0, false, Operation::GuestLoad),
        ] {
            let mut exit = exit(21, 0x400, if implicit { 0x3000 } else { 0 });
            exit.pc = exit.trap.stval.wrapping_sub(distance);
            let fault = Fault::from_guest_exit(&exit, &profile);
            assert_eq!(fault.operation, operation, "{distance}, {implicit}");
            // Elsewhere the cause is believed.
            let fault = Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED);
            assert_eq!(fault.operation, Operation::GuestLoad);
        }
    }

    #[test]
    fn r67_the_instruction_tells_the_type_of_a_page_table_fault() {
        let profile = MachineProfile {
            implicit_faults_are_loads: true,
            ..MachineProfile::AS_SPECIFIED
        };
        let fault = Fault::from_guest_exit(&exit(21, 0x400, 0x3000), &profile);
        assert!(fault.needs_instruction(&profile));
        assert!(!fault.needs_instruction(&MachineProfile::AS_SPECIFIED));
        for (bits, cause) in [
            (0x0005_b503, 5), // ld a0, 0(a1)
            (0x00a5_b023, 7), // sd a0, 0(a1)
            (0xc188, 7),      // c.sw a0, 0(a1)
            (0x00b6_252f, 7), // amoadd.w a0, a1, (a2)
            (0x1005_a52f, 5), // lr.w a0, (a1)
            (0x0005_3507, 5), // fld fa0, 0(a0)
            (0x0000_0013, 5), // nop: another hart rewrote it
        ] {
            let fault = fault.of_instruction(Instruction::from_bits(bits));
            let injection = fault.injection_when_unbacked().unwrap();
            assert_eq!(injection.cause, cause, "{bits:08x}");
        }
        let explicit = Fault::from_guest_exit(&exit(21, 0x400, 0), &profile);
        assert!(!explicit.needs_instruction(&profile));
    }

    /// The machine's memory, of which page-table entries may be written.
    struct Entries<'a>(Ram<'a>);

    impl EntryMemory for Entries<'_> {
        fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
            self.0.load(at, Width::Double).ok_or(Refused)
        }

        fn compare_exchange_entry(
            &self,
            at: Spa,
            current: u64,
            new: u64,
        ) -> Result<Result<u64, u64>, Refused> {
            self.0.compare_exchange(at, current, new).ok_or(Refused)
        }
    }

    /// A guest on a machine whose trap says too little: a walk says what the G-stage refuses.
    #[test]
    fn r22_r76_r94_a_walk_completes_what_an_exit_does_not_say() {
        const GVA: Gva = Gva::new(0x5000);
        const PAGE: Gpa = Gpa::new(0x8000_3000);
        let follows = MachineProfile {
            htinst_follows_access: true,
            vs_stage_ad: AdPolicy::Update,
            ..MachineProfile::AS_SPECIFIED
        };
        let leaf = V | R | W | U | PAGE.page_number() << 10;
        // What the leaf is, what the G-stage does with its table and with the page, and what is to be resolved.
        let rows = [
            (leaf, None, Some(R | W), Some((true, AccessKind::Load))),
            (leaf, Some(R), Some(R | W), Some((true, AccessKind::Store))),
            (leaf | A | D, Some(R), Some(R | W), None),
            (
                leaf | A | D,
                Some(R),
                None,
                Some((false, AccessKind::Store)),
            ),
            (leaf, Some(R | W), None, Some((false, AccessKind::Store))),
            (leaf, Some(R | W), Some(R), Some((false, AccessKind::Store))),
            (leaf, Some(R | W), Some(R | W), None),
            (leaf, Some(R), None, Some((false, AccessKind::Store))),
            (0, Some(R), Some(R | W), None),
        ];
        for (entry, table, page, expected) in rows {
            let memory = RamArray::<64>::new();
            let ram = memory.at(Spa::new(0x8_0000_0000));
            let guest = ModelGuest::new(ram).unwrap();
            guest.map(GVA, PAGE, R | W | U).unwrap();
            guest.set_entry(GVA, entry).unwrap();
            let at = guest.entry(GVA).unwrap();
            for (gpa, rights) in [(at.page_base(), table), (PAGE, page)] {
                match rights {
                    Some(rights) => guest.back(gpa, guest.spa(gpa).unwrap(), rights).unwrap(),
                    None => guest.unback(gpa).unwrap(),
                }
            }
            let rules = StageRules {
                ad: AdPolicy::Update,
                ..StageRules::BASE
            };
            let csrs = VsCsrs {
                vsatp: guest.vsatp(),
                vsstatus: 0,
                sstatus: 0,
                hstatus: 0,
                henvcfg: crate::csr::ENVCFG_ADUE,
                senvcfg: 0,
            };
            let vs = VsRegime::from_csrs(&csrs, rules).unwrap();
            let g = GRegime::from_csrs(guest.hgatp(), 0, StageRules::BASE).unwrap();
            let tables = GTables::new(g, Entries(ram));
            let trap = TrapInfo {
                scause: cause::STORE_GUEST_PAGE,
                stval: GVA.value() + 4,
                htval: 0,
                htinst: 0,
            };
            let said = [
                (trap, MachineProfile::AS_SPECIFIED),
                (
                    TrapInfo {
                        htval: at.value() >> 2,
                        htinst: 0x3020,
                        ..trap
                    },
                    follows,
                ),
            ];
            for (trap, profile) in said {
                let exit = GuestExit {
                    trap,
                    vsatp: guest.vsatp(),
                    privilege: GuestPrivilege::User,
                    ..exit(0, 0, 0)
                };
                let fault = Fault::from_guest_exit(&exit, &profile);
                assert_eq!(fault.resolution(), Resolution::Walk);
                let found = fault.walked(&vs, &tables, GuestPrivilege::User);
                let resolve = expected.map(|(implicit, access)| {
                    let gpa = if implicit {
                        at
                    } else {
                        PAGE.checked_add(4).unwrap()
                    };
                    Resolution::Resolve { gpa, access }
                });
                let found = found.map(|fault| {
                    assert_eq!(fault.injection_when_unbacked().unwrap().cause, 7);
                    fault.resolution()
                });
                assert_eq!(found, resolve, "{entry:#x} {table:?} {page:?}");
                // Nobody made an access: A and D are as the guest left them (R94).
                let now = ram.load(guest.spa(at).unwrap(), Width::Double);
                assert_eq!(now, Some(entry), "{table:?} {page:?}");
            }
        }
    }

    /// Without updates by the hardware a page table is only read, and no walk is needed.
    #[test]
    fn r76_without_hardware_updates_an_implicit_fault_is_a_read() {
        let profile = MachineProfile {
            htinst_follows_access: true,
            ..MachineProfile::AS_SPECIFIED
        };
        let fault = Fault::from_guest_exit(&exit(23, 0x400, 0x3020), &profile);
        let (gpa, access) = (Gpa::new(0x1000), AccessKind::Load);
        assert_eq!(fault.resolution(), Resolution::Resolve { gpa, access });
    }
}
