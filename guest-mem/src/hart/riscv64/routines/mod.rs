//! The routines of the access unit in Rust: their names, and how each is called.
//!
//! The one idea: no routine is called as C. Copies clobber what a C function may, and answer the trap of a fault in t1 to t4;
//! single accesses return by t0, clobber little and need no stack, so that the access around them needs no frame.

mod copies;
mod singles;

pub use copies::{Copies, Ended, Three, ToOneSide};
pub use singles::Singles;

use super::record::ExitRecord;

/// A copy or a fill.
pub type Routine = unsafe extern "C" fn();

/// The hook's form: the host's trap handler recovers faults.
#[derive(Clone, Copy, Debug)]
pub struct Hooked;

/// The scoped form, with the record of the time before a series of accesses.
#[derive(Clone, Copy, Debug)]
pub struct Scoped<'r>(pub &'r ExitRecord);

/// The address of the vector of copies, fills and series.
#[inline(always)]
fn scoped_vector() -> usize {
    unsafe extern "C" {
        #[link_name = symbol!(__guest_mem_scoped_vector)]
        static __guest_mem_scoped_vector: u8;
    }
    (&raw const __guest_mem_scoped_vector).addr()
}
