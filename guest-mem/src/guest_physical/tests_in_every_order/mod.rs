//! What harts do at once, in every order that the memory model allows: `cargo xtask loom`.
//!
//! The one idea: the code under test is the library's own, guest memory included as far as loom can see it (`direct_model`).
//! A page that is taken away is *reused* in its model, so an access that no order puts before that fails, whichever value it
//! would have read. Orders with more than [`PREEMPTIONS`] changes of thread that no thread asked for are left out.

extern crate std;

mod dirty_log;
mod g_stage;
mod replacement;
mod slots;

use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use loom::thread;
use std::boxed::Box;
use std::println;
use std::sync::Arc;

use super::direct::Page;
use super::*;
use crate::address::{Gpa, PAGE_SIZE};
use crate::csr::GMode;
use crate::fault::FaultKind;
use crate::guest_memory::GuestMemory;

/// Changes of thread in one order, beside those where a thread waits or ends.
const PREEMPTIONS: usize = 3;

const BASE: Gpa = Gpa::new(0x8000_0000);
const SECOND: Gpa = Gpa::new(0x8000_1000);

type Memory = GuestPhysicalMemory<'static, 2, 2>;

/// Runs the test in every order, and says how many there were.
fn in_every_order(name: &str, test: impl Fn() + Sync + Send + 'static) {
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = orders.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        test();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    println!("counted: {orders} orders tried with loom: {name}");
}

/// A memory and what may be in its slots.
struct World {
    memory: Memory,
    pages: [Box<Page>; 2],
    entries: [PageEntry; 1],
    log: [crate::atomic::AtomicU64; 1],
}

impl World {
    /// For one order. What the slots borrow is freed after the memory: fields are dropped in order.
    fn new(contents: [u64; 2]) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(GMode::Sv39x4),
            pages: contents.map(Page::new),
            entries: [PageEntry::absent()],
            log: [crate::atomic::AtomicU64::new(0)],
        })
    }

    fn host(&self, page: usize) -> NonNull<u8> {
        NonNull::from(&*self.pages[page]).cast()
    }

    /// One page, host-contiguous.
    fn linear(&self, base: Gpa, page: usize) -> Slot<'static> {
        // SAFETY: the pages live as long as the memory, and are accessed through the model only.
        let slot = unsafe { Slot::linear(base, PAGE_SIZE, self.host(page)) };
        // SAFETY: the log lives as long as the memory.
        slot.with_dirty_log(unsafe { &*(&raw const self.log) })
    }

    /// One page by an entry.
    fn paged(&self, base: Gpa) -> Slot<'static> {
        // SAFETY: the entries and the log live as long as the memory.
        let (entries, log) = unsafe { (&*(&raw const self.entries), &*(&raw const self.log)) };
        Slot::paged(base, entries).with_dirty_log(log)
    }

    fn give(&self, page: usize) {
        // SAFETY: the pages live as long as the memory.
        unsafe { self.entries[0].set(HostPage::Writable(self.host(page))) };
    }
}

/// Runs `harts` as threads of one order.
macro_rules! at_once {
    ($world:expr, $($hart:expr),+ $(,)?) => {{
        let world = &$world;
        let threads = [$({
            let world = world.clone();
            thread::spawn(move || $hart(&*world))
        }),+];
        for thread in threads {
            thread.join().unwrap();
        }
    }};
}

use at_once;

/// What a guard reads at the address.
fn load(world: &World, reader: usize, gpa: Gpa) -> Result<u64, FaultKind> {
    let mut reader = world.memory.reader(reader).unwrap();
    let loaded = reader.guard().load(gpa, Relaxed);
    loaded.map_err(|error| error.fault.kind)
}

fn is_guest_page(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::GuestPage { .. })
}
