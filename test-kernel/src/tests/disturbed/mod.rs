//! The library's routines, disturbed in their middle: by traps of the host's own, and by a guest that changes while a fault of
//! it is recovered.
//!
//! The one idea: a breakpoint at one instruction of a routine, called by its name with every register and all of its memory
//! known, brings the disturbance there each time. What the routine comes to is compared with what it comes to in peace.

pub mod forwarded;
pub mod recounted;

use core::ops::Range;

use crate::breakpoints::{self, Met};
use crate::deviation::FIRMWARE;
use crate::harness::{Outcome, act_as_supervisor, check};
use crate::registers::{self, A0, A1, RA, SP, T0};
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{RAM, World, leaf};
use crate::tests::routines::{self, Form, GVA, Kind, PAGE, Routine, S2, S3};
use crate::{arena, boot, trap};

/// What every byte is that nothing was copied to.
const UNTOUCHED: u8 = 0xee;
const FILL: u8 = 0x5a;

unsafe extern "C" {
    #[link_name = unit_symbol!(__guest_mem_scoped_vector)]
    static __guest_mem_scoped_vector: u8;
}

/// The vector of every routine that has its record in a frame.
fn vector_of_frames() -> u64 {
    (&raw const __guest_mem_scoped_vector) as u64
}

/// What a page of the guest's is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Present,
    /// A page fault, which names its address.
    Absent,
    /// An access fault, whose address a routine does not ask for.
    Protected,
}

/// A loaded guest of two adjacent pages, and a page of the host's.
struct Scene {
    /// The entries of the guest's pages, and what is in them while they are there.
    entries: [(u64, u64); 2],
    protected: u64,
    spa: u64,
    host: u64,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::sv39();
        let spa = arena::take(2 * PAGE);
        let gpa = RAM + (spa - arena::start());
        let protected = RAM + 0x800_0000;
        world.map_g(protected, FIRMWARE, USER, 0);
        let entries = [0, PAGE].map(|offset| {
            world.map_g(gpa + offset, spa + offset, USER, 0);
            world.map(GVA + offset, gpa + offset, SUPERVISOR, 0);
            (
                world.vs_entry(GVA + offset, 0).spa,
                leaf(gpa + offset, SUPERVISOR),
            )
        });
        world.load();
        act_as_supervisor(true);
        Self {
            entries,
            protected: leaf(protected, SUPERVISOR),
            spa,
            host: arena::page(),
        }
    }

    /// Shows the guest's pages as these from now on.
    fn show(&self, pages: [Shown; 2]) {
        for ((at, present), shown) in self.entries.into_iter().zip(pages) {
            let entry = match shown {
                Shown::Present => present,
                Shown::Absent => 0,
                Shown::Protected => self.protected,
            };
            arena::write(at, entry);
        }
        boot::fence_everything();
    }
}

/// A call of one routine.
struct Call<'s> {
    scene: &'s Scene,
    name: &'static str,
    /// Where the routine begins, and the register that it returns by.
    address: u64,
    link: usize,
    form: Form,
    /// What it does; a single access has none.
    kind: Option<Kind>,
    to_guest: bool,
    /// The guest's address, the host's, and the bytes at both.
    guest: u64,
    host: u64,
    len: u64,
    /// The record of the guest's exit.
    frame: [u64; 64],
}

/// How a call came back.
struct Run {
    /// All registers; of the stack pointer, how far it is from where it was before the call, which depends on the compiler.
    x: [u64; 32],
    /// A number for all that both sides' memory holds.
    memory: u64,
    /// The breakpoint, if one was met; its stack pointer as in `x`.
    met: Option<Met>,
}

impl<'s> Call<'s> {
    /// A copy or fill of `len` bytes, of which those from `at` on lie in the guest's second page.
    fn copy(scene: &'s Scene, routine: &Routine<Kind>, len: u64, at: u64) -> Self {
        // One side of a merging copy is between doubles.
        let (guest, host) = match routine.kind {
            Kind::CopyFrom | Kind::CopyTo | Kind::Fill => (0, 0),
            Kind::MergeFrom => (3, 0),
            Kind::MergeTo => (0, 5),
        };
        Self {
            scene,
            name: routine.name,
            address: routine.address as u64,
            link: RA,
            form: routine.form,
            kind: Some(routine.kind),
            to_guest: matches!(routine.kind, Kind::CopyTo | Kind::MergeTo | Kind::Fill),
            guest: GVA + PAGE - at - guest,
            host: scene.host + 64 + host,
            len,
            frame: routines::frame(),
        }
    }

    /// A single access in the guest's first page.
    fn single(scene: &'s Scene, routine: &Routine<bool>) -> Self {
        Self {
            scene,
            name: routine.name,
            address: routine.address as u64,
            link: T0,
            form: routine.form,
            kind: None,
            to_guest: routine.name.contains("store"),
            guest: GVA + 64,
            host: scene.host + 64,
            len: 8,
            frame: routines::frame(),
        }
    }

    /// Where the guest's bytes are for the machine.
    fn guest_spa(&self) -> u64 {
        self.scene.spa + (self.guest - GVA)
    }

    /// The doubles around the bytes of both sides: what is written to, and what is read from.
    fn sides(&self) -> [Range<u64>; 2] {
        let around = |at: u64| (at & !7) - 16..(at & !7) + self.len.next_multiple_of(8) + 24;
        let (guest, host) = (around(self.guest_spa()), around(self.host));
        if self.to_guest {
            [guest, host]
        } else {
            [host, guest]
        }
    }

    /// Calls the routine, with breakpoints, of which the first that is met does `then`. The memory is as it was before the
    /// first call, the guest's pages are as they are.
    fn run(&mut self, pcs: &[u64], then: &dyn Fn()) -> Run {
        let [written, read] = self.sides();
        for at in written.clone().step_by(8) {
            arena::write(at, u64::from_ne_bytes([UNTOUCHED; 8]));
        }
        for at in read.clone().step_by(8) {
            // An instruction in any of it has two parcels.
            arena::write(
                at,
                at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 0x0003_0003_0003_0003,
            );
        }
        let value = match self.kind {
            Some(Kind::Fill) => u64::from_ne_bytes([FILL; 8]),
            Some(_) => self.host,
            None => 0x1122_3344_5566_7788,
        };
        let [sepc, scause, stval, htval, htinst, sstatus, hstatus, ..] = self.frame;
        let (a2, t5) = match self.form {
            Form::Registers => (sepc, hstatus),
            Form::Hook | Form::Frame => (self.len, trap::entry()),
        };
        let given = [
            (A0, value),
            (A1, self.guest),
            (S2, (&raw mut self.frame) as u64),
            (S3, vector_of_frames()),
            (12, a2),
            (13, scause),
            (14, stval),
            (15, htval),
            (16, htinst),
            (17, sstatus),
            (30, t5),
            (31, 0),
        ];
        let address = self.address as usize;
        let (returned, mut met) = breakpoints::at(pcs.iter().copied(), &|| then(), || {
            // SAFETY: an open window onto the scene's guest; the host's side is in the arena's page; the addresses and the
            // length are what the routine's element asks for.
            unsafe {
                match self.kind {
                    Some(_) => routines::call_copy(self.form, address, &given),
                    None => registers::call(address, self.link, &given),
                }
            }
        });
        let sp = returned.given(SP);
        let from_call = |x: &mut [u64; 32]| x[SP] = x[SP].wrapping_sub(sp);
        let mut x = core::array::from_fn(|x| returned.register(x));
        from_call(&mut x);
        if let Some(met) = &mut met {
            from_call(&mut met.x);
        }
        let words = written.step_by(8).chain(read.step_by(8)).map(arena::read);
        Run {
            x,
            memory: words.fold(0, |sum: u64, word| {
                (sum.rotate_left(5) ^ word).wrapping_mul(0x0100_0000_01b3)
            }),
            met,
        }
    }

    /// Calls the routine in peace.
    fn in_peace(&mut self) -> Run {
        self.run(&[], &|| ())
    }

    /// Fails unless the bytes before `completed` were copied, and, if it is `exact`, none after them.
    fn copied(&self, completed: u64, exact: bool) -> Outcome {
        let (from, to) = if self.to_guest {
            (self.host, self.guest_spa())
        } else {
            (self.guest_spa(), self.host)
        };
        let name = self.name;
        for at in 0..self.len {
            let expected = match self.kind {
                _ if at >= completed => UNTOUCHED,
                Some(Kind::Fill) => FILL,
                _ => arena::read_byte(from + at),
            };
            let found = arena::read_byte(to + at);
            check!(
                found == expected || at >= completed && !exact,
                "{name}: byte {at} of {} is {found:#x}, not {expected:#x}; {completed} are said to be copied",
                self.len
            );
        }
        Ok(())
    }
}

/// The instruction at an address of the access unit.
fn instruction(pc: u64) -> u32 {
    // SAFETY: the unit's instructions are 4 bytes each, and this program's.
    unsafe { (pc as *const u32).read_volatile() }
}

/// A routine's instructions up to its first return: all that runs without a fault.
fn main_part(address: u64) -> Range<u64> {
    /// `ret` and `jr t0`
    const RETURNS: [u32; 2] = [0x0000_8067, 0x0002_8067];
    let mut end = address;
    while !RETURNS.contains(&instruction(end)) {
        end += 4;
    }
    address..end + 4
}

/// What comes after that in a copy or fill: where its faults go on. How it takes the vector back is no part of it.
fn recovery_part(address: u64) -> Range<u64> {
    let copies = routines::copies().map(|routine| routine.address as u64);
    let singles = routines::singles().map(|routine| routine.address as u64);
    let ends = copies
        .into_iter()
        .chain(singles)
        .chain([vector_of_frames()]);
    let end = ends.filter(|&end| end > address).min().unwrap_or(address);
    let start = main_part(address).end;
    let mut recovery = (start..end).step_by(4);
    let end = recovery
        .find(|&pc| routines::begins_take_back(instruction(pc)))
        .unwrap_or(end);
    start..end
}
