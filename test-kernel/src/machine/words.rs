//! HTIF's two words of this image, `tohost` and `fromhost`, which a host finds by their symbols.

use core::arch::global_asm;

use crate::shim::htif::{Htif, Words};

// HTIF wants both symbols with the size 8. The page is theirs: a machine may put a device in its place.
global_asm!(
    r#"
    .section .htif, "aw", @progbits
    .balign 64
    .globl tohost
    .type tohost, @object
    .size tohost, 8
tohost:
    .dword 0
    .balign 64
    .globl fromhost
    .type fromhost, @object
    .size fromhost, 8
fromhost:
    .dword 0
    "#
);

unsafe extern "C" {
    static mut tohost: u64;
    static mut fromhost: u64;
}

/// The words, in the image.
struct OfImage;

// Volatile accesses, since the host reads and writes them, too.
impl Words for OfImage {
    fn tohost(&self) -> u64 {
        // SAFETY: the two words are HTIF's alone.
        unsafe { (&raw const tohost).read_volatile() }
    }

    fn set_tohost(&self, word: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut tohost).write_volatile(word) }
    }

    fn fromhost(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const fromhost).read_volatile() }
    }

    fn clear_fromhost(&self) {
        // SAFETY: as above.
        unsafe { (&raw mut fromhost).write_volatile(0) }
    }
}

static HTIF: Htif<OfImage> = Htif::new(OfImage);

/// Prints a byte, if there is a host.
pub fn print(byte: u8) {
    HTIF.print(byte);
}

/// Ends the run with an exit code. A host that misses the word is told again.
pub fn end(code: u8) -> ! {
    loop {
        HTIF.end(code);
    }
}
