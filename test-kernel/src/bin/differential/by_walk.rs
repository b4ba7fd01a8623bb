//! A case by the library's copy through a walk: the third way beside the instruction and the walk alone.
//!
//! The one idea: the copy has to come out as the instruction did. Where this machine deviates from the specification it may
//! come out as specified instead, under what was measured of `henvcfg` (R65), since it does not ask the machine; and where the
//! page itself refuses, it leaves A and D bits alone that hardware has set by then (R55).

use core::ptr::NonNull;

use differential::World;
use guest_mem::csr::GMode;
use guest_mem::fault::{Fault, FaultKind, HTINST_PAGE_TABLE_WRITE};
use guest_mem::guest_physical::{GuestPhysicalMemory, MachineMemory};
use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::translate::{EntryMemory, GRegime, Purpose, Refused, trap_of};
use guest_mem::{GuestMemory, GuestPrivilege, Gva, Spa, TrapInfo, cause};
use test_kernel::harness::Stop;
use test_kernel::library::{Scoped, loaded, probed};
use test_kernel::tables::bits::{A, D};

use crate::block::{Block, Seen};
use crate::environment::{Measured, Rules};
use crate::hardware::with_guest;
use crate::walk::extended;

/// The library's copies by walk on this machine.
pub struct ByWalk {
    hart: Scoped,
    /// No slot: where an address leads is for the tables to say.
    memory: GuestPhysicalMemory<'static, 1, 1>,
}

/// The block as the memory of the machine.
struct BlockMemory<'a>(&'a Block);

impl EntryMemory for BlockMemory<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        self.0.read_entry(at)
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        self.0.compare_exchange_entry(at, current, new)
    }
}

// SAFETY: the block is the arena's, identity-mapped for all of the run; nothing else runs, and no reference points into it.
unsafe impl MachineMemory for BlockMemory<'_> {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        match self.0.contains(at.value()) {
            true => NonNull::new(at.value() as *mut u8),
            false => None,
        }
    }
}

impl ByWalk {
    /// On a machine that is probed. No guest may be loaded.
    pub fn new() -> Result<Self, Stop> {
        let (hart, _) = probed()?;
        Ok(Self {
            hart,
            memory: GuestPhysicalMemory::new(GMode::Sv57x4),
        })
    }

    /// Whether the case is one: a load or store of a host whose own MXR is off, which is the library's to see to (R4).
    pub fn covers(&self, world: &World) -> bool {
        !world.instruction.executes() && !world.host_mxr
    }

    /// Does the access of a case whose words are in memory, under the rules that a host would have measured. No guest is loaded
    /// afterwards.
    pub fn execute(
        &self,
        block: &Block,
        world: &World,
        measured: &Measured,
        rules: &Rules,
    ) -> Result<u64, TrapInfo> {
        let Ok(regime) = GRegime::from_csrs(world.hgatp, 0, rules.g) else {
            return Err(TrapInfo::default());
        };
        let Ok(mut reader) = self.memory.reader(0) else {
            return Err(TrapInfo::default());
        };
        let view = reader.guard();
        // SAFETY: wherever the case's tables lead, nothing outside the block is accessed.
        let stage = unsafe { view.shown_by(regime, BlockMemory(block)) };
        let (gva, len) = (Gva::new(world.address), world.instruction.bytes() as usize);
        let privilege = match world.supervisor {
            true => GuestPrivilege::Supervisor,
            false => GuestPrivilege::User,
        };
        let mut bytes = [0; 8];
        let mut access = |environment| {
            let vcpu = loaded(&self.hart);
            let space = vcpu
                .guest_virtual(privilege)
                .with_memory(&stage, environment);
            if world.instruction.stores() {
                space.write(gva, &world.value.to_le_bytes()[..len])
            } else {
                space.read(gva, &mut bytes[..len])
            }
        };
        let environment = environment(rules);
        let done = with_guest(world, measured, || {
            // What a walk refuses it refuses by itself: the hardware is what it is compared with.
            let done = access(VsEnvironment {
                walk_always: true,
                ..environment
            });
            match done {
                // Of another memory type, which is the hardware's.
                Err(error) if error.fault.kind == FaultKind::NoSlot => access(environment),
                done => done,
            }
        });
        match done {
            Ok(()) if world.instruction.stores() => Ok(0),
            Ok(()) => Ok(extended(u64::from_le_bytes(bytes), world.instruction)),
            Err(error) => Err(trap(&error.fault, world)),
        }
    }
}

/// Every copy by a walk.
fn environment(rules: &Rules) -> VsEnvironment {
    VsEnvironment {
        rules: rules.vs,
        henvcfg: rules.henvcfg,
        senvcfg: rules.senvcfg,
        ..VsEnvironment::BASE
    }
    .with_walk_from(0)
}

/// The trap that the fault stands for.
fn trap(fault: &Fault, world: &World) -> TrapInfo {
    let purpose = match world.instruction.stores() {
        true => Purpose::Store,
        false => Purpose::Load,
    };
    let unknown = TrapInfo {
        scause: u64::MAX,
        ..TrapInfo::default()
    };
    trap_of(fault, purpose).or(fault.trap).unwrap_or(unknown)
}

/// What a store would have been seen to raise where it was seen to raise a load's guest-page fault.
pub fn as_store(seen: Seen) -> Seen {
    let outcome = seen.outcome.map_err(|trap| TrapInfo {
        scause: match trap.scause {
            cause::LOAD_GUEST_PAGE => cause::STORE_GUEST_PAGE,
            other => other,
        },
        ..trap
    });
    Seen { outcome, ..seen }
}

/// What is seen of an access that the copy leaves to the hardware after a walk as specified, which has set A and D bits on its
/// way where the hardware sets none.
pub fn left_after(specified: &Seen, seen: &Seen) -> Seen {
    Seen {
        entries: specified.entries,
        ..*seen
    }
}

/// Whether the copy came out as the access that was `seen`.
pub fn agrees(copy: &Seen, seen: &Seen) -> bool {
    let said = |trap: TrapInfo| {
        let guest_page = matches!(
            trap.scause,
            cause::LOAD_GUEST_PAGE | cause::STORE_GUEST_PAGE
        );
        // What else `htval` and `htinst` hold is the machine's choice.
        let htval = if guest_page { trap.htval } else { 0 };
        (trap.scause, trap.stval, htval)
    };
    if copy.outcome.map_err(said) != seen.outcome.map_err(said) || copy.stored != seen.stored {
        return false;
    }
    copy.entries == seen.entries || copy.outcome.is_err() && leaves_clear(copy, seen)
}

/// Whether the copy was refused for the page itself where the access as specified is for the entry's update, which it comes
/// to first (R55): the copy has to come out as the access with an update that nobody refuses, `let_through`.
pub fn refused_for_the_page(copy: &Seen, specified: &Seen, let_through: &Seen) -> bool {
    let for_the_update =
        matches!(specified.outcome, Err(trap) if trap.htinst == HTINST_PAGE_TABLE_WRITE);
    for_the_update && copy.outcome.is_err() && agrees(copy, let_through)
}

/// Whether the copy changed nothing, or left A and D bits clear.
fn leaves_clear(copy: &Seen, seen: &Seen) -> bool {
    let mut entries = copy.entries.iter().zip(&seen.entries);
    copy.stored.is_none() && entries.all(|(&copy, &seen)| copy | seen & (A | D) == seen)
}
