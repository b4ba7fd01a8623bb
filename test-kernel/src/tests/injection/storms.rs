//! Interrupts as any machine brings them, and how long a window keeps them waiting (R26, invariant 5).
//!
//! The one idea: under firmware nobody steps, but a timer of ever another period meets faulting copies at ever another place;
//! and where M-mode steps, the instructions between two moments at which an interrupt could come are counted one by one.

use guest_mem::hart::Hart;
use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva};

use super::aside::Aside;
use super::scene::{Scene, stepped};
use super::setting::{Layer, Operation, Refusal, Setting, Space};
use super::shape::Shape;
use super::{OPERATIONS, SPACES, standalone};
use crate::harness::{self, Outcome, Test, cases, check, not_in_small, one_in};
use crate::library::{in_both_forms, loaded};
use crate::machine::Stepping;
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::witness::Promise;
use crate::{arena, boot, csr, storm};

cases![
    r26_i2_accesses_in_interrupt_handlers_disturb_no_access,
    r26_interrupts_are_off_for_one_page_of_copying_at_most,
];

/// Interrupts to wait for in each setting.
const INTERRUPTS: u64 = 30;
/// The same in a small run.
const FEW: u64 = 2;
/// Copies after which too few interrupts are a failure: a second or two.
const PATIENCE: usize = 200_000;

fn r26_i2_accesses_in_interrupt_handlers_disturb_no_access(t: &mut Test) -> Outcome {
    fn body<H: Hart + 'static>(t: &mut Test, hart: &H) -> Outcome {
        let interrupts = if boot::is_small() { FEW } else { INTERRUPTS };
        let settings = OPERATIONS.into_iter().flat_map(|operation| {
            SPACES.into_iter().flat_map(move |space| {
                [Refusal::Nothing, Refusal::GuestPage].map(|refusal| Setting {
                    layer: Layer::Windows,
                    operation,
                    space,
                    refusal,
                })
            })
        });
        for (number, setting) in settings.enumerate().step_by(one_in(5)) {
            let mut scene = Scene::new(setting, Promise::ButExitRecord);
            let vcpu = loaded(hart);
            let aside = Aside::of(&scene, hart);
            storm::expect(1000 + 37 * number as u64);
            scene.settle();
            let result = storm::nesting(&aside, Aside::<H>::access, || {
                for round in 0..PATIENCE {
                    let shape = Shape {
                        len: 300,
                        host: round % 8,
                        fault: round * 7 % 300,
                    };
                    scene.inject(t, &vcpu, hart, shape, true, None)?;
                    if storm::taken() >= interrupts {
                        break;
                    }
                }
                Ok(())
            });
            let storm = storm::over();
            result?;
            check!(
                storm.taken >= interrupts,
                "{setting:?}: only {} interrupts came",
                storm.taken
            );
            t.equal(
                "interrupts that found something borrowed",
                storm.violations,
                0,
            )?;
            t.equal("wrong accesses of the handler", aside.wrong(), 0)?;
            scene.close()?;
            boot::reset_csrs(csr::satp::read());
            arena::release_all();
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

const GVA: u64 = 0x20_0000;
const PAGE: u64 = 4096;

/// A piece of a page, a whole page, and a piece of a third.
const BEFORE: u64 = 104;
const LEN: usize = 104 + 4096 + 104;

/// Instructions by which the way to a page of several may differ from the way to one.
const BESIDES: u64 = 32;

/// Instructions that interrupts are off for at the most, whatever the alignments: one for each byte of a page. A double costs
/// less than eight, and the window around the page has its share of what they leave.
const BOUND: u64 = PAGE;

/// Alignments of the guest's and the host's side: doubles, words, halves, and what has to be merged.
const ALIGNMENTS: [(u64, u64); 6] = [(0, 0), (3, 3), (0, 4), (4, 2), (1, 0), (0, 7)];

/// One copy as `operation` says.
fn copy<M: GuestMemory>(
    memory: &M,
    operation: Operation,
    address: M::Address,
    buffer: &mut [u8],
) -> bool {
    let result = match operation {
        Operation::Read => memory.read(address, buffer),
        Operation::Write => memory.write(address, buffer),
        Operation::Fill => memory.fill(address, 0x5a, buffer.len()),
    };
    result.is_ok()
}

fn r26_interrupts_are_off_for_one_page_of_copying_at_most(t: &mut Test) -> Outcome {
    fn body<H: Hart>(_: &mut Test, hart: &H) -> Outcome {
        let mut world = World::sv39();
        let guest_pages = arena::take(4 * PAGE);
        let gpa = crate::tables::RAM + (guest_pages - arena::start());
        for at in (0..4 * PAGE).step_by(PAGE as usize) {
            world.map_g(gpa + at, guest_pages + at, USER, 0);
            world.map(GVA + at, gpa + at, SUPERVISOR, 0);
        }
        let host = arena::take(4 * PAGE);
        world.load();
        let vcpu = loaded(hart);
        // SAFETY: no interrupt is enabled in sie.
        unsafe { csr::sstatus::set(guest_mem::csr::STATUS_SIE) };
        for operation in OPERATIONS {
            for space in SPACES {
                for (guest_at, host_at) in ALIGNMENTS {
                    // Whether a copy went well, and the longest row of instructions in it with interrupts off.
                    let longest = |start: u64, host_at: u64, len: usize| {
                        let at = (host + PAGE + host_at) as *mut u8;
                        // SAFETY: the arena's pages, which nothing else touches meanwhile.
                        let buffer = unsafe { core::slice::from_raw_parts_mut(at, len) };
                        stepped(Some(Stepping::Follow), || match space {
                            Space::Virtual => {
                                let guest = vcpu.guest_virtual(GuestPrivilege::Supervisor);
                                copy(&guest, operation, Gva::new(GVA + start), buffer)
                            }
                            Space::Physical => copy(
                                &vcpu.guest_physical(),
                                operation,
                                Gpa::new(gpa + start),
                                buffer,
                            ),
                        })
                    };
                    let (right, over_three) = longest(PAGE - BEFORE + guest_at, host_at, LEN);
                    check!(right, "{operation:?} in {space:?}: the copy failed");
                    // Its second page alone.
                    let second_at = host_at + BEFORE - guest_at;
                    let (right, over_one) = longest(PAGE, second_at, PAGE as usize);
                    check!(right, "{operation:?} in {space:?}: the copy failed");
                    check!(
                        over_three <= over_one + BESIDES,
                        "{operation:?} in {space:?} at {guest_at}, {host_at}: interrupts are off for {over_three} instructions, for one page {over_one}"
                    );
                    check!(
                        over_three <= BOUND,
                        "{operation:?} in {space:?} at {guest_at}, {host_at}: interrupts are off for {over_three} instructions, of {BOUND} at most"
                    );
                    harness::measured(
                        over_three,
                        "instructions with interrupts off at the longest",
                    );
                }
            }
        }
        Ok(())
    }
    standalone()?;
    not_in_small!("step through accesses");
    in_both_forms!(t, body)
}
