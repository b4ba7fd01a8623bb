//! The harness against itself: what is wrong has to come out as failed.

use crate::deviation::Deviation;
use crate::harness::{Case, Expect, Outcome, Stop, Test, cases, check};
use crate::tables::World;
use crate::{boot, csr, raw, trap};

cases![
    a_wrong_expectation_is_a_failure,
    a_deviation_that_the_machine_does_not_have_is_a_failure,
    an_unexpected_trap_and_a_panic_end_only_their_test,
];

/// What the boot argument `self-test-fail` adds.
pub const MUST_FAIL: &[Case] = &[Case {
    name: "self_test_fails_as_asked",
    run: expects_a_mapped_page_to_fault,
}];

fn expects_a_mapped_page_to_fault(t: &mut Test) -> Outcome {
    let mut world = World::guest_physical();
    let page = world.page(crate::tables::bits::USER);
    world.load();
    t.access(
        "hlv.d of a mapped page",
        raw::hlv_d(page.gpa, 0),
        Expect::Cause(21),
    )
}

fn a_wrong_expectation_is_a_failure(t: &mut Test) -> Outcome {
    check!(
        matches!(expects_a_mapped_page_to_fault(t), Err(Stop::Failed)),
        "a wrong cause passed"
    );
    check!(
        matches!(t.equal("one", 1, 2), Err(Stop::Failed)),
        "a wrong value passed"
    );
    Ok(())
}

fn a_deviation_that_the_machine_does_not_have_is_a_failure(t: &mut Test) -> Outcome {
    for deviation in Deviation::ALL {
        if !t.machine.has(deviation) {
            let result = t.access_or(
                "nothing",
                Ok(1),
                Expect::Value(2),
                &[(deviation, Expect::Value(1))],
            );
            check!(matches!(result, Err(Stop::Failed)), "{deviation} passed");
        }
    }
    Ok(())
}

fn an_unexpected_trap_and_a_panic_end_only_their_test(t: &mut Test) -> Outcome {
    let trap = trap::catch(|| {
        // SAFETY: nothing is there, which is the point: the load only traps.
        unsafe { (boot::UNMAPPED as *const u64).read_volatile() }
    });
    t.equal("cause", trap.map_err(|trap| trap.info.scause), Err(13))?;
    let panicked = trap::catch(|| {
        if csr::hstatus::read() != 0 {
            panic!("on purpose");
        }
    });
    let text = crate::panic::take();
    check!(panicked.is_err(), "the panic was not seen");
    check!(text.as_str().contains("on purpose"), "{}", text.as_str());
    Ok(())
}
