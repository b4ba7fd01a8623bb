//! Traps in HS-mode: the entry, and what becomes of each trap of the boot hart; those of the others go on to `harts`.
//!
//! The one idea: a trap is, in this order, the library's (its exception table knows the pc), an interrupt of a storm that a
//! test asked for, the answer to a raw access (`raw`), a breakpoint of a test's (`breakpoints`), or else the end of the
//! innermost [`catch`], of which the test runner holds the outermost. So no trap ends the run.
//!
//! There are two entries: that of a host whose handler calls the library first thing, and that of one which knows nothing of
//! it. Either saves every register, `sepc` and `sstatus`; the other CSRs of the trap are saved by whoever may trap again.

use core::arch::global_asm;
use core::fmt;
use core::mem::MaybeUninit;

use guest_mem::TrapInfo;
use guest_mem::hart::recovery::TrapContext;

use crate::csr;
use crate::global::Global;
use crate::{boot, breakpoints, harts, raw, storm};

/// Everything that the interrupted code has, and what the hardware wrote.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    /// The general registers; `x[0]` is unused.
    pub x: [u64; 32],
    /// `sepc`.
    pub sepc: u64,
    /// `sstatus`.
    pub sstatus: u64,
    /// `hstatus`, which `handle` saves, as the next.
    pub hstatus: u64,
    /// `scause`, `stval`, `htval`, `htinst`.
    pub info: TrapInfo,
    /// Keeps the stack 16-byte aligned.
    pub padding: u64,
}

/// A trap, as the hardware reported it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Trap {
    /// `scause`, `stval`, `htval`, `htinst`.
    pub info: TrapInfo,
    /// `sepc`.
    pub sepc: u64,
    /// `sstatus`.
    pub sstatus: u64,
    /// `hstatus`.
    pub hstatus: u64,
}

impl Trap {
    /// The trap of a frame.
    pub const fn of(frame: &Frame) -> Self {
        Self {
            info: frame.info,
            sepc: frame.sepc,
            sstatus: frame.sstatus,
            hstatus: frame.hstatus,
        }
    }

    /// The guest-physical address in `htval`, without its low two bits.
    pub const fn gpa(&self) -> u64 {
        self.info.htval << 2
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cause {} at {:#x} stval {:#x} htval {:#x} htinst {:#x} sstatus {:#x} hstatus {:#x}",
            self.info.scause as i64,
            self.sepc,
            self.info.stval,
            self.info.htval,
            self.info.htinst,
            self.sstatus,
            self.hstatus
        )
    }
}

global_asm!(
    r#"
    # In: the interrupted code's registers; sp is always a stack with room. All registers come back as the frame says.
    .macro TRAP_ENTRY name, handler
    .balign 4
    .globl  \name
\name:
    addi    sp, sp, -{size}
    sd      x1, 8(sp)
    .irp    n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, 8*\n(sp)
    .endr
    addi    t0, sp, {size}
    csrr    t1, sepc
    csrr    t2, sstatus
    sd      t0, 16(sp)
    sd      t1, 256(sp)
    sd      t2, 264(sp)
    mv      a0, sp
    call    \handler
    ld      t0, 256(sp)
    ld      t1, 264(sp)
    csrw    sepc, t0
    csrw    sstatus, t1
    .irp    n, 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, 8*\n(sp)
    .endr
    ld      sp, 16(sp)
    sret
    .endm

    .section .text.trap_entry, "ax", @progbits
    TRAP_ENTRY __trap_entry, {handle}
    TRAP_ENTRY __trap_entry_without_hook, {handle_other}

    .section .text
    .balign 4
    .globl __trap_catch
__trap_catch:
    # extern "C" fn(data: *mut u8, body: extern "C" fn(*mut u8), buffer: *mut [u64; 14]) -> u64
    # Runs body(data); returns 0, or 1 if a trap ended it: then the handler has put back what is saved here.
    sd      ra, 0(a2)
    sd      sp, 8(a2)
    sd      s0, 16(a2)
    sd      s1, 24(a2)
    sd      s2, 32(a2)
    sd      s3, 40(a2)
    sd      s4, 48(a2)
    sd      s5, 56(a2)
    sd      s6, 64(a2)
    sd      s7, 72(a2)
    sd      s8, 80(a2)
    sd      s9, 88(a2)
    sd      s10, 96(a2)
    sd      s11, 104(a2)
    addi    sp, sp, -16
    sd      ra, 0(sp)
    jalr    a1
    ld      ra, 0(sp)
    addi    sp, sp, 16
    li      a0, 0
    ret
    "#,
    size = const core::mem::size_of::<Frame>(),
    handle = sym handle,
    handle_other = sym handle_other,
);

/// ra, sp, s0 to s11 at a [`catch`].
type JumpBuffer = [u64; 14];

unsafe extern "C" {
    fn __trap_entry();
    fn __trap_entry_without_hook();
    fn __trap_catch(
        data: *mut u8,
        body: unsafe extern "C" fn(*mut u8),
        buffer: *mut JumpBuffer,
    ) -> u64;
}

/// The innermost [`catch`]'s buffer, or null.
static INNERMOST: Global<*mut JumpBuffer> = Global::new(core::ptr::null_mut());

/// The trap that ended the last [`catch`].
static CAUGHT: Global<Option<Frame>> = Global::new(None);

/// Whether the boot hart's handler calls the library.
static HOOKED: Global<bool> = Global::new(true);

/// Makes the boot hart's handler call the library, or not: a host with a scoped `stvec` has a handler that knows nothing of it.
/// Answers what it did before.
pub fn set_hook(hooked: bool) -> bool {
    let before = HOOKED.replace(hooked);
    install();
    before
}

/// The address of the trap entry, for `stvec`.
pub fn entry() -> u64 {
    if HOOKED.get() {
        __trap_entry as *const () as u64
    } else {
        __trap_entry_without_hook as *const () as u64
    }
}

struct Body<F, R> {
    function: Option<F>,
    result: MaybeUninit<R>,
}

unsafe extern "C" fn run_body<F: FnOnce() -> R, R>(data: *mut u8) {
    // SAFETY: `catch` passes its own `Body` of these very types, which nothing else uses meanwhile.
    let body = unsafe { &mut *data.cast::<Body<F, R>>() };
    if let Some(function) = body.function.take() {
        body.result.write(function());
    }
}

/// Runs `function`; a trap that is nobody else's ends it there, and is the answer. Nothing of what `function` owned is
/// dropped then.
pub fn catch<R: Copy>(function: impl FnOnce() -> R) -> Result<R, Trap> {
    fn start<F: FnOnce() -> R, R: Copy>(function: F) -> Result<R, Trap> {
        let mut body = Body {
            function: Some(function),
            result: MaybeUninit::uninit(),
        };
        let mut buffer = [0; 14];
        let outer = INNERMOST.replace(&raw mut buffer);
        // SAFETY: the buffer and the body live until the call returns, by either way; after that INNERMOST is the outer one
        // again.
        let trapped =
            unsafe { __trap_catch((&raw mut body).cast(), run_body::<F, R>, &raw mut buffer) };
        INNERMOST.set(outer);
        if trapped != 0 {
            return Err(CAUGHT
                .get()
                .map_or_else(Trap::default, |frame| Trap::of(&frame)));
        }
        // SAFETY: without a trap the body ran to its end and wrote the result.
        Ok(unsafe { body.result.assume_init() })
    }
    start(function)
}

/// Decides what becomes of a trap; the entry resumes at what the frame says then.
extern "C" fn handle(frame: &mut Frame) {
    if !guest_mem::try_fixup(frame) {
        handle_other(frame);
    }
}

/// The same where the library is not asked.
#[cold]
extern "C" fn handle_other(frame: &mut Frame) {
    let hart = harts::current();
    // The other harts' handler calls the library, whatever the boot hart's does.
    if hart != 0 && guest_mem::try_fixup(frame) {
        return;
    }
    frame.info = TrapInfo::from_csrs();
    frame.hstatus = csr::hstatus::read();
    if hart != 0 {
        harts::trapped(hart, frame);
    } else if (frame.info.scause as i64) < 0 {
        storm::interrupt(frame);
    } else if !raw::answers(frame)
        && !breakpoints::answers(frame)
        && !boot::serve_demand(frame.info.stval)
    {
        end_innermost(frame);
    }
    // SAFETY: what the interrupted code had.
    unsafe { csr::hstatus::write(frame.hstatus) };
}

// SAFETY: the entry filled the frame and nothing has trapped since, so that the other CSRs are still the trap's; the entry
// resumes at what the frame says.
unsafe impl TrapContext for Frame {
    fn pc(&self) -> usize {
        self.sepc as usize
    }

    fn trap_info(&self) -> TrapInfo {
        TrapInfo::from_csrs()
    }

    fn hstatus(&self) -> u64 {
        csr::hstatus::read()
    }

    fn set_pc(&mut self, pc: usize) {
        self.sepc = pc as u64;
    }

    fn set_register(&mut self, x: usize, value: u64) {
        self.x[x] = value;
    }
}

/// Makes the entry return from the innermost [`catch`] with the trap.
fn end_innermost(frame: &mut Frame) {
    let buffer = INNERMOST.get();
    CAUGHT.set(Some(*frame));
    assert!(
        !buffer.is_null(),
        "trap outside of any test: {:?}",
        Trap::of(frame)
    );
    // SAFETY: a buffer stays valid while it is the innermost.
    let saved = unsafe { *buffer };
    frame.sepc = saved[0];
    frame.x[1] = saved[0];
    frame.x[2] = saved[1];
    frame.x[8..=9].copy_from_slice(&saved[2..=3]);
    frame.x[18..=27].copy_from_slice(&saved[4..=13]);
    frame.x[10] = 1;
    // Back in HS-mode, interrupts off, whatever mode the trap came from.
    frame.sstatus = guest_mem::csr::STATUS_SPP;
    frame.hstatus &= !guest_mem::csr::HSTATUS_SPV;
}

/// The registers at the trap that ended the last [`catch`].
pub fn caught_registers() -> [u64; 32] {
    CAUGHT.get().map_or([0; 32], |frame| frame.x)
}

/// Whether a [`catch`] is running, so that a trap leads back to it.
pub fn is_caught() -> bool {
    !INNERMOST.get().is_null()
}

/// Puts the HS trap vector back, after code that had its own.
pub fn install() {
    // SAFETY: the kernel's own entry.
    unsafe { csr::stvec::write(entry()) };
}
