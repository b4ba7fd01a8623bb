# Fills: a0 is the byte in every lane. No host accesses, so that one loop serves both forms; the guest address alone says
# how far it got. The end address may wrap to 0 at the top of the space: only equality is asked.

    .macro FILL_GUEST name, hsv, w
    ROUTINE \name
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
    ret
6:  sub     a0, a2, a1
    j       .Lguest_mem_save_trap
    .size   \name, . - \name
    .endm

    FILL_GUEST __guest_mem_fill_8, hsv.d, 8
    FILL_GUEST __guest_mem_fill_1, hsv.b, 1

# ---------------------------------------------------------------------------------------------------------------------
# Single accesses: one instruction each. Returns a0 = value (loads) and a1 = 0, or a1 = 1 after a fault.

    .macro SINGLE name, kind, insn:vararg
    ROUTINE \name
    SEPARATE
    GUEST_ACCESS \kind, .Lguest_mem_single_fault, \insn
    li      a1, 0
    SEPARATE
    ret
    .size   \name, . - \name
    .endm

    SINGLE __guest_mem_load_1, 0, hlv.bu a0, (a1)
    SINGLE __guest_mem_load_2, 0, hlv.hu a0, (a1)
    SINGLE __guest_mem_load_4, 0, hlv.wu a0, (a1)
    SINGLE __guest_mem_load_8, 0, hlv.d a0, (a1)
    SINGLE __guest_mem_fetch_2, 1, hlvx.hu a0, (a1)
    SINGLE __guest_mem_store_1, 2, hsv.b a0, (a1)
    SINGLE __guest_mem_store_2, 2, hsv.h a0, (a1)
    SINGLE __guest_mem_store_4, 2, hsv.w a0, (a1)
    SINGLE __guest_mem_store_8, 2, hsv.d a0, (a1)

.Lguest_mem_single_fault:
    li      a1, 1
    j       .Lguest_mem_save_trap
