//! One access through the hardware's translation, whichever of the two spaces it is in.
//!
//! The one idea: a [`HardwareSpace`] says what to check, what window to open and how to read a trap; the loop over pages and
//! the exact count are the same for all.

use core::sync::atomic::{Ordering, fence};

use crate::access::Width;
use crate::address::{Address, PAGE_SIZE, Piece, last_byte};
use crate::fault::{AccessError, Fault, FaultKind, Operation, Space, TrapInfo};
use crate::hart::{Hart, Interrupted};

/// A space that `hlv` and `hsv` reach.
pub(super) trait HardwareSpace: Copy {
    type Hart: Hart;
    type Address: Address;

    /// While it lives, the CSRs are as an access needs them.
    type Window;

    /// Whether no access finds the CSRs as it needs them.
    const ALWAYS_BORROWS: bool = false;

    /// What accesses are made with.
    fn hart(&self) -> &Self::Hart;

    /// Opens a window, with a fence if the hart needs one, for the part of a range that begins after `offset` bytes.
    fn open(&self, offset: usize) -> Self::Window;

    /// The same on a hart that needs no fences (R35).
    fn open_unfenced(&self) -> Self::Window;

    /// Whether the CSRs are as an access needs them, so that it needs no window.
    #[inline(always)]
    fn is_open_anyway(&self) -> bool {
        !Self::ALWAYS_BORROWS
    }

    /// Whether the access has nothing to be refused for and needs no fence: most have not.
    fn is_plain(&self, address: Self::Address, len: usize) -> bool;

    /// Refuses a regime or a range before anything is touched. `len` is not zero, and the range ends below 2^64.
    fn check(&self, operation: Operation, address: Self::Address, len: usize) -> Result<(), Fault>;

    /// `fault` with the address asked for.
    fn locate(&self, fault: Fault, address: Self::Address) -> Fault;

    /// What `stval` holds after a fault.
    fn space(&self) -> Space;

    /// The error of an access that went the long way, with what the trap did not say.
    fn completed(&self, error: AccessError) -> AccessError {
        error
    }
}

/// Runs `part` on the pieces of a range, each inside a window of its own, during which interrupts are off: all of a range of at
/// most a page's bytes, wherever it lies, or each page's piece of a longer one.
#[inline]
pub(super) fn for_each_piece<S: HardwareSpace>(
    space: S,
    operation: Operation,
    address: S::Address,
    len: usize,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    if len == 0 {
        return Ok(());
    }
    // Most ranges are short: they are spared the loop.
    if is_one_piece(len)
        && last_byte(address.to_u64(), len).is_some()
        && space.is_plain(address, len)
    {
        let piece = Piece {
            address,
            offset: 0,
            len,
        };
        if S::ALWAYS_BORROWS {
            return in_window(space, operation, piece, part);
        }
        if !space.is_open_anyway() {
            return in_window_of_its_own(space, operation, piece, part);
        }
        return part(space.hart(), piece)
            .map_err(|interrupted| faulted(space, operation, interrupted, 0));
    }
    for_each_of_many(space, operation, address, len, part)
}

/// Whether so many bytes need one window only.
#[inline(always)]
const fn is_one_piece(len: usize) -> bool {
    len as u64 <= PAGE_SIZE
}

/// Runs `part` on a piece inside a window, on a hart that needs no fences.
#[inline(always)]
fn in_window<S: HardwareSpace>(
    space: S,
    operation: Operation,
    piece: Piece<S::Address>,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    let window = space.open_unfenced();
    let result = part(space.hart(), piece);
    drop(window);
    result.map_err(|interrupted| faulted(space, operation, interrupted, 0))
}

/// [`in_window`], so that what needs no window is spared the registers of one.
#[inline(never)]
fn in_window_of_its_own<S: HardwareSpace>(
    space: S,
    operation: Operation,
    piece: Piece<S::Address>,
    part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    in_window(space, operation, piece, part)
}

/// [`for_each_piece`] for any range, refused ones included.
#[inline(never)]
fn for_each_of_many<S: HardwareSpace>(
    space: S,
    operation: Operation,
    address: S::Address,
    len: usize,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    let refuse = |fault| space.locate(fault, address).after(0);
    if last_byte(address.to_u64(), len).is_none() {
        return Err(refuse(Fault::new(operation, FaultKind::OutOfRange)));
    }
    space.check(operation, address, len).map_err(refuse)?;
    let to_page_end = (PAGE_SIZE - address.to_u64() % PAGE_SIZE) as usize;
    let mut piece = Piece {
        address,
        offset: 0,
        len: if is_one_piece(len) { len } else { to_page_end },
    };
    loop {
        let window = space.open(piece.offset);
        let result = part(space.hart(), piece);
        drop(window);
        result.map_err(|interrupted| {
            space.completed(faulted(space, operation, interrupted, piece.offset))
        })?;
        let offset = piece.offset + piece.len;
        if offset == len {
            return Ok(());
        }
        // From here on at the beginning of a page.
        piece = Piece {
            address: S::Address::from_u64(address.to_u64() + offset as u64),
            offset,
            len: (len - offset).min(PAGE_SIZE as usize),
        };
    }
}

/// Runs one naturally aligned access inside a window.
#[inline(always)]
pub(super) fn single<S: HardwareSpace, T>(
    space: S,
    operation: Operation,
    address: S::Address,
    width: Width,
    access: impl FnOnce(&S::Hart) -> Result<T, TrapInfo>,
) -> Result<T, AccessError> {
    let aligned = address.to_u64() & (width.bytes() as u64 - 1) == 0;
    if aligned && space.is_plain(address, width.bytes()) {
        let window = space.open_unfenced();
        let result = access(space.hart());
        drop(window);
        return result.map_err(|trap| {
            let interrupted = Interrupted { completed: 0, trap };
            faulted(space, operation, interrupted, 0)
        });
    }
    single_otherwise(space, operation, address, width, access)
}

/// [`single`] for any access, refused ones and those that need fences included.
#[cold]
#[inline(never)]
fn single_otherwise<S: HardwareSpace, T>(
    space: S,
    operation: Operation,
    address: S::Address,
    width: Width,
    access: impl FnOnce(&S::Hart) -> Result<T, TrapInfo>,
) -> Result<T, AccessError> {
    let refuse = |fault| space.locate(fault, address).after(0);
    if address.to_u64() & (width.bytes() as u64 - 1) != 0 {
        return Err(refuse(Fault::new(operation, FaultKind::Misaligned)));
    }
    space
        .check(operation, address, width.bytes())
        .map_err(refuse)?;
    let window = space.open(0);
    let result = access(space.hart());
    drop(window);
    result.map_err(|trap| {
        let interrupted = Interrupted { completed: 0, trap };
        space.completed(faulted(space, operation, interrupted, 0))
    })
}

/// The error of an access that trapped, of the part that begins `offset` bytes into its range.
#[inline(always)]
fn faulted<S: HardwareSpace>(
    space: S,
    operation: Operation,
    Interrupted { completed, trap }: Interrupted,
    offset: usize,
) -> AccessError {
    AccessError::from_trap(operation, space.space(), offset + completed, trap)
}

#[inline]
pub(super) fn read<S: HardwareSpace>(
    space: S,
    address: S::Address,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    let len = destination.len();
    let base = destination.as_mut_ptr();
    for_each_piece(space, Operation::Read, address, len, move |hart, piece| {
        // SAFETY: the piece lies inside `destination`; a window is open and the G-stage is on.
        unsafe { hart.copy_from_guest(piece.address.to_u64(), base.add(piece.offset), piece.len) }
    })
}

#[inline]
pub(super) fn write<S: HardwareSpace>(
    space: S,
    address: S::Address,
    source: &[u8],
) -> Result<(), AccessError> {
    let base = source.as_ptr();
    for_each_piece(
        space,
        Operation::Write,
        address,
        source.len(),
        move |hart, piece| {
            // SAFETY: the piece lies inside `source`; a window is open and the G-stage is on.
            unsafe { hart.copy_to_guest(piece.address.to_u64(), base.add(piece.offset), piece.len) }
        },
    )
}

#[inline]
pub(super) fn fill<S: HardwareSpace>(
    space: S,
    address: S::Address,
    byte: u8,
    len: usize,
) -> Result<(), AccessError> {
    for_each_piece(space, Operation::Fill, address, len, move |hart, piece| {
        // SAFETY: a window is open and the G-stage is on.
        unsafe { hart.fill_guest(piece.address.to_u64(), byte, piece.len) }
    })
}

/// `hlv` is a plain load to the memory model, so that an ordering takes fences.
#[inline(always)]
pub(super) fn load<S: HardwareSpace>(
    space: S,
    address: S::Address,
    width: Width,
    order: Ordering,
) -> Result<u64, AccessError> {
    assert!(
        !matches!(order, Ordering::Release | Ordering::AcqRel),
        "a load cannot be a release"
    );
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
    let value = single(space, Operation::Load, address, width, move |hart| {
        // SAFETY: a window is open and the G-stage is on.
        unsafe { hart.load_guest(address.to_u64(), width) }
    })?;
    if order != Ordering::Relaxed {
        fence(Ordering::Acquire);
    }
    Ok(value)
}

/// `hsv` is a plain store to the memory model, so that an ordering takes fences.
#[inline(always)]
pub(super) fn store<S: HardwareSpace>(
    space: S,
    address: S::Address,
    width: Width,
    value: u64,
    order: Ordering,
) -> Result<(), AccessError> {
    assert!(
        !matches!(order, Ordering::Acquire | Ordering::AcqRel),
        "a store cannot be an acquire"
    );
    if order != Ordering::Relaxed {
        fence(Ordering::Release);
    }
    single(space, Operation::Store, address, width, move |hart| {
        // SAFETY: a window is open and the G-stage is on.
        unsafe { hart.store_guest(address.to_u64(), width, value) }
    })?;
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
    Ok(())
}

/// No `hlv` or `hsv` form reads and writes (R17).
pub(super) fn no_compare_exchange<S: HardwareSpace>(
    space: S,
    address: S::Address,
    width: Width,
) -> AccessError {
    let aligned = address.to_u64() & (width.bytes() as u64 - 1) == 0;
    let kind = if aligned {
        FaultKind::AtomicUnavailable
    } else {
        FaultKind::Misaligned
    };
    space
        .locate(Fault::new(Operation::CompareExchange, kind), address)
        .after(0)
}
