//! SBI calls with raw arguments: a guest that wants to pass a bad pointer must be able to.

use core::arch::asm;

pub use sbi_spec::binary::SbiRet;
use sbi_spec::{dbcn, hsm, legacy, rfnc, spi, srst, time};

/// Any call. What it does to memory is up to the callee, so nothing is assumed about memory
/// afterwards.
pub fn call(extension: usize, function: usize, arguments: [u64; 5]) -> SbiRet {
    let [a0, a1, a2, a3, a4] = arguments;
    let (error, value);
    // SAFETY: an SBI call changes a0 and a1 and no other register; callers pass pointers only to
    // memory that is theirs, or to none at all.
    unsafe {
        asm!(
            "ecall",
            inlateout("a0") a0 as usize => error,
            inlateout("a1") a1 as usize => value,
            in("a2") a2,
            in("a3") a3,
            in("a4") a4,
            in("a6") function,
            in("a7") extension,
        );
    }
    SbiRet { error, value }
}

/// A call of the legacy extensions, which have one result.
pub fn legacy_call(extension: usize, arguments: [u64; 4]) -> isize {
    let [a0, a1, a2, a3] = arguments;
    call(extension, 0, [a0, a1, a2, a3, 0]).error as isize
}

/// Whether the extension is there.
pub fn has(extension: usize) -> bool {
    let probe = call(
        sbi_spec::base::EID_BASE,
        sbi_spec::base::PROBE_EXTENSION,
        [extension as u64, 0, 0, 0, 0],
    );
    probe.error == 0 && probe.value != 0
}

/// A function of the base extension without arguments.
pub fn base(function: usize) -> usize {
    call(sbi_spec::base::EID_BASE, function, [0; 5]).value
}

/// DBCN console write of `len` bytes at a guest-physical address.
pub fn console_write(len: u64, physical: u64) -> SbiRet {
    call(
        dbcn::EID_DBCN,
        dbcn::CONSOLE_WRITE,
        [len, physical, 0, 0, 0],
    )
}

/// DBCN console read into `len` bytes at a guest-physical address.
pub fn console_read(len: u64, physical: u64) -> SbiRet {
    call(dbcn::EID_DBCN, dbcn::CONSOLE_READ, [len, physical, 0, 0, 0])
}

/// Legacy console output.
pub fn legacy_putchar(byte: u8) {
    legacy_call(legacy::LEGACY_CONSOLE_PUTCHAR, [byte.into(), 0, 0, 0]);
}

/// Programs the timer.
pub fn set_timer(deadline: u64) -> SbiRet {
    call(time::EID_TIME, time::SET_TIMER, [deadline, 0, 0, 0, 0])
}

/// Sends a software interrupt to the harts `mask << base`.
pub fn send_ipi(mask: u64, base: u64) -> SbiRet {
    call(spi::EID_SPI, spi::SEND_IPI, [mask, base, 0, 0, 0])
}

/// `fence.i` on the harts `mask`.
pub fn remote_fence_i(mask: u64) -> SbiRet {
    call(rfnc::EID_RFNC, rfnc::REMOTE_FENCE_I, [mask, 0, 0, 0, 0])
}

/// `sfence.vma` of [start, start + size) on the harts `mask`.
pub fn remote_sfence_vma(mask: u64, start: u64, size: u64) -> SbiRet {
    call(
        rfnc::EID_RFNC,
        rfnc::REMOTE_SFENCE_VMA,
        [mask, 0, start, size, 0],
    )
}

/// Starts a hart.
pub fn hart_start(hart: u64, entry: u64, opaque: u64) -> SbiRet {
    call(hsm::EID_HSM, hsm::HART_START, [hart, entry, opaque, 0, 0])
}

/// Stops this hart; returns only if that fails.
pub fn hart_stop() -> SbiRet {
    call(hsm::EID_HSM, hsm::HART_STOP, [0; 5])
}

/// The state of a hart.
pub fn hart_status(hart: u64) -> SbiRet {
    call(hsm::EID_HSM, hsm::HART_GET_STATUS, [hart, 0, 0, 0, 0])
}

/// Retentive suspend of this hart, until an interrupt.
pub fn hart_suspend_retentive() -> SbiRet {
    call(hsm::EID_HSM, hsm::HART_SUSPEND, [0; 5])
}

/// Ends the guest, as failed or not.
pub fn shutdown(failed: bool) -> ! {
    let reason = if failed {
        srst::RESET_REASON_SYSTEM_FAILURE
    } else {
        srst::RESET_REASON_NO_REASON
    };
    let kind = srst::RESET_TYPE_SHUTDOWN;
    call(
        srst::EID_SRST,
        srst::SYSTEM_RESET,
        [kind.into(), reason.into(), 0, 0, 0],
    );
    legacy_call(legacy::LEGACY_SHUTDOWN, [0; 4]);
    loop {
        core::hint::spin_loop();
    }
}
