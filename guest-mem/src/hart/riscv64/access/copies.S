# Copies. a0 and a1 are multiples of \w; a2 is a multiple of \w. Returns in a0 the bytes left: 0 unless a fault ended it.

# By doubles: bodies of four batches, or of four groups, then batches, then single doubles. A batch moves a1 on, a body a0: the
# fixup of the body's n-th batch moves a0 to where a1 is. Groups are for what each of them costs beside its accesses: in the
# scoped form a look at the vector, and in both forms the fences where the build has them.

    .macro GUEST_MEM_LOAD_BATCH fixup, scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    addi    t3, a1, 56
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a4, (a1)
    addi    a5, a1, 8
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a5, (a5)
    addi    a6, a1, 16
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a6, (a6)
    addi    a7, a1, 24
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a7, (a7)
    addi    t0, a1, 32
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t0, (t0)
    addi    t1, a1, 40
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t1, (t1)
    addi    t2, a1, 48
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t2, (t2)
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t3, (t3)
    addi    a1, a1, 64
    GUEST_MEM_SEPARATE
    .endm

    .macro GUEST_MEM_STORE_HOST at
    sd      a4, \at+0(a0)
    sd      a5, \at+8(a0)
    sd      a6, \at+16(a0)
    sd      a7, \at+24(a0)
    sd      t0, \at+32(a0)
    sd      t1, \at+40(a0)
    sd      t2, \at+48(a0)
    sd      t3, \at+56(a0)
    .endm

# By sixteen doubles.
    .macro GUEST_MEM_LOAD_GROUP fixup, scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    addi    s9, a1, 120
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a3, (a1)
    addi    a4, a1, 8
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a4, (a4)
    addi    a5, a1, 16
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a5, (a5)
    addi    a6, a1, 24
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a6, (a6)
    addi    a7, a1, 32
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a7, (a7)
    addi    t0, a1, 40
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t0, (t0)
    addi    t1, a1, 48
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t1, (t1)
    addi    t2, a1, 56
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t2, (t2)
    addi    t3, a1, 64
    GUEST_MEM_ACCESS 0, \fixup, hlv.d t3, (t3)
    addi    s3, a1, 72
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s3, (s3)
    addi    s4, a1, 80
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s4, (s4)
    addi    s5, a1, 88
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s5, (s5)
    addi    s6, a1, 96
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s6, (s6)
    addi    s7, a1, 104
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s7, (s7)
    addi    s8, a1, 112
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s8, (s8)
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s9, (s9)
    addi    a1, a1, 128
    GUEST_MEM_SEPARATE
    .endm

# \op is sd or ld.
    .macro GUEST_MEM_HOST_GROUP op, at
    \op      a3, \at+0(a0)
    \op      a4, \at+8(a0)
    \op      a5, \at+16(a0)
    \op      a6, \at+24(a0)
    \op      a7, \at+32(a0)
    \op      t0, \at+40(a0)
    \op      t1, \at+48(a0)
    \op      t2, \at+56(a0)
    \op      t3, \at+64(a0)
    \op      s3, \at+72(a0)
    \op      s4, \at+80(a0)
    \op      s5, \at+88(a0)
    \op      s6, \at+96(a0)
    \op      s7, \at+104(a0)
    \op      s8, \at+112(a0)
    \op      s9, \at+120(a0)
    .endm

    .macro GUEST_MEM_STORE_GROUP fixup, scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a3, (a1)
    addi    a3, a1, 8
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a4, (a3)
    addi    a3, a1, 16
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a5, (a3)
    addi    a3, a1, 24
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a6, (a3)
    addi    a3, a1, 32
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a7, (a3)
    addi    a3, a1, 40
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t0, (a3)
    addi    a3, a1, 48
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t1, (a3)
    addi    a3, a1, 56
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t2, (a3)
    addi    a3, a1, 64
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t3, (a3)
    addi    a3, a1, 72
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s3, (a3)
    addi    a3, a1, 80
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s4, (a3)
    addi    a3, a1, 88
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s5, (a3)
    addi    a3, a1, 96
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s6, (a3)
    addi    a3, a1, 104
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s7, (a3)
    addi    a3, a1, 112
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s8, (a3)
    addi    a3, a1, 120
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s9, (a3)
    addi    a1, a1, 128
    GUEST_MEM_SEPARATE
    .endm

# Single elements up to a2; `2` is where to jump if there may be none.
    .macro GUEST_MEM_LOAD_SINGLES hlv, st, w, scoped
2:  beq     a0, a2, 4f
3:  GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_ACCESS 0, 6f, \hlv a4, (a1)
    addi    a1, a1, \w
    GUEST_MEM_SEPARATE
    \st     a4, 0(a0)
    addi    a0, a0, \w
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a0
    ret
    .endm

# A page fault or guest-page fault names its address: that of a1 is the exact one already, and needs no second trap. Any
# other fault of a batch is redone element by element.
    .macro GUEST_MEM_REDO_UNLESS_FIRST
    li      t0, {first_page_fault}
    bltu    t1, t0, 3b
    beq     t2, a1, 6b
    j       3b
    .endm

# The callee's registers of a body of groups: saved in the frame, or in the hook form, which has none, on the stack.
    .macro GUEST_MEM_LEND_7 scoped
    .if \scoped
    GUEST_MEM_LENT_7 sd, s2, {frame_s3}
    .else
    addi    sp, sp, -64
    GUEST_MEM_LENT_7 sd, sp, 0
    .endif
    .endm

    .macro GUEST_MEM_GIVE_BACK_7 scoped
    .if \scoped
    GUEST_MEM_LENT_7 ld, s2, {frame_s3}
    .else
    GUEST_MEM_LENT_7 ld, sp, 0
    addi    sp, sp, 64
    .endif
    .endm

# The fixups of a body's batches, or groups, of so many bytes.
    .macro GUEST_MEM_BODY_FIXUPS bytes
13: addi    a0, a0, \bytes
12: addi    a0, a0, \bytes
11: addi    a0, a0, \bytes
    .endm

    .macro GUEST_MEM_COPY_FROM_GUEST name, scoped
    GUEST_MEM_ROUTINE \name
    .if \scoped || {separate}
    andi    t4, a2, -512
    beqz    t4, 7f
    add     a2, a2, a0
    add     t4, t4, a0
    GUEST_MEM_LEND_7 \scoped
1:  GUEST_MEM_LOAD_GROUP 14f, \scoped
    GUEST_MEM_HOST_GROUP sd, 0
    GUEST_MEM_LOAD_GROUP 11f, \scoped
    GUEST_MEM_HOST_GROUP sd, 128
    GUEST_MEM_LOAD_GROUP 12f, \scoped
    GUEST_MEM_HOST_GROUP sd, 256
    GUEST_MEM_LOAD_GROUP 13f, \scoped
    GUEST_MEM_HOST_GROUP sd, 384
    addi    a0, a0, 512
    bne     a0, t4, 1b
    GUEST_MEM_GIVE_BACK_7 \scoped
    .else
    andi    t4, a2, -256
    beqz    t4, 7f
    add     a2, a2, a0
    add     t4, t4, a0
1:  GUEST_MEM_LOAD_BATCH 10f, 0
    GUEST_MEM_STORE_HOST 0
    GUEST_MEM_LOAD_BATCH 11f, 0
    GUEST_MEM_STORE_HOST 64
    GUEST_MEM_LOAD_BATCH 12f, 0
    GUEST_MEM_STORE_HOST 128
    GUEST_MEM_LOAD_BATCH 13f, 0
    GUEST_MEM_STORE_HOST 192
    addi    a0, a0, 256
    bne     a0, t4, 1b
    .endif
    beq     a0, a2, 4f
    sub     a2, a2, a0
7:  andi    t4, a2, -64
    add     a2, a2, a0
    beqz    t4, 2f
    add     t4, t4, a0
8:  GUEST_MEM_LOAD_BATCH 10f, \scoped
    GUEST_MEM_STORE_HOST 0
    addi    a0, a0, 64
    bne     a0, t4, 8b
    GUEST_MEM_LOAD_SINGLES hlv.d, sd, 8, \scoped
    .if \scoped || {separate}
    GUEST_MEM_BODY_FIXUPS 128
14: GUEST_MEM_GIVE_BACK_7 \scoped
    .else
    GUEST_MEM_BODY_FIXUPS 64
    .endif
10: GUEST_MEM_REDO_UNLESS_FIRST
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

# Narrow elements by fours, then single ones; there is at least one.
    .macro GUEST_MEM_COPY_NARROW_FROM_GUEST name, hlv, st, w, scoped
    GUEST_MEM_ROUTINE \name
    andi    t4, a2, -4*\w
    add     a2, a2, a0
    beqz    t4, 3f
    add     t4, t4, a0
1:  GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    addi    a5, a1, \w
    GUEST_MEM_ACCESS 0, 10f, \hlv a4, (a1)
    GUEST_MEM_ACCESS 0, 10f, \hlv a5, (a5)
    addi    a6, a1, 2*\w
    GUEST_MEM_ACCESS 0, 10f, \hlv a6, (a6)
    addi    a7, a1, 3*\w
    GUEST_MEM_ACCESS 0, 10f, \hlv a7, (a7)
    addi    a1, a1, 4*\w
    GUEST_MEM_SEPARATE
    \st     a4, 0(a0)
    \st     a5, \w(a0)
    \st     a6, 2*\w(a0)
    \st     a7, 3*\w(a0)
    addi    a0, a0, 4*\w
    bne     a0, t4, 1b
    GUEST_MEM_LOAD_SINGLES \hlv, \st, \w, \scoped
10: GUEST_MEM_REDO_UNLESS_FIRST
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

    .macro GUEST_MEM_LOAD_HOST at
    ld      a4, \at+0(a0)
    ld      a5, \at+8(a0)
    ld      a6, \at+16(a0)
    ld      a7, \at+24(a0)
    ld      t0, \at+32(a0)
    ld      t1, \at+40(a0)
    ld      t2, \at+48(a0)
    ld      t3, \at+56(a0)
    .endm

    .macro GUEST_MEM_STORE_BATCH fixup, scoped
    GUEST_MEM_SEPARATE
    .if \scoped
    GUEST_MEM_KEEP_SCOPE 1
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a4, (a1)
    addi    a4, a1, 8
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a5, (a4)
    .else
    addi    t5, a1, 8
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a4, (a1)
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a5, (t5)
    .endif
    addi    a4, a1, 16
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a6, (a4)
    addi    a4, a1, 24
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a7, (a4)
    addi    a4, a1, 32
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t0, (a4)
    addi    a4, a1, 40
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t1, (a4)
    addi    a4, a1, 48
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t2, (a4)
    addi    a4, a1, 56
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t3, (a4)
    addi    a1, a1, 64
    GUEST_MEM_SEPARATE
    .endm

    .macro GUEST_MEM_STORE_SINGLES hsv, ld, w, scoped
2:  beq     a0, a2, 4f
3:  \ld     a4, 0(a0)
    .if \scoped
    GUEST_MEM_KEEP_SCOPE 1
    .else
    nop
    .endif
    GUEST_MEM_SEPARATE
    GUEST_MEM_ACCESS 2, 6f, \hsv a4, (a1)
    GUEST_MEM_SEPARATE
    addi    a1, a1, \w
    addi    a0, a0, \w
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
6:  sub     a0, a2, a0
    ret
    .endm

    .macro GUEST_MEM_COPY_TO_GUEST name, scoped
    GUEST_MEM_ROUTINE \name
    .if \scoped || {separate}
    andi    t4, a2, -512
    beqz    t4, 7f
    add     a2, a2, a0
    add     t4, t4, a0
    GUEST_MEM_LEND_7 \scoped
1:  GUEST_MEM_HOST_GROUP ld, 0
    GUEST_MEM_STORE_GROUP 14f, \scoped
    GUEST_MEM_HOST_GROUP ld, 128
    GUEST_MEM_STORE_GROUP 11f, \scoped
    GUEST_MEM_HOST_GROUP ld, 256
    GUEST_MEM_STORE_GROUP 12f, \scoped
    GUEST_MEM_HOST_GROUP ld, 384
    GUEST_MEM_STORE_GROUP 13f, \scoped
    addi    a0, a0, 512
    bne     a0, t4, 1b
    GUEST_MEM_GIVE_BACK_7 \scoped
    .else
    andi    t4, a2, -256
    beqz    t4, 7f
    add     a2, a2, a0
    add     t4, t4, a0
1:  GUEST_MEM_LOAD_HOST 0
    GUEST_MEM_STORE_BATCH 10f, 0
    GUEST_MEM_LOAD_HOST 64
    GUEST_MEM_STORE_BATCH 11f, 0
    GUEST_MEM_LOAD_HOST 128
    GUEST_MEM_STORE_BATCH 12f, 0
    GUEST_MEM_LOAD_HOST 192
    GUEST_MEM_STORE_BATCH 13f, 0
    addi    a0, a0, 256
    bne     a0, t4, 1b
    .endif
    beq     a0, a2, 4f
    sub     a2, a2, a0
7:  andi    t4, a2, -64
    add     a2, a2, a0
    beqz    t4, 2f
    add     t4, t4, a0
8:  GUEST_MEM_LOAD_HOST 0
    GUEST_MEM_STORE_BATCH 10f, \scoped
    addi    a0, a0, 64
    bne     a0, t4, 8b
    GUEST_MEM_STORE_SINGLES hsv.d, ld, 8, \scoped
    .if \scoped || {separate}
    GUEST_MEM_BODY_FIXUPS 128
14: GUEST_MEM_GIVE_BACK_7 \scoped
    .else
    GUEST_MEM_BODY_FIXUPS 64
    .endif
10: GUEST_MEM_REDO_UNLESS_FIRST
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

    .macro GUEST_MEM_COPY_NARROW_TO_GUEST name, hsv, ld, w, scoped
    GUEST_MEM_ROUTINE \name
    andi    t4, a2, -4*\w
    add     a2, a2, a0
    beqz    t4, 3f
    add     t4, t4, a0
1:  \ld     a4, 0(a0)
    \ld     a5, \w(a0)
    \ld     a6, 2*\w(a0)
    \ld     a7, 3*\w(a0)
    addi    a0, a0, 4*\w
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_ACCESS 2, 9f, \hsv a4, (a1)
    addi    a4, a1, \w
    GUEST_MEM_ACCESS 2, 9f, \hsv a5, (a4)
    addi    a4, a1, 2*\w
    GUEST_MEM_ACCESS 2, 9f, \hsv a6, (a4)
    addi    a4, a1, 3*\w
    GUEST_MEM_ACCESS 2, 9f, \hsv a7, (a4)
    addi    a1, a1, 4*\w
    GUEST_MEM_SEPARATE
    bne     a0, t4, 1b
    GUEST_MEM_STORE_SINGLES \hsv, \ld, \w, \scoped
9:  addi    a0, a0, -4*\w
    GUEST_MEM_REDO_UNLESS_FIRST
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

    .macro GUEST_MEM_BOTH_COPIES form, scoped
    GUEST_MEM_COPY_FROM_GUEST __guest_mem_\form\()_copy_from_8, \scoped
    GUEST_MEM_COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_4, hlv.w, sw, 4, \scoped
    GUEST_MEM_COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_2, hlv.h, sh, 2, \scoped
    GUEST_MEM_COPY_NARROW_FROM_GUEST __guest_mem_\form\()_copy_from_1, hlv.b, sb, 1, \scoped
    GUEST_MEM_COPY_TO_GUEST __guest_mem_\form\()_copy_to_8, \scoped
    GUEST_MEM_COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_4, hsv.w, lw, 4, \scoped
    GUEST_MEM_COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_2, hsv.h, lh, 2, \scoped
    GUEST_MEM_COPY_NARROW_TO_GUEST __guest_mem_\form\()_copy_to_1, hsv.b, lb, 1, \scoped
    .endm

    GUEST_MEM_BOTH_COPIES hook, 0
    GUEST_MEM_BOTH_COPIES scoped, 1
