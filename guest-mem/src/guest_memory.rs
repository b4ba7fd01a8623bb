//! The vocabulary of guest memory: what one can do at a guest address, virtual or physical.
//!
//! The one idea: two kinds of access that must not be confused. *Copies* ([`read`](GuestMemory::read),
//! [`write`](GuestMemory::write), [`fill`](GuestMemory::fill) and what is built on them) move bytes and promise nothing about
//! how they look to another hart half-way. *Single accesses* ([`load`](GuestMemory::load), [`store`](GuestMemory::store),
//! [`compare_exchange`](GuestMemory::compare_exchange)) are naturally aligned, never tear, and take an ordering. A ring index
//! is never copied.

use core::ffi::CStr;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::access::Width;
use crate::address::{Address, Pieces};
use crate::fault::{AccessError, Fault, FaultKind, Operation};

mod sealed {
    pub trait Sealed {}
}

/// An integer that one access moves whole: `u8`, `u16`, `u32`, `u64`.
pub trait GuestInteger: sealed::Sealed + Copy + Eq + core::fmt::Debug {
    /// Its width.
    const WIDTH: Width;

    /// From the low bits of a register.
    fn from_register(value: u64) -> Self;

    /// Zero-extended to a register.
    fn to_register(self) -> u64;
}

macro_rules! guest_integer {
    ($($integer:ident $width:ident),*) => {$(
        impl sealed::Sealed for $integer {}
        impl GuestInteger for $integer {
            const WIDTH: Width = Width::$width;
            #[inline]
            fn from_register(value: u64) -> Self {
                value as $integer
            }
            #[inline]
            fn to_register(self) -> u64 {
                self.into()
            }
        }
    )*};
}

guest_integer!(u8 Byte, u16 Half, u32 Word, u64 Double);

/// Bytes that [`GuestMemory::for_each_chunk`] hands over at a time, at most.
pub const CHUNK: usize = 256;

/// One guest address space.
///
/// Every operation checks its range first (`addr + len` past the top is [`FaultKind::OutOfRange`]), goes by pieces of at most
/// 4096 bytes and slot by slot, and on a fault says exactly how far it got ([`AccessError::completed`]). A length of zero is `Ok`
/// and touches nothing. No reference into guest memory is ever made.
///
/// **Races.** The guest runs on other harts meanwhile. A copy may mix old and new bytes; a naturally aligned unit is the
/// most that is ever moved whole, and that is not promised. Single accesses never tear. Copies are not ordered with other
/// accesses: where it matters (a ring's contents after its index), use the ordering of the single access beside them.
///
/// **Traces.** An access through the hardware's translation sets A and D bits where the machine's own accesses would; one
/// through slots sets none. Nothing is paged in unless the space says so (`resolving`).
///
/// Code that is generic over the space takes `&impl GuestMemory`:
///
/// ```
/// use core::ops::ControlFlow;
/// use core::sync::atomic::Ordering;
/// use guest_mem::hart::model::{ModelGuest, RamArray};
/// use guest_mem::translate::entry::{R, W};
/// use guest_mem::{AccessError, FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Spa};
///
/// // Adds up the bytes of a guest buffer of any length, without a heap.
/// fn checksum<M: GuestMemory>(memory: &M, at: M::Address, len: usize) -> Result<u64, AccessError> {
///     let mut sum = 0;
///     let _: ControlFlow<()> = memory.for_each_chunk(at, len, |_, bytes| {
///         sum += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         ControlFlow::Continue(())
///     })?;
///     Ok(sum)
/// }
///
/// # let ram = RamArray::<32>::new();
/// # let guest = ModelGuest::new(ram.at(Spa::new(0x8_0000_0000)))?;
/// # guest.map_pages(Gva::new(0x5000), Gpa::new(0x8000_3000), 2, R | W)?;
/// # let hart = guest.hart();
/// # // SAFETY: the guest is loaded on the hart.
/// # let vcpu = unsafe { LoadedVcpu::new(&hart) };
/// let memory = vcpu.guest_virtual(GuestPrivilege::Supervisor); // two pages from 0x5000 on
/// memory.fill(Gva::new(0x5000), 3, 5000)?;
/// assert_eq!(checksum(&memory, Gva::new(0x5000), 5000)?, 15_000);
///
/// memory.write(Gva::new(0x5ffd), b"name\0")?;
/// let mut name = [0; 16];
/// assert_eq!(memory.read_cstr(Gva::new(0x5ffd), &mut name)?, Some(4));
///
/// memory.write_obj(Gva::new(0x5001), &[1u16, 2, 3])?; // a copy may be misaligned
/// assert_eq!(memory.read_obj::<[u16; 3]>(Gva::new(0x5001))?, [1, 2, 3]);
/// memory.store(Gva::new(0x5010), 7u16, Ordering::Release)?; // a single access may not
/// assert_eq!(memory.load::<u16>(Gva::new(0x5010), Ordering::Acquire)?, 7);
/// let error = memory.load::<u16>(Gva::new(0x5011), Ordering::Acquire).unwrap_err();
/// assert_eq!(error.fault.kind, FaultKind::Misaligned);
///
/// // Past the top of the address space: nothing is touched. No bytes: always fine.
/// let error = memory.write(Gva::new(u64::MAX), b"ab").unwrap_err();
/// assert_eq!((error.completed, error.fault.kind), (0, FaultKind::OutOfRange));
/// assert_eq!(memory.write(Gva::new(u64::MAX), b""), Ok(()));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub trait GuestMemory {
    /// The space's addresses.
    type Address: Address;

    /// Copies guest bytes into `destination`.
    ///
    /// # Errors
    ///
    /// The fault and the bytes copied before it; `destination` is unchanged from there on.
    fn read(&self, address: Self::Address, destination: &mut [u8]) -> Result<(), AccessError>;

    /// Copies `source` into guest memory.
    ///
    /// # Errors
    ///
    /// The fault and the bytes written before it; guest memory is unchanged from there on.
    fn write(&self, address: Self::Address, source: &[u8]) -> Result<(), AccessError>;

    /// Sets `len` guest bytes to `byte`.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn fill(&self, address: Self::Address, byte: u8, len: usize) -> Result<(), AccessError>;

    /// One load of `width` bytes, zero-extended: the untyped form of [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// [`FaultKind::Misaligned`] unless `address` is a multiple of `width`; the fault of the access.
    ///
    /// # Panics
    ///
    /// If `order` is `Release` or `AcqRel`, as the standard library's atomics do.
    fn load_width(
        &self,
        address: Self::Address,
        width: Width,
        order: Ordering,
    ) -> Result<u64, AccessError>;

    /// One store of the low `width` bytes of `value`: the untyped form of [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// [`FaultKind::Misaligned`] unless `address` is a multiple of `width`; the fault of the access.
    ///
    /// # Panics
    ///
    /// If `order` is `Acquire` or `AcqRel`, as the standard library's atomics do.
    fn store_width(
        &self,
        address: Self::Address,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError>;

    /// One compare-and-exchange of `width` bytes: the untyped form of [`compare_exchange`](Self::compare_exchange). Answers
    /// the value found, which equals `current` exactly when `new` was stored.
    ///
    /// # Errors
    ///
    /// [`FaultKind::Misaligned`] unless `address` is a multiple of `width`; [`FaultKind::AtomicUnavailable`] where the host
    /// does not map the memory; the fault of the access.
    fn compare_exchange_width(
        &self,
        address: Self::Address,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError>;

    /// Loads an integer, single-copy atomically.
    ///
    /// # Errors
    ///
    /// As [`load_width`](Self::load_width).
    ///
    /// # Panics
    ///
    /// As [`load_width`](Self::load_width).
    #[inline]
    fn load<T: GuestInteger>(
        &self,
        address: Self::Address,
        order: Ordering,
    ) -> Result<T, AccessError> {
        self.load_width(address, T::WIDTH, order)
            .map(T::from_register)
    }

    /// Stores an integer, single-copy atomically.
    ///
    /// # Errors
    ///
    /// As [`store_width`](Self::store_width).
    ///
    /// # Panics
    ///
    /// As [`store_width`](Self::store_width).
    #[inline]
    fn store<T: GuestInteger>(
        &self,
        address: Self::Address,
        value: T,
        order: Ordering,
    ) -> Result<(), AccessError> {
        self.store_width(address, T::WIDTH, value.to_register(), order)
    }

    /// Replaces `current` by `new`, atomically also against the guest. `Ok(Ok(current))` if it did, `Ok(Err(found))` if
    /// another value was there. `order` holds for both outcomes.
    ///
    /// # Errors
    ///
    /// As [`compare_exchange_width`](Self::compare_exchange_width).
    #[inline]
    fn compare_exchange<T: GuestInteger>(
        &self,
        address: Self::Address,
        current: T,
        new: T,
        order: Ordering,
    ) -> Result<Result<T, T>, AccessError> {
        let found = self.compare_exchange_width(
            address,
            T::WIDTH,
            current.to_register(),
            new.to_register(),
            order,
        )?;
        let found = T::from_register(found);
        Ok(if found == current {
            Ok(found)
        } else {
            Err(found)
        })
    }

    /// Copies a plain-data object out of guest memory.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    fn read_obj<T: FromBytes + IntoBytes>(&self, address: Self::Address) -> Result<T, AccessError> {
        let mut object = T::new_zeroed();
        self.read(address, object.as_mut_bytes())?;
        Ok(object)
    }

    /// Copies a plain-data object into guest memory.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn write_obj<T: IntoBytes + Immutable>(
        &self,
        address: Self::Address,
        object: &T,
    ) -> Result<(), AccessError> {
        self.write(address, object.as_bytes())
    }

    /// Copies a NUL-terminated string into `buffer` and answers its length without the NUL, or `None` if the first
    /// `buffer.len()` bytes hold no NUL. Memory of a page after the NUL is not touched.
    ///
    /// # Errors
    ///
    /// The fault, if it comes before a NUL does.
    fn read_cstr(
        &self,
        address: Self::Address,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, AccessError> {
        // A string that ends before the top of the space is fine even if the buffer would reach past it.
        let to_top = u64::MAX - address.to_u64();
        let within = usize::try_from(to_top)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let reachable = buffer.len().min(within);
        for piece in Pieces::new(address, reachable).into_iter().flatten() {
            let part = &mut buffer[piece.offset..piece.offset + piece.len];
            let read = self.read(piece.address, part);
            let whole = read
                .as_ref()
                .map_or_else(|error| error.completed, |()| piece.len);
            // Looks at whole words, unlike a search with `position`.
            if let Ok(string) = CStr::from_bytes_until_nul(&part[..whole]) {
                return Ok(Some(piece.offset + string.count_bytes()));
            }
            read.map_err(|error| error.later(piece.offset))?;
        }
        if reachable < buffer.len() {
            return Err(Fault::new(Operation::Read, FaultKind::OutOfRange).after(reachable));
        }
        Ok(None)
    }

    /// Reads `len` bytes in pieces of at most [`CHUNK`] and hands each to `visit` with its offset, until that answers
    /// `Break`. Needs no heap and a bounded stack, however large `len` is.
    ///
    /// # Errors
    ///
    /// The fault; everything before [`AccessError::completed`] was handed over.
    fn for_each_chunk<B>(
        &self,
        address: Self::Address,
        len: usize,
        mut visit: impl FnMut(usize, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, AccessError> {
        let mut buffer = [0; CHUNK];
        let out_of_range = Fault::new(Operation::Read, FaultKind::OutOfRange).after(0);
        for piece in Pieces::new(address, len).ok_or(out_of_range)? {
            let mut done = 0;
            while done < piece.len {
                let part = &mut buffer[..CHUNK.min(piece.len - done)];
                // In range: the whole piece is.
                let at = Self::Address::from_u64(piece.address.to_u64() + done as u64);
                let offset = piece.offset + done;
                if let Err(error) = self.read(at, part) {
                    let whole = error.completed;
                    if whole > 0
                        && let ControlFlow::Break(value) = visit(offset, &part[..whole])
                    {
                        return Ok(ControlFlow::Break(value));
                    }
                    return Err(error.later(offset));
                }
                if let ControlFlow::Break(value) = visit(offset, part) {
                    return Ok(ControlFlow::Break(value));
                }
                done += part.len();
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
