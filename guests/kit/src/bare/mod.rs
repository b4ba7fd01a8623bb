//! Everything that exists on the machine only.

pub mod console;
pub mod entry;
pub mod machine;
pub mod sbi;
pub mod steps;
pub mod trap;
pub mod vectors;

/// Reads a CSR by name.
#[macro_export]
macro_rules! csr_read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading one of the S-mode CSRs that guests here use has no side effect.
        unsafe { core::arch::asm!(concat!("csrr {}, ", $name), out(reg) value) };
        value
    }};
}

/// Writes a CSR by name; the caller knows what that does.
#[macro_export]
macro_rules! csr_write {
    ($name:literal, $value:expr) => {
        core::arch::asm!(concat!("csrw ", $name, ", {}"), in(reg) $value)
    };
}

/// Sets bits of a CSR by name; the caller knows what that does.
#[macro_export]
macro_rules! csr_set {
    ($name:literal, $bits:expr) => {
        core::arch::asm!(concat!("csrs ", $name, ", {}"), in(reg) $bits)
    };
}

/// Clears bits of a CSR by name; the caller knows what that does.
#[macro_export]
macro_rules! csr_clear {
    ($name:literal, $bits:expr) => {
        core::arch::asm!(concat!("csrc ", $name, ", {}"), in(reg) $bits)
    };
}

/// The `time` counter.
pub fn now() -> u64 {
    csr_read!("time")
}

/// Waits until `done`, for `ticks` of `time` at most; answers whether it came.
pub fn wait_until(ticks: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if done() {
            return true;
        }
        if now().wrapping_sub(start) > ticks {
            return false;
        }
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("guest: {info}");
    sbi::shutdown(true);
}
