//! Random copies against a plain array of bytes: slots side by side, a hole, read-only and absent pages, a read-only slot, a
//! device, memory behind a vCPU.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
use std::vec;

use super::*;
use crate::access::{AccessKind, Width};
use crate::csr::GMode;
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_memory::GuestMemory;

const PAGES: usize = 10;
const BASE: u64 = 0x40_0000;

/// What the model says of each page of the space.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Memory,
    ReadOnlyPage,
    Absent,
    ReadOnlySlot,
    Hole,
    Device,
    Trapped,
    /// Behind the vCPU, which refuses everything from the middle of the page on.
    HalfGuestOnly,
}

/// The space, page by page: 0 linear, 1..5 paged, 5 hole, 6 read-only linear, 7 guest-only, 8 device, 9 trapped.
const SPACE: [Kind; PAGES] = [
    Kind::Memory,
    Kind::Memory,
    Kind::Memory,
    Kind::ReadOnlyPage,
    Kind::Absent,
    Kind::Hole,
    Kind::ReadOnlySlot,
    Kind::HalfGuestOnly,
    Kind::Device,
    Kind::Trapped,
];

fn refusal(kind: Kind, operation: Operation, offset_in_page: u64) -> Option<FaultKind> {
    let access = operation.access_kind();
    let writes = access == AccessKind::Store;
    let guest_page = FaultKind::GuestPage {
        access,
        implicit: false,
    };
    match kind {
        Kind::Memory => None,
        Kind::ReadOnlyPage => writes.then_some(guest_page),
        Kind::Absent => Some(guest_page),
        Kind::ReadOnlySlot => writes.then_some(FaultKind::ReadOnlySlot),
        Kind::Hole => Some(FaultKind::NoSlot),
        Kind::Device => Some(FaultKind::DeviceMemory),
        Kind::Trapped => Some(FaultKind::Trapped),
        Kind::HalfGuestOnly => (offset_in_page >= 2048).then_some(guest_page),
    }
}

/// Where the model stops, and why.
fn stop(operation: Operation, start: u64, len: usize) -> Option<(usize, FaultKind)> {
    (0..len).find_map(|at| {
        let offset = start + at as u64;
        let kind = SPACE.get((offset / PAGE_SIZE) as usize).copied();
        refusal(kind.unwrap_or(Kind::Hole), operation, offset % PAGE_SIZE).map(|kind| (at, kind))
    })
}

/// A "vCPU" whose G-stage maps the first half of a page.
struct HalfPage(RefCell<[u8; 2048]>);

impl HalfPage {
    fn part(
        &self,
        gpa: Gpa,
        len: usize,
        operation: Operation,
    ) -> (usize, usize, Result<(), AccessError>) {
        let start = gpa.page_offset() as usize;
        let end = (start + len).min(2048).max(start);
        let fault = Fault::new(
            operation,
            refusal(Kind::HalfGuestOnly, operation, 2048).unwrap(),
        );
        let outcome = if start + len > 2048 {
            Err(fault.at_gpa(gpa).after(end - start))
        } else {
            Ok(())
        };
        (start.min(2048), end.min(2048), outcome)
    }
}

impl UnmappedAccess for HalfPage {
    fn read_unmapped(&self, gpa: Gpa, destination: &mut [u8]) -> Result<(), AccessError> {
        let (start, end, outcome) = self.part(gpa, destination.len(), Operation::Read);
        destination[..end - start].copy_from_slice(&self.0.borrow()[start..end]);
        outcome
    }

    fn write_unmapped(&self, gpa: Gpa, source: &[u8]) -> Result<(), AccessError> {
        let (start, end, outcome) = self.part(gpa, source.len(), Operation::Write);
        self.0.borrow_mut()[start..end].copy_from_slice(&source[..end - start]);
        outcome
    }

    fn fill_unmapped(&self, gpa: Gpa, byte: u8, len: usize) -> Result<(), AccessError> {
        let (start, end, outcome) = self.part(gpa, len, Operation::Fill);
        self.0.borrow_mut()[start..end].fill(byte);
        outcome
    }

    fn load_unmapped(&self, gpa: Gpa, width: Width, _: Ordering) -> Result<u64, AccessError> {
        let (start, _, outcome) = self.part(gpa, width.bytes(), Operation::Load);
        outcome?;
        let mut value = [0; 8];
        value[..width.bytes()].copy_from_slice(&self.0.borrow()[start..start + width.bytes()]);
        Ok(u64::from_le_bytes(value))
    }

    fn store_unmapped(
        &self,
        gpa: Gpa,
        width: Width,
        value: u64,
        _: Ordering,
    ) -> Result<(), AccessError> {
        let (start, end, outcome) = self.part(gpa, width.bytes(), Operation::Store);
        outcome?;
        self.0.borrow_mut()[start..end].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }
}

#[test]
fn copies_do_what_a_plain_array_does_and_stop_where_the_space_says() {
    let (linear, paged, rom, device) = (
        Frames::new(1),
        Frames::new(3),
        Frames::new(1),
        Frames::new(1),
    );
    let pages = absent(4);
    // SAFETY: the frames outlive the memory.
    unsafe {
        // Out of order, so that neighbours are not neighbours in the host.
        pages[0].set(HostPage::Writable(paged.page(2)));
        pages[1].set(HostPage::Writable(paged.page(0)));
        pages[2].set(HostPage::ReadOnly(paged.page(1)));
    }
    let at = |page: u64| Gpa::new(BASE + page * PAGE_SIZE);
    let memory = GuestPhysicalMemory::<8, 1>::new(GMode::Sv39x4);
    // SAFETY: plain memory stands for the device.
    let device = unsafe { Slot::device(at(8), PAGE_SIZE, device.start()) };
    for slot in [
        Slot::trapped(at(9), PAGE_SIZE),
        linear.linear(BASE),
        device,
        Slot::paged(at(1), &pages),
        rom.linear(at(6).value()).read_only(),
        Slot::guest_only(at(7), PAGE_SIZE),
    ] {
        memory.add(slot, &mut NoGStage).unwrap();
    }
    let vcpu = HalfPage(RefCell::new([0; 2048]));
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard().with_vcpu(&vcpu);

    let mut array = vec![0u8; PAGES * PAGE_SIZE as usize];
    let rounds = if cfg!(miri) { 60 } else { 4000 };
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let start = numbers.below(array.len() as u64);
        let longest = [3, 40, 5000, 20_000][numbers.below(4) as usize];
        let len = (1 + numbers.below(longest)) as usize;
        let gpa = Gpa::new(BASE + start);
        let byte = numbers.below(256) as u8;
        let (operation, outcome) = match numbers.below(3) {
            0 => {
                let mut found = vec![0x5a; len];
                let outcome = view.read(gpa, &mut found);
                let good = outcome
                    .as_ref()
                    .map_or_else(|error| error.completed, |()| len);
                assert!(
                    found[..good] == array[start as usize..][..good],
                    "round {round}"
                );
                assert!(
                    found[good..].iter().all(|&byte| byte == 0x5a),
                    "round {round}"
                );
                (Operation::Read, outcome)
            }
            1 => {
                let source: Vec<u8> = (0..len).map(|at| byte.wrapping_add(at as u8)).collect();
                let outcome = view.write(gpa, &source);
                let good = outcome
                    .as_ref()
                    .map_or_else(|error| error.completed, |()| len);
                array[start as usize..][..good].copy_from_slice(&source[..good]);
                (Operation::Write, outcome)
            }
            _ => {
                let outcome = view.fill(gpa, byte, len);
                let good = outcome
                    .as_ref()
                    .map_or_else(|error| error.completed, |()| len);
                array[start as usize..][..good].fill(byte);
                (Operation::Fill, outcome)
            }
        };
        let stopped = outcome
            .err()
            .map(|error| (error.completed, error.fault.kind));
        assert_eq!(
            stopped,
            stop(operation, start, len),
            "round {round}: {operation:?} {start:#x}+{len:#x}"
        );
    }

    // Nothing was written where the model has nothing.
    for (page, kind) in SPACE.iter().enumerate() {
        let mut found = vec![0; PAGE_SIZE as usize];
        if refusal(*kind, Operation::Read, 0).is_none() {
            let _ = view.read(at(page as u64), &mut found);
            assert!(
                found == array[page * PAGE_SIZE as usize..][..PAGE_SIZE as usize],
                "page {page}"
            );
        }
    }
}
