//! M-mode's CSRs that every hart with M-mode has.

crate::csr::csrs! {
    mstatus "0x300";
    medeleg "0x302";
    mideleg "0x303";
    mie "0x304";
    mtvec "0x305";
    mepc "0x341";
    mcause "0x342";
    mtval "0x343";
    mip "0x344";
    mtinst "0x34a";
    mhartid "0xf14";
    mtval2 "0x34b";
}

/// `mstatus.MPP`: the mode that a trap came from.
pub const MPP: u64 = 3 << 11;
/// `mstatus.MPP` of HS-mode.
pub const MPP_SUPERVISOR: u64 = 1 << 11;
/// `mstatus.MDT`: a trap now is a double trap (Smdbltrp).
pub const MDT: u64 = 1 << 42;
/// `mie`/`mip`: machine software interrupt.
pub const MACHINE_SOFTWARE: u64 = 1 << 3;
/// `mie`/`mip`: machine timer interrupt.
pub const MACHINE_TIMER: u64 = 1 << 7;
/// `mip`: supervisor software interrupt.
pub const SUPERVISOR_SOFTWARE: u64 = 1 << 1;
/// `mip`: supervisor timer interrupt.
pub const SUPERVISOR_TIMER: u64 = 1 << 5;
