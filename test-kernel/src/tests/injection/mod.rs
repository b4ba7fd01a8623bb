//! Fault injection: a fault at every byte of copies of every size and alignment, of every cause, in both spaces, by both forms
//! of recovery, through the library's windows and below them (R11, R15, R20, invariant 4).
//!
//! The one idea: the cross product (`shape`) is finite. `cargo xtask test --exhaustive` runs all of it. The default run takes, in each
//! form, all of it for one setting (`WHOLE`); for each setting in which a fault comes in the middle of a routine, all that
//! has a size of `shape::BRANCHES`, which together take every branch of the assembly; and of the rest one case in
//! `SAMPLED`, others for each setting.

mod aside;
pub mod interrupts;
pub mod nested;
mod scene;
mod setting;
mod shape;
pub mod storms;

use core::any::TypeId;

use guest_mem::hart::Hart;

use crate::deviation::Deviation::HtinstNotWritable;
use crate::harness::{self, Outcome, Test, cases, skip};
use crate::library::{Scoped, in_both_forms, loaded};
use crate::witness::Promise;
use crate::{arena, boot, csr, machine};
use scene::Scene;
use setting::{Layer, Operation, Refusal, Setting, Space};
use shape::{BRANCHES, Shape};

cases![
    r11_r20_a_fault_injected_at_a_page_end_is_exact,
    r15_r20_a_fault_injected_inside_a_page_is_exact,
];

/// Of the cases that no run has to take, one in so many is taken.
const SAMPLED: usize = 61;

/// What the default run takes all shapes of: by the hook, and by the scoped vector.
const WHOLE: [Setting; 2] = [
    Setting {
        layer: Layer::Hart,
        operation: Operation::Read,
        space: Space::Virtual,
        refusal: Refusal::GuestPage,
    },
    Setting {
        layer: Layer::Hart,
        operation: Operation::Write,
        space: Space::Virtual,
        refusal: Refusal::Page,
    },
];

/// How much of a setting's shapes a run takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of them.
    Whole,
    /// Of the sizes that take every branch all, and samples of the others.
    Branches,
    /// Samples.
    Samples,
}

impl Extent {
    fn of(setting: &Setting, is_scoped: bool) -> Self {
        if boot::asked_for("exhaustive") || *setting == WHOLE[usize::from(is_scoped)] {
            return Self::Whole;
        }
        let in_a_routine = match (setting.refusal, setting.layer) {
            (Refusal::Protection(offset), Layer::Windows) => offset % 8 != 0,
            (Refusal::Protection(_), Layer::Hart) => false,
            // Through windows a page's end also ends the routine: the fault comes at the start of the next.
            (_, layer) => layer == Layer::Hart,
        };
        if in_a_routine {
            Self::Branches
        } else {
            Self::Samples
        }
    }

    fn takes_all_of(self, len: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Branches => BRANCHES.contains(&len),
            Self::Samples => false,
        }
    }
}

const LAYERS: [Layer; 2] = [Layer::Windows, Layer::Hart];
const OPERATIONS: [Operation; 3] = [Operation::Read, Operation::Write, Operation::Fill];
const SPACES: [Space; 2] = [Space::Virtual, Space::Physical];
const PAGES: [Refusal; 5] = [
    Refusal::Page,
    Refusal::ReadOnlyPage,
    Refusal::GuestPage,
    Refusal::ReadOnlyGuestPage,
    Refusal::Table,
];
/// A granule at the start of a double, and one in its middle.
const GRANULES: [Refusal; 2] = [Refusal::Protection(2048), Refusal::Protection(2052)];

/// Every setting with one of these refusals.
fn settings(refusals: &[Refusal]) -> impl Iterator<Item = Setting> {
    refusals.iter().flat_map(|&refusal| {
        LAYERS.into_iter().flat_map(move |layer| {
            OPERATIONS.into_iter().flat_map(move |operation| {
                SPACES.into_iter().map(move |space| Setting {
                    layer,
                    operation,
                    space,
                    refusal,
                })
            })
        })
    })
}

/// Whether the hart's form of recovery is the scoped one.
fn is_scoped<H: 'static>() -> bool {
    TypeId::of::<H>() == TypeId::of::<Scoped>()
}

/// Skips the test unless M-mode is the kernel's.
fn standalone() -> Outcome {
    if !machine::is_standalone() {
        skip!("M-mode is the firmware's");
    }
    Ok(())
}

/// Skips the test unless M-mode is the kernel's, and PMP as fine as 4 bytes.
fn standalone_with_granules() -> Outcome {
    standalone()?;
    let fine = machine::protect(arena::start()..arena::start() + 4);
    machine::protect(0..0);
    if !fine {
        skip!("PMP takes no granules of 4 bytes");
    }
    Ok(())
}

/// Injects every fault of these refusals that this run takes.
fn inject_all<H: Hart + 'static>(t: &mut Test, hart: &H, refusals: &[Refusal]) -> Outcome {
    let promise = if !is_scoped::<H>() {
        Promise::ButExitRecord
    } else if t.machine.has(HtinstNotWritable) {
        t.deviates(HtinstNotWritable);
        Promise::ButHtinst
    } else {
        Promise::Everything
    };
    let mut count = 0;
    for (number, setting) in settings(refusals).filter(Setting::exists).enumerate() {
        let scene = Scene::new(setting, promise);
        let vcpu = loaded(hart);
        let extent = Extent::of(&setting, is_scoped::<H>());
        for len in shape::sizes() {
            let all = extent.takes_all_of(len);
            for (index, shape) in Shape::of_len(len).enumerate() {
                let taken = all || (index + 7 * number + 3 * len) % SAMPLED == 0;
                // A fill has no host's side.
                if !taken || setting.operation == Operation::Fill && shape.host != 0 {
                    continue;
                }
                let interrupts = setting.layer == Layer::Windows && count % 2 == 1;
                scene.inject(t, &vcpu, hart, shape, interrupts, None)?;
                count += 1;
            }
        }
        scene.close()?;
        boot::reset_csrs(csr::satp::read());
        arena::release_all();
    }
    harness::count(count, "injected faults");
    Ok(())
}

fn r11_r20_a_fault_injected_at_a_page_end_is_exact(t: &mut Test) -> Outcome {
    fn body<H: Hart + 'static>(t: &mut Test, hart: &H) -> Outcome {
        inject_all(t, hart, &PAGES)
    }
    in_both_forms!(t, body)
}

fn r15_r20_a_fault_injected_inside_a_page_is_exact(t: &mut Test) -> Outcome {
    fn body<H: Hart + 'static>(t: &mut Test, hart: &H) -> Outcome {
        inject_all(t, hart, &GRANULES)
    }
    standalone_with_granules()?;
    in_both_forms!(t, body)
}
