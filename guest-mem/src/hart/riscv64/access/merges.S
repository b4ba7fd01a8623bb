# Copies between addresses that no common element fits: the side that is written moves by whole doubles, each merged from
# two neighbouring doubles of the other side. a2 is a multiple of 8, not 0. The first and the last double that are read reach
# past the bytes that are copied, by less than 8 on either side: the caller has them in its range. Returns in a0 the bytes
# left; what t1 to t4 hold is of no use: after a fault the caller goes on by bytes, which finds the exact one.
# Bodies, batches and fixups as in copies.S.

# t0 holds the bytes of the double before, t2 and t3 the shifts (modulo 64).
    .macro GUEST_MEM_MERGED into, next
    sll     \into, \next, t3
    or      \into, \into, t0
    srl     t0, \next, t2
    .endm

    .macro GUEST_MEM_MERGE_LOAD_BATCH at, fixup, scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    addi    a4, a1, 8
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a4, (a4)
    addi    a5, a1, 16
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a5, (a5)
    addi    a6, a1, 24
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a6, (a6)
    addi    a1, a1, 32
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a7, (a1)
    GUEST_MEM_SEPARATE
    GUEST_MEM_MERGED  t1, a4
    sd      t1, \at+0(a0)
    GUEST_MEM_MERGED  t1, a5
    sd      t1, \at+8(a0)
    GUEST_MEM_MERGED  t1, a6
    sd      t1, \at+16(a0)
    GUEST_MEM_MERGED  t1, a7
    sd      t1, \at+24(a0)
    .endm

# In the scoped form by eight doubles: the more a group has, the less often it looks whether the vector is still there.
    .macro GUEST_MEM_MERGE_LOAD_GROUP at, fixup
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE 1
    addi    a3, a1, 8
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a3, (a3)
    addi    a4, a1, 16
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a4, (a4)
    addi    a5, a1, 24
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a5, (a5)
    addi    a6, a1, 32
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a6, (a6)
    addi    a7, a1, 40
    GUEST_MEM_ACCESS 0, \fixup, hlv.d a7, (a7)
    addi    s3, a1, 48
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s3, (s3)
    addi    s4, a1, 56
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s4, (s4)
    addi    a1, a1, 64
    GUEST_MEM_ACCESS 0, \fixup, hlv.d s5, (a1)
    GUEST_MEM_SEPARATE
    GUEST_MEM_MERGED  t1, a3
    sd      t1, \at+0(a0)
    GUEST_MEM_MERGED  t1, a4
    sd      t1, \at+8(a0)
    GUEST_MEM_MERGED  t1, a5
    sd      t1, \at+16(a0)
    GUEST_MEM_MERGED  t1, a6
    sd      t1, \at+24(a0)
    GUEST_MEM_MERGED  t1, a7
    sd      t1, \at+32(a0)
    GUEST_MEM_MERGED  t1, s3
    sd      t1, \at+40(a0)
    GUEST_MEM_MERGED  t1, s4
    sd      t1, \at+48(a0)
    GUEST_MEM_MERGED  t1, s5
    sd      t1, \at+56(a0)
    .endm

# a0 is a multiple of 8, a1 is not.
    .macro GUEST_MEM_MERGE_FROM_GUEST name, scoped
    GUEST_MEM_ROUTINE \name
    .if \scoped
    andi    t4, a2, -256
    .else
    andi    t4, a2, -64
    .endif
    add     a2, a2, a0
    slli    t2, a1, 3
    neg     t3, t2
    andi    a1, a1, -8
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_ACCESS 0, 6f, hlv.d t0, (a1)
    GUEST_MEM_SEPARATE
    srl     t0, t0, t2
    .if \scoped
    beqz    t4, 8f
    add     t4, t4, a0
    GUEST_MEM_LENT_3 sd, s2, {frame_s3}
7:  GUEST_MEM_MERGE_LOAD_GROUP 0, 10f
    GUEST_MEM_MERGE_LOAD_GROUP 64, 11f
    GUEST_MEM_MERGE_LOAD_GROUP 128, 12f
    GUEST_MEM_MERGE_LOAD_GROUP 192, 13f
    addi    a0, a0, 256
    bne     a0, t4, 7b
    GUEST_MEM_LENT_3 ld, s2, {frame_s3}
8:  sub     t4, a2, a0
    andi    t4, t4, -32
    beqz    t4, 2f
    add     t4, t4, a0
1:  GUEST_MEM_MERGE_LOAD_BATCH 0, 6f, 1
    addi    a0, a0, 32
    bne     a0, t4, 1b
    .else
    beqz    t4, 8f
    add     t4, t4, a0
1:  GUEST_MEM_MERGE_LOAD_BATCH 0, 6f, 0
    GUEST_MEM_MERGE_LOAD_BATCH 32, 5f, 0
    addi    a0, a0, 64
    bne     a0, t4, 1b
8:  sub     t4, a2, a0
    andi    t4, t4, 32
    beqz    t4, 2f
    GUEST_MEM_MERGE_LOAD_BATCH 0, 6f, 0
    addi    a0, a0, 32
    .endif
2:  beq     a0, a2, 4f
3:  GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE \scoped
    addi    a1, a1, 8
    GUEST_MEM_ACCESS 0, 6f, hlv.d a4, (a1)
    GUEST_MEM_SEPARATE
    GUEST_MEM_MERGED  t1, a4
    sd      t1, 0(a0)
    addi    a0, a0, 8
    bne     a0, a2, 3b
4:  li      a0, 0
    ret
    .if \scoped
    GUEST_MEM_BODY_FIXUPS 64
10: GUEST_MEM_LENT_3 ld, s2, {frame_s3}
    .else
5:  addi    a0, a0, 32
    .endif
6:  sub     a0, a2, a0
    ret
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

    .macro GUEST_MEM_MERGE_STORE_BATCH at, scoped
    ld      a4, \at+8(a0)
    ld      a5, \at+16(a0)
    ld      a6, \at+24(a0)
    ld      a7, \at+32(a0)
    GUEST_MEM_MERGED  t1, a4
    GUEST_MEM_MERGED  a4, a5
    GUEST_MEM_MERGED  a5, a6
    GUEST_MEM_MERGED  a6, a7
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_ACCESS 2, 6f, hsv.d t1, (a1)
    addi    a7, a1, 8
    GUEST_MEM_ACCESS 2, 6f, hsv.d a4, (a7)
    addi    a7, a1, 16
    GUEST_MEM_ACCESS 2, 6f, hsv.d a5, (a7)
    addi    a7, a1, 24
    GUEST_MEM_ACCESS 2, 6f, hsv.d a6, (a7)
    addi    a1, a1, 32
    GUEST_MEM_SEPARATE
    .endm

    .macro GUEST_MEM_MERGE_STORE_GROUP at, fixup
    ld      a3, \at+8(a0)
    ld      a4, \at+16(a0)
    ld      a5, \at+24(a0)
    ld      a6, \at+32(a0)
    ld      a7, \at+40(a0)
    ld      s3, \at+48(a0)
    ld      s4, \at+56(a0)
    ld      s5, \at+64(a0)
    GUEST_MEM_MERGED  t1, a3
    GUEST_MEM_MERGED  a3, a4
    GUEST_MEM_MERGED  a4, a5
    GUEST_MEM_MERGED  a5, a6
    GUEST_MEM_MERGED  a6, a7
    GUEST_MEM_MERGED  a7, s3
    GUEST_MEM_MERGED  s3, s4
    GUEST_MEM_MERGED  s4, s5
    GUEST_MEM_SEPARATE
    GUEST_MEM_KEEP_SCOPE 1
    GUEST_MEM_ACCESS 2, \fixup, hsv.d t1, (a1)
    addi    s5, a1, 8
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a3, (s5)
    addi    s5, a1, 16
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a4, (s5)
    addi    s5, a1, 24
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a5, (s5)
    addi    s5, a1, 32
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a6, (s5)
    addi    s5, a1, 40
    GUEST_MEM_ACCESS 2, \fixup, hsv.d a7, (s5)
    addi    s5, a1, 48
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s3, (s5)
    addi    s5, a1, 56
    GUEST_MEM_ACCESS 2, \fixup, hsv.d s4, (s5)
    addi    a1, a1, 64
    GUEST_MEM_SEPARATE
    .endm

# a1 is a multiple of 8, a0 is not.
    .macro GUEST_MEM_MERGE_TO_GUEST name, scoped
    GUEST_MEM_ROUTINE \name
    slli    t2, a0, 3
    neg     t3, t2
    andi    a0, a0, -8
    ld      t0, 0(a0)
    srl     t0, t0, t2
    .if \scoped
    andi    t4, a2, -256
    add     a2, a2, a1
    beqz    t4, 8f
    add     t4, t4, a1
    GUEST_MEM_LENT_3 sd, s2, {frame_s3}
7:  GUEST_MEM_MERGE_STORE_GROUP 0, 10f
    GUEST_MEM_MERGE_STORE_GROUP 64, 10f
    GUEST_MEM_MERGE_STORE_GROUP 128, 10f
    GUEST_MEM_MERGE_STORE_GROUP 192, 10f
    addi    a0, a0, 256
    bne     a1, t4, 7b
    GUEST_MEM_LENT_3 ld, s2, {frame_s3}
8:  sub     t4, a2, a1
    andi    t4, t4, -32
    beqz    t4, 2f
    add     t4, t4, a1
1:  GUEST_MEM_MERGE_STORE_BATCH 0, 1
    addi    a0, a0, 32
    bne     a1, t4, 1b
    .else
    andi    t4, a2, -64
    add     a2, a2, a1
    beqz    t4, 8f
    add     t4, t4, a1
1:  GUEST_MEM_MERGE_STORE_BATCH 0, 0
    GUEST_MEM_MERGE_STORE_BATCH 32, 0
    addi    a0, a0, 64
    bne     a1, t4, 1b
8:  sub     t4, a2, a1
    andi    t4, t4, 32
    beqz    t4, 2f
    GUEST_MEM_MERGE_STORE_BATCH 0, 0
    addi    a0, a0, 32
    .endif
2:  beq     a1, a2, 4f
3:  ld      a4, 8(a0)
    addi    a0, a0, 8
    GUEST_MEM_MERGED  t1, a4
    GUEST_MEM_KEEP_SCOPE \scoped
    GUEST_MEM_SEPARATE
    GUEST_MEM_ACCESS 2, 6f, hsv.d t1, (a1)
    GUEST_MEM_SEPARATE
    addi    a1, a1, 8
    bne     a1, a2, 3b
4:  li      a0, 0
    ret
    .if \scoped
10: GUEST_MEM_LENT_3 ld, s2, {frame_s3}
    .endif
6:  sub     a0, a2, a1
    ret
    .size   \name\()_v{major}_{minor}_{patch}, . - \name\()_v{major}_{minor}_{patch}
    .endm

    GUEST_MEM_MERGE_FROM_GUEST __guest_mem_hook_merge_from, 0
    GUEST_MEM_MERGE_TO_GUEST __guest_mem_hook_merge_to, 0
    GUEST_MEM_MERGE_FROM_GUEST __guest_mem_scoped_merge_from, 1
    GUEST_MEM_MERGE_TO_GUEST __guest_mem_scoped_merge_to, 1
