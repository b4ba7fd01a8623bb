//! Four harts at once: single accesses, shootdowns, edits of the guest's tables, changes of slots, the dirty log.
//!
//! The one idea: every page holds what says whose it is. A page that was taken away is *poisoned* as soon as the library and the
//! shootdown say that nobody uses it: who reads the poison, or writes over it, has used it after that.
//!
//! Rounds are counted and not timed, so that a slow machine does the same work. A wait ends when no hart makes a step any more
//! (`harts::Patience`).

pub mod edits;
pub mod logging;
pub mod replacing;
pub mod slots;
pub mod tearing;
pub mod unmapping;

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Reader, Slot};
use guest_mem::guest_virtual::VsEnvironment;
use guest_mem::hart::Hart;
use guest_mem::hart::riscv64::{HandlerHook, Recovery, Riscv64, ScopedStvec};
use guest_mem::translate::StageRules;
use guest_mem::{LoadedVcpu, Spa, probe};

use crate::harness::{Outcome, Stop};
use crate::harts::{self, Crew, Part, Patience, Wrong};
use crate::library::{loaded, probed};
use crate::oracle::Oracle;
use crate::tables::bits::SUPERVISOR;
use crate::tables::{Page, World};
use crate::{arena, shootdown, slots as host_slots};

/// The first page of guest-virtual memory that the harts share.
const GVA: u64 = 0x20_0000;
/// Bytes in a page.
const PAGE: u64 = 4096;
/// What a page holds that nobody may use.
const POISON: u64 = 0xdead_dead_dead_dead;

/// A guest's memory as four harts share it.
type Memory<'m> = GuestPhysicalMemory<'m, 4, 4>;

/// How an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// By `hlv` and `hsv` through both stages.
    Virtual,
    /// By `hlv` and `hsv` with `vsatp` Bare.
    Physical,
    /// Through the slots and the host's mapping.
    Direct,
    /// Both: the hardware's translation with the slots beside it.
    Backed,
    /// The same with the G-stage's own table beside it, and copies by walks.
    Shown,
}

impl Path {
    const ALL: [Self; 5] = [
        Self::Virtual,
        Self::Physical,
        Self::Direct,
        Self::Backed,
        Self::Shown,
    ];

    /// Whether it goes through guest-virtual pages, which lie side by side.
    fn is_virtual(self) -> bool {
        matches!(self, Self::Virtual | Self::Backed | Self::Shown)
    }

    /// Whether it has an exchange, which has no form by `hlv`.
    fn exchanges(self) -> bool {
        matches!(self, Self::Direct | Self::Backed | Self::Shown)
    }
}

/// What a hart accesses guest memory with.
struct Hand<'h, 'm, H: Hart> {
    me: usize,
    vcpu: LoadedVcpu<'h, H>,
    reader: Reader<'m>,
    environment: VsEnvironment,
    g_rules: StageRules,
    random: u64,
}

/// Runs `$body` with `$memory` and `$at` bound to the space of the path and the address in it of byte `$offset` of a page that is
/// guest-virtual page `$index` and guest-physical `$gpa`.
macro_rules! by_path {
    ($hand:expr, $path:expr, ($index:expr, $gpa:expr, $offset:expr) => |$memory:ident, $at:ident| $body:expr) => {{
        let gva = guest_mem::Gva::new(
            $crate::tests::races::GVA + $index as u64 * $crate::tests::races::PAGE + $offset,
        );
        let gpa = guest_mem::Gpa::new($gpa + $offset);
        let privilege = guest_mem::GuestPrivilege::Supervisor;
        match $path {
            $crate::tests::races::Path::Virtual => {
                let ($memory, $at) = ($hand.vcpu.guest_virtual(privilege), gva);
                $body
            }
            $crate::tests::races::Path::Physical => {
                let ($memory, $at) = ($hand.vcpu.guest_physical(), gpa);
                $body
            }
            $crate::tests::races::Path::Direct => {
                let ($memory, $at) = ($hand.reader.guard(), gpa);
                $body
            }
            $crate::tests::races::Path::Backed => {
                let view = $hand.reader.guard();
                let space = $hand.vcpu.guest_virtual(privilege);
                let ($memory, $at) = (space.with_memory(&view, $hand.environment), gva);
                $body
            }
            $crate::tests::races::Path::Shown => {
                let memory = $crate::slots::Arena {
                    linger: $hand.linger(),
                };
                let view = $hand.reader.guard();
                let shown = $crate::slots::shown(&view, &$hand.vcpu, $hand.g_rules, memory);
                let environment = $hand.environment.with_walk_from(0);
                let space = $hand.vcpu.guest_virtual(privilege);
                let ($memory, $at) = (space.with_memory(&shown, environment), gva);
                $body
            }
        }
    }};
}

use by_path;

impl<H: Hart> Hand<'_, '_, H> {
    /// Turns of a loop between a walk and its access: mostly none, sometimes long enough for a shootdown.
    fn linger(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(1 << 16),
            _ => 0,
        }
    }

    /// Some path.
    fn path(&mut self) -> Path {
        Path::ALL[self.below(Path::ALL.len() as u64) as usize]
    }

    /// A number below the bound that looks random (an LCG's upper half). Counts as a step of this hart.
    fn below(&mut self, bound: u64) -> u64 {
        harts::step(self.me);
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }
}

/// Guest-virtual pages from [`GVA`] on with their own guest-physical pages.
fn pages<const N: usize>(world: &mut World) -> [Page; N] {
    core::array::from_fn(|index| world.page_at(GVA + index as u64 * PAGE, SUPERVISOR))
}

/// The arena as a slot: pages and tables of the guest.
fn arena_slot<'m>() -> Slot<'m> {
    host_slots::arena_slot()
}

/// Fills a page, double by double.
fn fill_page(page: u64, value: u64) {
    for at in (page..page + PAGE).step_by(8) {
        arena::write(at, value);
    }
}

/// The first double of a page that is not `value`.
fn other_than(page: u64, value: u64) -> Option<u64> {
    (page..page + PAGE)
        .step_by(8)
        .map(arena::read)
        .find(|&found| found != value)
}

/// The bytes of doubles.
fn bytes_of(doubles: &mut [u64]) -> &mut [u8] {
    // SAFETY: every pattern of bytes is doubles and the other way round; the slice is borrowed as long as the other.
    unsafe { doubles.align_to_mut::<u8>().1 }
}

/// What the harts of a race do.
trait Race: Sync {
    /// One of the other harts.
    fn there<H: Hart>(&self, hand: Hand<'_, '_, H>, crew: &Crew) -> Part;

    /// The boot hart.
    fn here<H: Hart>(&self, hand: Hand<'_, '_, H>, crew: &Crew) -> Outcome;
}

/// Runs the race on every hart, each of which has the world loaded. Every other one recovers by a scoped `stvec`.
fn race(world: &World, memory: &Memory<'_>, race: &impl Race) -> Outcome {
    /// This hart, probed with a scratch block of its own.
    fn other<R: Recovery>(scratch: u64) -> Result<Riscv64<R>, Wrong> {
        // SAFETY: HS-mode with the H extension; the trap handler of the other harts always calls `try_fixup`.
        let hart = unsafe { Riscv64::<R>::new() };
        // SAFETY: the block is the arena's, identity-mapped, and this hart's alone; no vCPU is loaded.
        match unsafe { probe::probe(&hart, scratch as *mut u64, Spa::new(scratch)) } {
            Ok(_) => Ok(hart),
            Err(error) => Err(Wrong::because(format_args!("probe: {error}"))),
        }
    }
    let environment = host_slots::environment()?;
    let g_rules = Oracle::measure()?.g;
    let scratch: [u64; harts::OTHERS] =
        core::array::from_fn(|_| arena::take(probe::PROBE_BYTES.next_power_of_two() as u64));
    let (hart, _) = probed::<HandlerHook>()?;
    let there = |me: usize, crew: &Crew| {
        fn run<H: Hart>(
            hart: &H,
            me: usize,
            world: &World,
            memory: &Memory<'_>,
            (environment, g_rules): (VsEnvironment, StageRules),
            race: &impl Race,
            crew: &Crew,
        ) -> Part {
            world.load();
            let Ok(reader) = memory.reader(me) else {
                return Err(Wrong::because(format_args!("no reader")));
            };
            let hand = Hand {
                me,
                vcpu: loaded(hart),
                reader,
                environment: VsEnvironment {
                    // One of them leaves nothing to the hardware.
                    walk_always: me == 3 || environment.walk_always,
                    ..environment
                },
                g_rules,
                random: me as u64,
            };
            race.there(hand, crew)
        }
        let (scratch, rules) = (scratch[me - 1], (environment, g_rules));
        if me.is_multiple_of(2) {
            let hart = other::<ScopedStvec>(scratch)?;
            run(&hart, me, world, memory, rules, race, crew)
        } else {
            let hart = other::<HandlerHook>(scratch)?;
            run(&hart, me, world, memory, rules, race, crew)
        }
    };
    harts::together(&there, |crew| {
        world.load();
        let Ok(reader) = memory.reader(0) else {
            return Err(Stop::failed(format_args!("no reader")));
        };
        let hand = Hand {
            me: 0,
            vcpu: loaded(&hart),
            reader,
            environment,
            g_rules,
            random: 0,
        };
        race.here(hand, crew)
    })
}

/// Waits for the others, and answers their shootdowns.
fn until(me: usize, is_so: impl Fn() -> bool) -> Outcome {
    let patience = Patience::new();
    while !is_so() {
        shootdown::serve(me);
        if patience.is_over() {
            return Err(Stop::failed(format_args!("the other harts do not finish")));
        }
    }
    Ok(())
}

/// A world with pages, and the arena as its slot.
fn world_and_memory<'m, const N: usize>() -> Result<(World, [Page; N], Memory<'m>), Stop> {
    let mut world = World::sv39();
    let pages = pages::<N>(&mut world);
    let memory = Memory::new(GMode::Sv39x4);
    host_slots::is_slot(memory.add(arena_slot(), &mut NoGStage))?;
    Ok((world, pages, memory))
}
