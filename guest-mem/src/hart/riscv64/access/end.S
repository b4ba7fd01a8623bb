# The end of the access unit and of its exception table, which is as long as the unit may be.

    .subsection GUEST_MEM_UNIT_PART + 2
    .globl  __guest_mem_access_end_v{major}_{minor}_{patch}
__guest_mem_access_end_v{major}_{minor}_{patch}:
    .option pop
    .popsection

    .pushsection .rodata.guest_mem_extable_v{major}_{minor}_{patch}, "a", @progbits
    .org    .Lguest_mem_extable_v{major}_{minor}_{patch} + (1 << {unit_bits}) / 2
    .globl  __guest_mem_extable_end_v{major}_{minor}_{patch}
__guest_mem_extable_end_v{major}_{minor}_{patch}:
    .popsection

# What follows in the same assembly file does not see the macros.
    .purgem GUEST_MEM_BEGIN_SINGLE
    .purgem GUEST_MEM_BODY_FIXUPS
    .purgem GUEST_MEM_BOTH_COPIES
    .purgem GUEST_MEM_COPY_FROM_GUEST
    .purgem GUEST_MEM_COPY_NARROW_FROM_GUEST
    .purgem GUEST_MEM_COPY_NARROW_TO_GUEST
    .purgem GUEST_MEM_COPY_TO_GUEST
    .purgem GUEST_MEM_END_SINGLE
    .purgem GUEST_MEM_FETCH_INSTRUCTION
    .purgem GUEST_MEM_FILL_GUEST
    .purgem GUEST_MEM_ACCESS
    .purgem GUEST_MEM_GIVE_BACK_7
    .purgem GUEST_MEM_HOST_GROUP
    .purgem GUEST_MEM_IS_OURS
    .purgem GUEST_MEM_IS_SITE
    .purgem GUEST_MEM_KEEP_SCOPE
    .purgem GUEST_MEM_LEND_7
    .purgem GUEST_MEM_LENT_3
    .purgem GUEST_MEM_LENT_7
    .purgem GUEST_MEM_LOAD_BATCH
    .purgem GUEST_MEM_LOAD_GROUP
    .purgem GUEST_MEM_LOAD_HOST
    .purgem GUEST_MEM_LOAD_SINGLES
    .purgem GUEST_MEM_MERGED
    .purgem GUEST_MEM_MERGE_FROM_GUEST
    .purgem GUEST_MEM_MERGE_LOAD_BATCH
    .purgem GUEST_MEM_MERGE_LOAD_GROUP
    .purgem GUEST_MEM_MERGE_STORE_BATCH
    .purgem GUEST_MEM_MERGE_STORE_GROUP
    .purgem GUEST_MEM_MERGE_TO_GUEST
    .purgem GUEST_MEM_REDO_UNLESS_FIRST
    .purgem GUEST_MEM_RESTORE_STATUS
    .purgem GUEST_MEM_ROUTINE
    .purgem GUEST_MEM_SEPARATE
    .purgem GUEST_MEM_SINGLE
    .purgem GUEST_MEM_SINGLES
    .purgem GUEST_MEM_STORE_BATCH
    .purgem GUEST_MEM_STORE_GROUP
    .purgem GUEST_MEM_STORE_HOST
    .purgem GUEST_MEM_STORE_SINGLES
