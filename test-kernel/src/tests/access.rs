//! Section A: what `hlv`, `hlvx` and `hsv` do.

use crate::deviation::Deviation::FetchCauses;
use crate::harness::{Expect, Outcome, Test, act_as_supervisor, cases};
use crate::raw;
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};

cases![r2_spvp_chooses_the_privilege];

const GVA: u64 = 0x20_1000;

fn r2_spvp_chooses_the_privilege(t: &mut Test) -> Outcome {
    for (flags, spvp, expected) in [
        (SUPERVISOR, true, Expect::Value(0)),
        (SUPERVISOR, false, Expect::Cause(13)),
        (USER, false, Expect::Value(0)),
    ] {
        let mut world = World::sv39();
        world.page_at(GVA, flags);
        world.load();
        act_as_supervisor(spvp);
        t.access("hlv.d", raw::hlv_d(GVA, 0), expected)?;
        t.access_or(
            "hlvx.hu",
            raw::hlvx_hu(GVA, 0),
            expected,
            &[(FetchCauses, Expect::Cause(12))],
        )?;
    }
    Ok(())
}
