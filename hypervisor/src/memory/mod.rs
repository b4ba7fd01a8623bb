//! Host memory: which frames are free, how page tables are laid out, the heap.
//!
//! The one idea: the hypervisor runs on an identity map, so a supervisor-physical address is also the address at which it
//! reaches the frame; whatever is computed from that is portable and tested on any host.

pub mod cache;
pub mod frames;
#[cfg(target_os = "none")]
pub mod host;
pub mod page_table;
pub mod ranges;
pub mod returned;
