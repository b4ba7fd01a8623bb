//! One page of a [`Paged`](super::Backing::Paged) slot: a word that says where the host has it, and what may be done there.
//!
//! The one idea: readers load the word once per access and never wait; whoever changes it may reuse the *old* page only after
//! [`synchronize`](super::GuestPhysicalMemory::synchronize), because a guard that existed may still be using it.

use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

use crate::address::PAGE_SIZE;
use crate::atomic::{AtomicPtr, const_but_for_loom};

/// The entry holds a page.
const PRESENT: usize = 1;
/// The page may be written.
const WRITABLE: usize = 2;
const STATE: usize = PRESENT | WRITABLE;

/// What a [`PageEntry`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPage {
    /// The host has no page here: an access is a guest-page fault to resolve.
    Absent,
    /// The host has the page here, and only reads are served: a write is a guest-page fault to resolve.
    ReadOnly(NonNull<u8>),
    /// The host has the page here.
    Writable(NonNull<u8>),
}

impl HostPage {
    /// The host address of the page's first byte.
    pub const fn address(self) -> Option<NonNull<u8>> {
        match self {
            Self::Absent => None,
            Self::ReadOnly(page) | Self::Writable(page) => Some(page),
        }
    }

    /// The state is in the low bits, which a page-aligned address leaves free.
    fn encode(self) -> *mut u8 {
        let (page, state) = match self {
            Self::Absent => return ptr::null_mut(),
            Self::ReadOnly(page) => (page, PRESENT),
            Self::Writable(page) => (page, STATE),
        };
        assert!(
            (page.addr().get() as u64).is_multiple_of(PAGE_SIZE),
            "a host page is page-aligned"
        );
        page.as_ptr().map_addr(|address| address | state)
    }

    fn decode(word: *mut u8) -> Self {
        let Some(page) = NonNull::new(word.map_addr(|address| address & !STATE)) else {
            return Self::Absent;
        };
        if word.addr() & WRITABLE != 0 {
            Self::Writable(page)
        } else {
            Self::ReadOnly(page)
        }
    }
}

/// Where the host has one 4 KiB page of guest memory. Eight bytes, changed atomically, at any time.
#[repr(transparent)]
pub struct PageEntry(AtomicPtr<u8>);

impl PageEntry {
    const_but_for_loom! {
        /// An entry without a page.
        pub const fn absent() -> Self {
            Self(AtomicPtr::new(ptr::null_mut()))
        }
    }

    /// What the entry says now. The contents that its page had when it was set are visible to the caller.
    #[inline]
    pub fn get(&self) -> HostPage {
        // Acquire: pairs with the release of `set` and `replace`, so the page's first contents are seen.
        HostPage::decode(self.0.load(Ordering::Acquire))
    }

    /// Sets the entry and answers what it said before. Where it held another page, and a G-stage table shows that,
    /// [`replace_page`](super::GuestPhysicalMemory::replace_page) is the way. The old page may be reused after
    /// [`synchronize`](super::GuestPhysicalMemory::synchronize) on every memory whose slots use this entry, which names the whole
    /// order where a G-stage table shows the page too.
    ///
    /// # Panics
    ///
    /// If the page is not aligned to 4096.
    ///
    /// # Safety
    ///
    /// From now until the entry has been changed *and* every memory that uses it was synchronized after that, the 4096 bytes
    /// at the page are valid for reads (for [`HostPage::Writable`] also writes) by any hart, and nothing but guests and this
    /// library accesses them, unless in order with that, or as R77 says (assembly, or atomics of single bytes).
    pub unsafe fn set(&self, page: HostPage) -> HostPage {
        HostPage::decode(self.0.swap(page.encode(), Ordering::AcqRel))
    }

    /// Sets the entry if it says `current`, which is how one of several harts that resolve the same page wins.
    ///
    /// # Errors
    ///
    /// What the entry said instead; it is unchanged.
    ///
    /// # Panics
    ///
    /// As [`set`](Self::set).
    ///
    /// # Safety
    ///
    /// As [`set`](Self::set), if it answers `Ok`.
    pub unsafe fn replace(&self, current: HostPage, page: HostPage) -> Result<(), HostPage> {
        self.0
            .compare_exchange(
                current.encode(),
                page.encode(),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .map(drop)
            .map_err(HostPage::decode)
    }

    /// Takes the page away and answers what the entry said before. The page may be reused as after [`set`](Self::set).
    pub fn clear(&self) -> HostPage {
        HostPage::decode(self.0.swap(ptr::null_mut(), Ordering::AcqRel))
    }
}

impl Default for PageEntry {
    fn default() -> Self {
        Self::absent()
    }
}

impl fmt::Debug for PageEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Frame([u8; 4096]);

    #[test]
    fn an_entry_says_what_it_was_set_to() {
        let mut frame = Frame([0; 4096]);
        let page = NonNull::new(frame.0.as_mut_ptr()).unwrap();
        let entry = PageEntry::absent();
        assert_eq!(entry.get(), HostPage::Absent);
        for state in [HostPage::ReadOnly(page), HostPage::Writable(page)] {
            // SAFETY: no memory uses the entry.
            unsafe { entry.set(state) };
            assert_eq!(entry.get(), state);
        }
        assert_eq!(entry.clear(), HostPage::Writable(page));
        assert_eq!(entry.get(), HostPage::Absent);
    }

    #[test]
    fn only_one_of_two_resolvers_wins() {
        let mut frames = [const { Frame([0; 4096]) }; 2];
        let [first, second] = frames
            .each_mut()
            .map(|frame| HostPage::Writable(NonNull::from(&mut frame.0).cast()));
        let entry = PageEntry::absent();
        // SAFETY: no memory uses the entry.
        unsafe {
            assert_eq!(entry.replace(HostPage::Absent, first), Ok(()));
            assert_eq!(entry.replace(HostPage::Absent, second), Err(first));
        }
    }
}
