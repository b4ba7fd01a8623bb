//! Memory behind the caches.
//!
//! The one idea: a guest with Svpbmt may map a page as non-cacheable, and then reads memory itself.
//! What the host stored may still be in a cache, and what memory held before belonged to somebody
//! else. So whatever a guest is about to be shown is flushed first (I20). Where this machine cannot
//! flush, no guest has Svpbmt.

use guest_mem::Spa;

/// The first address of each cache block of `block` bytes that `[start, start + bytes)` touches.
pub fn blocks(start: Spa, bytes: u64, block: u64) -> impl Iterator<Item = u64> {
    let first = start.value() & !block.saturating_sub(1);
    let end = match block {
        0 => first,
        _ => start.value().saturating_add(bytes),
    };
    (first..end).step_by(block.max(1) as usize)
}

#[cfg(target_os = "none")]
pub use machine::{can_flush, flush, turn_on};

#[cfg(target_os = "none")]
mod machine {
    use core::arch::{asm, global_asm};
    use core::sync::atomic::{AtomicU64, Ordering};

    use guest_mem::Spa;

    use super::blocks;
    use crate::csr;

    /// Bytes of a cache block; 0 where nothing has to be flushed.
    static BLOCK: AtomicU64 = AtomicU64::new(0);

    // Contract of `cache_flush_trial(a0 = address)`:
    //   in:       the address is readable and writable memory; interrupts are off
    //   out:      a0 is 1 if this hart executes `cbo.flush`, and 0 if that traps; sstatus.SDT is clear (R24)
    //   clobbers: t0, t1, t2, and after a trap the trap CSRs; stvec is as it was
    //   faults:   `cbo.flush`, which lands at 1
    global_asm!(
        ".pushsection .text.cache_flush_trial, \"ax\", @progbits",
        ".option push",
        ".option arch, +zicbom",
        ".balign 4",
        ".globl cache_flush_trial",
        ".type cache_flush_trial, @function",
        "cache_flush_trial:",
        "la t0, 1f",
        "csrrw t1, stvec, t0",
        "li t2, 0",
        "cbo.flush (a0)",
        "li t2, 1",
        ".balign 4",
        "1: csrw stvec, t1",
        "li t0, {sdt}",
        "csrc sstatus, t0",
        "mv a0, t2",
        "ret",
        ".size cache_flush_trial, . - cache_flush_trial",
        ".option pop",
        ".popsection",
        sdt = const csr::SSTATUS_SDT,
    );

    unsafe extern "C" {
        fn cache_flush_trial(address: *const u64) -> u64;
    }

    /// Whether this hart executes `cbo.flush`: firmware may keep it to itself (`menvcfg.CBCFE`).
    pub fn can_flush() -> bool {
        let word = 0;
        // SAFETY: flushing changes no memory. HS-mode has no interrupts, and nothing needs the trap
        // CSRs of an earlier trap here.
        unsafe { cache_flush_trial(&raw const word) != 0 }
    }

    /// From now on [`flush`] flushes, by blocks of `block` bytes. Every hart can ([`can_flush`]).
    pub fn turn_on(block: u64) {
        BLOCK.store(block, Ordering::Relaxed);
    }

    /// Makes memory hold what this hart stored to `[start, start + bytes)`, before any later store
    /// of this hart, such as one to a page table.
    pub fn flush(start: Spa, bytes: u64) {
        let block = BLOCK.load(Ordering::Relaxed);
        if block == 0 {
            return;
        }
        for address in blocks(start, bytes, block) {
            // SAFETY: flushing changes no memory. The memory is the host's, which reaches it at its
            // own address, and who turned this on found that the instruction is there.
            unsafe {
                asm!(
                    ".option push",
                    ".option arch, +zicbom",
                    "cbo.flush ({})",
                    ".option pop",
                    in(reg) address,
                    options(nostack, preserves_flags)
                );
            }
        }
        // SAFETY: orders the flushes before what comes later.
        unsafe { asm!("fence iorw, iorw", options(nostack, preserves_flags)) };
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn i20_each_cache_block_of_a_range_is_flushed_once() {
        for (start, bytes, block, expected) in [
            (0x1000, 0x100, 64, &[0x1000, 0x1040, 0x1080, 0x10c0][..]),
            (0x103f, 2, 64, &[0x1000, 0x1040]),
            (0x1040, 1, 64, &[0x1040]),
            (0x1040, 1, 0x1000, &[0x1000]),
            (0x1000, 0, 64, &[]),
            (0x1000, 0x100, 0, &[]),
        ] {
            let flushed: Vec<_> = blocks(Spa::new(start), bytes, block).collect();
            assert_eq!(flushed, expected, "{bytes:#x} at {start:#x} by {block}");
        }
    }
}
