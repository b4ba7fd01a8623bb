//! The mutants of the hypervisor: what it owes a guest that comes after another, and what it hides from one.

use super::mutant::{Mutant, by_guests};

/// All of them.
pub const OF_HYPERVISOR: &[Mutant] = &[
    // What a new guest finds.
    by_guests(
        "a page of a guest is not zeroed",
        "memory/host.rs",
        &[(
            "        allocate_zeroed(1, FRAME)\n",
            "        FRAMES.lock().allocate(1, FRAME)\n",
        )],
    ),
    by_guests(
        "floating-point registers are not reset",
        "vcpu/reset.rs",
        &[(r"fmv.d.x f\n, zero", "nop")],
    ),
    by_guests(
        "fcsr is not reset",
        "vcpu/reset.rs",
        &[("\"fscsr zero\"", "\"nop\"")],
    ),
    by_guests(
        "vsscratch is not reset",
        "vcpu/reset.rs",
        &[("        csr::write!(\"vsscratch\", 0);\n", "")],
    ),
    by_guests(
        "scounteren is not what firmware hands over",
        "vcpu/reset.rs",
        &[("\"scounteren\", USER_COUNTERS", "\"scounteren\", 0")],
    ),
    by_guests(
        "floating point is off where firmware hands it over on",
        "vcpu/reset.rs",
        &[("UXL_64 | grant.units()", "UXL_64")],
    ),
    by_guests(
        "a register of the host shows in a new guest",
        "vcpu/reset.rs",
        &[(
            "    context.x[10] = index as u64;\n",
            "    context.x[10] = index as u64;\n    context.x[5] = hgatp;\n",
        )],
    ),
    by_guests(
        "a page that replaces the zero page is not fenced on the other harts",
        "vm/guest_ram.rs",
        &[(
            "self.fences.translations_changed(self.page);",
            "self.fences.forget_here();",
        )],
    ),
    by_guests(
        "a page gets its frame while the host reads the zero page for it",
        "vm/guest_ram.rs",
        &[(
            "let shown = unsafe { self.slots.replace_page(entry, own, &mut remapped) };",
            "let shown = remapped.show();\n                fences.translations_changed(page);\n                \
             unsafe { entry.set(own) };",
        )],
    ),
    by_guests(
        "a tick of the host ends the guest's wfi",
        "vcpu/reset.rs",
        &[("csr::HSTATUS_SPV | csr::HSTATUS_VTW", "csr::HSTATUS_SPV")],
    ),
    by_guests(
        "an interrupt that is disabled does not resume a suspended hart",
        "vcpu/run.rs",
        &[(
            "self.wait(Until::InterruptOrArrival)",
            "self.wait(Until::Interrupt)",
        )],
    ),
    // What nobody may bring down.
    by_guests(
        "a hart mask of the guest's can bring the host down",
        "sbi/legacy.rs",
        &[(
            "Ok(None) => return answer_with(vcpu, INVALID_PARAM),",
            "Ok(None) => panic!(\"a hart that does not exist\"),",
        )],
    ),
    by_guests(
        "a guest that goes in circles is not stopped",
        "exit/mod.rs",
        &[(
            "return Next::End(Ending::TimeLimit);",
            "return Next::Resume;",
        )],
    ),
    // What comes back when it is over.
    by_guests(
        "the frame of a page does not come back",
        "vm/guest_ram.rs",
        &[(
            "PageSize::Small => memory.free_frame(leaf.physical),",
            "PageSize::Small => {}",
        )],
    ),
    by_guests(
        "a table below the root does not come back",
        "memory/page_table.rs",
        &[(
            "unsafe { free_tables(memory, target(entry), 4096, level - 1) };",
            "let _ = target(entry);",
        )],
    ),
    by_guests(
        "the page array does not come back",
        "guest.rs",
        &[(
            "        host::free_page_entries(pages);\n",
            "        let _ = pages;\n",
        )],
    ),
    by_guests(
        "a guest's object on the heap does not come back",
        "guest.rs",
        &[(
            "    let Vm { ram, .. } = *vm;\n",
            "    let Vm { ram, name, .. } = *vm;\n    core::mem::forget(name);\n",
        )],
    ),
    by_guests(
        "a frame is given back before the guest is over",
        "vm/guest_ram.rs",
        &[(
            "                    unsafe { g_stage.memory.free_frame(frame) };\n                    return Err(error.into());\n                }\n",
            "                    unsafe { g_stage.memory.free_frame(frame) };\n                    return Err(error.into());\n                }\n                unsafe { g_stage.memory.free_frame(frame) };\n",
        )],
    ),
    // What a guest is given.
    by_guests(
        "hstateen0 hides nothing",
        "vcpu/grant.rs",
        &[(
            "csr::write!(\"hstateen0\", STATEEN_ENVCFG);",
            "csr::write!(\"hstateen0\", STATEEN_ENVCFG | 1 << 63);",
        )],
    ),
    by_guests(
        "no counter is given",
        "vcpu/grant.rs",
        &[(
            "csr::write!(\"hcounteren\", self.granted.counters.bits());",
            "csr::write!(\"hcounteren\", 0);",
        )],
    ),
    by_guests(
        "a memory type is advertised and not granted",
        "features.rs",
        &[(
            "(\"svpbmt\", Need::Environment(Henvcfg::PBMTE)),",
            "(\"svpbmt\", Need::Nothing),",
        )],
    ),
    by_guests(
        "vectors are advertised and not granted",
        "vcpu/grant.rs",
        &[(
            "            csr::SSTATUS_FS | csr::SSTATUS_VS\n",
            "            csr::SSTATUS_FS\n",
        )],
    ),
    by_guests(
        "vector registers are not reset",
        "vcpu/reset.rs",
        &[("            clear_vectors();", "")],
    ),
];
