//! Recovering from a fault of a guest access: which trap is ours, and where it lands.
//!
//! The one idea: a trap is ours only if *everything* about it fits: it is no interrupt, it came from HS-mode, its pc is in
//! the exception table, and its cause is one that this very instruction can raise (R21, I6, I7). Anything else is a host bug
//! and belongs to the host's own handler.

use crate::cause;
use crate::csr::{HSTATUS_GVA, HSTATUS_SPV};
use crate::fault::TrapInfo;

/// What kind of guest access an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SiteKind {
    /// `hlv`.
    Load = 0,
    /// `hlvx`.
    Fetch = 1,
    /// `hsv`.
    Store = 2,
}

/// One entry of the exception table, as the assembly unit emits it: 8 bytes, sorted by `instruction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Offset of the instruction from the start of the access unit.
    pub instruction: u16,
    /// Offset of the code that goes on after a fault there.
    pub fixup: u16,
    /// A [`SiteKind`].
    pub kind: u16,
    /// Zero.
    pub reserved: u16,
}

const fn causes(list: &[u64]) -> u32 {
    let mut mask = 0;
    let mut index = 0;
    while index < list.len() {
        mask |= 1 << list[index];
        index += 1;
    }
    mask
}

/// The causes that each [`SiteKind`] can raise (I7), as bits. `hlvx` raises load causes by the specification (R6) and fetch
/// causes on QEMU since 8.1 (R60); the page-table reads of an `hsv` raise the load's guest-page fault on QEMU before 8.1 (R67).
pub(crate) const SITE_CAUSES: [u32; 3] = [
    causes(&[
        cause::LOAD_MISALIGNED,
        cause::LOAD_ACCESS,
        cause::LOAD_PAGE,
        cause::LOAD_GUEST_PAGE,
    ]),
    causes(&[
        cause::LOAD_MISALIGNED,
        cause::LOAD_ACCESS,
        cause::LOAD_PAGE,
        cause::LOAD_GUEST_PAGE,
        cause::INSTRUCTION_MISALIGNED,
        cause::INSTRUCTION_ACCESS,
        cause::INSTRUCTION_PAGE,
        cause::INSTRUCTION_GUEST_PAGE,
    ]),
    causes(&[
        cause::STORE_MISALIGNED,
        cause::STORE_ACCESS,
        cause::STORE_PAGE,
        cause::STORE_GUEST_PAGE,
        cause::LOAD_GUEST_PAGE,
    ]),
];

/// The causes whose `stval` is always a guest-virtual address, so that `hstatus.GVA` must be set (R21). Causes 0, 1 and 4 to
/// 7 may come through the firmware's redirect with GVA clear.
pub(crate) const CAUSES_WITH_GVA: u32 = causes(&[
    cause::INSTRUCTION_PAGE,
    cause::LOAD_PAGE,
    cause::STORE_PAGE,
    cause::INSTRUCTION_GUEST_PAGE,
    cause::LOAD_GUEST_PAGE,
    cause::STORE_GUEST_PAGE,
]);

/// A trap that the host's handler holds, as `try_fixup` needs it.
///
/// The handler implements this on its saved register frame.
///
/// # Safety
///
/// The getters answer what the hardware wrote for *this* trap. What the setters set is what the interrupted code sees when
/// the handler returns to it.
pub unsafe trait TrapContext {
    /// `sepc` of the trap.
    fn pc(&self) -> usize;

    /// The trap CSRs. A handler that calls `try_fixup` before anything that could trap again reads them from the hart:
    /// `TrapInfo::from_csrs()` on riscv64.
    fn trap_info(&self) -> TrapInfo;

    /// `hstatus` as the trap left it.
    fn hstatus(&self) -> u64;

    /// Makes the handler return to `pc`.
    fn set_pc(&mut self, pc: usize);

    /// Makes the handler return with general register `x` (5, 6, 7 or 28) holding `value`.
    fn set_register(&mut self, x: usize, value: u64);
}

/// Registers in which a fixup expects `scause`, `stval`, `htval` and `htinst`: t0 to t3.
const TRAP_REGISTERS: [usize; 4] = [5, 6, 7, 28];

/// The fixup offset for a trap at `offset` bytes into the access unit, if the trap is a guest-access fault.
pub(crate) fn find_fixup(
    table: &[Entry],
    offset: usize,
    scause: u64,
    hstatus: u64,
) -> Option<usize> {
    if hstatus & HSTATUS_SPV != 0 || scause >= 32 {
        return None;
    }
    let offset = u16::try_from(offset).ok()?;
    let found = table
        .binary_search_by_key(&offset, |entry| entry.instruction)
        .ok()?;
    let entry = &table[found];
    let bit = 1u32 << scause;
    let allowed = SITE_CAUSES.get(usize::from(entry.kind))? & bit != 0;
    let address_fits = CAUSES_WITH_GVA & bit == 0 || hstatus & HSTATUS_GVA != 0;
    (allowed && address_fits).then_some(usize::from(entry.fixup))
}

/// Sends `context` to its fixup if it is a guest-access fault of the unit at `start` with `table`.
#[cfg_attr(
    not(any(test, target_arch = "riscv64")),
    expect(dead_code, reason = "only real harts take traps")
)]
pub(crate) fn recover(table: &[Entry], start: usize, context: &mut impl TrapContext) -> bool {
    let Some(offset) = context.pc().checked_sub(start) else {
        return false;
    };
    let trap = context.trap_info();
    let Some(fixup) = find_fixup(table, offset, trap.scause, context.hstatus()) else {
        return false;
    };
    for (register, value) in
        TRAP_REGISTERS
            .into_iter()
            .zip([trap.scause, trap.stval, trap.htval, trap.htinst])
    {
        context.set_register(register, value);
    }
    context.set_pc(start + fixup);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPT: u64 = 1 << 63;
    const FAULT: u64 = HSTATUS_GVA;

    const TABLE: [Entry; 3] = [
        Entry {
            instruction: 0x10,
            fixup: 0x100,
            kind: SiteKind::Load as u16,
            reserved: 0,
        },
        Entry {
            instruction: 0x14,
            fixup: 0x200,
            kind: SiteKind::Fetch as u16,
            reserved: 0,
        },
        Entry {
            instruction: 0x20,
            fixup: 0x300,
            kind: SiteKind::Store as u16,
            reserved: 0,
        },
    ];

    #[test]
    fn i7_each_site_accepts_exactly_the_causes_it_can_raise() {
        let sites: [(usize, &[u64], usize); 3] = [
            (0x10, &[4, 5, 13, 21], 0x100),
            (0x14, &[0, 1, 4, 5, 12, 13, 20, 21], 0x200),
            (0x20, &[6, 7, 15, 21, 23], 0x300),
        ];
        for (offset, accepted, fixup) in sites {
            for scause in 0..64 {
                let expected = accepted.contains(&scause).then_some(fixup);
                assert_eq!(
                    find_fixup(&TABLE, offset, scause, FAULT),
                    expected,
                    "{offset:#x} cause {scause}"
                );
            }
        }
    }

    #[test]
    fn i6_interrupts_and_traps_from_a_guest_are_never_ours() {
        assert_eq!(find_fixup(&TABLE, 0x10, INTERRUPT | 5, FAULT), None);
        assert_eq!(find_fixup(&TABLE, 0x10, 13, FAULT | HSTATUS_SPV), None);
    }

    #[test]
    fn i6_pcs_outside_the_table_are_never_ours() {
        for offset in [0, 0xc, 0xe, 0x12, 0x18, 0x24, 0x10000 + 0x10, usize::MAX] {
            assert_eq!(find_fixup(&TABLE, offset, 13, FAULT), None);
        }
        assert_eq!(find_fixup(&[], 0x10, 13, FAULT), None);
    }

    #[test]
    fn r21_page_faults_need_gva_and_redirected_access_faults_do_not() {
        for scause in [13, 21] {
            assert_eq!(find_fixup(&TABLE, 0x10, scause, 0), None);
        }
        for scause in [4, 5] {
            assert_eq!(find_fixup(&TABLE, 0x10, scause, 0), Some(0x100));
        }
    }

    struct Frame {
        pc: usize,
        trap: TrapInfo,
        x: [u64; 32],
    }

    // SAFETY: the frame is all there is: no code is interrupted and none is resumed.
    unsafe impl TrapContext for Frame {
        fn pc(&self) -> usize {
            self.pc
        }
        fn trap_info(&self) -> TrapInfo {
            self.trap
        }
        fn hstatus(&self) -> u64 {
            FAULT
        }
        fn set_pc(&mut self, pc: usize) {
            self.pc = pc;
        }
        fn set_register(&mut self, x: usize, value: u64) {
            self.x[x] = value;
        }
    }

    #[test]
    fn a_recovered_trap_carries_its_csrs_to_the_fixup() {
        let trap = TrapInfo {
            scause: 21,
            stval: 0x1234,
            htval: 0x48d,
            htinst: 0x3000,
        };
        let mut frame = Frame {
            pc: 0x8020_0010,
            trap,
            x: [0; 32],
        };
        assert!(recover(&TABLE, 0x8020_0000, &mut frame));
        assert_eq!(frame.pc, 0x8020_0100);
        assert_eq!(
            [frame.x[5], frame.x[6], frame.x[7], frame.x[28]],
            [21, 0x1234, 0x48d, 0x3000]
        );
    }

    #[test]
    fn a_trap_that_is_not_ours_leaves_the_frame_alone() {
        let trap = TrapInfo {
            scause: 13,
            ..TrapInfo::default()
        };
        for pc in [0x8020_0000, 0x7fff_fff0] {
            let mut frame = Frame {
                pc,
                trap,
                x: [7; 32],
            };
            assert!(!recover(&TABLE, 0x8020_0000, &mut frame));
            assert_eq!((frame.pc, frame.x), (pc, [7; 32]));
        }
    }
}
