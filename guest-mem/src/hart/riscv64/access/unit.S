# The access unit: every hlv, hlvx and hsv of the library, and their exception table.
#
# The one idea: a guest access may fault, and then the routine goes on at a *fixup* of its own. The table at the end names
# each instruction that may fault and its fixup; nothing else in the unit is expected to trap.
#
# One assembly unit in six files, in this order: unit.S, copies.S, merges.S, singles.S, scoped.S, end.S.
#
# Registers of all routines (the names are the contract):
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
