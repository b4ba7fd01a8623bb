# Fills: a0 is the byte in every lane. No host accesses, so that the guest address alone says how far it got. The end address
# may wrap to 0 at the top of the space: only equality is asked.

    .macro GUEST_MEM_FILL_GUEST name, hsv, w, scoped
    GUEST_MEM_ROUTINE \name
    andi    t4, a2, -(4*\w)
    add     t4, t4, a1
    add     a2, a2, a1
    GUEST_MEM_SEPARATE
    beq     a1, t4, 2f
1:  GUEST_MEM_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_MEM_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_MEM_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_MEM_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    bne     a1, t4, 1b
2:  beq     a1, a2, 4f
3:  GUEST_MEM_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    bne     a1, a2, 3b
4:  li      a0, 0
    GUEST_MEM_SEPARATE
    ret
6:  sub     a0, a2, a1
    ret
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

# ---------------------------------------------------------------------------------------------------------------------
# Single accesses: one instruction each, called with the return address in t0 and without a stack, so that they change
# nothing but a0, a1, t1 to t6. Returns a0 = value (loads) and a1 = 0, or a1 = 1 after a fault.
#
# Three forms:
#   hook
#   scoped  one access: the exit record is in registers, sepc, scause, stval, htval and htinst in a2 to a6, sstatus in a7,
#           hstatus in t5; a fault changes them. Each routine has a vector of its own, which knows the one instruction that
#           may fault
#   series  s2 is the frame with the record, s3 the address of the vector (scoped.S)

    .macro GUEST_MEM_BEGIN_SINGLE form, vector
    .ifc \form, series
    csrrw   t5, stvec, s3
    .endif
    .ifc \form, scoped
    lla     t2, \vector
    csrrw   t6, stvec, t2
    .endif
    GUEST_MEM_SEPARATE
    .endm

    .macro GUEST_MEM_END_SINGLE form
    GUEST_MEM_SEPARATE
    .ifc \form, series
    csrw    stvec, t5
    .endif
    .ifc \form, scoped
    csrw    stvec, t6
    .endif
    jr      t0
    .endm

# The vector of a scoped routine whose instruction that may fault is at \site: t3 is what a1 is to be after a fault, t4 the
# causes. \or_else: where to look for another one.
    .macro GUEST_MEM_IS_SITE site, a1, or_else
    csrr    t2, sepc
    lla     t3, \site
    bne     t2, t3, \or_else
    li      t3, \a1
    .endm

    .macro GUEST_MEM_SINGLE form, name, kind, causes, insn:vararg
    .ifc \form, scoped
    .balign 4
8:  GUEST_MEM_IS_SITE 5f, 1, .Lguest_mem_single_forward_v{major}_{minor}_{patch}
    li      t4, \causes
    j       .Lguest_mem_single_fault_v{major}_{minor}_{patch}
    .endif
    GUEST_MEM_ROUTINE __guest_mem_\form\()_\name
    GUEST_MEM_BEGIN_SINGLE \form, 8b
5:  GUEST_MEM_ACCESS \kind, .Lguest_mem_\form\()_fault_1_v{major}_{minor}_{patch}, \insn
    li      a1, 0
    GUEST_MEM_END_SINGLE \form
    .size   __guest_mem_\form\()_\name\()_v{major}_{minor}_{patch}, . - __guest_mem_\form\()_\name\()_v{major}_{minor}_{patch}
    .endm

# An instruction of one or two parcels: as a single load, but a1 = 2 after a fault of the second one. a1 + 2 does not wrap.
    .macro GUEST_MEM_FETCH_INSTRUCTION form, name
    .ifc \form, scoped
    .balign 4
8:  GUEST_MEM_IS_SITE 5f, 1, 9f
    j       1f
9:  GUEST_MEM_IS_SITE 2f, 2, .Lguest_mem_single_forward_v{major}_{minor}_{patch}
1:  li      t4, {fetch_causes}
    j       .Lguest_mem_single_fault_v{major}_{minor}_{patch}
    .endif
    GUEST_MEM_ROUTINE __guest_mem_\form\()_\name
    GUEST_MEM_BEGIN_SINGLE \form, 8b
5:  GUEST_MEM_ACCESS 1, .Lguest_mem_\form\()_fault_1_v{major}_{minor}_{patch}, hlvx.hu a0, (a1)
    # Both low bits set: there is a second parcel.
    andi    t1, a0, 3
    addi    t1, t1, -3
    bnez    t1, 3f
    addi    a1, a1, 2
2:  GUEST_MEM_ACCESS 1, .Lguest_mem_\form\()_fault_2_v{major}_{minor}_{patch}, hlvx.hu t1, (a1)
    slli    t1, t1, 16
    or      a0, a0, t1
3:  li      a1, 0
    GUEST_MEM_END_SINGLE \form
    .size   __guest_mem_\form\()_\name\()_v{major}_{minor}_{patch}, . - __guest_mem_\form\()_\name\()_v{major}_{minor}_{patch}
    .endm

    .macro GUEST_MEM_SINGLES form
    GUEST_MEM_SINGLE \form, load_1, 0, {load_causes}, hlv.bu a0, (a1)
    GUEST_MEM_SINGLE \form, load_2, 0, {load_causes}, hlv.hu a0, (a1)
    GUEST_MEM_SINGLE \form, load_4, 0, {load_causes}, hlv.wu a0, (a1)
    GUEST_MEM_SINGLE \form, load_8, 0, {load_causes}, hlv.d a0, (a1)
    GUEST_MEM_SINGLE \form, store_1, 2, {store_causes}, hsv.b a0, (a1)
    GUEST_MEM_SINGLE \form, store_2, 2, {store_causes}, hsv.h a0, (a1)
    GUEST_MEM_SINGLE \form, store_4, 2, {store_causes}, hsv.w a0, (a1)
    GUEST_MEM_SINGLE \form, store_8, 2, {store_causes}, hsv.d a0, (a1)
    GUEST_MEM_SINGLE \form, fetch_parcel, 1, {fetch_causes}, hlvx.hu a0, (a1)
    GUEST_MEM_FETCH_INSTRUCTION \form, fetch_instruction
# Their fixups. In the scoped form only a host whose own handler recovers faults, too, sends a fault here.
.Lguest_mem_\form\()_fault_1_v{major}_{minor}_{patch}:
    li      a1, 1
    GUEST_MEM_END_SINGLE \form
.Lguest_mem_\form\()_fault_2_v{major}_{minor}_{patch}:
    li      a1, 2
    GUEST_MEM_END_SINGLE \form
    .endm

    GUEST_MEM_SINGLES hook
    GUEST_MEM_SINGLES scoped
    GUEST_MEM_SINGLES series

    GUEST_MEM_FILL_GUEST __guest_mem_hook_fill_8, hsv.d, 8, 0
    GUEST_MEM_FILL_GUEST __guest_mem_hook_fill_1, hsv.b, 1, 0
    GUEST_MEM_FILL_GUEST __guest_mem_scoped_fill_8, hsv.d, 8, 1
    GUEST_MEM_FILL_GUEST __guest_mem_scoped_fill_1, hsv.b, 1, 1
