//! Executes random instructions, one at a time: any bits, H-extension instructions, and every kind of access to a device
//! and to a hole.
//!
//! Expected: each instruction does what it does on a machine without the H extension, so the causes that are seen are those
//! of such a machine, and the hypervisor lives. The sequence is always the same.
//!
//! The one idea: an instruction runs with every register holding an address that is harmless to access, an `ebreak`
//! behind it, and a timer that ends it if it goes in circles; whatever trap comes, the vector throws all state away and
//! returns to Rust.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::arch::{asm, global_asm};
    use core::cell::UnsafeCell;

    use guest_kit::machine::Machine;
    use guest_kit::trap::interrupt;
    use guest_kit::{csr_set, csr_write, now, println, sbi};

    const INSTRUCTIONS: u32 = 20_000;

    /// Where nothing is, guest-physical.
    const HOLE: u64 = 0x0d00_0800;
    /// Read-only registers of the interrupt controller.
    const DEVICE: u64 = 0x0c00_1000;

    /// `scause` of the timer interrupt.
    const TIMER: u64 = 1 << 63 | interrupt::TIMER;

    const EBREAK: u32 = 0x0010_0073;
    const OPCODE_SYSTEM: u32 = 0x73;

    /// Registers kept over a run: ra, sp, gp, tp, s0 to s11.
    #[repr(transparent)]
    struct Kept(UnsafeCell<[u64; 16]>);

    // SAFETY: only the boot hart runs.
    unsafe impl Sync for Kept {}

    static KEPT: Kept = Kept(UnsafeCell::new([0; 16]));

    // run_one(a0 = code, a1 = the 31 registers x1..x31 that it starts with) -> scause of the trap that ended it.
    // Keeps what the C convention wants kept in KEPT; enters the code by sret; any trap goes to `run_one_trap`, which returns
    // to the caller. Clobbers everything else, sepc, sstatus.SPP/SPIE/SIE and, meanwhile, stvec.
    global_asm!(
        r#"
    .section .text.run_one, "ax", @progbits
    .balign 4
    .globl run_one
run_one:
    la      t0, {kept}
    sd      ra, 0(t0)
    sd      sp, 8(t0)
    sd      gp, 16(t0)
    sd      tp, 24(t0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd      s\n, 32 + 8*\n(t0)
    .endr
    la      t0, run_one_trap
    csrrw   t0, stvec, t0
    csrw    sscratch, t0
    csrw    sepc, a0
    li      t0, 0x120
    csrs    sstatus, t0
    mv      x31, a1
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    ld      x\n, 8*(\n - 1)(x31)
    .endr
    ld      x31, 240(x31)
    sret

    .balign 4
run_one_trap:
    la      t0, {kept}
    ld      ra, 0(t0)
    ld      sp, 8(t0)
    ld      gp, 16(t0)
    ld      tp, 24(t0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld      s\n, 32 + 8*\n(t0)
    .endr
    csrr    t0, sscratch
    csrw    stvec, t0
    csrr    a0, scause
    ret
        "#,
        kept = sym KEPT,
    );

    unsafe extern "C" {
        fn run_one(code: u64, registers: *const u64) -> u64;
    }

    /// Marsaglia's xorshift64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Any bits, or bits with an opcode that reaches memory or the system.
        fn instruction(&mut self) -> u32 {
            const OPCODES: [u32; 8] = [
                OPCODE_SYSTEM,
                OPCODE_SYSTEM,
                0x03, // LOAD
                0x23, // STORE
                0x07, // LOAD-FP
                0x27, // STORE-FP
                0x2f, // AMO
                0x0f, // MISC-MEM: fences, cbo
            ];
            let bits = self.next() as u32;
            match self.next() % 4 {
                0 => bits,
                1 => bits & !3 | (self.next() % 3) as u32,
                _ => bits & !0x7f | OPCODES[(self.next() % 8) as usize],
            }
        }
    }

    /// Whether the instruction could take this program's own ground away: it writes an S-mode CSR.
    fn is_fatal(instruction: u32) -> bool {
        let csr = instruction >> 20;
        let accesses_csr = instruction & 0x7f == OPCODE_SYSTEM && instruction >> 12 & 3 != 0;
        accesses_csr && csr >> 8 == 1
    }

    /// Whether a machine without the H extension has this cause in S-mode.
    fn is_expected(cause: u64) -> bool {
        // 8 is a call from U-mode, where a stray sret may have gone.
        matches!(cause, 0..=8 | 12 | 13 | 15 | TIMER)
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::of_guest("random-code", device_tree) };
        println!(
            "random-code: executes {INSTRUCTIONS} random instructions; expects to end by itself"
        );
        let code = machine.ram.start + (32 << 20);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut seen = [0u32; 16];
        let (mut runs, mut timeouts, mut wrong) = (0, 0, 0);
        while runs < INSTRUCTIONS {
            let instruction = random.instruction();
            if is_fatal(instruction) {
                continue;
            }
            runs += 1;
            let device = random.next();
            let registers: [u64; 31] = core::array::from_fn(|index| {
                if device >> index & 1 == 1 {
                    DEVICE
                } else {
                    HOLE
                }
            });
            let cause = execute(code, instruction, &registers, machine.timebase_frequency);
            if cause == TIMER {
                timeouts += 1;
            } else if is_expected(cause) {
                seen[(cause & 15) as usize] += 1;
            } else {
                wrong += 1;
                println!("random-code: {instruction:#010x} ends with cause {cause:#x}");
            }
        }
        println!("random-code: causes 0 to 15: {seen:?}, ended by the timer: {timeouts}");
        println!("random-code: {runs} steps, {wrong} wrong");
        sbi::shutdown(wrong > 0);
    }

    fn execute(code: u64, instruction: u32, registers: &[u64; 31], second: u64) -> u64 {
        const FLOATING_POINT_ON: u64 = 1 << 13;
        // One millisecond is for ever.
        sbi::set_timer(now() + second / 1000);
        // SAFETY: nothing else is at `code`; the instruction finds only harmless addresses in the registers, and what it
        // does to other state is undone by `run_one`'s trap handler or has no meaning to this program.
        unsafe {
            for (index, word) in [instruction, EBREAK, EBREAK].into_iter().enumerate() {
                (code as *mut u32).add(index).write_volatile(word);
            }
            asm!("fence.i");
            csr_write!("sie", 1u64 << interrupt::TIMER);
            csr_set!("sstatus", FLOATING_POINT_ON);
            let cause = run_one(code, registers.as_ptr());
            csr_write!("sie", 0u64);
            cause
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run PATH`");
}
