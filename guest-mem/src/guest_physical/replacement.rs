//! A page that gets another frame while the guest runs: copy-on-write.
//!
//! The one idea: two frames are never in use at once. The old one is gone from the page array and from
//! every hart before the new one shows anywhere, so nobody reads the old frame after somebody has stored
//! to the new one (R73, I13).

use core::convert::Infallible;

use super::memory::GuestPhysicalMemory;
use super::page_entry::{HostPage, PageEntry};
use crate::address::PAGE_SIZE;

/// The G-stage's part in [`GuestPhysicalMemory::replace_page`]: one page of one table.
///
/// For a VM that no G-stage table shows yet, [`NoGStage`](super::NoGStage) is one.
pub trait PageMirror {
    /// Why the new frame cannot be shown.
    type Error;

    /// Takes the page's translation out of the table. Returns once no hart uses it: local fence, and
    /// shootdown of every hart whose `hgatp` holds this VM, those in HS-mode included (R44).
    ///
    /// It may be called under a read guard, so it must not wait for guards.
    fn hide(&mut self);

    /// Puts the translation to the new frame into the table. No fence is due: the page was not mapped,
    /// and a hart that remembers that faults once more.
    ///
    /// # Errors
    ///
    /// The table shows nothing for the page then.
    fn show(&mut self) -> Result<(), Self::Error>;
}

impl PageMirror for super::NoGStage {
    type Error = Infallible;

    fn hide(&mut self) {}

    fn show(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<const SLOTS: usize, const READERS: usize> GuestPhysicalMemory<'_, SLOTS, READERS> {
    /// Gives a page of a [`Paged`](super::Backing::Paged) slot its first frame, or another frame in place
    /// of one that nobody may write: the frame behind a page of zeroes, or the guest's own copy of a
    /// shared page. `page` holds the same bytes as the old frame. Returns what the entry said before.
    ///
    /// The order (R73, I13):
    /// 1. The entry becomes absent: an access through the slots is a guest-page fault to resolve.
    /// 2. [`PageMirror::hide`]: the old translation goes, with the shootdown.
    /// 3. [`PageMirror::show`]: the new translation comes.
    /// 4. The entry says `page`.
    ///
    /// In another order a hart can store to the new frame while another hart, or a handler of the host on
    /// its behalf, still reads the old one. A page that was absent has no step 1 and 2.
    ///
    /// Between 1 and 4 the page has a frame that nobody finds. A resolver that is asked for it
    /// ([`Resolver`](super::Resolver), [`GuardedResolver`](crate::guest_virtual::GuardedResolver), the
    /// handler of a guest-page fault) waits for the lock under which this is called, serves shootdowns
    /// meanwhile (the holder may be waiting for its acknowledgement), and then finds the page ready. It must not take the page for one that nothing backs.
    ///
    /// Nothing here waits for guards, so a hart that holds one may call it. A guard that read the entry
    /// before step 1 may read the old frame until it ends. A host that frees the old frame puts it aside,
    /// and uses it again after a [`synchronize`](Self::synchronize) that it calls without a guard.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use guest_mem::{AccessKind, Fault, Gpa, GuestMemory, csr::GMode};
    /// # use guest_mem::guest_physical::{GuestPhysicalMemory, HostPage, NoGStage, PageEntry, PageMirror, Slot};
    /// # #[repr(align(4096))]
    /// # struct Frame([u8; 4096]);
    /// # let mut frames = [const { Frame([0; 4096]) }; 2];
    /// # let [zeroes, own] = frames.each_mut().map(|frame| NonNull::from(&mut frame.0).cast());
    /// /// The G-stage's entry of the page.
    /// struct Entry(Option<NonNull<u8>>, NonNull<u8>);
    ///
    /// impl PageMirror for Entry {
    ///     type Error = core::convert::Infallible;
    ///     fn hide(&mut self) {
    ///         self.0 = None;
    ///         // hfence.gvma here; the same on the VM's other harts, and their acknowledgements
    ///     }
    ///     fn show(&mut self) -> Result<(), Self::Error> {
    ///         self.0 = Some(self.1);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let pages = [PageEntry::absent()];
    /// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    /// memory.add(Slot::paged(Gpa::new(0x1000), &pages), &mut NoGStage)?;
    /// // SAFETY: both frames outlive `memory`.
    /// unsafe { pages[0].set(HostPage::ReadOnly(zeroes)) }; // shared by all pages that were only read
    /// let mut stage = Entry(Some(zeroes), own);
    ///
    /// // The resolver: a store gives the page a frame of its own. No other hart is here meanwhile.
    /// let mut page_in = |_: &Fault, _: Gpa, _: AccessKind| {
    ///     // SAFETY: `own` outlives `memory`.
    ///     let old = unsafe { memory.replace_page(&pages[0], HostPage::Writable(own), &mut stage) };
    ///     assert_eq!(old, Ok(HostPage::ReadOnly(zeroes)));
    ///     Ok(())
    /// };
    /// memory.reader(0)?.write_with(Gpa::new(0x1008), b"stored", &mut page_in)?;
    /// assert_eq!(stage.0, Some(own));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// That of [`PageMirror::show`]. The entry says again what it said before. The page faults at the
    /// G-stage until the host maps that.
    ///
    /// # Panics
    ///
    /// If the entry is [`HostPage::Writable`]: guards that exist may still write there, and what they
    /// write would be lost. Take such a page away, in the order of [`synchronize`](Self::synchronize),
    /// copy it, and give the copy by [`PageEntry::set`]. And if `page` is [`HostPage::Absent`] or not
    /// aligned to 4096. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// - The contract of [`PageEntry::set`] holds for `page`, and for the old page until it is given back
    ///   as said above.
    /// - The entry and the page's translation change under one lock of the host's, which is held until
    ///   this returns. Whoever fills the G-stage table from an entry *reads* that entry under the same
    ///   lock: a read guard does not keep `replace_page` waiting, so an entry that was read before the
    ///   lock was taken may name the old frame.
    /// - If the entry is absent, no hart and no table translates the page.
    pub unsafe fn replace_page<M: PageMirror>(
        &self,
        entry: &PageEntry,
        page: HostPage,
        stage: &mut M,
    ) -> Result<HostPage, M::Error> {
        assert!(
            !matches!(entry.get(), HostPage::Writable(_)),
            "a page that may be written is taken away before it gets another frame"
        );
        let (HostPage::ReadOnly(frame) | HostPage::Writable(frame)) = page else {
            panic!("a page is replaced by a frame");
        };
        assert!(
            frame.addr().get().is_multiple_of(PAGE_SIZE as usize),
            "a frame is aligned to 4096"
        );
        let old = entry.clear();
        if old != HostPage::Absent {
            stage.hide();
        }
        let (shown, says) = match stage.show() {
            Ok(()) => (Ok(old), page),
            Err(error) => (Err(error), old),
        };
        // SAFETY: the caller promises the contract of `set` for `page`, and for the old page, which the
        // entry held before.
        unsafe { entry.set(says) };
        shown
    }
}
