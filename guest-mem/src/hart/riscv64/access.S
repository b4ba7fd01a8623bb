# The access unit: every hlv, hlvx and hsv of the library, and their exception table.
#
# The one idea: a guest access may fault, and then the routine goes on at a *fixup* of its own. The table at the end names
# each instruction that may fault and its fixup; nothing else in this file is expected to trap.
#
# Registers of all routines (the names are the contract, DESIGN: "path of one read"):
#   a0  host pointer, or the value of a single store or a fill; on return the bytes left, or the value of a single load
#   a1  guest address; on return of a single access 0, or 1 after a fault
#   a2  length in bytes, a multiple of the element (turned into the end pointer)
#   a3  where to put the TrapInfo of a fault: scause, stval, htval, htinst
#   a4-a7, t0-t3   data
#   t4  end of the whole batches
#   t5  scoped form: the address of the vector (in the hook form, data)
#   t6  scoped form: the base of the host's stvec (nothing in the hook form); never used by a routine
#   ra  return address
# No routine uses sp, s0-s11, gp or tp, so the frame of the scoped form is at sp whenever the vector is entered.
#
# At a fixup, t0-t3 hold scause, stval, htval, htinst (put there by the handler hook or by the vector), and the other
# registers are as the faulting instruction found them, but for t4 and t5, which no fixup uses.
#
# Host accesses and guest accesses come in groups with at least one other instruction between them, or a fence (SEPARATE):
# some cores mis-execute neighbours. In the scoped form each group of guest accesses begins by taking the vector back into
# stvec, since a host fault that was forwarded meanwhile has put the host's own in. A fault inside a batch redoes it element
# by element, so that what has been copied is exact.

    .pushsection .rodata.guest_mem_extable, "a", @progbits
    .balign 8
    .globl  __guest_mem_extable_start
__guest_mem_extable_start:
    .popsection

    .pushsection .text.guest_mem_access, "ax", @progbits
    .option push
    .option arch, +h
    .option norvc
    .option norelax
    .balign 4
    .globl  __guest_mem_access_start
__guest_mem_access_start:

# One guest access `\insn`, which goes on at `\fixup` after a fault; kind 0 = hlv, 1 = hlvx, 2 = hsv.
    .macro GUEST_ACCESS kind, fixup, insn:vararg
9990:   \insn
    .pushsection .rodata.guest_mem_extable, "a", @progbits
    .half   9990b - __guest_mem_access_start
    .half   \fixup - __guest_mem_access_start
    .half   \kind
    .half   0
    .popsection
    .endm

# Between host accesses and guest accesses, where the build asks for more than another instruction: the feature
# `fence-guest-accesses`, for cores on which that is not enough (R69).
    .macro SEPARATE
    .if {separate}
    fence   rw, rw
    .endif
    .endm

    .macro ROUTINE name
    .balign 4
    .globl  \name
    .type   \name, @function
\name:
    .endm

# ---------------------------------------------------------------------------------------------------------------------
# Copies. a0 and a1 are multiples of \w; a2 is a multiple of \w. Returns in a0 the bytes left: 0 unless a fault ended it.

# By doubles: bodies of four batches, then batches, then single doubles. A batch moves a1 on, a body a0: the fixup of the
# body's n-th batch takes a1 back to where a0 is.

    .macro LOAD_BATCH fixup, scoped
    SEPARATE
    .if \scoped
    csrw    stvec, t5
    .endif
    addi    t3, a1, 56
    GUEST_ACCESS 0, \fixup, hlv.d a4, (a1)
    addi    a5, a1, 8
    GUEST_ACCESS 0, \fixup, hlv.d a5, (a5)
    addi    a6, a1, 16
    GUEST_ACCESS 0, \fixup, hlv.d a6, (a6)
    addi    a7, a1, 24
    GUEST_ACCESS 0, \fixup, hlv.d a7, (a7)
    addi    t0, a1, 32
    GUEST_ACCESS 0, \fixup, hlv.d t0, (t0)
    addi    t1, a1, 40
    GUEST_ACCESS 0, \fixup, hlv.d t1, (t1)
    addi    t2, a1, 48
    GUEST_ACCESS 0, \fixup, hlv.d t2, (t2)
    GUEST_ACCESS 0, \fixup, hlv.d t3, (t3)
    addi    a1, a1, 64
    SEPARATE
    .endm

    .macro STORE_HOST at
    sd      a4, \at+0(a0)
    sd      a5, \at+8(a0)
    sd      a6, \at+16(a0)
    sd      a7, \at+24(a0)
    sd      t0, \at+32(a0)
    sd      t1, \at+40(a0)
    sd      t2, \at+48(a0)
    sd      t3, \at+56(a0)
    .endm

# Single elements up to a2; `2` is where to jump if there may be none.
    .macro LOAD_SINGLES hlv, st, w, scoped
2:  beq     a0, a2, 4f
3:  SEPARATE
    .if \scoped
    csrw    stvec, t5
    .endif
    GUEST_ACCESS 0, 6f, \hlv a4, (a1)
    addi    a1, a1, \w
    SEPARATE
    \st     a4, 0(a0)
    addi    a0, a0, \w
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a0
    j       .Lguest_mem_save_trap
    .endm

# A page fault or guest-page fault names its address: that of a1 is the exact one already, and needs no second trap. Any
# other fault of a batch is redone element by element.
    .macro REDO_UNLESS_FIRST
    li      t4, {first_page_fault}
    bltu    t0, t4, 3b
    bne     t1, a1, 3b
    j       6b
    .endm

    .macro COPY_FROM_GUEST name, scoped
    ROUTINE \name
    andi    t4, a2, -256
    add     a2, a2, a0
    beqz    t4, 7f
    add     t4, t4, a0
1:  LOAD_BATCH 10f, \scoped
    STORE_HOST 0
    LOAD_BATCH 11f, \scoped
    STORE_HOST 64
    LOAD_BATCH 12f, \scoped
    STORE_HOST 128
    LOAD_BATCH 13f, \scoped
    STORE_HOST 192
    addi    a0, a0, 256
    bne     a0, t4, 1b
7:  sub     t4, a2, a0
    andi    t4, t4, -64
    beqz    t4, 2f
    add     t4, t4, a0
8:  LOAD_BATCH 10f, \scoped
    STORE_HOST 0
    addi    a0, a0, 64
    bne     a0, t4, 8b
    LOAD_SINGLES hlv.d, sd, 8, \scoped
13: addi    a1, a1, -64
12: addi    a1, a1, -64
11: addi    a1, a1, -64
10: REDO_UNLESS_FIRST
    .size   \name, . - \name
    .endm

    .macro COPY_NARROW_FROM_GUEST name, hlv, st, w, scoped
    ROUTINE \name
    add     a2, a2, a0
    LOAD_SINGLES \hlv, \st, \w, \scoped
    .size   \name, . - \name
    .endm

    .macro LOAD_HOST at
    ld      a4, \at+0(a0)
    ld      a5, \at+8(a0)
    ld      a6, \at+16(a0)
    ld      a7, \at+24(a0)
    ld      t0, \at+32(a0)
    ld      t1, \at+40(a0)
    ld      t2, \at+48(a0)
    ld      t3, \at+56(a0)
    .endm

    .macro STORE_BATCH fixup, scoped
    SEPARATE
    .if \scoped
    csrw    stvec, t5
    GUEST_ACCESS 2, \fixup, hsv.d a4, (a1)
    addi    a4, a1, 8
    GUEST_ACCESS 2, \fixup, hsv.d a5, (a4)
    .else
    addi    t5, a1, 8
    GUEST_ACCESS 2, \fixup, hsv.d a4, (a1)
    GUEST_ACCESS 2, \fixup, hsv.d a5, (t5)
    .endif
    addi    a4, a1, 16
    GUEST_ACCESS 2, \fixup, hsv.d a6, (a4)
    addi    a4, a1, 24
    GUEST_ACCESS 2, \fixup, hsv.d a7, (a4)
    addi    a4, a1, 32
    GUEST_ACCESS 2, \fixup, hsv.d t0, (a4)
    addi    a4, a1, 40
    GUEST_ACCESS 2, \fixup, hsv.d t1, (a4)
    addi    a4, a1, 48
    GUEST_ACCESS 2, \fixup, hsv.d t2, (a4)
    addi    a4, a1, 56
    GUEST_ACCESS 2, \fixup, hsv.d t3, (a4)
    addi    a1, a1, 64
    SEPARATE
    .endm

    .macro STORE_SINGLES hsv, ld, w, scoped
2:  beq     a0, a2, 4f
3:  \ld     a4, 0(a0)
    .if \scoped
    csrw    stvec, t5
    .else
    nop
    .endif
    SEPARATE
    GUEST_ACCESS 2, 6f, \hsv a4, (a1)
    SEPARATE
    addi    a1, a1, \w
    addi    a0, a0, \w
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a0
    j       .Lguest_mem_save_trap
    .endm

    .macro COPY_TO_GUEST name, scoped
    ROUTINE \name
    andi    t4, a2, -256
    add     a2, a2, a0
    beqz    t4, 7f
    add     t4, t4, a0
1:  LOAD_HOST 0
    STORE_BATCH 10f, \scoped
    LOAD_HOST 64
    STORE_BATCH 11f, \scoped
    LOAD_HOST 128
    STORE_BATCH 12f, \scoped
    LOAD_HOST 192
    STORE_BATCH 13f, \scoped
    addi    a0, a0, 256
    bne     a0, t4, 1b
7:  sub     t4, a2, a0
    andi    t4, t4, -64
    beqz    t4, 2f
    add     t4, t4, a0
8:  LOAD_HOST 0
    STORE_BATCH 10f, \scoped
    addi    a0, a0, 64
    bne     a0, t4, 8b
    STORE_SINGLES hsv.d, ld, 8, \scoped
13: addi    a1, a1, -64
12: addi    a1, a1, -64
11: addi    a1, a1, -64
10: REDO_UNLESS_FIRST
    .size   \name, . - \name
    .endm

    .macro COPY_NARROW_TO_GUEST name, hsv, ld, w, scoped
    ROUTINE \name
    add     a2, a2, a0
    STORE_SINGLES \hsv, \ld, \w, \scoped
    .size   \name, . - \name
    .endm

    .macro BOTH_COPIES form, scoped
    COPY_FROM_GUEST __guest_mem_\form\()_copy_from_8, \scoped
    COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_4, hlv.w, sw, 4, \scoped
    COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_2, hlv.h, sh, 2, \scoped
    COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_1, hlv.b, sb, 1, \scoped
    COPY_TO_GUEST __guest_mem_\form\()_copy_to_8, \scoped
    COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_4, hsv.w, lw, 4, \scoped
    COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_2, hsv.h, lh, 2, \scoped
    COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_1, hsv.b, lb, 1, \scoped
    .endm

    BOTH_COPIES hook, 0
    BOTH_COPIES scoped, 1

# The end of a copy that faulted: a0 holds what is left.
.Lguest_mem_save_trap:
    sd      t0, 0(a3)
    sd      t1, 8(a3)
    sd      t2, 16(a3)
    sd      t3, 24(a3)
    ret

# ---------------------------------------------------------------------------------------------------------------------
# Copies between addresses that no common element fits: the side that is written moves by whole doubles, each merged from
# two neighbouring doubles of the other side. a2 is a multiple of 8, not 0. The first and the last double that are read reach
# past the bytes that are copied, by less than 8 on either side: the caller has them in its range. Returns in a0 the bytes
# left, and no TrapInfo: after a fault the caller goes on by bytes, which finds the exact one.

# t0 holds the bytes of the double before, t2 and t3 the shifts (modulo 64).
    .macro MERGED into, next
    sll     \into, \next, t3
    or      \into, \into, t0
    srl     t0, \next, t2
    .endm

    .macro MERGE_LOAD_BATCH at, scoped
    SEPARATE
    .if \scoped
    csrw    stvec, t5
    .endif
    addi    a4, a1, 8
    GUEST_ACCESS 0, 6f, hlv.d a4, (a4)
    addi    a5, a1, 16
    GUEST_ACCESS 0, 6f, hlv.d a5, (a5)
    addi    a6, a1, 24
    GUEST_ACCESS 0, 6f, hlv.d a6, (a6)
    addi    a1, a1, 32
    GUEST_ACCESS 0, 6f, hlv.d a7, (a1)
    SEPARATE
    MERGED  t1, a4
    sd      t1, \at+0(a0)
    MERGED  t1, a5
    sd      t1, \at+8(a0)
    MERGED  t1, a6
    sd      t1, \at+16(a0)
    MERGED  t1, a7
    sd      t1, \at+24(a0)
    .endm

# a0 is a multiple of 8, a1 is not.
    .macro MERGE_FROM_GUEST name, scoped
    ROUTINE \name
    andi    t4, a2, -64
    add     t4, t4, a0
    add     a2, a2, a0
    slli    t2, a1, 3
    neg     t3, t2
    andi    a1, a1, -8
    SEPARATE
    GUEST_ACCESS 0, 6f, hlv.d t0, (a1)
    srl     t0, t0, t2
    beq     a0, t4, 2f
1:  MERGE_LOAD_BATCH 0, \scoped
    MERGE_LOAD_BATCH 32, \scoped
    addi    a0, a0, 64
    bne     a0, t4, 1b
2:  beq     a0, a2, 4f
3:  SEPARATE
    .if \scoped
    csrw    stvec, t5
    .endif
    addi    a1, a1, 8
    GUEST_ACCESS 0, 6f, hlv.d a4, (a1)
    SEPARATE
    MERGED  t1, a4
    sd      t1, 0(a0)
    addi    a0, a0, 8
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a0
    ret
    .size   \name, . - \name
    .endm

    .macro MERGE_STORE_BATCH at, scoped
    ld      a4, \at+8(a0)
    ld      a5, \at+16(a0)
    ld      a6, \at+24(a0)
    ld      a7, \at+32(a0)
    MERGED  t1, a4
    MERGED  a4, a5
    MERGED  a5, a6
    MERGED  a6, a7
    .if \scoped
    csrw    stvec, t5
    .endif
    SEPARATE
    GUEST_ACCESS 2, 6f, hsv.d t1, (a1)
    addi    a7, a1, 8
    GUEST_ACCESS 2, 6f, hsv.d a4, (a7)
    addi    a7, a1, 16
    GUEST_ACCESS 2, 6f, hsv.d a5, (a7)
    addi    a7, a1, 24
    GUEST_ACCESS 2, 6f, hsv.d a6, (a7)
    addi    a1, a1, 32
    SEPARATE
    .endm

# a1 is a multiple of 8, a0 is not.
    .macro MERGE_TO_GUEST name, scoped
    ROUTINE \name
    andi    t4, a2, -64
    add     t4, t4, a1
    add     a2, a2, a1
    slli    t2, a0, 3
    neg     t3, t2
    andi    a0, a0, -8
    ld      t0, 0(a0)
    srl     t0, t0, t2
    beq     a1, t4, 2f
1:  MERGE_STORE_BATCH 0, \scoped
    MERGE_STORE_BATCH 32, \scoped
    addi    a0, a0, 64
    bne     a1, t4, 1b
2:  beq     a1, a2, 4f
3:  ld      a4, 8(a0)
    addi    a0, a0, 8
    MERGED  t1, a4
    .if \scoped
    csrw    stvec, t5
    .endif
    SEPARATE
    GUEST_ACCESS 2, 6f, hsv.d t1, (a1)
    SEPARATE
    addi    a1, a1, 8
    bne     a1, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a1
    ret
    .size   \name, . - \name
    .endm

    MERGE_FROM_GUEST __guest_mem_hook_merge_from, 0
    MERGE_TO_GUEST __guest_mem_hook_merge_to, 0
    MERGE_FROM_GUEST __guest_mem_scoped_merge_from, 1
    MERGE_TO_GUEST __guest_mem_scoped_merge_to, 1

# ---------------------------------------------------------------------------------------------------------------------
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

# ---------------------------------------------------------------------------------------------------------------------
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

    .globl  __guest_mem_access_end
__guest_mem_access_end:
    .option pop
    .popsection

# The entries of GUEST_ACCESS lie between these two labels: all of them come from this one unit, in the order of their
# addresses, so that no linker script has to collect or sort anything.
    .pushsection .rodata.guest_mem_extable, "a", @progbits
    .globl  __guest_mem_extable_end
__guest_mem_extable_end:
    .popsection
