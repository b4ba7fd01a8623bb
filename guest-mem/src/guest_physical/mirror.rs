//! What the hypervisor's G-stage table has to be told of slots.

use crate::address::Gpa;
use crate::atomic::spin_loop;

/// The owner of the VM's G-stage table, as far as slots concern it.
///
/// `hlv`, `hsv` and the guest itself obey the G-stage table and nothing else, so a slot's read-only and logging states have to
/// be there too. Each change of slots calls this after the slot table has changed, so a fault that its calls provoke is
/// already judged by the new slots.
///
/// A guest-page fault by a store in a page that was write-protected is the hypervisor's to resolve: if the slot is read-only,
/// refuse it; else make the page writable, *then* [`mark_dirty`](super::PhysicalView::mark_dirty), then retry. In the other
/// order a harvest in between takes the mark and protects the page before it becomes writable: the store then is in no log. What a
/// load or a fetch brings in is never writable while its slot logs: [`host_page`](super::PhysicalView::host_page) says so.
///
/// ```
/// # use core::ptr::NonNull;
/// # use guest_mem::guest_physical::{GuestPhysicalMemory, Slot, StageMirror};
/// # use guest_mem::{Gpa, csr::GMode};
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// enum Entry { Invalid, ReadOnly, Writable }
///
/// /// The entries of four pages at 0x8000_0000.
/// struct Table([Entry; 4]);
///
/// impl Table {
///     fn change(&mut self, start: Gpa, len: u64, change: impl Fn(Entry) -> Entry) {
///         let first = start.page_number() - 0x8_0000;
///         for entry in &mut self.0[first as usize..(first + len / 4096) as usize] {
///             *entry = change(*entry);
///         }
///     }
/// }
///
/// impl StageMirror for Table {
///     fn unmap(&mut self, start: Gpa, len: u64) {
///         self.change(start, len, |_| Entry::Invalid);
///     }
///     fn write_protect(&mut self, start: Gpa, len: u64) {
///         self.change(start, len, |entry| match entry {
///             Entry::Invalid => Entry::Invalid,
///             Entry::ReadOnly | Entry::Writable => Entry::ReadOnly,
///         });
///     }
///     fn shoot_down(&mut self) {
///         // hfence.gvma here; the same on the VM's other harts, and their acknowledgements
///     }
/// }
///
/// # #[repr(align(4096))]
/// # struct Ram([u8; 0x4000]);
/// # let mut ram = Ram([0; 0x4000]);
/// # let host = NonNull::from(&mut ram.0).cast();
/// let mut table = Table([Entry::Invalid, Entry::Writable, Entry::ReadOnly, Entry::Writable]);
/// let base = Gpa::new(0x8000_0000);
/// let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
/// # // SAFETY: `ram` outlives `memory`.
/// memory.add(unsafe { Slot::linear(base, 0x4000, host) }, &mut table)?;
/// memory.set_read_only(base, true, &mut table)?;
/// assert_eq!(table.0, [Entry::Invalid, Entry::ReadOnly, Entry::ReadOnly, Entry::ReadOnly]);
/// memory.remove(base, &mut table)?;
/// assert_eq!(table.0, [Entry::Invalid; 4]);
/// # Ok::<(), guest_mem::guest_physical::SlotError>(())
/// ```
pub trait StageMirror {
    /// Takes every translation of the range away. Takes effect with [`shoot_down`](Self::shoot_down). Pages of the table that
    /// this leaves empty may still be read by guards ([`StageView`](super::StageView)) until the change that called it returns.
    fn unmap(&mut self, start: Gpa, len: u64);

    /// Makes every page of the range fault on stores. Takes effect with [`shoot_down`](Self::shoot_down).
    fn write_protect(&mut self, start: Gpa, len: u64);

    /// Returns once no hart uses translations older than the calls before: local fence, and IPIs to every hart whose `hgatp`
    /// holds this VM, those in HS-mode included (R44). Serves incoming requests of the same kind while it waits.
    fn shoot_down(&mut self);

    /// Called over and over while a change waits for another hart: serves that hart's shootdown requests, without which two
    /// harts that change slots at once would wait for each other forever.
    fn serve(&mut self) {
        spin_loop();
    }
}

/// For a VM that no G-stage table shows yet: before its first vCPU runs, and in tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGStage;

impl StageMirror for NoGStage {
    fn unmap(&mut self, _start: Gpa, _len: u64) {}
    fn write_protect(&mut self, _start: Gpa, _len: u64) {}
    fn shoot_down(&mut self) {}
}
