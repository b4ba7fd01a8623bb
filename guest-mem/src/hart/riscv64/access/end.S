# The end of the access unit and of its exception table, which is as long as the unit may be.

    .subsection UNIT_PART + 2
    .globl  __guest_mem_access_end
__guest_mem_access_end:
    .option pop
    .popsection

    .pushsection .rodata.guest_mem_extable, "a", @progbits
    .org    .Lguest_mem_extable + (1 << UNIT_BITS) / 2
    .globl  __guest_mem_extable_end
__guest_mem_extable_end:
    .popsection
