//! A program with two versions of guest-mem, and with assembly of its own in names that the access unit once had.
//!
//! It is linked and looked at, and never run.
#![no_std]
#![no_main]

use core::arch::global_asm;

// With fat LTO this lands in one assembly file with both access units, before, between or after them.
global_asm!(
    r#"
    .macro GUEST_ACCESS kind
    .error "the host's macro is used by the library"
    .endm
    .macro ROUTINE name
    .error "the host's macro is used by the library"
    .endm
    .macro SEPARATE
    .error "the host's macro is used by the library"
    .endm
    .macro KEEP_SCOPE scoped
    .error "the host's macro is used by the library"
    .endm
    .equ    UNIT_BITS, 1
    .equ    UNIT_PART, 1
    .equ    EXTABLE, 1
    .equ    FRAME_SEPC, 1
    .equ    FRAME_T1, 1
    "#
);

macro_rules! accesses {
    ($name:ident, $library:ident) => {
        fn $name(buffer: &mut [u8]) -> usize {
            use $library::hart::Hart;
            use $library::hart::riscv64::{HandlerHook, Riscv64, ScopedStvec};
            use $library::{GuestMemory, GuestPrivilege, Gva, LoadedVcpu};

            fn read(hart: &impl Hart, buffer: &mut [u8]) -> usize {
                // SAFETY: the program is never run.
                let vcpu = unsafe { LoadedVcpu::new(hart) };
                let space = vcpu.guest_virtual(GuestPrivilege::Supervisor);
                let at = Gva::new(buffer.as_ptr() as u64);
                let read = space.read(at, buffer).is_ok();
                let written = space.write(at, buffer).is_ok();
                let loaded = space.load::<u64>(at, core::sync::atomic::Ordering::Relaxed);
                let fetched = vcpu.fetch_instruction(at, GuestPrivilege::User);
                usize::from(read) + usize::from(written) + usize::from(loaded.is_ok() == fetched.is_ok())
            }
            // SAFETY: the program is never run.
            let (hook, scoped) =
                unsafe { (Riscv64::<HandlerHook>::new(), Riscv64::<ScopedStvec>::new()) };
            read(&hook, buffer) + read(&scoped, buffer)
        }
    };
}

accesses!(this_version, guest_mem);
accesses!(another_version, guest_mem_next);

#[unsafe(no_mangle)]
extern "C" fn _start(buffer: *mut u8, len: usize) -> usize {
    // SAFETY: the program is never run.
    let buffer = unsafe { core::slice::from_raw_parts_mut(buffer, len) };
    this_version(buffer) + another_version(buffer)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
