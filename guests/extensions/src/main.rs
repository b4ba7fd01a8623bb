//! A guest that tries every ISA extension that it knows of: what its device tree advertises must
//! work, and anything else must trap as on a machine without it.
//!
//! The one idea: one probe an extension, and both questions are put to the same probe. What no
//! hypervisor can hide (hints, properties of memory, bits of `senvcfg`) is named, with the reason,
//! and must still work where it is advertised. A promise that no program can see kept or broken
//! (how long an instruction takes) is counted apart: it is no step.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod firmware;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod probe;
#[cfg(target_os = "none")]
mod supervisor;
#[cfg(target_os = "none")]
mod unprivileged;
#[cfg(target_os = "none")]
mod vectors;

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering;

    use guest_kit::machine::Machine;
    use guest_kit::trap::cause;
    use guest_kit::{csr_set, println, sbi};

    use sbi_spec::base::GET_MIMPID;

    use crate::probe::{CACHE_BLOCK, Hiding, Outcome, Probe};
    use crate::{firmware, paging, supervisor, unprivileged, vectors};

    /// Floating point on; vectors, too, if that can be.
    const UNITS_ON: u64 = 3 << 13 | 3 << 9;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("extensions", device_tree) };
        println!("extensions: {}", machine.isa);
        // SAFETY: what this program has of the units is what the probes use.
        unsafe { csr_set!("sstatus", UNITS_ON) };
        let sizes = machine.cache_blocks.into_iter().flatten();
        // Of two sizes the odd one.
        let size = sizes.max_by_key(|&size| (size != 64, size));
        CACHE_BLOCK.store(size.unwrap_or(0), Ordering::Relaxed);
        let (mut steps, mut wrong, mut undecidable) = (0, 0, 0);
        let mut step = |right: bool, name: &str, what: core::fmt::Arguments<'_>| {
            steps += 1;
            wrong += u32::from(!right);
            println!(
                "{} {name}: {what}",
                if right { "  ok   " } else { "  WRONG" }
            );
        };
        let probes = || {
            let (first, last) = (unprivileged::PROBES, supervisor::PROBES);
            first.iter().chain(vectors::PROBES).chain(last)
        };
        for name in machine.extensions() {
            if !probes().any(|probe| probe.name == name) {
                step(
                    false,
                    name,
                    format_args!("advertised, and nobody knows how to try it"),
                );
            }
        }
        for probe in probes() {
            let advertised = is_advertised(&machine, probe);
            let outcome = (probe.run)();
            let hiding = match probe.name {
                "svpbmt" if ignores_pbmte() => {
                    Hiding::Cannot("QEMU before 8.0 does not look at henvcfg.PBMTE (R67)")
                }
                _ => probe.hiding,
            };
            match (advertised, outcome, hiding) {
                (true, Outcome::Works, _) => step(true, probe.name, format_args!("works")),
                (true, Outcome::Undecidable, Hiding::Cannot(reason)) => {
                    undecidable += 1;
                    let name = probe.name;
                    println!("  ?     {name}: {}: {reason}", Outcome::Undecidable);
                }
                (true, other, _) => {
                    step(false, probe.name, format_args!("advertised, but {other}"));
                }
                (false, Outcome::Trapped(trap), _) if trap.cause == cause::ILLEGAL => {
                    step(true, probe.name, format_args!("hidden, traps"));
                }
                (false, Outcome::Absent, _) => {
                    step(true, probe.name, format_args!("hidden, its bits stay zero"));
                }
                (false, Outcome::Trapped(trap), Hiding::Faults)
                    if matches!(trap.cause, cause::LOAD_PAGE | cause::STORE_PAGE) =>
                {
                    step(true, probe.name, format_args!("hidden, a page fault"));
                }
                (false, other, Hiding::Cannot(reason)) => {
                    println!(
                        "  -     {}: hidden, {other}; cannot trap: {reason}",
                        probe.name
                    );
                }
                (false, other, Hiding::Traps | Hiding::Faults) => {
                    step(
                        false,
                        probe.name,
                        format_args!("not advertised, but {other}"),
                    );
                }
            }
        }
        if machine.under_hypervisor {
            firmware::r74_each_feature_is_set_shows_and_locks(&machine, &mut step);
            paging::i20_memory_behind_the_caches_is_the_guests(&machine, &mut step);
        }
        println!("extensions: {steps} steps, {wrong} wrong, {undecidable} that nothing decides");
        sbi::shutdown(wrong > 0);
    }

    /// Whether this is a QEMU before 8.0, by the version that it has as `mimpid`.
    fn ignores_pbmte() -> bool {
        const QEMU_8: usize = 8 << 16;
        (1..QEMU_8).contains(&sbi::base(GET_MIMPID))
    }

    /// Whether the device tree lists it, by its own name or by one that includes it.
    fn is_advertised(machine: &Machine, probe: &Probe) -> bool {
        let lists = |wanted: &str| machine.extensions().any(|name| name == wanted);
        lists(probe.name) || probe.part_of.iter().any(|whole| lists(whole))
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
