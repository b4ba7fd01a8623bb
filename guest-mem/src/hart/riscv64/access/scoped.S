# The scoped form. a4 is the routine; a0-a3 and the results are its own.
#
# Puts the vector below into stvec around the routine. The exit record, which a fault would overwrite (R20), is kept in the
# frame and put back by the vector, so the host need not save it.

    .equ FRAME_RA, 0
    .equ FRAME_STVEC, 8
    .equ FRAME_SEPC, 16
    .equ FRAME_SCAUSE, 24
    .equ FRAME_STVAL, 32
    .equ FRAME_HTVAL, 40
    .equ FRAME_HTINST, 48
    .equ FRAME_SSTATUS, 56
    .equ FRAME_HSTATUS, 64
    .equ FRAME_T0, 72
    .equ FRAME_T1, 80
    .equ FRAME_T2, 88
    .equ FRAME_T3, 96
    .equ FRAME_SIZE, 112

    ROUTINE __guest_mem_scoped_call
    addi    sp, sp, -FRAME_SIZE
    sd      ra, FRAME_RA(sp)
    csrr    t0, sepc
    csrr    t1, scause
    csrr    t2, stval
    csrr    t3, htval
    csrr    t4, htinst
    sd      t0, FRAME_SEPC(sp)
    sd      t1, FRAME_SCAUSE(sp)
    sd      t2, FRAME_STVAL(sp)
    sd      t3, FRAME_HTVAL(sp)
    sd      t4, FRAME_HTINST(sp)
    csrr    t0, sstatus
    csrr    t1, hstatus
    sd      t0, FRAME_SSTATUS(sp)
    sd      t1, FRAME_HSTATUS(sp)
    csrr    t6, stvec
    sd      t6, FRAME_STVEC(sp)
    andi    t6, t6, -4
    lla     t5, .Lguest_mem_scoped_vector
    csrw    stvec, t5
    jalr    ra, 0(a4)
    ld      t6, FRAME_STVEC(sp)
    csrw    stvec, t6
    ld      ra, FRAME_RA(sp)
    addi    sp, sp, FRAME_SIZE
    ret
    .size   __guest_mem_scoped_call, . - __guest_mem_scoped_call

# Entered by a trap while a routine runs in the scoped form: sp is the frame, t6 the base of the host's stvec.
#
# A fault of a guest access goes to its fixup, with the exit record as it was before. Any other trap goes to the host's
# own handler, with stvec the host's again and every register and trap CSR as the hardware left them; the routine takes the
# vector back before its next group of guest accesses.
    .balign 4
.Lguest_mem_scoped_vector:
    sd      t0, FRAME_T0(sp)
    sd      t1, FRAME_T1(sp)
    sd      t2, FRAME_T2(sp)
    sd      t3, FRAME_T3(sp)
    csrr    t0, scause
    sltiu   t1, t0, 32
    beqz    t1, .Lguest_mem_forward
    csrr    t1, hstatus
    andi    t2, t1, 0x80
    bnez    t2, .Lguest_mem_forward
    # GVA must be set for the causes that always carry a guest-virtual address (R21).
    li      t2, {causes_with_gva}
    srl     t2, t2, t0
    andi    t2, t2, 1
    srli    t1, t1, 6
    andi    t1, t1, 1
    bltu    t1, t2, .Lguest_mem_forward
    csrr    t1, sepc
    lla     t2, __guest_mem_access_start
    sub     t1, t1, t2
    lla     t2, __guest_mem_extable_start
    lla     t3, __guest_mem_extable_end
1:  bgeu    t2, t3, .Lguest_mem_forward
    sub     t6, t3, t2
    srli    t6, t6, 4
    slli    t6, t6, 3
    add     t6, t6, t2
    lhu     t0, 0(t6)
    beq     t0, t1, 3f
    bltu    t0, t1, 2f
    mv      t3, t6
    j       1b
2:  addi    t2, t6, 8
    j       1b
3:  lhu     t1, 4(t6)
    lhu     t2, 2(t6)
    csrr    t0, scause
    # The causes that this kind of instruction can raise (I7).
    lla     t3, {site_causes}
    slli    t1, t1, 2
    add     t3, t3, t1
    lwu     t3, 0(t3)
    srl     t3, t3, t0
    andi    t3, t3, 1
    beqz    t3, .Lguest_mem_forward
    lla     t3, __guest_mem_access_start
    add     t4, t2, t3
    csrr    t1, stval
    csrr    t2, htval
    csrr    t3, htinst
    ld      t5, FRAME_SEPC(sp)
    ld      t6, FRAME_SCAUSE(sp)
    csrw    sepc, t5
    csrw    scause, t6
    ld      t5, FRAME_STVAL(sp)
    ld      t6, FRAME_HTVAL(sp)
    csrw    stval, t5
    csrw    htval, t6
    ld      t5, FRAME_HTINST(sp)
    ld      t6, FRAME_SSTATUS(sp)
    csrw    htinst, t5
    csrw    sstatus, t6
    ld      t5, FRAME_HSTATUS(sp)
    ld      t6, FRAME_STVEC(sp)
    csrw    hstatus, t5
    andi    t6, t6, -4
    lla     t5, .Lguest_mem_scoped_vector
    jr      t4

.Lguest_mem_forward:
    ld      t6, FRAME_STVEC(sp)
    csrw    stvec, t6
    andi    t6, t6, -4
    ld      t0, FRAME_T0(sp)
    ld      t1, FRAME_T1(sp)
    ld      t2, FRAME_T2(sp)
    ld      t3, FRAME_T3(sp)
    jr      t6
