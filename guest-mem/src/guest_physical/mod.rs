//! The guest-physical space: slots, their backing, and direct access to it through the host's own mapping.
//!
//! The one idea: the host's mapping of guest memory has no HFENCE, so nothing stops a `ld` or `sd` of another hart that is
//! under way. Every direct access therefore happens under a *read guard* (a [`PhysicalView`]), and whoever takes memory away
//! waits for every guard that existed ([`GuestPhysicalMemory::synchronize`]) before the memory is used for anything else.
//!
//! ```text
//!  GuestPhysicalMemory   one a VM, shared by its harts: the sorted slot table, changed while others read
//!    Reader              one a vCPU or hart: its entry among those a writer waits for, and its last slot
//!      PhysicalView      the guard, taken once per VM exit: implements GuestMemory over guest-physical addresses
//!        Slot            a range and its Backing: Linear | Paged | GuestOnly | Device | Trapped
//!          PageEntry     a page of a Paged slot: absent | read-only | writable, changed by the host at any time
//! ```
//!
//! ```
//! use core::ptr::NonNull;
//! use guest_mem::csr::GMode;
//! use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, Slot};
//! use guest_mem::{Gpa, GuestMemory};
//!
//! #[repr(align(4096))]
//! struct Ram([u8; 0x2000]);
//! let mut ram = Ram([0; 0x2000]);
//! let host = NonNull::new(ram.0.as_mut_ptr()).unwrap();
//!
//! let memory = GuestPhysicalMemory::<4, 2>::new(GMode::Sv39x4);
//! // SAFETY: `ram` outlives `memory` and nothing else touches it meanwhile.
//! let slot = unsafe { Slot::linear(Gpa::new(0x8000_0000), 0x2000, host) };
//! memory.add(slot, &mut NoGStage)?;
//!
//! let mut reader = memory.reader(0)?;
//! let view = reader.guard();
//! view.write(Gpa::new(0x8000_0ffe), b"across a page")?;
//! let mut back = [0; 13];
//! view.read(Gpa::new(0x8000_0ffe), &mut back)?;
//! assert_eq!(&back, b"across a page");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod accesses;
mod backing_memory;
mod cached;
#[cfg_attr(all(test, loom), path = "direct_model.rs")]
pub(crate) mod direct;
mod dirty_log;
mod memory;
mod mirror;
mod page_entry;
mod page_tables;
mod reader;
mod reader_entry;
mod replacement;
pub(crate) mod resolver;
mod scatter;
mod search;
mod slot;
mod stage_view;
mod table;
mod unmapped;
mod view;

pub use backing_memory::BackingMemory;
pub use cached::CachedRange;
pub use memory::GuestPhysicalMemory;
pub use mirror::{NoGStage, StageMirror};
pub use page_entry::{HostPage, PageEntry};
pub use page_tables::Stretch;
pub use reader::{Reader, ReaderUnavailable};
pub use replacement::PageMirror;
pub use resolver::{Resolver, Resolving, Unresolvable};
pub use scatter::ScatterList;
pub use slot::{Backing, Slot, SlotError};
pub use stage_view::{MachineMemory, StageView};
pub use unmapped::UnmappedAccess;
pub use view::PhysicalView;

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, loom))]
mod tests_in_every_order;
