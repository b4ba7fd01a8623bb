//! What is done where the view finds a range: the [`GuestMemory`] vocabulary over the kinds of backing.
//!
//! The one idea: a range that lies in the slot of the last access and needs nobody else goes straight to the host's mapping;
//! every other goes run by run.

use core::sync::atomic::Ordering;

use super::direct;
use super::dirty_log;
use super::view::{PhysicalView, Place, Reach};
use crate::access::Width;
use crate::address::Gpa;
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;

impl PhysicalView<'_> {
    /// [`read`](GuestMemory::read), run by run.
    #[inline(never)]
    fn read_runs(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        let len = destination.len();
        self.for_each_run(Operation::Read, gpa, len, |reach, at, done, len| {
            let part = &mut destination[done..done + len];
            match reach {
                Reach::Vcpu(vcpu) => return vcpu.read_unmapped(at, part),
                // SAFETY: a run's bytes are guest memory that the slot's or entry's contract makes valid for reads
                // while this guard exists; no host buffer overlaps guest memory.
                Reach::Direct(host) => unsafe { direct::copy_from(host, part) },
            }
            Ok(())
        })
    }

    /// [`write`](GuestMemory::write), run by run.
    #[inline(never)]
    fn write_runs(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        self.for_each_run(
            Operation::Write,
            gpa,
            source.len(),
            |reach, at, done, len| {
                let part = &source[done..done + len];
                match reach {
                    Reach::Vcpu(vcpu) => return vcpu.write_unmapped(at, part),
                    // SAFETY: as in `read`; `run` has found the memory to be writable.
                    Reach::Direct(host) => unsafe { direct::copy_to(host, part) },
                }
                Ok(())
            },
        )
    }

    /// [`load_width`](GuestMemory::load_width) in any slot.
    #[inline(never)]
    fn load_run(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        let run = self.single(Operation::Load, gpa, width)?;
        match run.place {
            // SAFETY: as in `read`; host and guest addresses are aligned alike, to a page.
            Place::Direct(host) => Ok(unsafe { direct::load(host, width, order) }),
            // SAFETY: the contract of `Slot::device`.
            Place::Device(host) => Ok(unsafe { direct::load_device(host, width, order) }),
            Place::Vcpu(vcpu) => vcpu.load_unmapped(gpa, width, order),
            Place::NotMapped => Err(Fault::new(Operation::Load, FaultKind::NotMapped)
                .at_gpa(gpa)
                .after(0)),
        }
    }

    /// [`store_width`](GuestMemory::store_width) in any slot.
    #[inline(never)]
    fn store_run(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        let run = self.single(Operation::Store, gpa, width)?;
        match run.place {
            // SAFETY: as in `write`; host and guest addresses are aligned alike, to a page.
            Place::Direct(host) => unsafe { direct::store(host, width, value, order) },
            // SAFETY: the contract of `Slot::device`.
            Place::Device(host) => unsafe { direct::store_device(host, width, value, order) },
            Place::Vcpu(vcpu) => vcpu.store_unmapped(gpa, width, value, order)?,
            Place::NotMapped => {
                return Err(Fault::new(Operation::Store, FaultKind::NotMapped)
                    .at_gpa(gpa)
                    .after(0));
            }
        }
        dirty_log::mark(run.slot, gpa, width.bytes());
        Ok(())
    }

    /// [`compare_exchange_width`](GuestMemory::compare_exchange_width) in any slot.
    #[inline(never)]
    fn compare_exchange_run(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        let operation = Operation::CompareExchange;
        let run = self.single(operation, gpa, width)?;
        let Place::Direct(host) = run.place else {
            return Err(Fault::new(operation, FaultKind::AtomicUnavailable)
                .at_gpa(gpa)
                .after(0));
        };
        // SAFETY: as in `store_width`; the word around is in the same page.
        let found = unsafe { direct::compare_exchange(host, width, current, new, order) };
        if found == current {
            dirty_log::mark(run.slot, gpa, width.bytes());
        }
        Ok(found)
    }
}

impl GuestMemory for PhysicalView<'_> {
    type Address = Gpa;

    #[inline]
    fn read(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        if let Some((_, host)) = self.range_in_last_slot(Operation::Read, gpa, destination.len()) {
            // SAFETY: guest memory that the slot's contract makes valid for reads while this guard exists; no host
            // buffer overlaps guest memory.
            unsafe { direct::copy_from(host, destination) };
            return Ok(());
        }
        self.read_runs(gpa, destination)
    }

    #[inline]
    fn write(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        if let Some((slot, host)) = self.range_in_last_slot(Operation::Write, gpa, source.len()) {
            // SAFETY: as in `read`; the slot is writable.
            unsafe { direct::copy_to(host, source) };
            dirty_log::mark(slot, gpa, source.len());
            return Ok(());
        }
        self.write_runs(gpa, source)
    }

    fn fill(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        self.for_each_run(Operation::Fill, gpa, len, |reach, at, _, len| {
            match reach {
                Reach::Vcpu(vcpu) => return vcpu.fill_unmapped(at, byte, len),
                // SAFETY: as in `write`.
                Reach::Direct(host) => unsafe { direct::fill(host, byte, len) },
            }
            Ok(())
        })
    }

    #[inline]
    fn load_width(&self, gpa: Gpa, width: Width, order: Ordering) -> Result<u64, AccessError> {
        assert!(
            !matches!(order, Ordering::Release | Ordering::AcqRel),
            "a load has no release order"
        );
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((_, host)) = self.in_last_slot(Operation::Load, gpa)
        {
            // SAFETY: as in `read`; slots begin and end at pages, so that an aligned access lies in the slot, and host and
            // guest addresses are aligned alike.
            return Ok(unsafe { direct::load(host, width, order) });
        }
        self.load_run(gpa, width, order)
    }

    #[inline]
    fn store_width(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        order: Ordering,
    ) -> Result<(), AccessError> {
        assert!(
            !matches!(order, Ordering::Acquire | Ordering::AcqRel),
            "a store has no acquire order"
        );
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((slot, host)) = self.in_last_slot(Operation::Store, gpa)
        {
            // SAFETY: as in `write` and `load_width`.
            unsafe { direct::store(host, width, value, order) };
            dirty_log::mark(slot, gpa, width.bytes());
            return Ok(());
        }
        self.store_run(gpa, width, value, order)
    }

    #[inline]
    fn compare_exchange_width(
        &self,
        gpa: Gpa,
        width: Width,
        current: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, AccessError> {
        if gpa.is_aligned_to(width.bytes() as u64)
            && let Some((slot, host)) = self.in_last_slot(Operation::CompareExchange, gpa)
        {
            // SAFETY: as in `store_width`; the word around is in the same page.
            let found = unsafe { direct::compare_exchange(host, width, current, new, order) };
            if found == current {
                dirty_log::mark(slot, gpa, width.bytes());
            }
            return Ok(found);
        }
        self.compare_exchange_run(gpa, width, current, new, order)
    }
}
