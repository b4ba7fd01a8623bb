//! One access through the hardware's translation, whichever of the two spaces it is in.
//!
//! The one idea: a [`HardwareSpace`] says what to check, what to borrow and how to read a trap; the loop over pages, the
//! window and the exact count are the same for both.

use core::sync::atomic::{Ordering, fence};

use super::LoadedVcpu;
use super::window::{Borrow, Window};
use crate::access::Width;
use crate::address::{Address, PAGE_SIZE, Piece, Pieces};
use crate::fault::{AccessError, Fault, FaultKind, Operation, TrapInfo};
use crate::hart::{Hart, Interrupted};

/// A space that `hlv` and `hsv` reach.
pub(super) trait HardwareSpace<'h>: Copy {
    type Hart: Hart + 'h;
    type Address: Address;

    /// Whether no access finds the CSRs as it needs them.
    const ALWAYS_BORROWS: bool;

    /// The vCPU whose translation is used.
    fn vcpu(&self) -> &LoadedVcpu<'h, Self::Hart>;

    /// What the window has to borrow.
    fn borrow(&self) -> Borrow;

    /// Whether the access has nothing to be refused for and needs no fence: most have not.
    fn is_plain(&self, address: Self::Address, len: usize) -> bool;

    /// Refuses a regime or a range before anything is touched. `len` is not zero, and the range ends below 2^64.
    fn check(&self, operation: Operation, address: Self::Address, len: usize) -> Result<(), Fault>;

    /// `fault` with the address asked for.
    fn locate(&self, fault: Fault, address: Self::Address) -> Fault;

    /// The fault that a trap means.
    fn fault(&self, operation: Operation, trap: TrapInfo) -> Fault;
}

/// Runs `part` on each page's piece of a range, inside a window of its own.
#[inline]
pub(super) fn for_each_page<'h, S: HardwareSpace<'h>>(
    space: S,
    operation: Operation,
    address: S::Address,
    len: usize,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    if len == 0 {
        return Ok(());
    }
    // Most ranges lie in one page: they are spared the loop. None of those passes the top of the space.
    let to_page_end = PAGE_SIZE - address.to_u64() % PAGE_SIZE;
    if len as u64 <= to_page_end && space.is_plain(address, len) {
        let piece = Piece {
            address,
            offset: 0,
            len,
        };
        if S::ALWAYS_BORROWS {
            return in_window(space, operation, piece, part);
        }
        let vcpu = space.vcpu();
        if !Window::is_open_anyway(vcpu.hart, &vcpu.csrs, space.borrow()) {
            return in_window_of_its_own(space, operation, piece, part);
        }
        return part(vcpu.hart, piece)
            .map_err(|interrupted| faulted(space, operation, &interrupted, 0));
    }
    for_each_of_many(space, operation, address, len, part)
}

/// Runs `part` on a piece inside a window, on a hart that needs no fences.
#[inline(always)]
fn in_window<'h, S: HardwareSpace<'h>>(
    space: S,
    operation: Operation,
    piece: Piece<S::Address>,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    let vcpu = space.vcpu();
    // SAFETY: the token promises that its CSRs are in the hart.
    let window = unsafe { Window::open_unfenced(vcpu.hart, &vcpu.csrs, space.borrow()) };
    let result = part(vcpu.hart, piece);
    drop(window);
    result.map_err(|interrupted| faulted(space, operation, &interrupted, 0))
}

/// [`in_window`], so that what needs no window is spared the registers of one.
#[inline(never)]
fn in_window_of_its_own<'h, S: HardwareSpace<'h>>(
    space: S,
    operation: Operation,
    piece: Piece<S::Address>,
    part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    in_window(space, operation, piece, part)
}

/// [`for_each_page`] for any range, refused ones included.
#[inline(never)]
fn for_each_of_many<'h, S: HardwareSpace<'h>>(
    space: S,
    operation: Operation,
    address: S::Address,
    len: usize,
    mut part: impl FnMut(&S::Hart, Piece<S::Address>) -> Result<(), Interrupted>,
) -> Result<(), AccessError> {
    let refuse = |fault| space.locate(fault, address).after(0);
    let pieces = Pieces::new(address, len)
        .ok_or_else(|| refuse(Fault::new(operation, FaultKind::OutOfRange)))?;
    space.check(operation, address, len).map_err(refuse)?;
    let vcpu = space.vcpu();
    for piece in pieces {
        // SAFETY: the token promises that its CSRs are in the hart.
        let window = unsafe { Window::open(vcpu.hart, &vcpu.csrs, space.borrow()) };
        let result = part(vcpu.hart, piece);
        drop(window);
        result.map_err(|interrupted| faulted(space, operation, &interrupted, piece.offset))?;
    }
    Ok(())
}

/// Runs one naturally aligned access inside a window.
#[inline(always)]
pub(super) fn single<'h, S: HardwareSpace<'h>, T>(
    space: S,
    operation: Operation,
    address: S::Address,
    width: Width,
    access: impl FnOnce(&S::Hart) -> Result<T, TrapInfo>,
) -> Result<T, AccessError> {
    let aligned = address.to_u64() & (width.bytes() as u64 - 1) == 0;
    if aligned && space.is_plain(address, width.bytes()) {
        let vcpu = space.vcpu();
        // SAFETY: the token promises that its CSRs are in the hart.
        let window = unsafe { Window::open_unfenced(vcpu.hart, &vcpu.csrs, space.borrow()) };
        let result = access(vcpu.hart);
        drop(window);
        return result.map_err(|trap| {
            let interrupted = Interrupted { completed: 0, trap };
            faulted(space, operation, &interrupted, 0)
        });
    }
    single_otherwise(space, operation, address, width, access)
}

/// [`single`] for any access, refused ones and those that need fences included.
#[cold]
#[inline(never)]
fn single_otherwise<'h, S: HardwareSpace<'h>, T>(
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
    let vcpu = space.vcpu();
    // SAFETY: the token promises that its CSRs are in the hart.
    let window = unsafe { Window::open(vcpu.hart, &vcpu.csrs, space.borrow()) };
    let result = access(vcpu.hart);
    drop(window);
    result.map_err(|trap| faulted(space, operation, &Interrupted { completed: 0, trap }, 0))
}

/// The error of an access that trapped, of the part that begins `offset` bytes into its range.
#[cold]
#[inline(never)]
fn faulted<'h, S: HardwareSpace<'h>>(
    space: S,
    operation: Operation,
    interrupted: &Interrupted,
    offset: usize,
) -> AccessError {
    space
        .fault(operation, interrupted.trap)
        .after(offset + interrupted.completed)
}

#[inline]
pub(super) fn read<'h, S: HardwareSpace<'h>>(
    space: S,
    address: S::Address,
    destination: &mut [u8],
) -> Result<(), AccessError> {
    let len = destination.len();
    let base = destination.as_mut_ptr();
    for_each_page(space, Operation::Read, address, len, move |hart, piece| {
        // SAFETY: the piece lies inside `destination`; a window is open and the G-stage is on.
        unsafe { hart.copy_from_guest(piece.address.to_u64(), base.add(piece.offset), piece.len) }
    })
}

#[inline]
pub(super) fn write<'h, S: HardwareSpace<'h>>(
    space: S,
    address: S::Address,
    source: &[u8],
) -> Result<(), AccessError> {
    let base = source.as_ptr();
    for_each_page(
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
pub(super) fn fill<'h, S: HardwareSpace<'h>>(
    space: S,
    address: S::Address,
    byte: u8,
    len: usize,
) -> Result<(), AccessError> {
    for_each_page(space, Operation::Fill, address, len, move |hart, piece| {
        // SAFETY: a window is open and the G-stage is on.
        unsafe { hart.fill_guest(piece.address.to_u64(), byte, piece.len) }
    })
}

/// `hlv` is a plain load to the memory model, so that an ordering takes fences.
#[inline(always)]
pub(super) fn load<'h, S: HardwareSpace<'h>>(
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
pub(super) fn store<'h, S: HardwareSpace<'h>>(
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
pub(super) fn no_compare_exchange<'h, S: HardwareSpace<'h>>(
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
