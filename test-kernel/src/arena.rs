//! Pages for the tests: guest memory and page tables. A test takes what it wants; the runner takes all back.

use crate::global::Global;

unsafe extern "C" {
    static __arena_start: u8;
    static __arena_end: u8;
}

/// Bytes given away.
static USED: Global<u64> = Global::new(0);

/// Where the arena begins.
pub fn start() -> u64 {
    (&raw const __arena_start) as u64
}

/// A zeroed block of `size` bytes at a multiple of `size`, a power of two of at least 4096.
///
/// # Panics
///
/// If the arena is used up: the test takes too much.
pub fn take(size: u64) -> u64 {
    let end = (&raw const __arena_end) as u64;
    let block = (start() + USED.get()).next_multiple_of(size);
    assert!(block + size <= end, "the arena is used up");
    USED.set(block + size - start());
    // Where each instruction is simulated, much of a run is this loop: eight stores a round.
    for at in (block..block + size).step_by(64) {
        for word in 0..8 {
            write(at + 8 * word, 0);
        }
    }
    block
}

/// A zeroed page.
pub fn page() -> u64 {
    take(4096)
}

/// Everything is free again.
pub fn release_all() {
    USED.set(0);
}

/// Reads a naturally aligned integer of the arena, as the guest would find it there.
pub fn read(address: u64) -> u64 {
    // SAFETY: callers name addresses of blocks they took, or of the identity-mapped image.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes a naturally aligned integer of the arena.
pub fn write(address: u64, value: u64) {
    // SAFETY: callers name addresses of blocks they took.
    unsafe { (address as *mut u64).write_volatile(value) };
}

/// Whether `len` bytes at `address` lie in the arena.
pub fn contains(address: u64, len: u64) -> bool {
    address >= start() && address + len <= (&raw const __arena_end) as u64
}

/// Writes bytes of the arena, one at a time.
pub fn write_bytes(address: u64, bytes: impl IntoIterator<Item = u8>) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: callers name addresses of blocks they took.
        unsafe { (at as *mut u8).write_volatile(byte) };
    }
}

/// Reads a byte of the arena.
pub fn read_byte(address: u64) -> u8 {
    // SAFETY: callers name addresses of blocks they took.
    unsafe { (address as *const u8).read_volatile() }
}
