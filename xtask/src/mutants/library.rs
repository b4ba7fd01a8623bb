//! The mutants of the library.

use super::mutant::{Mutant, in_every_order, on_host, on_target, standalone};

/// All of them.
pub const OF_LIBRARY: &[Mutant] = &[
    // How far a copy got.
    on_host(
        "`completed` is one too many",
        "guest_virtual/access.rs",
        &[("offset + completed, trap)", "offset + completed + 1, trap)")],
    ),
    on_host(
        "`completed` forgets the slots before",
        "guest_physical/view.rs",
        &[("moved.map_err(|error| error.later(done))?;", "moved?;")],
    ),
    on_target(
        "a fault in a batch is always taken for one of its first double",
        "hart/riscv64/access/copies.S",
        &[(
            "    bltu    t1, t0, 3b\n    beq     t2, a1, 6b\n",
            "    bgeu    t1, t0, 6b\n",
        )],
    ),
    on_target(
        "a fault in a merging store forgets a double",
        "hart/riscv64/access/merges.S",
        &[(
            "6:  sub     a0, a2, a1\n",
            "6:  sub     a0, a2, a1\n    addi    a0, a0, -8\n",
        )],
    ),
    // Which traps are ours, and where they land.
    on_target(
        "a load has no entry in the exception table",
        "hart/riscv64/access/copies.S",
        &[(
            "GUEST_MEM_ACCESS 0, \\fixup, hlv.d s8, (s8)",
            "hlv.d   s8, (s8)",
        )],
    ),
    on_host(
        "a trap from the guest is taken for one of the library's",
        "hart/recovery.rs",
        &[(
            "match hstatus & (HSTATUS_SPV | HSTATUS_GVA) {",
            "match hstatus & HSTATUS_GVA {",
        )],
    ),
    on_target(
        "the scoped vector does not put scause back",
        "hart/riscv64/access/scoped.S",
        &[("    csrw    scause, t2\n", "")],
    ),
    on_target(
        "the scoped vector does not put sstatus back",
        "hart/riscv64/access/scoped.S",
        &[(
            "GUEST_MEM_RESTORE_STATUS sstatus, {trap_status}, t3",
            "li      t2, {trap_status}",
        )],
    ),
    on_target(
        "the vector of a single access does not put htval back",
        "hart/riscv64/access/scoped.S",
        &[("csrrw   t3, htval, a5", "csrr    t3, htval")],
    ),
    on_target(
        "a register of the host is lost where its own trap is forwarded",
        "hart/riscv64/access/scoped.S",
        &[("ld      t3, {frame_t3}(", "# ld    t3, {frame_t3}(")],
    ),
    on_target(
        "a copy does not take the vector back after the host's own fault",
        "hart/riscv64/access/copies.S",
        &[
            (
                "    GUEST_MEM_KEEP_SCOPE \\scoped\n    addi    t3, a1, 56\n",
                "    addi    t3, a1, 56\n",
            ),
            (
                "    GUEST_MEM_KEEP_SCOPE \\scoped\n    addi    s9, a1, 120\n",
                "    addi    s9, a1, 120\n",
            ),
        ],
    ),
    on_target(
        "a copy does not give back after a fault what the caller lent it",
        "hart/riscv64/access/copies.S",
        &[(
            "GUEST_MEM_LOAD_SINGLES hlv.d, sd, 8, \\scoped\n    .if \\scoped || {separate}\n    GUEST_MEM_BODY_FIXUPS 128\n14: GUEST_MEM_GIVE_BACK_7 \\scoped\n",
            "GUEST_MEM_LOAD_SINGLES hlv.d, sd, 8, \\scoped\n    .if \\scoped || {separate}\n    GUEST_MEM_BODY_FIXUPS 128\n14:\n",
        )],
    ),
    on_target(
        "a copy of several parts leaves the vector after a fault",
        "hart/riscv64/routines/copies.rs",
        &[(
            "            \"3:\"\n            \"csrw stvec, t5\"\n",
            "            \"csrw stvec, t5\"\n            \"3:\"\n",
        )],
    ),
    on_target(
        "a copy or a fill of one part leaves the vector",
        "hart/riscv64/routines/copies.rs",
        &[(
            " \"jalr {routine}\" \"csrw stvec, t5\"]",
            " \"jalr {routine}\"]",
        )],
    ),
    on_target(
        "a fault in the body of a copy is counted without its head",
        "hart/riscv64/routines/copies.rs",
        &[("\"add s10, s5, s6\"", "\"mv s10, s6\"")],
    ),
    on_target(
        "a fault in a body's later batch goes back to the body's first",
        "hart/riscv64/access/copies.S",
        &[(
            "13: addi    a0, a0, \\bytes\n12: addi    a0, a0, \\bytes\n11: addi    a0, a0, \\bytes\n",
            "13: addi    a1, a1, -\\bytes\n12: addi    a1, a1, -\\bytes\n11: addi    a1, a1, -\\bytes\n",
        )],
    ),
    on_target(
        "the vector of a single access uses a register of the routine's where it forwards the host's own trap",
        "hart/riscv64/access/singles.S",
        &[(
            "    csrr    t2, sepc\n    lla     t3, \\site\n    bne     t2, t3, \\or_else\n",
            "    csrr    t1, sepc\n    lla     t3, \\site\n    bne     t1, t3, \\or_else\n",
        )],
    ),
    on_target(
        "SPVP is borrowed before interrupts are off",
        "guest_virtual/window.rs",
        &[
            (
                "            if status != 0 {\n                hart.clear_csr_bits(Csr::Sstatus, STATUS_BORROWED);\n            }\n            match borrow {",
                "            match borrow {",
            ),
            (
                "                        window.vsatp = Some(vcpu.vsatp);\n                    }\n                }\n            }\n",
                "                        window.vsatp = Some(vcpu.vsatp);\n                    }\n                }\n            }\n            \
                 if status != 0 {\n hart.clear_csr_bits(Csr::Sstatus, STATUS_BORROWED);\n }\n",
            ),
        ],
    ),
    on_target(
        "interrupts are on before SPVP is put back",
        "guest_virtual/window.rs",
        &[
            (
                "            // Interrupts last: until here they would see borrowed CSRs.\n            if self.status != 0 {\n                self.hart.set_csr_bits(Csr::Sstatus, self.status);\n            }\n",
                "",
            ),
            (
                "            if self.privilege_flipped {\n",
                "            if self.status != 0 {\n self.hart.set_csr_bits(Csr::Sstatus, self.status);\n }\n            if self.privilege_flipped {\n",
            ),
        ],
    ),
    on_target(
        "interrupts are on before vsatp is put back",
        "guest_virtual/window.rs",
        &[
            (
                "            if let Some(vsatp) = self.vsatp {\n                self.hart.swap_csr(Csr::Vsatp, vsatp);\n            }\n",
                "",
            ),
            (
                "                self.hart.set_csr_bits(Csr::Sstatus, self.status);\n            }\n",
                "                self.hart.set_csr_bits(Csr::Sstatus, self.status);\n            }\n            \
                 if let Some(vsatp) = self.vsatp {\n self.hart.swap_csr(Csr::Vsatp, vsatp);\n }\n",
            ),
        ],
    ),
    // What only M-mode can bring about.
    standalone(
        "a fault of protection in a batch is taken for one of its first double",
        "hart/riscv64/access/copies.S",
        &[("bltu    t1, t0, 3b", "bltu    t1, t0, 6b")],
    ),
    standalone(
        "a batch that protection interrupted is redone in a register that the caller keeps",
        "hart/riscv64/access/copies.S",
        &[(
            "    bltu    t1, t0, 3b\n    beq     t2, a1, 6b\n",
            "    bltu    t1, t0, 4f\n    beq     t2, a1, 6b\n    j       3b\n4:  mv      s4, t1\n",
        )],
    ),
    // The access window.
    on_host(
        "SPVP is not restored",
        "guest_virtual/window.rs",
        &[(
            "self.privilege_flipped = true;",
            "self.privilege_flipped = false;",
        )],
    ),
    on_host(
        "interrupts stay on",
        "guest_virtual/window.rs",
        &[(
            "STATUS_SIE | STATUS_SDT | STATUS_MXR;",
            "STATUS_SDT | STATUS_MXR;",
        )],
    ),
    on_host(
        "the host's MXR counts for the guest",
        "guest_virtual/window.rs",
        &[(
            "STATUS_SIE | STATUS_SDT | STATUS_MXR;",
            "STATUS_SIE | STATUS_SDT;",
        )],
    ),
    on_host(
        "SUM lets the supervisor fetch from a user page",
        "guest_virtual/window.rs",
        &[(
            "if vcpu.vsstatus & STATUS_SUM != 0 {",
            "if false && vcpu.vsstatus & STATUS_SUM != 0 {",
        )],
    ),
    on_host(
        "vsatp is not restored",
        "guest_virtual/window.rs",
        &[("window.vsatp = Some(vcpu.vsatp);", "window.vsatp = None;")],
    ),
    // Copies by one walk a page.
    on_host(
        "A and D are set before the page itself has agreed",
        "guest_virtual/by_walk.rs",
        &[(
            "let looked = match self.look(regime, access) {",
            "let looked = match translate(regime, self.memory, access) {",
        )],
    ),
    on_host(
        "a page of another memory type is reached by plain loads and stores",
        "guest_virtual/by_walk.rs",
        &[(
            ".is_none_or(|leaf| leaf.memory_type == MemoryType::Pma)",
            ".is_none_or(|_| true)",
        )],
    ),
    on_host(
        "the short walk takes what is not a user's for one",
        "translate/plain.rs",
        &[(
            "GuestPrivilege::User => (U, U),",
            "GuestPrivilege::User => (0, 0),",
        )],
    ),
    on_host(
        "the short walk does not look at D",
        "translate/plain.rs",
        &[("Some(R | W | A | D)", "Some(R | W | A)")],
    ),
    on_host(
        "the G-stage's memory type does not count",
        "guest_physical/stage_view.rs",
        &[(
            "MemoryType::NonCacheable | MemoryType::Io => None,",
            "MemoryType::NonCacheable | MemoryType::Io => self.tables.memory().host_address(page.spa),",
        )],
    ),
    // Fences.
    on_host(
        "no fence after a race with the guest's page-table edits",
        "guest_virtual/confirming.rs",
        &[("self.vcpu().hart.hfence_vvma(None);", "")],
    ),
    on_host(
        "the fence after such a race is of one address",
        "guest_virtual/confirming.rs",
        &[(
            "hart.hfence_vvma(None);",
            "hart.hfence_vvma(page.map(Gva::value));",
        )],
    ),
    on_host(
        "a hart that was not probed fences nothing",
        "hart/fences.rs",
        &[("Self::of(true, true)", "Self::of(false, true)")],
    ),
    on_host(
        "a token relies on the fences of the token before",
        "guest_virtual/mod.rs",
        &[("            hart.fence_state().forget_last();\n", "")],
    ),
    on_host(
        "no fence on a change of vsatp where the machine needs one",
        "hart/fences.rs",
        &[(
            "if last.hgatp == key.hgatp => hart.hfence_vvma(None),",
            "if last.hgatp == key.hgatp => {}",
        )],
    ),
    on_host(
        "no fence.i after guest code was written",
        "sync.rs",
        &[("    hart.fence_i();\n", "")],
    ),
    // Translation.
    on_host(
        "the walk takes SUM the wrong way round",
        "translate/vs_stage.rs",
        &[(
            "leaf.user && (!regime.sum ||",
            "leaf.user && (regime.sum ||",
        )],
    ),
    on_host(
        "a store does not set D",
        "translate/walk.rs",
        &[(
            "let wanted = A | if store { D } else { 0 };",
            "let wanted = A;",
        )],
    ),
    on_host(
        "a G-stage page without U is accepted",
        "translate/g_stage.rs",
        &[("if !leaf.user {", "if false {")],
    ),
    on_host(
        "a misaligned superpage is accepted",
        "translate/entry.rs",
        &[("if base & ((1 << page_shift) - 1) != 0 {", "if false {")],
    ),
    on_host(
        "a G-stage fault is taken for one of the VS-stage",
        "fault/from_trap.rs",
        &[(
            "(FaultKind::GuestPage { access, implicit }, gpa)",
            "(FaultKind::Page, gpa)",
        )],
    ),
    on_host(
        "the low bits of the guest-physical address are lost",
        "fault/from_trap.rs",
        &[("false, trap.stval & 0b11)", "false, 0)")],
    ),
    on_host(
        "the offset of an access across pages is dropped",
        "instruction/htinst.rs",
        &[("offset: htinst >> 15 & 0x1f,", "offset: 0,")],
    ),
    on_host(
        "an access across pages is taken for one in a page",
        "instruction/trapped.rs",
        &[(
            "let is_split = gva.page_offset() + width > PAGE_SIZE;",
            "let is_split = false;",
        )],
    ),
    on_host(
        "an update of a page table is taken for a read where htinst does not tell",
        "guest_virtual/mod.rs",
        &[("let access = if updates {", "let access = if false {")],
    ),
    // Ranges and slots.
    on_host(
        "the end of a range wraps unchecked",
        "address.rs",
        &[(
            "Some(more) => start.checked_add(more),",
            "Some(more) => Some(start.wrapping_add(more)),",
        )],
    ),
    on_host(
        "a range may leave the guest-physical space",
        "guest_physical/view.rs",
        &[(
            "Some(end) if end.value() <= self.table.limit => Ok(()),",
            "Some(_) => Ok(()),",
        )],
    ),
    on_host(
        "a read-only slot is written",
        "guest_physical/view.rs",
        &[(
            "if slot.read_only && writes && !matches!(slot.backing, Backing::Trapped) {",
            "if false {",
        )],
    ),
    on_host(
        "a read-only slot is written where it was the last one used",
        "guest_physical/view.rs",
        &[(
            "if !slot.contains(gpa) || writes && slot.read_only {",
            "if !slot.contains(gpa) {",
        )],
    ),
    on_host(
        "a hole is taken for the slot below",
        "guest_physical/search.rs",
        &[("if !unsafe { (*at).contains(gpa) } {", "if false {")],
    ),
    on_host(
        "a change of the slots waits for no guard",
        "guest_physical/reader_entry.rs",
        &[("if seen % 2 == 1 {", "if false {")],
    ),
    in_every_order(
        "a guard begins without a fence",
        "guest_physical/reader_entry.rs",
        &[(
            "inside, Ordering::Release);\n        fence(Ordering::SeqCst);",
            "inside, Ordering::Release);",
        )],
    ),
    in_every_order(
        "a second guard does not release what the first one did",
        "guest_physical/reader_entry.rs",
        &[(
            "store(inside, Ordering::Release)",
            "store(inside, Ordering::Relaxed)",
        )],
    ),
    in_every_order(
        "a guard ends without releasing what it did",
        "guest_physical/reader_entry.rs",
        &[(
            "store(inside + 1, Ordering::Release)",
            "store(inside + 1, Ordering::Relaxed)",
        )],
    ),
    in_every_order(
        "a writer that finds no guard does not acquire what the last one did",
        "guest_physical/reader_entry.rs",
        &[(
            "let seen = self.sequence.load(Ordering::Acquire);",
            "let seen = self.sequence.load(Ordering::Relaxed);",
        )],
    ),
    in_every_order(
        "a change of the slots is published without a release",
        "guest_physical/memory.rs",
        &[(
            "store(newest + 1, Ordering::Release)",
            "store(newest + 1, Ordering::Relaxed)",
        )],
    ),
    in_every_order(
        "a page is found without what was in it",
        "guest_physical/page_entry.rs",
        &[(
            "decode(self.0.load(Ordering::Acquire))",
            "decode(self.0.load(Ordering::Relaxed))",
        )],
    ),
    in_every_order(
        "a page is found in its old frame while it gets another",
        "guest_physical/replacement.rs",
        &[("let old = entry.clear();", "let old = entry.get();")],
    ),
    in_every_order(
        "a page shows its new frame while harts remember the old one",
        "guest_physical/replacement.rs",
        &[("            stage.hide();\n", "")],
    ),
    on_host(
        "an access fault stands where the walk meets an absent page",
        "guest_virtual/confirming.rs",
        &[(
            "            (FaultKind::Access, Err(walked))\n                \
             if matches!(walked.kind, FaultKind::GuestPage { .. }) =>",
            "            (FaultKind::Access, Err(walked)) if false =>",
        )],
    ),
    // The dirty log.
    on_host(
        "the dirty bit of a copy is set before the data",
        "guest_physical/view.rs",
        &[
            (
                "            let moved = match reach {",
                "            if operation.access_kind() == AccessKind::Store {\n\
                 dirty_log::mark(run.slot, at, run.len);\n\
                 }\n\
                 let moved = match reach {",
            ),
            (
                "                dirty_log::mark(run.slot, at, written);",
                "                let _ = written;",
            ),
        ],
    ),
    // Guest bytes in the host's mapping.
    on_host(
        "a direct copy forgets its last bytes",
        "guest_physical/direct.rs",
        &[(
            "units(to.later(body), from.later(body), len - first - body);",
            "units(to.later(body), from.later(body), 0);",
        )],
    ),
    on_target(
        "a direct exchange of a byte changes the word around it",
        "guest_bytes/riscv64.rs",
        &[(
            "\"xor {changed}, {found}, {change}\"",
            "\"mv {changed}, {change}\"",
        )],
    ),
    on_host(
        "the dirty bit of a single store is set before the data",
        "guest_physical/accesses.rs",
        &[
            (
                "let run = self.single(Operation::Store, gpa, width)?;",
                "let run = self.single(Operation::Store, gpa, width)?;\n\
                 dirty_log::mark(run.slot, gpa, width.bytes());",
            ),
            (
                "        dirty_log::mark(run.slot, gpa, width.bytes());\n        Ok(())",
                "        Ok(())",
            ),
        ],
    ),
    in_every_order(
        "the dirty bit of a store in the last slot is set before the data",
        "guest_physical/accesses.rs",
        &[(
            "            unsafe { direct::store(host, width, value, order) };\n            dirty_log::mark(slot, gpa, width.bytes());",
            "            dirty_log::mark(slot, gpa, width.bytes());\n            unsafe { direct::store(host, width, value, order) };",
        )],
    ),
    in_every_order(
        "the dirty bit is set without a release",
        "guest_physical/dirty_log.rs",
        &[("Ordering::Release", "Ordering::Relaxed")],
    ),
    in_every_order(
        "the dirty bit is taken without an acquire",
        "guest_physical/dirty_log.rs",
        &[("swap(0, Ordering::Acquire)", "swap(0, Ordering::Relaxed)")],
    ),
    on_host(
        "a compare-and-exchange in the last slot is not logged",
        "guest_physical/accesses.rs",
        &[(
            "order) };\n            if found == current {",
            "order) };\n            if false {",
        )],
    ),
    // Demand paging.
    on_host(
        "the resolver is asked without bound",
        "guest_physical/resolver.rs",
        &[("left = fewer;", "let _ = fewer;")],
    ),
    // Instructions.
    on_host(
        "a signed load is extended by zeros",
        "instruction/decode.rs",
        &[(
            "sign_extend: funct3 & 0b100 == 0,",
            "sign_extend: funct3 & 0b100 != 0,",
        )],
    ),
    on_host(
        "a compressed instruction in htinst is 4 bytes long",
        "instruction/htinst.rs",
        &[(
            "let len = if htinst & 0b10 != 0 { 4 } else { 2 };",
            "let len = 4;",
        )],
    ),
    on_host(
        "instruction bytes are believed that do not fit the cause",
        "instruction/trapped.rs",
        &[(
            "match decode(instruction) {\n        Decoded::Access(decoded) if decoded.access_kind() == access => {",
            "match decode(instruction) {\n        Decoded::Access(decoded) => {",
        )],
    ),
];
