//! The routines of the access unit in Rust: their names, and how each is called.
//!
//! The one idea: no routine is called as C. Copies clobber what a C function may, and answer the trap of a fault in t1 to t4;
//! single accesses return by t0, clobber little and need no stack, so that the access around them needs no frame.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use crate::access::Width;
use crate::fault::TrapInfo;
use crate::hart::Interrupted;

/// Reads a CSR of a trap.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading these CSRs in HS-mode has no effect.
        unsafe {
            asm!(concat!("csrr {value}, ", $name), value = out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// A copy or a fill.
pub type Routine = unsafe extern "C" fn();

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

/// The single accesses of one form of recovery.
pub trait Singles: Copy {
    /// `hlv` of a width, zero-extended.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn load(self, address: u64, width: Width) -> Result<u64, TrapInfo>;

    /// `hsv` of a width.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn store(self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo>;

    /// `hlvx.hu`.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn fetch_parcel(self, address: u64) -> Result<u16, TrapInfo>;

    /// `hlvx.hu` once or twice. The second address does not wrap.
    ///
    /// # Safety
    ///
    /// The access window is open.
    unsafe fn fetch_instruction(self, address: u64) -> Result<u32, Interrupted>;
}

/// What a fault in the scoped form puts back, and room for its vector and routines. The access unit knows the layout
/// ([`frame`]).
#[derive(Debug)]
#[repr(C)]
pub struct ExitRecord {
    sepc: u64,
    scause: u64,
    stval: u64,
    htval: u64,
    htinst: u64,
    sstatus: u64,
    hstatus: u64,
    /// Registers of the interrupted routine while the vector runs, and the caller's that a long copy uses.
    scratch: UnsafeCell<[MaybeUninit<u64>; SCRATCH]>,
}

/// t1 to t4, a4, s3 to s9.
const SCRATCH: usize = 5 + 7;

/// Where the access unit finds the fields of an [`ExitRecord`].
pub mod frame {
    use core::mem::offset_of;

    use super::ExitRecord;

    pub const SEPC: usize = offset_of!(ExitRecord, sepc);
    pub const SCAUSE: usize = offset_of!(ExitRecord, scause);
    pub const STVAL: usize = offset_of!(ExitRecord, stval);
    pub const HTVAL: usize = offset_of!(ExitRecord, htval);
    pub const HTINST: usize = offset_of!(ExitRecord, htinst);
    pub const SSTATUS: usize = offset_of!(ExitRecord, sstatus);
    pub const HSTATUS: usize = offset_of!(ExitRecord, hstatus);
    pub const SCRATCH: usize = offset_of!(ExitRecord, scratch);
}

impl ExitRecord {
    /// The record as the CSRs of this hart have it.
    #[inline(always)]
    pub fn of_this_hart() -> Self {
        let now = RecordInRegisters::of_this_hart();
        Self {
            sepc: now.sepc,
            scause: now.scause,
            stval: now.stval,
            htval: now.htval,
            htinst: now.htinst,
            sstatus: now.sstatus,
            hstatus: now.hstatus,
            scratch: UnsafeCell::new([MaybeUninit::uninit(); SCRATCH]),
        }
    }
}

/// What a fault of a single access puts back.
#[derive(Clone, Copy, Debug)]
pub struct RecordInRegisters {
    sepc: u64,
    scause: u64,
    stval: u64,
    htval: u64,
    htinst: u64,
    sstatus: u64,
    hstatus: u64,
}

impl RecordInRegisters {
    /// The record as the CSRs of this hart have it.
    #[inline(always)]
    pub fn of_this_hart() -> Self {
        // htval, htinst and hstatus by their numbers, so that the assembler needs no extension.
        Self {
            sepc: read!("sepc"),
            scause: read!("scause"),
            stval: read!("stval"),
            htval: read!("0x643"),
            htinst: read!("0x64a"),
            sstatus: read!("sstatus"),
            hstatus: read!("0x600"),
        }
    }
}

/// The hook's form: the host's trap handler recovers faults.
#[derive(Clone, Copy, Debug)]
pub struct Hooked;

/// The scoped form, with the record of the time before a series of accesses.
#[derive(Clone, Copy, Debug)]
pub struct Scoped<'r>(pub &'r ExitRecord);

/// The address of the vector of copies, fills and series.
#[inline(always)]
fn scoped_vector() -> usize {
    unsafe extern "C" {
        static __guest_mem_scoped_vector: u8;
    }
    (&raw const __guest_mem_scoped_vector).addr()
}

/// The trap in four variables.
macro_rules! trap {
    ($scause:ident, $stval:ident, $htval:ident, $htinst:ident) => {
        TrapInfo {
            scause: $scause,
            stval: $stval,
            htval: $htval,
            htinst: $htinst,
        }
    };
}

/// Calls a single access with a0 and a1, and what else its form wants in registers. Answers a0, a1 and the trap.
///
/// A series calls by a register, which keeps the routine's address from one access to the next.
macro_rules! call_single {
    ($routine:ident, $value:expr, $address:expr, [by name, $($operands:tt)*]) => {
        call_single!(@ $routine, "call t0, {routine}", [sym $routine], $value, $address, [$($operands)*])
    };
    ($routine:ident, $value:expr, $address:expr, [by register, $($operands:tt)*]) => {
        call_single!(@ $routine, "jalr t0, {routine}", [in(reg) $routine as Routine], $value, $address, [$($operands)*])
    };
    (@ $routine:ident, $call:literal, [$($target:tt)*], $value:expr, $address:expr, [$($operands:tt)*]) => {{
        unsafe extern "C" {
            fn $routine();
        }
        let (value, faulted): (u64, u64);
        let (scause, stval, htval, htinst): (u64, u64, u64, u64);
        // SAFETY: the caller's promise. The routine's contract: it changes these registers, memory of the guest, and the
        // frame's scratch; it needs no stack.
        unsafe {
            asm!(
                $call,
                routine = $($target)*,
                inlateout("a0") $value => value,
                inlateout("a1") $address => faulted,
                out("t0") _,
                lateout("t1") scause,
                lateout("t2") stval,
                lateout("t3") htval,
                lateout("t4") htinst,
                lateout("t6") _,
                $($operands)*
                options(nostack),
            );
        }
        (value, faulted, trap!(scause, stval, htval, htinst))
    }};
}

/// Calls copies or fills by these instructions, which leave in a0 what the last one left there.
macro_rules! call_copies {
    ([$($instruction:literal)*] $($operands:tt)*) => {{
        let left: usize;
        let (scause, stval, htval, htinst): (u64, u64, u64, u64);
        // SAFETY: the caller's promise. The routine's contract: it changes registers that a C function may change, memory of
        // the guest and of the given host range, and the frame's scratch; it needs no stack.
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
                options(nostack),
            );
        }
        Ended {
            left,
            trap: trap!(scause, stval, htval, htinst),
        }
    }};
}

/// The address of a routine that is not called by name.
macro_rules! routine {
    ($name:ident) => {{
        unsafe extern "C" {
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

/// [`Singles`] of a form: the names of its routines, and its operands.
macro_rules! singles {
    (
        this: $self:ident;
        operands: $operands:tt;
        load: $load_1:ident $load_2:ident $load_4:ident $load_8:ident;
        store: $store_1:ident $store_2:ident $store_4:ident $store_8:ident;
        fetch: $fetch_parcel:ident $fetch_instruction:ident;
    ) => {
        #[inline(always)]
        unsafe fn load($self, address: u64, width: Width) -> Result<u64, TrapInfo> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = match width {
                Width::Byte => call_single!($load_1, unused, address, $operands),
                Width::Half => call_single!($load_2, unused, address, $operands),
                Width::Word => call_single!($load_4, unused, address, $operands),
                Width::Double => call_single!($load_8, unused, address, $operands),
            };
            if faulted == 0 { Ok(value) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn store($self, address: u64, width: Width, value: u64) -> Result<(), TrapInfo> {
            let (_, faulted, trap) = match width {
                Width::Byte => call_single!($store_1, value, address, $operands),
                Width::Half => call_single!($store_2, value, address, $operands),
                Width::Word => call_single!($store_4, value, address, $operands),
                Width::Double => call_single!($store_8, value, address, $operands),
            };
            if faulted == 0 { Ok(()) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn fetch_parcel($self, address: u64) -> Result<u16, TrapInfo> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = call_single!($fetch_parcel, unused, address, $operands);
            if faulted == 0 { Ok(value as u16) } else { Err(trap) }
        }

        #[inline(always)]
        unsafe fn fetch_instruction($self, address: u64) -> Result<u32, Interrupted> {
            let unused = MaybeUninit::<u64>::uninit();
            let (value, faulted, trap) = call_single!($fetch_instruction, unused, address, $operands);
            if faulted == 0 {
                return Ok(value as u32);
            }
            Err(Interrupted {
                completed: (faulted as usize - 1) * 2,
                trap,
            })
        }
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

impl Singles for Hooked {
    singles! {
        this: self;
        operands: [by name, out("t5") _,];
        load: __guest_mem_hook_load_1 __guest_mem_hook_load_2 __guest_mem_hook_load_4 __guest_mem_hook_load_8;
        store: __guest_mem_hook_store_1 __guest_mem_hook_store_2 __guest_mem_hook_store_4 __guest_mem_hook_store_8;
        fetch: __guest_mem_hook_fetch_parcel __guest_mem_hook_fetch_instruction;
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

impl Singles for Scoped<'_> {
    singles! {
        this: self;
        operands: [
            by register,
            in("s2") core::ptr::from_ref::<ExitRecord>(self.0),
            in("s3") scoped_vector(),
            out("t5") _,
        ];
        load: __guest_mem_series_load_1 __guest_mem_series_load_2 __guest_mem_series_load_4
            __guest_mem_series_load_8;
        store: __guest_mem_series_store_1 __guest_mem_series_store_2 __guest_mem_series_store_4
            __guest_mem_series_store_8;
        fetch: __guest_mem_series_fetch_parcel __guest_mem_series_fetch_instruction;
    }
}

impl Singles for RecordInRegisters {
    singles! {
        this: self;
        operands: [
            by name,
            inlateout("a2") self.sepc => _,
            inlateout("a3") self.scause => _,
            inlateout("a4") self.stval => _,
            inlateout("a5") self.htval => _,
            inlateout("a6") self.htinst => _,
            inlateout("a7") self.sstatus => _,
            inlateout("t5") self.hstatus => _,
        ];
        load: __guest_mem_scoped_load_1 __guest_mem_scoped_load_2 __guest_mem_scoped_load_4
            __guest_mem_scoped_load_8;
        store: __guest_mem_scoped_store_1 __guest_mem_scoped_store_2 __guest_mem_scoped_store_4
            __guest_mem_scoped_store_8;
        fetch: __guest_mem_scoped_fetch_parcel __guest_mem_scoped_fetch_instruction;
    }
}
