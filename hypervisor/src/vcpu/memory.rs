//! Guest memory as exit handlers use it: through the library, with pages brought in on the way.
//!
//! The one idea: a fault whose resolution is `Resolve` never leaves this file. The page is brought in and the access goes on
//! where it ended, so that handlers see only what the guest itself did wrong.

use guest_mem::guest_physical::{Resolver, Unresolvable};
use guest_mem::instruction::Instruction;
use guest_mem::translate::{Access, WalkTrace};
use guest_mem::{
    AccessError, AccessKind, Fault, Gpa, GuestMemory, Gva, Resolution, fetch_guest_instruction,
};

use super::Vcpu;
use crate::vm::Vm;

/// Pages brought in for one access to one page at most: the data page, and the tables of each level that lead to it.
const PAGE_INS: usize = 8;

/// Brings pages in, and counts that.
pub struct PageIn<'v>(pub &'v Vm);

impl Resolver for PageIn<'_> {
    fn resolve(&mut self, _: &Fault, gpa: Gpa, access: AccessKind) -> Result<(), Unresolvable> {
        self.0
            .ram
            .page_in(gpa, access, &self.0.fences())
            .map_err(|_| Unresolvable)?;
        self.0.memory_use.resolved.add_one();
        Ok(())
    }
}

impl Vcpu<'_> {
    /// Copies guest-physical memory into `destination`.
    ///
    /// # Errors
    ///
    /// What no page could help.
    pub fn read_physical(&mut self, gpa: Gpa, destination: &mut [u8]) -> Result<(), Fault> {
        self.vm.memory_use.physical_reads.add_one();
        let len = destination.len();
        let result = self
            .reader
            .read_with(gpa, destination, &mut PageIn(self.vm));
        self.count(len, result)
    }

    /// Copies `source` to guest-physical memory.
    ///
    /// # Errors
    ///
    /// What no page could help.
    pub fn write_physical(&mut self, gpa: Gpa, source: &[u8]) -> Result<(), Fault> {
        self.vm.memory_use.physical_writes.add_one();
        let result = self.reader.write_with(gpa, source, &mut PageIn(self.vm));
        self.count(source.len(), result)
    }

    /// Copies guest-virtual memory into `destination`, which is 1 to 4096 bytes long, with the rights of the guest code that
    /// was interrupted.
    ///
    /// # Errors
    ///
    /// What no page could help; the guest deserves it.
    pub fn read_virtual(&mut self, gva: Gva, destination: &mut [u8]) -> Result<(), Fault> {
        self.vm.memory_use.virtual_reads.add_one();
        let privilege = self.privilege();
        let len = destination.len();
        let result = self.resolving(|vcpu, done| {
            let from = Gva::new(gva.value().wrapping_add(done as u64));
            // A piece is shorter than a page, so its first and last byte tell of all of it.
            vcpu.check_by_walk(Access::load(from, privilege))?;
            let last = Gva::new(gva.value().wrapping_add(len as u64 - 1));
            vcpu.check_by_walk(Access::load(last.max(from), privilege))?;
            let loaded = vcpu.loaded();
            loaded
                .guest_virtual(privilege)
                .read(from, &mut destination[done..])
        });
        self.count(len, result)
    }

    /// The instruction where the guest stands.
    ///
    /// # Errors
    ///
    /// What no page could help: a fetch fault of the guest's.
    pub fn fetch(&mut self) -> Result<Instruction, Fault> {
        self.vm.memory_use.fetches.add_one();
        let (pc, privilege) = (Gva::new(self.context.pc), self.privilege());
        let result =
            self.resolving(|vcpu, _| fetch_guest_instruction(&vcpu.loaded(), privilege, pc));
        let instruction = self.count(0, result)?;
        self.vm.memory_use.bytes.add(instruction.length() as u64);
        Ok(instruction)
    }

    /// On a machine whose `hlv` forgets `vsstatus.SUM` and mixes privileges up (QEMU before 8.1, R62), asks the guest's page
    /// tables first. Such machines also keep translations over a change of `vsatp`, which is what the probe measures.
    fn check_by_walk(&self, access: Access) -> Result<(), AccessError> {
        let trusted = self
            .vm
            .profile
            .get()
            .is_some_and(|profile| !profile.stale_vsatp);
        if trusted {
            return Ok(());
        }
        match self.walk(access, &WalkTrace::new()) {
            Ok(_) => Ok(()),
            Err(fault) => Err(AccessError {
                completed: 0,
                fault,
            }),
        }
    }

    fn count<T>(&self, len: usize, result: Result<T, AccessError>) -> Result<T, Fault> {
        let used = &self.vm.memory_use;
        match &result {
            Ok(_) => used.bytes.add(len as u64),
            Err(error) => match error.fault.resolution() {
                Resolution::Inject(_) => used.injected.add_one(),
                Resolution::Resolve { .. } | Resolution::Refuse => used.refused.add_one(),
            },
        }
        result.map_err(|error| error.fault)
    }

    /// Runs `access` until it is through or nothing helps: it is told how many bytes are done, and does the rest.
    fn resolving<T>(
        &self,
        mut access: impl FnMut(&Self, usize) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let mut done = 0;
        let mut without_progress = 0;
        loop {
            let error = match access(self, done) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            without_progress = match error.completed {
                0 => without_progress + 1,
                _ => 1,
            };
            let Resolution::Resolve { gpa, access } = error.fault.resolution() else {
                return Err(error);
            };
            let resolved = PageIn(self.vm).resolve(&error.fault, gpa, access);
            if resolved.is_err() || without_progress > PAGE_INS {
                return Err(error);
            }
            done += error.completed;
        }
    }
}
