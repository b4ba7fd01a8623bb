//! The machine's memory, borrowed from the test.
//!
//! The one idea: memory is a slice of atomics that the test owns, so that it may change while it is borrowed. The model and the code
//! under test (through [`Ram::host_ptr`]) may both touch it at once, at any size, since both do so as guest memory is touched
//! (`guest_bytes`, R77), and no reference to it is ever made.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::access::Width;
use crate::address::{PAGE_SIZE, Spa};
use crate::guest_bytes;

const WORDS_OF_A_PAGE: usize = PAGE_SIZE as usize / 8;

/// Memory for a [`Ram`], `PAGES` pages of it, page-aligned: for a `static`, or a test's stack.
///
/// ```
/// use guest_mem::hart::model::RamArray;
///
/// static MEMORY: RamArray<16> = RamArray::new();
/// assert_eq!(MEMORY.at(guest_mem::Spa::new(0x8000_0000)).len(), 0x1_0000);
/// ```
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct RamArray<const PAGES: usize> {
    pages: [[AtomicU64; WORDS_OF_A_PAGE]; PAGES],
}

impl<const PAGES: usize> RamArray<PAGES> {
    /// Zeroed memory.
    pub const fn new() -> Self {
        Self {
            pages: [const { [const { AtomicU64::new(0) }; WORDS_OF_A_PAGE] }; PAGES],
        }
    }

    /// This memory as the machine's, from `base` on. See [`Ram::new`].
    ///
    /// # Panics
    ///
    /// As [`Ram::new`].
    pub const fn at(&self, base: Spa) -> Ram<'_> {
        Ram::new(base, self.pages.as_flattened())
    }
}

impl<const PAGES: usize> Default for RamArray<PAGES> {
    fn default() -> Self {
        Self::new()
    }
}

/// The machine's memory: words at consecutive machine addresses, little-endian. Nothing is elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Ram<'a> {
    base: Spa,
    /// The first of `count` words of 8 bytes, with the provenance of the whole borrow: what is handed out as a host pointer.
    words: NonNull<AtomicU64>,
    count: usize,
    borrow: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: it stands for a `&[AtomicU64]`, which is `Send`.
unsafe impl Send for Ram<'_> {}
// SAFETY: it stands for a `&[AtomicU64]`, which is `Sync`.
unsafe impl Sync for Ram<'_> {}

impl<'a> Ram<'a> {
    /// `words` as the machine's memory from `base` on.
    ///
    /// # Panics
    ///
    /// If `base` is not the address of a page, or the memory would run past the top of the address space.
    pub const fn new(base: Spa, words: &'a [AtomicU64]) -> Self {
        assert!(base.page_offset() == 0, "memory begins at a page");
        assert!(
            base.checked_add(words.len() as u64 * 8).is_some(),
            "memory ends below 2^64"
        );
        // SAFETY: a slice's pointer is not null. The words are atomics, so that writing through it is allowed.
        let first = unsafe { NonNull::new_unchecked(words.as_ptr().cast_mut()) };
        Self {
            base,
            words: first,
            count: words.len(),
            borrow: PhantomData,
        }
    }

    /// Its first address.
    pub const fn base(&self) -> Spa {
        self.base
    }

    /// Its bytes.
    pub const fn len(&self) -> usize {
        self.count * 8
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the byte at `at` is in this process, or `None` if it is not memory. Valid for the rest of the memory as long as the
    /// borrow `'a` lasts: for this library, and for accesses that nothing of it happens beside.
    pub fn host_ptr(&self, at: Spa) -> Option<NonNull<u8>> {
        let offset = self.offset(at)?;
        // SAFETY: `offset` is less than the size of the words in bytes.
        Some(unsafe { self.words.cast::<u8>().add(offset) })
    }

    /// Loads `width` bytes, zero-extended, in one access. `None` unless `at` is a multiple of `width` in memory.
    pub fn load(&self, at: Spa, width: Width) -> Option<u64> {
        let host = self.aligned(at, width)?;
        // SAFETY: memory of the borrow, aligned, of which there are no references.
        Some(unsafe { guest_bytes::load(host, width) })
    }

    /// Stores the low `width` bytes of `value`, in one access. `None` unless `at` is a multiple of `width` in memory.
    pub fn store(&self, at: Spa, width: Width, value: u64) -> Option<()> {
        let host = self.aligned(at, width)?;
        // SAFETY: memory of the borrow, aligned, of which there are no references. Atomics may be written
        // through a shared borrow.
        unsafe { guest_bytes::store(host, width, value) };
        Some(())
    }

    /// Stores the double word `new` where `current` is, in one access, and returns what was there: `Ok` if that was `current`. `None`
    /// unless `at` is a multiple of 8 in memory. It is an acquire and a release.
    ///
    /// ```
    /// use guest_mem::hart::model::RamArray;
    /// use guest_mem::{Spa, Width};
    ///
    /// let array = RamArray::<1>::new();
    /// let (at, ram) = (Spa::new(0x8000_0008), array.at(Spa::new(0x8000_0000)));
    /// assert_eq!(ram.compare_exchange(at, 0, 7), Some(Ok(0)));
    /// assert_eq!(ram.compare_exchange(at, 0, 8), Some(Err(7)));
    /// assert_eq!(ram.load(at, Width::Double), Some(7));
    /// assert_eq!(ram.compare_exchange(Spa::new(0x8000_0004), 0, 8), None);
    /// ```
    pub fn compare_exchange(&self, at: Spa, current: u64, new: u64) -> Option<Result<u64, u64>> {
        let host = self.aligned(at, Width::Double)?;
        // SAFETY: memory of the borrow, aligned, of which there are no references.
        let found = unsafe {
            guest_bytes::compare_exchange(host, Width::Double, current, new, Ordering::AcqRel)
        };
        Some(if found == current {
            Ok(found)
        } else {
            Err(found)
        })
    }

    /// Copies memory out. `None`, and nothing copied, unless all of it is memory.
    pub fn read(&self, at: Spa, bytes: &mut [u8]) -> Option<()> {
        self.range(at, bytes.len())?;
        for (offset, width) in elements(at, bytes.len()) {
            let value = self.load(at.checked_add(offset as u64)?, width)?;
            let len = width.bytes();
            bytes[offset..offset + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        Some(())
    }

    /// Copies bytes in. `None`, and nothing copied, unless all of it is memory.
    pub fn write(&self, at: Spa, bytes: &[u8]) -> Option<()> {
        self.range(at, bytes.len())?;
        for (offset, width) in elements(at, bytes.len()) {
            let len = width.bytes();
            let mut value = [0; 8];
            value[..len].copy_from_slice(&bytes[offset..offset + len]);
            let value = u64::from_le_bytes(value);
            self.store(at.checked_add(offset as u64)?, width, value)?;
        }
        Some(())
    }

    fn range(&self, at: Spa, len: usize) -> Option<()> {
        match len.checked_sub(1) {
            Some(more) => self
                .offset(at.checked_add(more as u64)?)
                .and(self.offset(at)),
            None => Some(0),
        }
        .map(drop)
    }

    fn offset(&self, at: Spa) -> Option<usize> {
        let offset = at.value().checked_sub(self.base.value())?;
        let offset = usize::try_from(offset).ok()?;
        (offset < self.len()).then_some(offset)
    }

    /// Where an access of `width` at `at` goes. An aligned one is memory throughout if it begins there: memory is of doubles.
    fn aligned(&self, at: Spa, width: Width) -> Option<*mut u8> {
        if !at.is_aligned_to(width.bytes() as u64) {
            return None;
        }
        Some(self.host_ptr(at)?.as_ptr())
    }
}

/// Words where they are aligned and whole, and single bytes elsewhere: offset and width of each.
fn elements(at: Spa, len: usize) -> impl Iterator<Item = (usize, Width)> {
    let mut offset = 0;
    core::iter::from_fn(move || {
        let aligned = (at.value() + offset as u64).is_multiple_of(8);
        let width = match len - offset {
            0 => return None,
            8.. if aligned => Width::Double,
            _ => Width::Byte,
        };
        let here = offset;
        offset += width.bytes();
        Some((here, width))
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn an_access_touches_its_own_bytes_only() {
        let memory = RamArray::<1>::new();
        let base = Spa::new(0x8000_0000);
        let ram = memory.at(base);
        for width in Width::ALL {
            for offset in (0..16).step_by(width.bytes()) {
                ram.write(base, &[0x11; 24]).unwrap();
                let at = base.checked_add(offset).unwrap();
                ram.store(at, width, 0x8877_6655_4433_2299).unwrap();
                assert_eq!(
                    ram.load(at, width),
                    Some(0x8877_6655_4433_2299 & width.mask())
                );
                let mut bytes = [0; 24];
                ram.read(base, &mut bytes).unwrap();
                let range = offset as usize..offset as usize + width.bytes();
                for (index, byte) in bytes.into_iter().enumerate() {
                    assert_eq!(byte == 0x11, !range.contains(&index));
                }
            }
        }
    }

    #[test]
    fn a_copy_of_any_length_at_any_offset_moves_its_bytes_and_no_other() {
        let memory = RamArray::<1>::new();
        let base = Spa::new(0x8000_0000);
        let ram = memory.at(base);
        let source: [u8; 25] = core::array::from_fn(|index| index as u8 + 1);
        for start in 0..8 {
            for len in 0..=source.len() {
                ram.write(base, &[0x77; 40]).unwrap();
                let at = base.checked_add(start as u64).unwrap();
                ram.write(at, &source[..len]).unwrap();
                let mut found = [0x55; 25];
                ram.read(at, &mut found[..len]).unwrap();
                assert_eq!(found[..len], source[..len]);
                assert!(found[len..].iter().all(|&byte| byte == 0x55));
                let mut all = [0; 40];
                for (offset, byte) in all.iter_mut().enumerate() {
                    let at = base.checked_add(offset as u64).unwrap();
                    *byte = ram.load(at, Width::Byte).unwrap() as u8;
                }
                assert!(all[..start].iter().all(|&byte| byte == 0x77));
                assert_eq!(all[start..start + len], source[..len]);
                assert!(all[start + len..].iter().all(|&byte| byte == 0x77));
            }
        }
    }

    #[test]
    fn what_is_not_memory_or_not_aligned_answers_none() {
        let memory = RamArray::<1>::new();
        let ram = memory.at(Spa::new(0x1000));
        for at in [0xff8, 0x2000, 0, u64::MAX - 7] {
            assert_eq!(ram.load(Spa::new(at), Width::Double), None);
            assert_eq!(ram.host_ptr(Spa::new(at)), None);
        }
        assert_eq!(ram.load(Spa::new(0x1004), Width::Double), None);
        assert_eq!(ram.read(Spa::new(0x1ffc), &mut [0; 5]), None);
        assert_eq!(ram.write(Spa::new(0xfff), &[0; 2]), None);
        assert_eq!(ram.read(Spa::new(0), &mut []), Some(()));
    }

    #[test]
    fn a_host_pointer_sees_the_same_bytes() {
        let memory = RamArray::<2>::new();
        let ram = memory.at(Spa::new(0x1000));
        let pointer = ram.host_ptr(Spa::new(0x1ffe)).unwrap();
        // SAFETY: four bytes from there on are memory; nothing else runs.
        unsafe {
            pointer.cast::<[u8; 4]>().write_volatile([1, 2, 3, 4]);
            assert_eq!(ram.load(Spa::new(0x1ffe), Width::Half), Some(0x0201));
            ram.store(Spa::new(0x2000), Width::Half, 0x0605).unwrap();
            assert_eq!(pointer.cast::<[u8; 4]>().read_volatile(), [1, 2, 5, 6]);
        }
    }

    #[test]
    fn r77_accesses_of_two_sizes_meet_in_the_models_memory() {
        let memory = RamArray::<1>::new();
        let (base, ram) = (Spa::new(0x8000_0000), memory.at(Spa::new(0x8000_0000)));
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    let at = base.checked_add(5).unwrap();
                    ram.store(at, Width::Byte, round).unwrap();
                }
            });
            for _ in 0..rounds {
                let double = ram.load(base, Width::Double).unwrap();
                assert_eq!(double & !(0xff << 40), 0);
                let _ = ram.compare_exchange(base, double, double).unwrap();
            }
        });
    }
}
