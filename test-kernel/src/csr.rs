//! The CSRs that the tests read and write, one module each, by number.
//!
//! Numbers, since whether the assembler knows a name depends on the extensions it was told of.

macro_rules! csrs {
    ($($name:ident $number:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` (", $number, ").")]
        pub mod $name {
            use core::arch::asm;

            /// Reads it.
            #[allow(dead_code, reason = "every CSR gets the same four accessors")]
            pub fn read() -> u64 {
                let value: u64;
                // SAFETY: reading this CSR changes nothing.
                unsafe { asm!(concat!("csrr {}, ", $number), out(reg) value) };
                value
            }

            /// Writes it.
            ///
            /// # Safety
            ///
            /// The code that runs next survives the new value.
            #[allow(dead_code, reason = "every CSR gets the same four accessors")]
            pub unsafe fn write(value: u64) {
                // SAFETY: the caller's.
                unsafe { asm!(concat!("csrw ", $number, ", {}"), in(reg) value) };
            }

            /// Sets bits of it.
            ///
            /// # Safety
            ///
            /// As `write`.
            #[allow(dead_code, reason = "every CSR gets the same four accessors")]
            pub unsafe fn set(bits: u64) {
                // SAFETY: the caller's.
                unsafe { asm!(concat!("csrs ", $number, ", {}"), in(reg) bits) };
            }

            /// Clears bits of it.
            ///
            /// # Safety
            ///
            /// As `write`.
            #[allow(dead_code, reason = "every CSR gets the same four accessors")]
            pub unsafe fn clear(bits: u64) {
                // SAFETY: the caller's.
                unsafe { asm!(concat!("csrc ", $number, ", {}"), in(reg) bits) };
            }
        }
    )*};
}

pub(crate) use csrs;

csrs! {
    sstatus "0x100";
    sie "0x104";
    stvec "0x105";
    scounteren "0x106";
    senvcfg "0x10a";
    sscratch "0x140";
    sepc "0x141";
    scause "0x142";
    stval "0x143";
    sip "0x144";
    satp "0x180";
    vsstatus "0x200";
    vsie "0x204";
    vstvec "0x205";
    vsscratch "0x240";
    vsepc "0x241";
    vscause "0x242";
    vstval "0x243";
    vsip "0x244";
    vsatp "0x280";
    hstatus "0x600";
    hedeleg "0x602";
    hideleg "0x603";
    hie "0x604";
    hcounteren "0x606";
    henvcfg "0x60a";
    htval "0x643";
    hip "0x644";
    hvip "0x645";
    htinst "0x64a";
    hgatp "0x680";
    cycle "0xc00";
    time "0xc01";
}
