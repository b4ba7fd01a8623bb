//! Guest memory as loom sees it, in the place of `direct`: a page is one atomic double.
//!
//! The one idea: what is asked of a range is done to the double of each page that it touches, in order, so that the real code
//! around it (slots, guards, the dirty log) is tried in every order, its accesses to guest memory included. Whoever takes a page
//! for something else says so ([`Page::reuse`]): an access that may still come then fails the test.

extern crate std;

use core::sync::atomic::Ordering;
use std::boxed::Box;

use crate::access::Width;
use crate::address::PAGE_SIZE;
use crate::atomic::{AtomicU64, Witness};

/// A page of guest memory. Slots lead to such pages.
#[repr(align(4096))]
pub(crate) struct Page {
    double: AtomicU64,
    in_use: Witness,
}

impl Page {
    /// A new page. It is never on a stack: those of loom's threads have less room than that.
    pub(super) fn new(contents: u64) -> Box<Self> {
        assert_eq!(size_of::<Self>() as u64, PAGE_SIZE);
        let mut page = Box::<Self>::new_uninit();
        let at = page.as_mut_ptr();
        // SAFETY: the two fields are all there is, and the box is theirs.
        unsafe {
            (&raw mut (*at).double).write(AtomicU64::new(contents));
            (&raw mut (*at).in_use).write(Witness::new());
            page.assume_init()
        }
    }

    /// What the host reads there.
    pub(super) fn contents(&self) -> u64 {
        self.double.load(Ordering::Relaxed)
    }

    /// What the host fills a page with that it is about to give.
    pub(super) fn prepare(&self, contents: u64) {
        self.double.store(contents, Ordering::Relaxed);
    }

    /// From here on nobody accesses the page.
    pub(super) fn reuse(&self) {
        self.in_use.writes();
    }

    /// The page that holds the host address.
    ///
    /// # Safety
    ///
    /// `at` lies in a page.
    unsafe fn at<'p>(at: *const u8) -> &'p Self {
        let page = at.map_addr(|address| address & !(PAGE_SIZE as usize - 1));
        // SAFETY: the caller's; pages are shared, and of `Sync` parts.
        let page = unsafe { &*page.cast::<Self>() };
        page.in_use.reads();
        page
    }
}

/// Calls `each` with every page of the range.
///
/// # Safety
///
/// The range lies in pages.
unsafe fn for_each(start: *const u8, len: usize, mut each: impl FnMut(&Page)) {
    let first = start.addr() % PAGE_SIZE as usize;
    for page in (0..first + len).step_by(PAGE_SIZE as usize) {
        // SAFETY: the caller's.
        each(unsafe { Page::at(start.wrapping_add(page.saturating_sub(first))) });
    }
}

/// As `direct`'s: each byte of `destination` becomes the low byte of its page's double.
///
/// # Safety
///
/// `source` leads to pages.
pub(crate) unsafe fn copy_from(source: *const u8, destination: &mut [u8]) {
    for (at, byte) in destination.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *byte = unsafe { Page::at(source.wrapping_add(at)) }.contents() as u8;
    }
}

/// As `direct`'s: each page's double becomes the first byte of `source`.
///
/// # Safety
///
/// `destination` leads to pages.
pub(crate) unsafe fn copy_to(destination: *mut u8, source: &[u8]) {
    // SAFETY: the caller's.
    unsafe { fill(destination, source[0], source.len()) };
}

/// As `direct`'s: each page's double becomes `byte`.
///
/// # Safety
///
/// `destination` leads to pages.
pub(crate) unsafe fn fill(destination: *mut u8, byte: u8, len: usize) {
    // SAFETY: the caller's.
    unsafe { for_each(destination, len, |page| page.prepare(byte.into())) };
}

/// As `direct`'s, of the page's double.
///
/// # Safety
///
/// `at` leads to a page.
pub(crate) unsafe fn load(at: *const u8, _width: Width, order: Ordering) -> u64 {
    // SAFETY: the caller's.
    unsafe { Page::at(at) }.double.load(order)
}

/// As `direct`'s, of the page's double.
///
/// # Safety
///
/// `at` leads to a page.
pub(crate) unsafe fn store(at: *mut u8, _width: Width, value: u64, order: Ordering) {
    // SAFETY: the caller's.
    unsafe { Page::at(at) }.double.store(value, order);
}

/// As `direct`'s, of the page's double.
///
/// # Safety
///
/// `at` leads to a page.
pub(crate) unsafe fn compare_exchange(
    at: *mut u8,
    _width: Width,
    current: u64,
    new: u64,
    order: Ordering,
) -> u64 {
    // SAFETY: the caller's.
    let double = unsafe { &Page::at(at).double };
    double
        .compare_exchange(current, new, order, Ordering::Relaxed)
        .unwrap_or_else(|found| found)
}

/// No device is modelled.
///
/// # Safety
///
/// None.
pub(crate) unsafe fn load_device(_: *mut u8, _: Width, _: Ordering) -> u64 {
    unreachable!("no device is modelled")
}

/// No device is modelled.
///
/// # Safety
///
/// None.
pub(crate) unsafe fn store_device(_: *mut u8, _: Width, _: u64, _: Ordering) {
    unreachable!("no device is modelled")
}
