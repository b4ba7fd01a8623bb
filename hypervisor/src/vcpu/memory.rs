//! Guest memory as exit handlers use it: through the library, with pages brought in on the way.
//!
//! The one idea: a fault whose resolution is `Resolve` never leaves this file. The library asks [`DemandPaging`] and goes on where
//! the access ended, so that handlers see only what the guest itself did wrong.

use guest_mem::guest_physical::{PhysicalView, Resolver, Unresolvable};
use guest_mem::guest_virtual::GuardedResolver;
use guest_mem::instruction::Instruction;
use guest_mem::{AccessError, AccessKind, Fault, Gpa, GuestMemory, Gva, Resolution};

use super::Vcpu;
use crate::vm::Vm;

/// Brings pages in, and counts that.
pub struct DemandPaging<'v>(pub &'v Vm);

impl DemandPaging<'_> {
    /// Waits for no guard, so it may be called under one: the table's lock is never held while its holder waits for guards, and
    /// remote fences are the firmware's.
    fn page_in(&self, gpa: Gpa, access: AccessKind) -> Result<(), Unresolvable> {
        self.0
            .ram
            .page_in(gpa, access, &self.0.fences())
            .map_err(|_| Unresolvable)?;
        self.0.memory_use.resolved.add_one();
        Ok(())
    }
}

impl Resolver for DemandPaging<'_> {
    fn resolve(&mut self, _: &Fault, gpa: Gpa, access: AccessKind) -> Result<(), Unresolvable> {
        self.page_in(gpa, access)
    }
}

impl GuardedResolver<PhysicalView<'_>> for DemandPaging<'_> {
    fn resolve(
        &mut self,
        _: &PhysicalView<'_>,
        _: &Fault,
        gpa: Gpa,
        access: AccessKind,
    ) -> Result<(), Unresolvable> {
        self.page_in(gpa, access)
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
            .read_with(gpa, destination, &mut DemandPaging(self.vm));
        self.count(len, result)
    }

    /// Copies `source` to guest-physical memory.
    ///
    /// # Errors
    ///
    /// What no page could help.
    pub fn write_physical(&mut self, gpa: Gpa, source: &[u8]) -> Result<(), Fault> {
        self.vm.memory_use.physical_writes.add_one();
        let result = self
            .reader
            .write_with(gpa, source, &mut DemandPaging(self.vm));
        self.count(source.len(), result)
    }

    /// Copies guest-virtual memory into `destination`, with the rights of the guest code that was interrupted.
    ///
    /// # Errors
    ///
    /// What no page could help; the guest deserves it.
    pub fn read_virtual(&mut self, gva: Gva, destination: &mut [u8]) -> Result<(), Fault> {
        self.vm.memory_use.virtual_reads.add_one();
        let (privilege, environment) = (self.privilege(), self.environment());
        let (len, vm) = (destination.len(), self.vm);
        let (loaded, reader) = self.loaded_with_reader();
        let guard = reader.guard();
        let result = loaded
            .guest_virtual(privilege)
            .with_memory(&guard, environment)
            .resolving(&mut DemandPaging(vm))
            .read(gva, destination);
        drop(guard);
        drop(loaded);
        self.count(len, result)
    }

    /// The instruction where the guest stands.
    ///
    /// # Errors
    ///
    /// What no page could help: a fetch fault of the guest's.
    pub fn fetch(&mut self) -> Result<Instruction, Fault> {
        let (pc, privilege) = (Gva::new(self.context.pc), self.privilege());
        let (environment, vm) = (self.environment(), self.vm);
        vm.memory_use.fetches.add_one();
        let (loaded, reader) = self.loaded_with_reader();
        let guard = reader.guard();
        let result = loaded
            .guest_virtual(privilege)
            .with_memory(&guard, environment)
            .fetch_instruction_with(pc, &mut DemandPaging(vm));
        drop(guard);
        drop(loaded);
        let instruction = self.count(0, result)?;
        self.vm.memory_use.bytes.add(instruction.length() as u64);
        Ok(instruction)
    }

    fn count<T>(&self, len: usize, result: Result<T, AccessError>) -> Result<T, Fault> {
        let used = &self.vm.memory_use;
        match &result {
            Ok(_) => used.bytes.add(len as u64),
            Err(error) => match error.fault.resolution() {
                Resolution::Inject(_) => used.injected.add_one(),
                Resolution::Resolve { .. } | Resolution::Walk | Resolution::Refuse => {
                    used.refused.add_one();
                }
            },
        }
        result.map_err(|error| error.fault)
    }
}
