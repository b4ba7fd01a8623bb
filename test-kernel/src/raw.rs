//! The H extension's accesses by themselves: the one file outside the library with `hlv`, `hlvx` and `hsv` in it.
//!
//! The one idea: what the machine does with a single instruction is the measure of everything else, so each is a routine of
//! its own that runs under whatever the CSRs hold, and whose trap, if any, is the answer instead of an accident.

use core::arch::global_asm;

use crate::global::Global;
use crate::trap::{Frame, Trap};

/// Makes one routine an instruction, `extern "C" fn(address, value) -> value`.
macro_rules! accesses {
    ($($(#[$doc:meta])* $name:ident $symbol:ident $instruction:literal;)*) => {
        global_asm!(
            ".section .text.raw, \"ax\"",
            ".option push",
            ".option arch, +h",
            ".option arch, +svinval",
            ".option norvc",
            ".balign 4",
            ".globl __raw_start",
            "__raw_start:",
            $(
                concat!(".globl ", stringify!($symbol)),
                concat!(stringify!($symbol), ":"),
                $instruction,
                "ret",
            )*
            // The same access at an address that is a multiple of two only, after a compressed instruction (R23).
            ".option rvc",
            ".balign 4",
            ".globl __raw_after_c_nop",
            "__raw_after_c_nop:",
            "c.nop",
            "hlv.d a0, (a0)",
            "ret",
            ".globl __raw_end",
            "__raw_end:",
            ".option pop",
        );
        unsafe extern "C" {
            $(fn $symbol(address: u64, value: u64) -> u64;)*
        }

        /// Every instruction here by name, as the word that a guest executes: it takes its address in a0.
        pub fn words() -> impl Iterator<Item = (&'static str, u32)> {
            [$((stringify!($name), $symbol as *const u32)),*]
                .into_iter()
                // SAFETY: each routine begins with its instruction, 4 bytes at a multiple of 2.
                .map(|(name, start)| (name, unsafe { start.read_unaligned() }))
        }
        $(
            $(#[$doc])*
            pub fn $name(address: u64, value: u64) -> Result<u64, Trap> {
                one($symbol, address, value)
            }
        )*
    };
}

accesses! {
    /// `hlv.b`.
    hlv_b __raw_hlv_b "hlv.b a0, (a0)";
    /// `hlv.bu`.
    hlv_bu __raw_hlv_bu "hlv.bu a0, (a0)";
    /// `hlv.h`.
    hlv_h __raw_hlv_h "hlv.h a0, (a0)";
    /// `hlv.hu`.
    hlv_hu __raw_hlv_hu "hlv.hu a0, (a0)";
    /// `hlv.w`.
    hlv_w __raw_hlv_w "hlv.w a0, (a0)";
    /// `hlv.wu`.
    hlv_wu __raw_hlv_wu "hlv.wu a0, (a0)";
    /// `hlv.d`.
    hlv_d __raw_hlv_d "hlv.d a0, (a0)";
    /// `hlvx.hu`.
    hlvx_hu __raw_hlvx_hu "hlvx.hu a0, (a0)";
    /// `hlvx.wu`.
    hlvx_wu __raw_hlvx_wu "hlvx.wu a0, (a0)";
    /// `hsv.b`.
    hsv_b __raw_hsv_b "hsv.b a1, (a0)";
    /// `hsv.h`.
    hsv_h __raw_hsv_h "hsv.h a1, (a0)";
    /// `hsv.w`.
    hsv_w __raw_hsv_w "hsv.w a1, (a0)";
    /// `hsv.d`.
    hsv_d __raw_hsv_d "hsv.d a1, (a0)";
    /// An ordinary load of the host's.
    host_ld __raw_host_ld "ld a0, 0(a0)";
    /// `hfence.vvma` of a page.
    hfence_vvma_page __raw_hfence_vvma_page "hfence.vvma a0, x0";
    /// `hfence.vvma` of an ASID.
    hfence_vvma_asid __raw_hfence_vvma_asid "hfence.vvma x0, a0";
    /// `hfence.vvma` of everything of the current VMID.
    hfence_vvma_all __raw_hfence_vvma_all "hfence.vvma x0, x0";
    /// `hfence.gvma` of a page: its guest-physical address shifted right by 2.
    hfence_gvma_page __raw_hfence_gvma_page "hfence.gvma a0, x0";
    /// `hfence.gvma` of a VMID.
    hfence_gvma_vmid __raw_hfence_gvma_vmid "hfence.gvma x0, a0";
    /// `hfence.gvma` of everything.
    hfence_gvma_all __raw_hfence_gvma_all "hfence.gvma x0, x0";
    /// `hinval.vvma` of a page.
    hinval_vvma_page __raw_hinval_vvma_page "hinval.vvma a0, x0";
    /// `hinval.gvma` of a page: its guest-physical address shifted right by 2.
    hinval_gvma_page __raw_hinval_gvma_page "hinval.gvma a0, x0";
    /// `sfence.w.inval`.
    sfence_w_inval __raw_sfence_w_inval "sfence.w.inval";
    /// `sfence.inval.ir`.
    sfence_inval_ir __raw_sfence_inval_ir "sfence.inval.ir";
    /// A breakpoint.
    breakpoint __raw_breakpoint "ebreak";
    /// `hlv.d` at an address that is no multiple of four.
    hlv_d_after_c_nop __raw_after_c_nop_again "j __raw_after_c_nop";
}

unsafe extern "C" {
    static __raw_start: u8;
    static __raw_end: u8;
    static __raw_after_c_nop: u8;
}

/// The trap of the access that is running, if it took one.
static ANSWER: Global<Option<Trap>> = Global::new(None);

fn one(
    routine: unsafe extern "C" fn(u64, u64) -> u64,
    address: u64,
    value: u64,
) -> Result<u64, Trap> {
    ANSWER.set(None);
    // SAFETY: what a guest access reaches is the arena's, as the tables of the test say; `host_ld` reads only; a trap comes
    // back through `answers`.
    let value = unsafe { routine(address, value) };
    match ANSWER.get() {
        Some(trap) => Err(trap),
        None => Ok(value),
    }
}

/// The pc of the `hlv.d` in [`hlv_d_after_c_nop`].
pub fn after_c_nop() -> u64 {
    (&raw const __raw_after_c_nop) as u64 + 2
}

/// Takes the trap if it is that of a routine here, which then goes on after its instruction: they are all 4 bytes long.
pub fn answers(frame: &mut Frame) -> bool {
    let range = (&raw const __raw_start) as u64..(&raw const __raw_end) as u64;
    if frame.hstatus & guest_mem::csr::HSTATUS_SPV != 0 || !range.contains(&frame.sepc) {
        return false;
    }
    ANSWER.set(Some(Trap::of(frame)));
    frame.sepc += 4;
    true
}
