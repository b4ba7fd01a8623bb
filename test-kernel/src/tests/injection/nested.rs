//! Both forms of fault recovery in one host: an interrupt handler that accesses the guest by the form that the interrupted
//! access does not have.
//!
//! The one idea: a scoped access leaves the host's `stvec` and trap CSRs as they were, and a hooked one asks for nothing but
//! the trap handler; so that neither notices the other, wherever it comes, and whichever of them faults.

use guest_mem::hart::Hart;
use guest_mem::hart::riscv64::{HandlerHook, ScopedStvec};

use super::aside::Aside;
use super::interrupts::{FEW, Manner, Unit, expecting, shape, sweep};
use super::setting::{Layer, Refusal, Setting, Space};
use super::{OPERATIONS, is_scoped, standalone};
use crate::deviation::Deviation::StaleVsatp;
use crate::harness::{self, Outcome, Test, cases, not_in_small, skip};
use crate::library::{loaded, probed};
use crate::machine;
use crate::{arena, boot, csr, trap};

cases![r20_r26_a_handler_that_accesses_by_the_other_form_disturbs_no_access,];

const LAYERS: [(Layer, Space); 3] = [
    (Layer::Windows, Space::Virtual),
    (Layer::Windows, Space::Physical),
    (Layer::Hart, Space::Virtual),
];

/// Interrupts copies by `outer` at each of their instructions, with a handler that accesses by `inner`.
fn nest<O: Hart + 'static, I: Hart + 'static>(t: &mut Test, outer: &O, inner: &I) -> Outcome {
    trap::set_hook(!is_scoped::<O>());
    let mut unit = Unit::new();
    let mut count = 0;
    for (layer, space) in LAYERS {
        for operation in OPERATIONS {
            for refusal in [Refusal::Nothing, Refusal::GuestPage] {
                let scene = expecting(Setting {
                    layer,
                    operation,
                    space,
                    refusal,
                });
                let vcpu = loaded(outer);
                for faults in [false, true] {
                    let aside = Aside::faulting(&scene, inner, faults);
                    // A scoped routine bears no interrupt, a window's only at its end.
                    let manner = Manner {
                        inside: layer == Layer::Hart && !is_scoped::<O>(),
                        nests: true,
                    };
                    let interrupts = manner.inside || layer == Layer::Windows;
                    machine::forget();
                    for &copy in &FEW {
                        count += sweep(t, &mut unit, &aside, manner, |t, stepping| {
                            scene.inject(t, &vcpu, outer, shape(copy), interrupts, Some(stepping))
                        })?;
                    }
                }
                scene.close()?;
                boot::reset_csrs(csr::satp::read());
                arena::release_all();
            }
        }
    }
    harness::count(count, "interrupts across forms");
    Ok(())
}

fn r20_r26_a_handler_that_accesses_by_the_other_form_disturbs_no_access(t: &mut Test) -> Outcome {
    standalone()?;
    not_in_small!("step through accesses");
    if t.machine.has(StaleVsatp) {
        skip!(
            "each form knows of its own fences only, and this machine needs some between any two accesses"
        );
    }
    let (hooked, _) = probed::<HandlerHook>()?;
    boot::reset_csrs(csr::satp::read());
    let (scoped, _) = probed::<ScopedStvec>()?;
    boot::reset_csrs(csr::satp::read());
    nest(t, &hooked, &scoped)?;
    nest(t, &scoped, &hooked)
}
