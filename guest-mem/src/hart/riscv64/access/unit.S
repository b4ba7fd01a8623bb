# The access unit: every hlv, hlvx and hsv of the library, and their exception table.
#
# The one idea: a guest access may fault, and then the routine goes on at a *fixup* of its own. The table at the end names
# each instruction that may fault and its fixup; nothing else in the unit is expected to trap.
#
# Names end in the crate's version, macros begin with GUEST_MEM_ and are purged at the end: with fat LTO this is one assembly
# file with the host's own assembly, and with that of another version of the crate (R78).
#
# One assembly unit in six files, in this order: unit.S, copies.S, merges.S, singles.S, scoped.S, end.S.
#
# Registers of all routines (the names are the contract):
#   a0  host pointer, or the value of a single store or a fill; on return the bytes left, or what a single load found
#   a1  guest address; on return of a single access 0, or 1 after a fault (of a fetch: 2, if it was the second parcel's)
#   a2  length in bytes, a multiple of the element (turned into the end pointer)
#   t1-t4  on return after a fault: scause, stval, htval, htinst; else data
#   a3-a7, t0  data; t0 is the return address of single accesses
#   t4  end of the whole batches
#   t5  scoped form: the host's stvec (in the hook form, data)
#   t6  scoped form: the vectors' own. In copies and fills 0, unless the vector was left since: then stvec may be the host's
#   s2  scoped form: the frame, with the record of the guest's exit
#   ra  return address of copies and fills
# No routine changes sp, s0-s11, gp or tp; long copies of the scoped form use s3 to s9 for data and put them back, and so do
# those of the hook form where the build has fences: with 64 bytes of the stack, since they have no frame. Single
# accesses of the scoped form have the record, or the frame and the vector, in other registers: singles.S.
#
# At a fixup, t1-t4 hold scause, stval, htval, htinst (put there by the handler hook or by the vector), and the other
# registers are as the faulting instruction found them, but for t6.
#
# Host accesses and guest accesses come in groups with at least one other instruction between them, or a fence:
# some cores mis-execute neighbours. In the scoped form each group of guest accesses begins by looking at t6: a host fault
# that was forwarded meanwhile has put the host's vector into stvec, and then the group takes the library's back. That costs
# the group one branch, where writing stvec would flush the pipeline. A fault inside a batch redoes it element by element, so
# that what has been copied is exact.
#
# The exception table has 16 bits for each instruction of the unit, all of which have 4 bytes: 0 where none may fault, else
# the fixup's offset from the unit's start plus the kind of access in the two low bits. So it is in order whatever the code
# is, and a trap's pc is its index. The causes that each kind can raise (I7) lie before it, 64 bits for each kind: the upper half
# has those that need no GVA (R21).

    .pushsection .rodata.guest_mem_extable_v{major}_{minor}_{patch}, "a", @progbits
    .balign 8
.Lguest_mem_site_causes_v{major}_{minor}_{patch}:
    .dword  {load_causes}, {fetch_causes}, {store_causes}, 0
    .globl  __guest_mem_extable_start_v{major}_{minor}_{patch}
__guest_mem_extable_start_v{major}_{minor}_{patch}:
.Lguest_mem_extable_v{major}_{minor}_{patch}:
    .popsection

    .pushsection .text.guest_mem_access_v{major}_{minor}_{patch}, "ax", @progbits
    .option push
    .option arch, +h
    .option norvc
    .option norelax
    .balign 4
    .globl  __guest_mem_access_start_v{major}_{minor}_{patch}
__guest_mem_access_start_v{major}_{minor}_{patch}:
.Lguest_mem_access_start_v{major}_{minor}_{patch}:

# One guest access `\insn`, which goes on at `\fixup` after a fault; kind 0 = hlv, 1 = hlvx, 2 = hsv.
    .macro GUEST_MEM_ACCESS kind, fixup, insn:vararg
.Lguest_mem_site\@:
    \insn
    .pushsection .rodata.guest_mem_extable_v{major}_{minor}_{patch}, "a", @progbits
    .org    .Lguest_mem_extable_v{major}_{minor}_{patch} + (.Lguest_mem_site\@ - .Lguest_mem_access_start_v{major}_{minor}_{patch}) / 2
    .half   \fixup - .Lguest_mem_access_start_v{major}_{minor}_{patch} + \kind
    .popsection
    .endm

# Between host accesses and guest accesses, where the build asks for more than another instruction: the feature
# `fence-guest-accesses`, for cores on which that is not enough (R69).
    .macro GUEST_MEM_SEPARATE
    .if {separate}
    fence   rw, rw
    .endif
    .endm

# Each routine is a subsection of its own, and what it hardly ever runs is the next one: near enough for a branch.
    .set GUEST_MEM_UNIT_PART, 0
    .macro GUEST_MEM_ROUTINE name
    .set GUEST_MEM_UNIT_PART, GUEST_MEM_UNIT_PART + 2
    .subsection GUEST_MEM_UNIT_PART
    .balign 4
    .globl  \name\()_v{major}_{minor}_{patch}
    .type   \name\()_v{major}_{minor}_{patch}, @function
\name\()_v{major}_{minor}_{patch}:
    .endm

# Copies and fills of the scoped form find the library's vector in stvec, the host's in t5, and 0 in t6. If the vector was left
# since, by a forwarded trap or for a fixup, this puts it into stvec again. t6 is 0 before the vector is there, so that one more
# trap meanwhile is seen, too.
    .macro GUEST_MEM_KEEP_SCOPE scoped
    .if \scoped
.Lguest_mem_keep\@:
    bnez    t6, .Lguest_mem_take_back\@
    .subsection GUEST_MEM_UNIT_PART + 1
.Lguest_mem_take_back\@:
    sd      a4, {frame_a4}(s2)
    li      t6, 0
    lla     a4, __guest_mem_scoped_vector_v{major}_{minor}_{patch}
    csrw    stvec, a4
    ld      a4, {frame_a4}(s2)
    GUEST_MEM_SEPARATE
    j       .Lguest_mem_keep\@
    .subsection GUEST_MEM_UNIT_PART
    .endif
    .endm

# The frame of the scoped form: `ExitRecord` of record.rs.

# \op is sd or ld: saves the callee's registers s3 to s5, or up to s9, from \at(\base) on, or takes them back.
    .macro GUEST_MEM_LENT_3 op, base, at
    \op      s3, \at+0(\base)
    \op      s4, \at+8(\base)
    \op      s5, \at+16(\base)
    .endm

    .macro GUEST_MEM_LENT_7 op, base, at
    GUEST_MEM_LENT_3 \op, \base, \at
    \op      s6, \at+24(\base)
    \op      s7, \at+32(\base)
    \op      s8, \at+40(\base)
    \op      s9, \at+48(\base)
    .endm
