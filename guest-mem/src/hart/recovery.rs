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

impl SiteKind {
    const ALL: [Self; 3] = [Self::Load, Self::Fetch, Self::Store];
}

/// One entry of the exception table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the instruction from the start of the access unit.
    pub instruction: u16,
    /// Offset of the code that goes on after a fault there.
    pub fixup: u16,
    /// What the instruction is.
    pub kind: SiteKind,
}

/// The exception table as the assembly unit emits it: 16 bits for each of its instructions, all of which have 4 bytes: 0
/// where none may fault, else the fixup's offset plus the kind in the two low bits.
#[derive(Clone, Copy, Debug)]
pub struct ExceptionTable<'t>(pub(crate) &'t [u16]);

impl<'t> ExceptionTable<'t> {
    /// The entry of the instruction at an offset from the start of the access unit.
    #[inline]
    pub fn find(self, instruction: usize) -> Option<Entry> {
        let entry = self.look_up(instruction)?;
        Some(Entry {
            instruction: instruction as u16,
            fixup: entry & !3,
            kind: *SiteKind::ALL.get(usize::from(entry & 3))?,
        })
    }

    /// What the table has for the instruction at an offset from the start of the access unit, if that may fault.
    #[inline]
    fn look_up(self, instruction: usize) -> Option<u16> {
        if !instruction.is_multiple_of(4) {
            return None;
        }
        // Code begins with a routine, so that no fixup has the offset 0.
        self.0
            .get(instruction / 4)
            .copied()
            .filter(|&entry| entry != 0)
    }

    /// The entries in the order of their instructions.
    pub fn iter(self) -> impl Iterator<Item = Entry> + use<'t> {
        (0..self.0.len()).filter_map(move |index| self.find(index * 4))
    }
}

/// The bit of [`SITE_CAUSES`] from which on a cause needs no `hstatus.GVA`.
pub(crate) const WITHOUT_GVA: u32 = 32;

/// Causes that an access can raise, as an entry of [`SITE_CAUSES`]: some may come with `hstatus.GVA` clear, the others not.
const fn site_causes(without_gva: u32, with_gva: u32) -> u64 {
    (without_gva as u64) << WITHOUT_GVA | (without_gva | with_gva) as u64
}

/// The causes of a load that may come through the firmware's redirect, with `hstatus.GVA` clear (R21).
const LOAD_WITHOUT_GVA: u32 = cause::bits(&[cause::LOAD_MISALIGNED, cause::LOAD_ACCESS]);

/// The others that an `hlv` can raise: the load's; the store's of its A/D update, by machines that report an implicit access as
/// what it is (R68, R69); and a hardware error of what it loads. The host's own fetch of the `hlv` may meet such an error, too,
/// and that is the host's: GVA tells them apart (R92).
const LOAD_WITH_GVA: u32 = cause::bits(&[
    cause::LOAD_PAGE,
    cause::LOAD_GUEST_PAGE,
    cause::STORE_ACCESS,
    cause::STORE_GUEST_PAGE,
    cause::HARDWARE_ERROR,
]);

/// The causes that each [`SiteKind`] can raise (I7), as bits: by the specification, or on a machine that is listed. The upper
/// half has those for which `hstatus.GVA` need not be set (R21).
///
/// `hlvx` raises load causes by the specification (R6) and fetch causes on QEMU since 8.1 (R60). An `hsv` raises the causes of a
/// load for its page-table reads on QEMU before 8.1 (R67), and for all that PMP refuses on CVA6 (R69).
pub(crate) const SITE_CAUSES: [u64; 4] = [
    site_causes(LOAD_WITHOUT_GVA, LOAD_WITH_GVA),
    site_causes(
        LOAD_WITHOUT_GVA | cause::bits(&[cause::INSTRUCTION_MISALIGNED, cause::INSTRUCTION_ACCESS]),
        LOAD_WITH_GVA | cause::bits(&[cause::INSTRUCTION_PAGE, cause::INSTRUCTION_GUEST_PAGE]),
    ),
    site_causes(
        cause::bits(&[
            cause::STORE_MISALIGNED,
            cause::STORE_ACCESS,
            cause::LOAD_ACCESS,
        ]),
        cause::bits(&[
            cause::STORE_PAGE,
            cause::STORE_GUEST_PAGE,
            cause::LOAD_GUEST_PAGE,
            cause::HARDWARE_ERROR,
        ]),
    ),
    // There is no fourth kind.
    0,
];

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

    /// Makes the handler return with general register `x` (6, 7, 28 or 29) holding `value`.
    fn set_register(&mut self, x: usize, value: u64);
}

/// Registers in which a fixup expects `scause`, `stval`, `htval` and `htinst`: t1 to t4.
const TRAP_REGISTERS: [usize; 4] = [6, 7, 28, 29];

/// The fixup offset for a trap at `offset` bytes into the access unit, if the trap is a guest-access fault.
#[inline]
pub(crate) fn find_fixup(
    table: ExceptionTable,
    offset: usize,
    scause: u64,
    hstatus: u64,
) -> Option<usize> {
    let entry = table.look_up(offset)?;
    // Not from a guest, and with a guest-virtual address in stval, which some causes may lack.
    let causes = SITE_CAUSES[usize::from(entry & 3)];
    let accepted = match hstatus & (HSTATUS_SPV | HSTATUS_GVA) {
        HSTATUS_GVA => causes as u32,
        0 => (causes >> WITHOUT_GVA) as u32,
        _ => 0,
    };
    (accepted & cause::bit(scause) != 0).then_some(usize::from(entry & !3))
}

/// Sends `context` to its fixup if it is a guest-access fault of the unit at `start` with `table`.
#[cfg_attr(
    not(any(test, target_arch = "riscv64")),
    expect(dead_code, reason = "only real harts take traps")
)]
#[inline]
pub(crate) fn recover(table: ExceptionTable, start: usize, context: &mut impl TrapContext) -> bool {
    // A pc below the unit is far above it, so.
    let offset = context.pc().wrapping_sub(start);
    let trap = context.trap_info();
    let Some(fixup) = find_fixup(table, offset, trap.scause, context.hstatus()) else {
        return false;
    };
    let [scause, stval, htval, htinst] = TRAP_REGISTERS;
    context.set_register(scause, trap.scause);
    context.set_register(stval, trap.stval);
    context.set_register(htval, trap.htval);
    context.set_register(htinst, trap.htinst);
    context.set_pc(start + fixup);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPT: u64 = 1 << 63;
    const FAULT: u64 = HSTATUS_GVA;

    /// An `hlv` at 0x10, an `hlvx` at 0x14, an `hsv` at 0x20.
    const TABLE: ExceptionTable =
        ExceptionTable(&[0, 0, 0, 0, 0x100, 0x201, 0, 0, 0x302, 0, 0x303]);

    #[test]
    fn the_entries_are_those_of_the_instructions_that_may_fault() {
        let of = |entry: Entry| (entry.instruction, entry.fixup, entry.kind);
        let found = TABLE.iter().map(of);
        assert!(found.eq([
            (0x10, 0x100, SiteKind::Load),
            (0x14, 0x200, SiteKind::Fetch),
            (0x20, 0x300, SiteKind::Store),
        ]));
    }

    #[test]
    fn i7_each_site_accepts_exactly_the_causes_it_can_raise() {
        let sites: [(usize, &[u64], usize); 3] = [
            (0x10, &[4, 5, 7, 13, 19, 21, 23], 0x100),
            (0x14, &[0, 1, 4, 5, 7, 12, 13, 19, 20, 21, 23], 0x200),
            (0x20, &[5, 6, 7, 15, 19, 21, 23], 0x300),
        ];
        for (offset, accepted, fixup) in sites {
            for scause in 0..64 {
                let expected = accepted.contains(&scause).then_some(fixup);
                assert_eq!(
                    find_fixup(TABLE, offset, scause, FAULT),
                    expected,
                    "{offset:#x} cause {scause}"
                );
            }
        }
    }

    #[test]
    fn i6_interrupts_and_traps_from_a_guest_are_never_ours() {
        assert_eq!(find_fixup(TABLE, 0x10, INTERRUPT | 5, FAULT), None);
        assert_eq!(find_fixup(TABLE, 0x10, 13, FAULT | HSTATUS_SPV), None);
    }

    #[test]
    fn i6_pcs_outside_the_table_are_never_ours() {
        for offset in [
            0,
            0xc,
            0xe,
            0x11,
            0x12,
            0x18,
            0x24,
            0x28,
            0x10000 + 0x10,
            usize::MAX,
        ] {
            assert_eq!(find_fixup(TABLE, offset, 13, FAULT), None);
        }
        assert_eq!(find_fixup(ExceptionTable(&[]), 0x10, 13, FAULT), None);
    }

    #[test]
    fn r21_page_faults_need_gva_and_redirected_access_faults_do_not() {
        let sites: [(usize, &[u64], usize); 3] = [
            (0x10, &[4, 5], 0x100),
            (0x14, &[0, 1, 4, 5], 0x200),
            (0x20, &[5, 6, 7], 0x300),
        ];
        for (offset, accepted, fixup) in sites {
            for scause in 0..64 {
                let expected = accepted.contains(&scause).then_some(fixup);
                let found = find_fixup(TABLE, offset, scause, 0);
                assert_eq!(found, expected, "{offset:#x} cause {scause}");
            }
        }
    }

    /// The fetch of the `hlv`, `hlvx` or `hsv` itself can raise it as well, and then `stval` is no guest-virtual address.
    #[test]
    fn r92_a_hardware_error_without_gva_is_the_hosts() {
        for (offset, fixup) in [(0x10, 0x100), (0x14, 0x200), (0x20, 0x300)] {
            let found = |hstatus| find_fixup(TABLE, offset, cause::HARDWARE_ERROR, hstatus);
            assert_eq!(found(0), None, "{offset:#x}");
            assert_eq!(found(FAULT), Some(fixup), "{offset:#x}");
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
        assert!(recover(TABLE, 0x8020_0000, &mut frame));
        assert_eq!(frame.pc, 0x8020_0100);
        assert_eq!(
            [frame.x[6], frame.x[7], frame.x[28], frame.x[29]],
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
            assert!(!recover(TABLE, 0x8020_0000, &mut frame));
            assert_eq!((frame.pc, frame.x), (pc, [7; 32]));
        }
    }
}
