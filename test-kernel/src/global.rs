//! State of the boot hart that its trap handler shares with the code it interrupts.

use core::cell::UnsafeCell;

/// A `Copy` value that only the boot hart touches, one volatile copy at a time.
pub struct Global<T>(UnsafeCell<T>);

// SAFETY: only the boot hart uses these values, so there are no two at once (of the other harts, one that ends its part for a
// reason leaves that reason in a value that the boot hart looks at after the end; of panics there is one at a time or the words
// of two are mixed, since every copy is volatile); the trap handler interleaves with whole copies only as far as either side tolerates (each user says so by
// reading after the trap that wrote).
unsafe impl<T> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    /// With a first value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// A copy of the value.
    pub fn get(&self) -> T {
        // SAFETY: the cell is initialised and nobody holds a reference into it.
        unsafe { self.0.get().read_volatile() }
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Replaces the value and answers the old one.
    pub fn replace(&self, value: T) -> T {
        let old = self.get();
        self.set(value);
        old
    }
}

impl<T> Global<T> {
    /// With a first value of a type that is used by its address only.
    pub const fn with(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Where the value is.
    pub const fn address(&self) -> *mut T {
        self.0.get()
    }
}
