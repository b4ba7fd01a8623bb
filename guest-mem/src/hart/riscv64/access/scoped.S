# The vectors of the scoped form: entered by a trap while a routine of that form runs. What the trap CSRs were before the
# access, which a fault overwrites (R20) and the host need not save, is in a frame at s2; one single access has it in registers
# instead. The host's stvec is in t5; one single access has it in t6.
#
# A fault of a guest access goes to its fixup, with the exit record as it was before. Of sstatus and hstatus only the bits
# that a trap changes are put back. Any other trap goes to the host's own handler, with stvec the host's again and every
# trap CSR as the hardware left it; so is every register, but for t6, which is then not 0: so a copy knows that it has to take
# the vector back before its next group of guest accesses.

# Decides about a trap. Changes t1 to t4. If it is ours, t3 is the fixup, with the kind in its low bits. At \without_gva that is
# so if bit {without_gva} of t4 is set.
    .macro GUEST_MEM_IS_OURS forward, without_gva
    # What the exception table says of sepc, if that is the address of an instruction of the unit.
    csrr    t2, sepc
    lla     t3, .Lguest_mem_access_start_v{major}_{minor}_{patch}
    sub     t2, t2, t3
    srli    t4, t2, {unit_bits}
    bnez    t4, \forward
    andi    t4, t2, 3
    bnez    t4, \forward
    srli    t2, t2, 1
    lla     t4, .Lguest_mem_site_causes_v{major}_{minor}_{patch}
    add     t2, t2, t4
    lhu     t2, {extable}(t2)
    beqz    t2, \forward
    add     t3, t3, t2
    # The cause must be one that this kind of instruction can raise (I7), and no interrupt.
    csrr    t1, scause
    andi    t2, t2, 3
    slli    t2, t2, 3
    add     t4, t4, t2
    ld      t4, 0(t4)
    sltiu   t2, t1, 32
    srl     t4, t4, t1
    and     t2, t4, t2
    beqz    t2, \forward
    # Not from a guest; and a guest-virtual address in stval, which some causes may lack (R21).
    csrr    t2, hstatus
    andi    t2, t2, {spv_and_gva}
    addi    t2, t2, -{gva}
    bnez    t2, \without_gva
    .endm

# Puts back the bits of a status CSR that a trap changes. Changes t2 and `was`.
    .macro GUEST_MEM_RESTORE_STATUS csr, bits, was
    li      t2, \bits
    csrc    \csr, t2
    and     \was, \was, t2
    csrs    \csr, \was
    .endm

    .balign 4
    .globl  __guest_mem_scoped_vector_v{major}_{minor}_{patch}
__guest_mem_scoped_vector_v{major}_{minor}_{patch}:
    sd      t1, {frame_t1}(s2)
    sd      t2, {frame_t2}(s2)
    sd      t3, {frame_t3}(s2)
    sd      t4, {frame_t4}(s2)
    GUEST_MEM_IS_OURS 3f, 2f
1:  andi    t6, t3, -4
    ld      t2, {frame_scause}(s2)
    ld      t3, {frame_sepc}(s2)
    csrw    scause, t2
    csrw    sepc, t3
    ld      t3, {frame_hstatus}(s2)
    GUEST_MEM_RESTORE_STATUS hstatus, {spv_and_gva}, t3
    ld      t3, {frame_sstatus}(s2)
    GUEST_MEM_RESTORE_STATUS sstatus, {trap_status}, t3
    ld      t2, {frame_stval}(s2)
    ld      t3, {frame_htval}(s2)
    ld      t4, {frame_htinst}(s2)
    csrrw   t2, stval, t2
    csrrw   t3, htval, t3
    csrrw   t4, htinst, t4
    jr      t6
    # Without GVA.
2:  csrr    t2, hstatus
    andi    t2, t2, {spv_and_gva}
    bnez    t2, 3f
    srli    t4, t4, {without_gva}
    andi    t4, t4, 1
    bnez    t4, 1b
3:  csrw    stvec, t5
    andi    t6, t5, -4
    # A jump takes no notice of bit 0, and the address without it may be 0.
    ori     t6, t6, 1
    ld      t1, {frame_t1}(s2)
    ld      t2, {frame_t2}(s2)
    ld      t3, {frame_t3}(s2)
    ld      t4, {frame_t4}(s2)
    jr      t6

# The rest of the vectors of single accesses (GUEST_MEM_IS_SITE of singles.S), in which only t2 to t4 have changed so far: no single access
# uses them. Between the two writes of stvec nothing but the access runs, so sstatus and hstatus are put back whole.
.Lguest_mem_single_fault_v{major}_{minor}_{patch}:
    csrr    t2, scause
    srl     t4, t4, t2
    sltiu   t2, t2, 32
    and     t2, t4, t2
    beqz    t2, .Lguest_mem_single_forward_v{major}_{minor}_{patch}
    csrr    t2, hstatus
    andi    t2, t2, {spv_and_gva}
    addi    t2, t2, -{gva}
    bnez    t2, 2f
1:  mv      a1, t3
    csrrw   t1, scause, a3
    csrrw   t2, stval, a4
    csrrw   t3, htval, a5
    csrrw   t4, htinst, a6
    csrw    sepc, a2
    csrw    hstatus, t5
    csrw    sstatus, a7
    GUEST_MEM_END_SINGLE scoped
2:  csrr    t2, hstatus
    andi    t2, t2, {spv_and_gva}
    bnez    t2, .Lguest_mem_single_forward_v{major}_{minor}_{patch}
    srli    t4, t4, {without_gva}
    andi    t4, t4, 1
    bnez    t4, 1b
.Lguest_mem_single_forward_v{major}_{minor}_{patch}:
    csrw    stvec, t6
    andi    t2, t6, -4
    jr      t2
