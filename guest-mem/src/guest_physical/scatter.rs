//! Scatter lists: pieces of guest memory, such as a descriptor chain names, used as one run of bytes.

use crate::address::{Address, last_byte};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::{CHUNK, GuestMemory};

/// A list of guest ranges, used as if they lay one behind the other. The host made the list, so its length is the host's
/// bound; addresses and lengths may be the guest's, unchecked.
///
/// Each operation moves as many bytes as it is given or the list has from the offset on, and answers how many that was. A
/// range is checked when it is reached; no bytes reach none.
///
/// ```
/// # use core::ptr::NonNull;
/// # use guest_mem::{Gpa, GuestMemory, csr::GMode, guest_physical::{GuestPhysicalMemory, NoGStage, Slot}};
/// # #[repr(align(4096))]
/// # struct Ram([u8; 0x1000]);
/// # let mut ram = Ram([0; 0x1000]);
/// # let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
/// # // SAFETY: `ram` outlives `memory`.
/// # let slot = unsafe { Slot::linear(Gpa::new(0x1000), 0x1000, NonNull::from(&mut ram.0).cast()) };
/// # memory.add(slot, &mut NoGStage)?;
/// # let mut reader = memory.reader(0)?;
/// use guest_mem::guest_physical::ScatterList;
///
/// let view = reader.guard();
/// let chain = [(Gpa::new(0x1100), 3), (Gpa::new(0x1010), 5)];
/// let list = ScatterList::new(&chain);
/// assert_eq!(list.write(&view, 1, b"scatter")?, 7);
/// let mut back = [0; 5];
/// view.read(Gpa::new(0x1010), &mut back)?;
/// assert_eq!(&back, b"atter");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ScatterList<'s, A> {
    segments: &'s [(A, usize)],
}

impl<'s, A: Address> ScatterList<'s, A> {
    /// The list of these (address, length in bytes).
    pub const fn new(segments: &'s [(A, usize)]) -> Self {
        Self { segments }
    }

    /// Its bytes; `usize::MAX` if they are more.
    pub fn byte_len(&self) -> usize {
        let lens = self.segments.iter().map(|&(_, len)| len);
        lens.fold(0, usize::saturating_add)
    }

    /// Copies guest bytes, from `offset` bytes into the list on, into `destination`.
    ///
    /// # Errors
    ///
    /// The fault of a segment, and the bytes copied before it.
    pub fn read<M: GuestMemory<Address = A>>(
        &self,
        memory: &M,
        offset: usize,
        destination: &mut [u8],
    ) -> Result<usize, AccessError> {
        self.for_each(
            Operation::Read,
            offset,
            destination.len(),
            |address, done, len| memory.read(address, &mut destination[done..done + len]),
        )
    }

    /// Copies `source` into guest memory, from `offset` bytes into the list on.
    ///
    /// # Errors
    ///
    /// The fault of a segment, and the bytes copied before it.
    pub fn write<M: GuestMemory<Address = A>>(
        &self,
        memory: &M,
        offset: usize,
        source: &[u8],
    ) -> Result<usize, AccessError> {
        self.for_each(
            Operation::Write,
            offset,
            source.len(),
            |address, done, len| memory.write(address, &source[done..done + len]),
        )
    }

    /// Sets the guest bytes from `offset` bytes into the list on, `len` at most, to `byte`.
    ///
    /// # Errors
    ///
    /// The fault of a segment, and the bytes set before it.
    pub fn fill<M: GuestMemory<Address = A>>(
        &self,
        memory: &M,
        offset: usize,
        byte: u8,
        len: usize,
    ) -> Result<usize, AccessError> {
        self.for_each(Operation::Fill, offset, len, |address, _, len| {
            memory.fill(address, byte, len)
        })
    }

    /// Copies this list's bytes into another's, guest to guest, until either ends. Bytes pass through a buffer of [`CHUNK`],
    /// so lists that overlap are copied as if chunk by chunk.
    ///
    /// # Errors
    ///
    /// The fault of the segment, of either list, and the bytes that reached `destination` before it.
    pub fn copy_to<M: GuestMemory<Address = A>, N: GuestMemory>(
        &self,
        memory: &M,
        destination: &ScatterList<'_, N::Address>,
        destination_memory: &N,
    ) -> Result<usize, AccessError> {
        let len = destination.byte_len();
        let mut buffer = [0; CHUNK];
        self.for_each(Operation::Read, 0, len, |address, before, len| {
            let mut done = 0;
            while done < len {
                let part = &mut buffer[..CHUNK.min(len - done)];
                // `for_each` hands over ranges that end below the top.
                let at = A::from_u64(address.to_u64() + done as u64);
                let (whole, failed) = match memory.read(at, part) {
                    Ok(()) => (part.len(), None),
                    Err(error) => (error.completed, Some(error)),
                };
                destination
                    .write(destination_memory, before + done, &part[..whole])
                    .map_err(|error| error.later(done))?;
                if let Some(error) = failed {
                    return Err(error.later(done));
                }
                done += whole;
            }
            Ok(())
        })
    }

    /// Calls `transfer(address, bytes before, len)` for each part of a segment that lies in the `len` bytes at `offset`.
    fn for_each(
        &self,
        operation: Operation,
        offset: usize,
        len: usize,
        mut transfer: impl FnMut(A, usize, usize) -> Result<(), AccessError>,
    ) -> Result<usize, AccessError> {
        if len == 0 {
            return Ok(0);
        }
        let (mut skip, mut done) = (offset, 0);
        for &(address, segment) in self.segments {
            if skip >= segment {
                skip -= segment;
                continue;
            }
            let part = (segment - skip).min(len - done);
            if last_byte(address.to_u64(), segment).is_none() {
                return Err(Fault::new(operation, FaultKind::OutOfRange).after(done));
            }
            let from = A::from_u64(address.to_u64() + skip as u64);
            transfer(from, done, part).map_err(|error| error.later(done))?;
            done += part;
            skip = 0;
            if done == len {
                break;
            }
        }
        Ok(done)
    }
}
