# The end of the access unit and of its exception table.

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
