//! What happened in a run, counted.

use core::sync::atomic::{AtomicU64, Ordering};

/// One count. Harts add to it at the same time; a reading may miss what happens meanwhile.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A count of nothing.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the hypervisor touched the guest's memory.
#[derive(Debug, Default)]
pub struct MemoryUse {
    /// Reads at guest-physical addresses.
    pub physical_reads: Counter,
    /// Writes at guest-physical addresses.
    pub physical_writes: Counter,
    /// Reads at guest-virtual addresses.
    pub virtual_reads: Counter,
    /// Instructions fetched.
    pub fetches: Counter,
    /// Loads and stores to devices, decoded and completed.
    pub device_accesses: Counter,
    /// Bytes that all of these moved.
    pub bytes: Counter,
    /// Faults of them that were resolved by bringing a page in.
    pub resolved: Counter,
    /// Faults of them that were given to the guest.
    pub injected: Counter,
    /// Faults of them that were refused: a bad number, not a bad access.
    pub refused: Counter,
}

/// Why the guest exited, by cause.
#[derive(Debug)]
pub struct Exits {
    exceptions: [Counter; 32],
    interrupts: Counter,
}

impl Default for Exits {
    fn default() -> Self {
        Self {
            exceptions: [const { Counter::new() }; 32],
            interrupts: Counter::new(),
        }
    }
}

impl Exits {
    /// Counts an exit with this `scause`.
    pub fn count(&self, scause: u64) {
        usize::try_from(scause)
            .ok()
            .and_then(|cause| self.exceptions.get(cause))
            .unwrap_or(&self.interrupts)
            .add_one();
    }

    /// Exits with this exception cause.
    pub fn exceptions(&self, cause: usize) -> u64 {
        self.exceptions.get(cause).map_or(0, Counter::get)
    }

    /// All exits.
    pub fn total(&self) -> u64 {
        self.exceptions.iter().map(Counter::get).sum::<u64>() + self.interrupts()
    }

    /// Exits by interrupts.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.get()
    }
}
