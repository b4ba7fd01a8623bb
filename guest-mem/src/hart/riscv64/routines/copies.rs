//! Copies and fills: their names, and how each is called.
//!
//! The one idea: a routine wants the host's side in a0, the guest's in a1 and the length in a2, and leaves in a0 what is left. In
//! the scoped form the library's vector is put into `stvec` around it, or around the three parts of a copy.

use core::arch::asm;

use super::{Hooked, Routine, Scoped, scoped_vector};
use crate::fault::TrapInfo;
use crate::hart::riscv64::record::ExitRecord;

/// The copy routines of one form and direction.
#[derive(Debug)]
pub struct ToOneSide {
    /// By log2 of the element.
    pub elements: [Routine; 4],
    /// For addresses that no double fits together; whole doubles are written.
    pub merge: Routine,
    /// Whether the guest's side is the one that is written.
    pub to_guest: bool,
}

/// A copy as head, body and tail, one after another. Head and tail may have no bytes, the body has some.
#[derive(Clone, Copy, Debug)]
pub struct Three {
    /// The routine of head and tail.
    pub narrow: Routine,
    /// That of the body.
    pub wide: Routine,
    pub head: usize,
    pub body: usize,
    pub tail: usize,
}

/// How a copy or a fill ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The bytes left: 0 unless a fault ended it.
    pub left: usize,
    /// The trap, if a fault ended it, and it was no merging copy.
    pub trap: TrapInfo,
}

/// The copies and fills of one form of recovery.
pub trait Copies: Copy {
    const FROM_GUEST: ToOneSide;
    const TO_GUEST: ToOneSide;
    /// Fills with a byte in every lane of the value, by single bytes.
    const FILL_1: Routine;
    /// The same by doubles.
    const FILL_8: Routine;

    /// Runs a copy or a fill of this form.
    ///
    /// # Safety
    ///
    /// The host range is valid for the copy's direction; the access window is open; the addresses are aligned to the
    /// routine's element and the length, which is not 0, is a multiple of it.
    unsafe fn run(self, routine: Routine, host: usize, guest: u64, len: usize) -> Ended;

    /// Runs the three parts of a copy, up to one that a fault ends. Answers how far from the start the last one reaches that
    /// was run, and how it ended.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run), for each.
    #[inline(always)]
    unsafe fn run_three(self, three: &Three, host: usize, guest: u64) -> (usize, Ended) {
        let Three {
            head, body, tail, ..
        } = *three;
        // SAFETY: the caller's promise.
        let run = |routine, from, len| unsafe {
            self.run(routine, host + from, guest.wrapping_add(from as u64), len)
        };
        if head != 0 {
            let ended = run(three.narrow, 0, head);
            if ended.left != 0 {
                return (head, ended);
            }
        }
        let ended = run(three.wide, head, body);
        if ended.left != 0 || tail == 0 {
            return (head + body, ended);
        }
        (head + body + tail, run(three.narrow, head + body, tail))
    }
}

/// Calls copies or fills by these instructions, which leave in a0 what the last one left there.
macro_rules! call_copies {
    ([$($instruction:literal)*] $($operands:tt)*) => {{
        let left: usize;
        let (scause, stval, htval, htinst): (u64, u64, u64, u64);
        // SAFETY: the caller's promise. The routine's contract: it changes registers that a C function may change, memory of
        // the guest and of the given host range, and the frame's scratch, and at most 64 bytes of the stack.
        unsafe {
            asm!(
                $($instruction,)*
                $($operands)*
                lateout("a0") left,
                lateout("t1") scause,
                lateout("t2") stval,
                lateout("t3") htval,
                lateout("t4") htinst,
                clobber_abi("C"),
            );
        }
        Ended {
            left,
            trap: TrapInfo {
                scause,
                stval,
                htval,
                htinst,
            },
        }
    }};
}

/// The address of a routine that is not called by name.
macro_rules! routine {
    ($name:ident) => {{
        unsafe extern "C" {
            #[link_name = symbol!($name)]
            fn $name();
        }
        $name as Routine
    }};
}

/// [`Copies`] of a form: the names of its routines.
macro_rules! copies {
    (
        from: $from_1:ident $from_2:ident $from_4:ident $from_8:ident $merge_from:ident;
        to: $to_1:ident $to_2:ident $to_4:ident $to_8:ident $merge_to:ident;
        fill: $fill_1:ident $fill_8:ident;
    ) => {
        const FROM_GUEST: ToOneSide = ToOneSide {
            elements: [
                routine!($from_1),
                routine!($from_2),
                routine!($from_4),
                routine!($from_8),
            ],
            merge: routine!($merge_from),
            to_guest: false,
        };
        const TO_GUEST: ToOneSide = ToOneSide {
            elements: [
                routine!($to_1),
                routine!($to_2),
                routine!($to_4),
                routine!($to_8),
            ],
            merge: routine!($merge_to),
            to_guest: true,
        };
        const FILL_1: Routine = routine!($fill_1);
        const FILL_8: Routine = routine!($fill_8);
    };
}

impl Copies for Hooked {
    copies! {
        from: __guest_mem_hook_copy_from_1 __guest_mem_hook_copy_from_2 __guest_mem_hook_copy_from_4
            __guest_mem_hook_copy_from_8 __guest_mem_hook_merge_from;
        to: __guest_mem_hook_copy_to_1 __guest_mem_hook_copy_to_2 __guest_mem_hook_copy_to_4
            __guest_mem_hook_copy_to_8 __guest_mem_hook_merge_to;
        fill: __guest_mem_hook_fill_1 __guest_mem_hook_fill_8;
    }

    #[inline(always)]
    unsafe fn run(self, routine: Routine, host: usize, guest: u64, len: usize) -> Ended {
        call_copies!(["jalr {routine}"]
            routine = in(reg) routine, in("a0") host, inlateout("a1") guest => _, inlateout("a2") len => _,)
    }
}

impl Copies for Scoped<'_> {
    copies! {
        from: __guest_mem_scoped_copy_from_1 __guest_mem_scoped_copy_from_2 __guest_mem_scoped_copy_from_4
            __guest_mem_scoped_copy_from_8 __guest_mem_scoped_merge_from;
        to: __guest_mem_scoped_copy_to_1 __guest_mem_scoped_copy_to_2 __guest_mem_scoped_copy_to_4
            __guest_mem_scoped_copy_to_8 __guest_mem_scoped_merge_to;
        fill: __guest_mem_scoped_fill_1 __guest_mem_scoped_fill_8;
    }

    #[inline(always)]
    unsafe fn run(self, routine: Routine, host: usize, guest: u64, len: usize) -> Ended {
        call_copies!(["li t6, 0" "csrrw t5, stvec, {vector}" "jalr {routine}" "csrw stvec, t5"]
            routine = in(reg) routine,
            vector = in(reg) scoped_vector(),
            in("a0") host,
            inlateout("a1") guest => _,
            inlateout("a2") len => _,
            in("s2") core::ptr::from_ref::<ExitRecord>(self.0),
            out("t5") _,
            out("t6") _,
        )
    }

    /// The vector is put into `stvec` once for the three.
    #[inline(always)]
    unsafe fn run_three(self, three: &Three, host: usize, guest: u64) -> (usize, Ended) {
        let reached: usize;
        let ended = call_copies!([
            "li t6, 0"
            "csrrw t5, stvec, {vector}"
            "mv s10, s5"
            "beqz s5, 2f"
            "mv a0, s3"
            "mv a1, s4"
            "mv a2, s5"
            "jalr s8"
            "bnez a0, 3f"
            "2:"
            "add a0, s3, s5"
            "add a1, s4, s5"
            "mv a2, s6"
            "add s10, s5, s6"
            "jalr s9"
            "bnez a0, 3f"
            "beqz s7, 3f"
            "add a0, s3, s10"
            "add a1, s4, s10"
            "mv a2, s7"
            "add s10, s10, s7"
            "jalr s8"
            "3:"
            "csrw stvec, t5"
        ]
            vector = in(reg) scoped_vector(),
            in("s2") core::ptr::from_ref::<ExitRecord>(self.0),
            in("s3") host,
            in("s4") guest,
            in("s5") three.head,
            in("s6") three.body,
            in("s7") three.tail,
            in("s8") three.narrow,
            in("s9") three.wide,
            out("s10") reached,
            out("t5") _,
            out("t6") _,
        );
        (reached, ended)
    }
}
