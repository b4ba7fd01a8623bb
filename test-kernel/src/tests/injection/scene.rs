//! Where faults are injected: a guest of two adjacent pages, a host buffer, and what is looked at after each fault.
//!
//! The one idea: both buffers lie in the arena with a known byte everywhere around them, so that one pass over what could have
//! been written shows what was. The guest of a scene never changes: what refuses stays where it is, and the copies move.

use guest_mem::csr::STATUS_SIE;
use guest_mem::hart::{Hart, Interrupted};
use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, TrapInfo};

use super::setting::{Layer, Operation, Refusal, Setting, Space};
use super::shape::{LONGEST, Shape};
use crate::harness::{Outcome, Stop, Test, act_as_supervisor, check, fail};
use crate::machine::{self, Stepping};
use crate::tables::bits::{A, D, R, SUPERVISOR, U, USER, V};
use crate::tables::{Page, RAM, World, target};
use crate::witness::{self, Csrs, Promise};
use crate::{arena, csr};

/// The last page below a leaf table of the VS-stage: the next page has another.
const GVA: u64 = 0x3f_f000;
const PAGE: u64 = 4096;
/// Offset of the host's buffer in its page, before its alignment.
const HOST: u64 = 64;

/// Bytes on both sides of what is written that are looked at every time.
const CANARY: u64 = 16;
/// What every byte is that nothing was copied to.
pub const UNTOUCHED: u8 = 0xee;
const FILL: u8 = 0x5a;

/// The bytes of a source repeat with a period that is no multiple of an element, a batch or a body.
const PERIOD: usize = 251;
static SOURCE: [u8; PERIOD + LONGEST] = {
    let mut bytes = [0; PERIOD + LONGEST];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = ((at % PERIOD) as u8).wrapping_mul(37).wrapping_add(11);
        at += 1;
    }
    bytes
};

/// Runs `body` while M-mode steps. Answers as [`machine::stop`] does, too.
// Never inlined: `body` has to be the same instructions each time.
#[inline(never)]
pub fn stepped<R>(stepping: Option<Stepping>, body: impl FnOnce() -> R) -> (R, u64) {
    let Some(stepping) = stepping else {
        return (body(), 0);
    };
    machine::step(stepping);
    let result = body();
    (result, machine::stop())
}

/// A guest and a host buffer, ready for faults to be injected.
pub struct Scene {
    setting: Setting,
    promise: Promise,
    /// The guest's first byte: as the guest addresses it, and for the machine.
    guest: u64,
    spa: u64,
    /// The host's page.
    host: u64,
    /// Offset in the guest's two pages at which a copy is refused.
    refused: u64,
    /// What has to be the same after each fault.
    csrs: Csrs,
    /// A page that no copy goes to, at this guest-virtual and guest-physical address.
    pub aside: (u64, Page),
}

impl Scene {
    /// Makes the guest and loads it.
    pub fn new(setting: Setting, promise: Promise) -> Self {
        let mut world = World::sv39();
        let spa = arena::take(2 * PAGE);
        let gpa = RAM + (spa - arena::start());
        let g_flags = match setting.refusal {
            Refusal::GuestPage => 0,
            Refusal::ReadOnlyGuestPage => V | R | A | D | U,
            _ => USER,
        };
        let vs_flags = match setting.refusal {
            Refusal::Page => 0,
            Refusal::ReadOnlyPage => V | R | A | D,
            _ => SUPERVISOR,
        };
        world.map_g(gpa, spa, USER, 0);
        world.map_g(gpa + PAGE, spa + PAGE, g_flags, 0);
        world.map(GVA, gpa, SUPERVISOR, 0);
        world.map(GVA + PAGE, gpa + PAGE, vs_flags, 0);
        if setting.refusal == Refusal::Table {
            let table = target(arena::read(world.vs_entry(GVA + PAGE, 1).spa));
            world.map_g(table, 0, 0, 0);
        }
        let aside = (GVA - PAGE, world.page_at(GVA - PAGE, SUPERVISOR));
        world.load();
        witness::fill_bystanders();
        let mut scene = Self {
            setting,
            promise,
            guest: match setting.space {
                Space::Virtual => GVA,
                Space::Physical => gpa,
            },
            spa,
            host: arena::page(),
            refused: match setting.refusal {
                Refusal::Protection(offset) => offset,
                _ => PAGE,
            },
            csrs: Csrs::read(),
            aside,
        };
        scene.paint();
        scene.enter();
        scene.csrs = Csrs::read();
        scene
    }

    /// Brings the CSRs to where every copy of the scene starts.
    fn enter(&self) {
        // A scene of windows starts with the privilege that none of its windows has.
        act_as_supervisor(self.setting.layer == Layer::Hart);
        if self.setting.layer == Layer::Hart && self.setting.space == Space::Physical {
            // SAFETY: guest state; no guest runs.
            unsafe { csr::vsatp::write(0) };
        }
        witness::fill_exit_record();
        if let Refusal::Protection(offset) = self.setting.refusal {
            machine::protect(self.spa + offset..self.spa + offset + 4);
        }
    }

    /// Whether the guest's memory is what is copied from.
    fn reads(&self) -> bool {
        self.setting.operation == Operation::Read
    }

    /// The byte at `offset` of the guest's two pages, or of the host's page, as long as nothing is copied there.
    fn original(&self, is_guest: bool, offset: u64) -> u8 {
        if is_guest == self.reads() {
            SOURCE[offset as usize % PERIOD]
        } else {
            UNTOUCHED
        }
    }

    fn blocks(&self) -> [(bool, u64, u64); 2] {
        [(true, self.spa, 2 * PAGE), (false, self.host, PAGE)]
    }

    fn paint(&self) {
        for (is_guest, start, len) in self.blocks() {
            arena::write_bytes(start, (0..len).map(|at| self.original(is_guest, at)));
        }
    }

    /// Ends the scene: nothing refuses any more, and all that no copy may have left changed is as it was, far from the copies
    /// and in their source, too.
    pub fn close(self) -> Outcome {
        if let Refusal::Protection(_) = self.setting.refusal {
            machine::protect(0..0);
        }
        for (is_guest, start, len) in self.blocks() {
            for at in 0..len {
                let found = arena::read_byte(start + at);
                check!(
                    found == self.original(is_guest, at),
                    "{:?}: byte {at:#x} is {found:#x} in the end, guest: {is_guest}",
                    self.setting
                );
            }
        }
        Ok(())
    }

    /// The guest's first address, and the one from where on it is refused.
    pub fn addresses(&self) -> (u64, u64) {
        (self.guest, self.guest + self.refused)
    }

    /// Takes the CSRs as they are now as those that have to be the same after each fault.
    pub fn settle(&mut self) {
        self.csrs = Csrs::read();
    }

    /// Injects the fault of a shape and looks at everything. `interrupts` is whether they are enabled outside of windows.
    /// Answers what the stepping says.
    pub fn inject<H: Hart>(
        &self,
        t: &mut Test,
        vcpu: &LoadedVcpu<'_, H>,
        hart: &H,
        shape: Shape,
        interrupts: bool,
        stepping: Option<Stepping>,
    ) -> Result<u64, Stop> {
        let start = self.refused - shape.fault as u64;
        let host = HOST + shape.host as u64;
        if interrupts {
            // SAFETY: those that come have a handler.
            unsafe { csr::sstatus::set(STATUS_SIE) };
        }
        let seen =
            witness::around(|| stepped(stepping, || self.copy(hart, vcpu, start, host, shape.len)));
        let enabled = csr::sstatus::read() & STATUS_SIE != 0;
        // SAFETY: interrupts are off everywhere else; one that still pends is to come here.
        unsafe {
            csr::sstatus::set(STATUS_SIE);
            csr::sstatus::clear(STATUS_SIE);
        }
        let csrs = Csrs::read();
        let setting = &self.setting;
        check!(
            enabled == interrupts,
            "{setting:?} {shape:?}: interrupts were {interrupts} and are {enabled}"
        );
        check!(
            seen.registers == 0,
            "{setting:?} {shape:?}: callee-saved registers {:#x} are changed",
            seen.registers
        );
        if let Some((name, old, new)) = self.csrs.first_change(&csrs, self.promise) {
            fail!("{setting:?} {shape:?}: {name} was {old:#x} and is {new:#x}");
        }
        let (result, answer) = seen.result;
        let completed = self.ended(t, shape, result)?;
        let found = if self.reads() {
            let source = &SOURCE[start as usize % PERIOD..][..completed];
            self.take_back(self.host, host, shape, source)
        } else {
            let source = &SOURCE[host as usize % PERIOD..][..completed];
            self.take_back(self.spa, start, shape, source)
        };
        if let Some((at, byte)) = found {
            fail!("{setting:?} {shape:?}: byte {at} of what is written is {byte:#x}");
        }
        Ok(answer)
    }

    /// Looks at how a copy ended, and answers how many bytes it completed.
    fn ended(
        &self,
        t: &mut Test,
        shape: Shape,
        result: Result<(), (usize, TrapInfo)>,
    ) -> Result<usize, Stop> {
        let setting = &self.setting;
        let (completed, trap) = match result {
            Ok(()) if setting.refusal == Refusal::Nothing => return Ok(shape.len),
            Err(error) if setting.refusal != Refusal::Nothing => error,
            _ => fail!("{setting:?} {shape:?}: {result:?}"),
        };
        let expected = match setting.operation {
            Operation::Fill => shape.filled(self.refused),
            _ => shape.copied(self.refused),
        };
        check!(
            completed == expected,
            "{setting:?} {shape:?}: {completed} completed, not {expected}"
        );
        let (cause, deviating) = setting.causes();
        if trap.scause != cause {
            match deviating {
                Some((deviation, cause)) if cause == trap.scause => {
                    t.holds_or(format_args!("{setting:?}"), false, deviation)?;
                }
                _ => fail!("{setting:?} {shape:?}: cause {}", trap.scause),
            }
        }
        let start = self.refused - shape.fault as u64;
        let named = trap.stval.wrapping_sub(self.guest + start);
        check!(
            (completed as u64..=shape.fault as u64).contains(&named),
            "{setting:?} {shape:?}: stval is {named:#x} into the copy"
        );
        Ok(completed)
    }

    /// Puts back what is there before a copy. Answers the first byte, counted from the buffer's start at `offset`, that was
    /// not what it has to be: `source` as far as the copy got, and untouched around it.
    fn take_back(&self, block: u64, offset: u64, shape: Shape, source: &[u8]) -> Option<(i64, u8)> {
        let first = (offset - CANARY) & !7;
        let end = offset + shape.len as u64 + CANARY;
        let mut image = [UNTOUCHED; LONGEST + 2 * CANARY as usize + 16];
        let inside = (offset - first) as usize;
        if self.setting.operation == Operation::Fill {
            image[inside..inside + source.len()].fill(FILL);
        } else {
            image[inside..inside + source.len()].copy_from_slice(source);
        }
        let mut wrong = None;
        for (expected, at) in image.as_chunks::<8>().0.iter().zip((first..end).step_by(8)) {
            let found = self.take(block + at);
            if found != u64::from_le_bytes(*expected) && wrong.is_none() {
                let found = found.to_le_bytes();
                let byte = (0..8).find(|&byte| found[byte] != expected[byte])?;
                wrong = Some((at as i64 + byte as i64 - offset as i64, found[byte]));
            }
        }
        wrong
    }

    /// Reads a double and puts back what it was before the copy, if it was changed.
    fn take(&self, address: u64) -> u64 {
        const BEFORE: u64 = u64::from_le_bytes([UNTOUCHED; 8]);
        // What protection refuses to the guest it refuses to the host, too; nobody can have changed it.
        if let Refusal::Protection(offset) = self.setting.refusal
            && self.spa + (offset & !7) == address
        {
            let (half, shift) = if offset & 4 == 0 { (4, 32) } else { (0, 0) };
            let word = (address + half) as *mut u32;
            // SAFETY: a word of the arena, in a block of the scene.
            let found = unsafe { word.read_volatile() };
            // SAFETY: as above.
            unsafe { word.write_volatile(BEFORE as u32) };
            return BEFORE & !(0xffff_ffff << shift) | u64::from(found) << shift;
        }
        let found = arena::read(address);
        if found != BEFORE {
            arena::write(address, BEFORE);
        }
        found
    }

    /// The copy itself.
    fn copy<H: Hart>(
        &self,
        hart: &H,
        vcpu: &LoadedVcpu<'_, H>,
        start: u64,
        host: u64,
        len: usize,
    ) -> Result<(), (usize, TrapInfo)> {
        let address = self.guest + start;
        let buffer = (self.host + host) as *mut u8;
        if self.setting.layer == Layer::Hart {
            // SAFETY: the buffer is the scene's page; interrupts are off, SPVP is set, vsatp is that of the space, and the
            // G-stage is on: an open window.
            let result = unsafe {
                match self.setting.operation {
                    Operation::Read => hart.copy_from_guest(address, buffer, len),
                    Operation::Write => hart.copy_to_guest(address, buffer, len),
                    Operation::Fill => hart.fill_guest(address, FILL, len),
                }
            };
            return result.map_err(|Interrupted { completed, trap }| (completed, trap));
        }
        // SAFETY: the scene's page, which only this copy touches meanwhile.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer, len) };
        match self.setting.space {
            Space::Virtual => {
                let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
                self.copy_by(&guest, Gva::new(address), buffer)
            }
            Space::Physical => self.copy_by(&vcpu.guest_physical(), Gpa::new(address), buffer),
        }
    }

    fn copy_by<M: GuestMemory>(
        &self,
        memory: &M,
        address: M::Address,
        buffer: &mut [u8],
    ) -> Result<(), (usize, TrapInfo)> {
        let result = match self.setting.operation {
            Operation::Read => memory.read(address, buffer),
            Operation::Write => memory.write(address, buffer),
            Operation::Fill => memory.fill(address, FILL, buffer.len()),
        };
        result.map_err(|error| (error.completed, error.fault.trap.unwrap_or_default()))
    }
}
