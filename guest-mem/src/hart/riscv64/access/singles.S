# Fills: a0 is the byte in every lane. No host accesses, so that the guest address alone says how far it got. The end address
# may wrap to 0 at the top of the space: only equality is asked.

    .macro FILL_GUEST name, hsv, w, scoped
    ROUTINE \name
    BEGIN_SCOPE \scoped
    TAKE_VECTOR \scoped
    andi    t4, a2, -(4*\w)
    add     t4, t4, a1
    add     a2, a2, a1
    SEPARATE
    beq     a1, t4, 2f
1:  GUEST_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    GUEST_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    bne     a1, t4, 1b
2:  beq     a1, a2, 4f
3:  GUEST_ACCESS 2, 6f, \hsv a0, (a1)
    addi    a1, a1, \w
    bne     a1, a2, 3b
4:  li      a0, 0
    SEPARATE
    END_SCOPE \scoped
    ret
6:  sub     a0, a2, a1
    END_SCOPE \scoped
    ret
    .size   \name, . - \name
    .endm

# ---------------------------------------------------------------------------------------------------------------------
# Single accesses: one instruction each, called with the return address in t0 and without a stack, so that they change
# nothing but a0, a1, t1 to t6. Returns a0 = value (loads) and a1 = 0, or a1 = 1 after a fault.
#
# Three forms: hook; scoped, with the exit record in registers (scoped.S); and scoped for a series of accesses, with the
# frame in a3.

    .macro BEGIN_SINGLE form
    .ifc \form, series
    BEGIN_SCOPE 1
    TAKE_VECTOR 1
    .endif
    .ifc \form, scoped
    lla     t1, .Lguest_mem_single_vector
    csrrw   t6, stvec, t1
    .endif
    SEPARATE
    .endm

    .macro END_SINGLE form
    SEPARATE
    .ifc \form, series
    END_SCOPE 1
    .endif
    .ifc \form, scoped
    csrw    stvec, t6
    .endif
    jr      t0
    .endm

    .macro SINGLE form, name, kind, insn:vararg
    ROUTINE __guest_mem_\form\()_\name
    BEGIN_SINGLE \form
    GUEST_ACCESS \kind, 6f, \insn
    li      a1, 0
4:  END_SINGLE \form
6:  li      a1, 1
    j       4b
    .size   __guest_mem_\form\()_\name, . - __guest_mem_\form\()_\name
    .endm

# An instruction of one or two parcels: as a single load, but a1 = 2 after a fault of the second one. a1 + 2 does not wrap.
    .macro FETCH_INSTRUCTION form, name
    ROUTINE __guest_mem_\form\()_\name
    BEGIN_SINGLE \form
    GUEST_ACCESS 1, 6f, hlvx.hu a0, (a1)
    # Both low bits set: there is a second parcel.
    andi    t1, a0, 3
    addi    t1, t1, -3
    bnez    t1, 3f
    addi    a1, a1, 2
    GUEST_ACCESS 1, 7f, hlvx.hu t1, (a1)
    slli    t1, t1, 16
    or      a0, a0, t1
3:  li      a1, 0
4:  END_SINGLE \form
6:  li      a1, 1
    j       4b
7:  li      a1, 2
    j       4b
    .size   __guest_mem_\form\()_\name, . - __guest_mem_\form\()_\name
    .endm

    .macro SINGLES form
    SINGLE \form, load_1, 0, hlv.bu a0, (a1)
    SINGLE \form, load_2, 0, hlv.hu a0, (a1)
    SINGLE \form, load_4, 0, hlv.wu a0, (a1)
    SINGLE \form, load_8, 0, hlv.d a0, (a1)
    SINGLE \form, store_1, 2, hsv.b a0, (a1)
    SINGLE \form, store_2, 2, hsv.h a0, (a1)
    SINGLE \form, store_4, 2, hsv.w a0, (a1)
    SINGLE \form, store_8, 2, hsv.d a0, (a1)
    SINGLE \form, fetch_parcel, 1, hlvx.hu a0, (a1)
    FETCH_INSTRUCTION \form, fetch_instruction
    .endm

    SINGLES hook
    SINGLES scoped
    SINGLES series

    FILL_GUEST __guest_mem_hook_fill_8, hsv.d, 8, 0
    FILL_GUEST __guest_mem_hook_fill_1, hsv.b, 1, 0
    FILL_GUEST __guest_mem_scoped_fill_8, hsv.d, 8, 1
    FILL_GUEST __guest_mem_scoped_fill_1, hsv.b, 1, 1
