//! Moving guest bytes through the host's own mapping.
//!
//! The one idea: guests change this memory at any time, so it is touched only by the accesses of
//! [`guest_bytes`], at raw pointers: no reference, no `memcpy` (invariant 2, R77). There is one
//! mover, of doubles that are aligned on both sides where that can be, from any [`Source`] to any
//! [`Sink`]: guest memory is either, the host's buffer is the other, and a fill has a source
//! without memory.

use crate::access::Width;
use crate::guest_bytes;

mod single;

pub(crate) use single::{compare_exchange, load, store};
pub(super) use single::{load_device, store_device};

const DOUBLE: usize = size_of::<u64>();

/// Doubles that are loaded together, to be stored together: as many as there are registers that
/// nobody has to save.
const TOGETHER: usize = 8;

/// Doubles that the loops move before they look at their counter.
const UNROLL: usize = 2 * TOGETHER;

/// The same of loops that merge, which need registers for more than the doubles.
const MERGED: usize = 4;

/// Where a copy is on one of its sides.
trait Side: Copy {
    /// Whether the units of the copy's ends are those that are aligned here: what an aligned access
    /// of the guest's moves whole stays whole.
    const IS_GUEST: bool;

    /// The address there.
    fn address(self) -> usize;

    /// So many bytes later, or earlier if the number has wrapped.
    fn later(self, bytes: usize) -> Self;
}

/// A side that bytes are taken from.
trait Source: Side {
    /// The double `OFFSET` bytes from here.
    ///
    /// # Safety
    ///
    /// Its bytes are within the copy, and aligned to 8.
    unsafe fn double<const OFFSET: usize>(self) -> u64;

    /// What a register gets of the next bytes.
    ///
    /// # Safety
    ///
    /// They are within the copy, and aligned to `width` if this is the guest's side.
    unsafe fn unit(self, width: Width) -> u64;

    /// How far into a double this side is where the other is at the start of one.
    #[inline(always)]
    fn lag(self, sink: impl Sink) -> usize {
        self.address().wrapping_sub(sink.address()) % DOUBLE
    }
}

/// A side that bytes go to.
trait Sink: Side {
    /// Puts a double `OFFSET` bytes from here.
    ///
    /// # Safety
    ///
    /// As [`Source::double`].
    unsafe fn put_double<const OFFSET: usize>(self, double: u64);

    /// Puts the low bits of `value` here.
    ///
    /// # Safety
    ///
    /// As [`Source::unit`].
    unsafe fn put_unit(self, width: Width, value: u64);

    /// The same place, of which the compiler does not know where it comes from. A loop that ends at
    /// an address costs an instruction a round less so: the compiler adds no counter.
    fn unknown(self) -> Self;
}

/// Guest memory. For what is only read the pointer may be one that nothing may be written through.
#[derive(Clone, Copy)]
struct Guest(*mut u8);

impl Side for Guest {
    const IS_GUEST: bool = true;

    #[inline(always)]
    fn address(self) -> usize {
        self.0.addr()
    }

    #[inline(always)]
    fn later(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl Source for Guest {
    #[inline(always)]
    unsafe fn double<const OFFSET: usize>(self) -> u64 {
        // SAFETY: within the guest memory that the caller of the mover vouches for; aligned:
        // caller.
        unsafe { guest_bytes::load_at::<OFFSET>(self.0, Width::Double) }
    }

    #[inline(always)]
    unsafe fn unit(self, width: Width) -> u64 {
        // SAFETY: within the copy, whose guest memory the mover's caller vouches for; aligned:
        // caller.
        unsafe { guest_bytes::load(self.0, width) }
    }
}

impl Sink for Guest {
    #[inline(always)]
    fn unknown(self) -> Self {
        Self(guest_bytes::opaque(self.0))
    }

    #[inline(always)]
    unsafe fn put_double<const OFFSET: usize>(self, double: u64) {
        // SAFETY: within the copy, whose guest memory the mover's caller vouches for; aligned:
        // caller.
        unsafe { guest_bytes::store_at::<OFFSET>(self.0, Width::Double, double) };
    }

    #[inline(always)]
    unsafe fn put_unit(self, width: Width, value: u64) {
        // SAFETY: within the copy, whose guest memory the mover's caller vouches for; aligned:
        // caller.
        unsafe { guest_bytes::store(self.0, width, value) };
    }
}

/// The host's buffer, from a slice that outlives the copy. For a source the pointer is one that
/// nothing may be written through.
#[derive(Clone, Copy)]
struct Host(*mut u8);

impl Side for Host {
    const IS_GUEST: bool = false;

    #[inline(always)]
    fn address(self) -> usize {
        self.0.addr()
    }

    #[inline(always)]
    fn later(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl Source for Host {
    #[inline(always)]
    unsafe fn double<const OFFSET: usize>(self) -> u64 {
        // SAFETY: within the slice, and aligned: caller.
        unsafe { self.0.wrapping_add(OFFSET).cast::<u64>().read() }
    }

    #[inline(always)]
    unsafe fn unit(self, width: Width) -> u64 {
        // SAFETY: within the slice: caller.
        unsafe {
            match width {
                Width::Byte => self.0.read().into(),
                Width::Half => self.0.cast::<u16>().read_unaligned().into(),
                Width::Word => self.0.cast::<u32>().read_unaligned().into(),
                Width::Double => self.0.cast::<u64>().read_unaligned(),
            }
        }
    }
}

impl Sink for Host {
    #[inline(always)]
    fn unknown(self) -> Self {
        Self(guest_bytes::opaque(self.0))
    }

    #[inline(always)]
    unsafe fn put_double<const OFFSET: usize>(self, double: u64) {
        // SAFETY: within the slice, and aligned: caller.
        unsafe { self.0.wrapping_add(OFFSET).cast::<u64>().write(double) };
    }

    #[inline(always)]
    unsafe fn put_unit(self, width: Width, value: u64) {
        // SAFETY: within the slice: caller.
        unsafe {
            match width {
                Width::Byte => self.0.write(value as u8),
                Width::Half => self.0.cast::<u16>().write_unaligned(value as u16),
                Width::Word => self.0.cast::<u32>().write_unaligned(value as u32),
                Width::Double => self.0.cast::<u64>().write_unaligned(value),
            }
        }
    }
}

/// A source of one byte, again and again: the double is made of it. It is aligned as its sink is.
#[derive(Clone, Copy)]
struct Repeated(u64);

impl Side for Repeated {
    const IS_GUEST: bool = false;

    #[inline(always)]
    fn address(self) -> usize {
        0
    }

    #[inline(always)]
    fn later(self, _: usize) -> Self {
        self
    }
}

impl Source for Repeated {
    #[inline(always)]
    unsafe fn double<const OFFSET: usize>(self) -> u64 {
        self.0
    }

    #[inline(always)]
    unsafe fn unit(self, _: Width) -> u64 {
        self.0
    }

    #[inline(always)]
    fn lag(self, _: impl Sink) -> usize {
        0
    }
}

/// Copies guest bytes into the host's buffer.
///
/// # Safety
///
/// The `destination.len()` bytes at `source` are guest memory that may be read, and do not overlap
/// `destination`.
#[inline]
pub(crate) unsafe fn copy_from(source: *const u8, destination: &mut [u8]) {
    let (to, len) = (Host(destination.as_mut_ptr()), destination.len());
    // SAFETY: the bytes at `source` are guest memory that may be read: caller. The other side is a
    // slice.
    unsafe { copy(to, Guest(source.cast_mut()), len) };
}

/// Copies the host's bytes into guest memory.
///
/// # Safety
///
/// The `source.len()` bytes at `destination` are guest memory that may be written, and do not
/// overlap `source`.
#[inline]
pub(crate) unsafe fn copy_to(destination: *mut u8, source: &[u8]) {
    let (from, len) = (Host(source.as_ptr().cast_mut()), source.len());
    // SAFETY: the bytes at `destination` are guest memory that may be written: caller. The other
    // side is a slice.
    unsafe { copy(Guest(destination), from, len) };
}

/// Sets guest bytes to one value.
///
/// # Safety
///
/// The `len` bytes at `destination` are guest memory that may be written.
pub(crate) unsafe fn fill(destination: *mut u8, byte: u8, len: usize) {
    let double = u64::from_ne_bytes([byte; DOUBLE]);
    // SAFETY: the bytes at `destination` are guest memory that may be written: caller. The other
    // side has no memory.
    unsafe { copy(Guest(destination), Repeated(double), len) };
}

/// The mover. `from` and `to` may be of any alignment.
///
/// # Safety
///
/// `len` bytes from each side on are of a buffer or of guest memory which may be read or written as
/// the side says. One of the sides is guest memory, and they do not overlap.
#[inline(always)]
unsafe fn copy<T: Sink, F: Source>(to: T, from: F, len: usize) {
    if (from.address() | to.address() | len).is_multiple_of(DOUBLE) {
        // SAFETY: `len` bytes of both sides are valid: caller; addresses and length are multiples
        // of 8.
        return unsafe { doubles(to, from, len / DOUBLE) };
    }
    // SAFETY: `len` bytes of both sides are valid: caller.
    unsafe { copy_any(to, from, len) }
}

/// # Safety
///
/// As [`copy`].
#[inline(never)]
unsafe fn copy_any<T: Sink, F: Source>(to: T, from: F, len: usize) {
    if len < DOUBLE {
        // SAFETY: `len` bytes of both sides are valid: caller.
        return unsafe { units(to, from, len) };
    }
    let lag = from.lag(to);
    let (first, body) = parts(to.address(), lag, len);
    // SAFETY: the parts are within the copy, one after the other. The body is of doubles that are
    // aligned where they go; those that it reads for a lag begin before it and end after it,
    // where `parts` has left the room.
    unsafe {
        units(to, from, first);
        let (to, from) = (to.later(first), from.later(first));
        if lag == 0 {
            doubles(to, from, body / DOUBLE);
        } else if body != 0 {
            merge(to, from.later(lag.wrapping_neg()), lag, body / DOUBLE);
        }
        units(to.later(body), from.later(body), len - first - body);
    }
}

/// Cuts `len` bytes that go to the address `to`: those before the doubles, and those of the
/// doubles.
///
/// The doubles begin aligned where they go. Where the other side lags, it is read by aligned
/// doubles, too, of which the first begins before and the last ends after the body: both within the
/// copy.
#[inline]
fn parts(to: usize, lag: usize, len: usize) -> (usize, usize) {
    let mut first = (to.wrapping_neg() % DOUBLE).min(len);
    if lag == 0 {
        return (first, (len - first) / DOUBLE * DOUBLE);
    }
    if first < lag {
        first += DOUBLE;
    }
    match len.checked_sub(first + (DOUBLE - lag)) {
        Some(room) => (first, room / DOUBLE * DOUBLE),
        None => (len, 0),
    }
}

/// Moves the ends of a copy, by the widest units that are aligned in guest memory.
///
/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn units<T: Sink, F: Source>(mut to: T, mut from: F, mut len: usize) {
    macro_rules! unit {
        ($width:ident, $condition:ident $wanted:expr) => {
            $condition $wanted && len >= Width::$width.bytes() {
                // SAFETY: within the copy, which the caller vouches for. Smaller units have led to
                // an address that is aligned in guest memory.
                unsafe { to.put_unit(Width::$width, from.unit(Width::$width)) };
                (to, from) = (to.later(Width::$width.bytes()), from.later(Width::$width.bytes()));
                len -= Width::$width.bytes();
            }
        };
    }
    macro_rules! guest {
        () => {
            if T::IS_GUEST {
                to.address()
            } else {
                from.address()
            }
        };
    }
    unit!(Byte, if guest!() & 1 != 0);
    unit!(Half, if guest!() & 2 != 0);
    unit!(Word, if guest!() & 4 != 0);
    unit!(Double, while true);
    unit!(Word, if true);
    unit!(Half, if true);
    if len != 0 {
        // SAFETY: the last byte of the copy.
        unsafe { to.put_unit(Width::Byte, from.unit(Width::Byte)) };
    }
}

/// Moves `count` doubles.
///
/// # Safety
///
/// As [`copy`], of as many bytes, aligned to 8 on both sides.
#[inline(always)]
unsafe fn doubles<T: Sink, F: Source>(to: T, from: F, count: usize) {
    if count < UNROLL {
        // SAFETY: `count` doubles of both sides are valid and aligned: caller.
        return unsafe { few(to, from, count) };
    }
    // SAFETY: `count` doubles of both sides are valid and aligned: caller.
    unsafe { many(to, from, count) }
}

/// Loads the doubles at these offsets, and then stores them, so that no store waits for the load
/// before it.
///
/// Safety: they are within the copy, and aligned on both sides.
macro_rules! together {
    ($to:ident, $from:ident, $($name:ident $offset:literal),*) => {{
        $(let $name = $from.double::<$offset>();)*
        $($to.put_double::<$offset>($name);)*
    }};
}

/// # Safety
///
/// As [`doubles`].
#[inline(never)]
unsafe fn many<T: Sink, F: Source>(mut to: T, mut from: F, count: usize) {
    let end = to.later(count / UNROLL * UNROLL * DOUBLE).address();
    while to.address() != end {
        // SAFETY: within the `count` doubles of both sides, which are valid and aligned: caller.
        unsafe {
            together!(to, from, a 0, b 8, c 16, d 24, e 32, f 40, g 48, h 56);
            together!(to, from, a 64, b 72, c 80, d 88, e 96, f 104, g 112, h 120);
        }
        (to, from) = (
            to.later(UNROLL * DOUBLE).unknown(),
            from.later(UNROLL * DOUBLE),
        );
    }
    if !count.is_multiple_of(UNROLL) {
        // SAFETY: within the `count` doubles of both sides, which are valid and aligned: caller.
        unsafe { few(to, from, count % UNROLL) };
    }
}

/// # Safety
///
/// As [`doubles`].
#[inline(never)]
unsafe fn few<T: Sink, F: Source>(mut to: T, mut from: F, count: usize) {
    for _ in 0..count / TOGETHER {
        // SAFETY: within the `count` doubles of both sides, which are valid and aligned: caller.
        unsafe { together!(to, from, a 0, b 8, c 16, d 24, e 32, f 40, g 48, h 56) };
        (to, from) = (to.later(TOGETHER * DOUBLE), from.later(TOGETHER * DOUBLE));
    }
    for _ in 0..count % TOGETHER {
        // SAFETY: within the `count` doubles of both sides, which are valid and aligned: caller.
        unsafe { to.put_double::<0>(from.double::<0>()) };
        (to, from) = (to.later(DOUBLE), from.later(DOUBLE));
    }
}

/// Moves `count` doubles that begin `lag` bytes into those that are read.
///
/// # Safety
///
/// As [`copy`], of `count` doubles at `to` and one more at `from`, aligned to 8 on both sides;
/// `lag` is 1 to 7.
unsafe fn merge<T: Sink, F: Source>(mut to: T, mut from: F, lag: usize, count: usize) {
    // SAFETY: within the `count` doubles at `to` and the `count + 1` at `from`, valid and aligned:
    // caller.
    let mut before = unsafe { from.double::<0>() };
    from = from.later(DOUBLE);
    let end = to.later(count / MERGED * MERGED * DOUBLE).address();
    while to.address() != end {
        // SAFETY: within the `count` doubles at `to` and the `count + 1` at `from`, valid and
        // aligned: caller.
        unsafe {
            let (a, b) = (from.double::<0>(), from.double::<8>());
            let (c, d) = (from.double::<16>(), from.double::<24>());
            to.put_double::<0>(merged(before, a, lag));
            to.put_double::<8>(merged(a, b, lag));
            to.put_double::<16>(merged(b, c, lag));
            to.put_double::<24>(merged(c, d, lag));
            before = d;
        }
        (to, from) = (
            to.later(MERGED * DOUBLE).unknown(),
            from.later(MERGED * DOUBLE),
        );
    }
    for _ in 0..count % MERGED {
        // SAFETY: within the `count` doubles at `to` and the `count + 1` at `from`, valid and
        // aligned: caller.
        unsafe {
            let next = from.double::<0>();
            to.put_double::<0>(merged(before, next, lag));
            before = next;
        }
        (to, from) = (to.later(DOUBLE), from.later(DOUBLE));
    }
}

/// The next double to write, of the bytes of `before` from `lag` on and the first of `next`.
#[inline]
fn merged(before: u64, next: u64, lag: usize) -> u64 {
    let shift = 8 * lag as u32;
    (u64::from_le(before) >> shift | u64::from_le(next) << (64 - shift)).to_le()
}
